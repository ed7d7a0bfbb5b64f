/* Open addressing, at most half full. Owned by a tokenizer; reading is for any thread. */
#include "engine/text/wordtable.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash(const char *s, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;

    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001B3u;
    return h ^ h >> 29;
}

int word_table_init(word_table *t, size_t n) {
    size_t size = 16;

    while (size < n * 2) size *= 2;
    *t = (word_table){.slots = malloc(size * sizeof *t->slots), .mask = size - 1};
    if (t->slots == NULL) return -1;
    for (size_t i = 0; i < size; i++) t->slots[i].id = -1;
    return 0;
}

void word_table_done(word_table *t) {
    free(t->slots);
    text_buf_done(&t->bytes);
    *t = (word_table){0};
}

/* The slot of the word, or the free one where it would be. */
static struct word_slot *slot_of(const word_table *t, const char *s, size_t n) {
    for (size_t i = hash(s, n) & t->mask;; i = (i + 1) & t->mask) {
        struct word_slot *w = &t->slots[i];
        if (w->id < 0) return w;
        if (w->len == n && memcmp(t->bytes.data + w->at, s, n) == 0) return w;
    }
}

int word_table_add(word_table *t, const char *s, size_t n, int32_t id) {
    if (n == 0 || n > UINT32_MAX) return 0;
    struct word_slot *w = slot_of(t, s, n);
    if (w->id >= 0) return 0;
    if (t->used * 2 > t->mask) return -1;
    size_t at = t->bytes.len;
    text_buf_put(&t->bytes, s, n);
    if (t->bytes.failed) return -1;
    *w = (struct word_slot){.at = at, .len = (uint32_t)n, .id = id};
    t->used++;
    return 0;
}

int32_t word_table_find(const word_table *t, const char *s, size_t n) {
    return n == 0 || t->slots == NULL ? -1 : slot_of(t, s, n)->id;
}
