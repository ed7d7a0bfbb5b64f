/* The watermark of a partition: a ring of the records from the lowest unfinished one on.
 *
 * Offsets are looked up by value, never by distance: gaps are normal (compaction, control records).
 * Plain data of the loop's thread, owned by the consumer. */
#include "base/bus_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mr_watermark_slot {
    int64_t offset;
    bool finished;
};

static struct mr_watermark_slot *slot(const mr_watermark *w, int i) {
    return &w->slots[(w->head + i) % w->cap];
}

void mr_watermark_reset(mr_watermark *w) {
    w->head = w->n = w->unfinished = 0;
    w->next = 0;
}

void mr_watermark_free(mr_watermark *w) {
    free(w->slots);
    *w = (mr_watermark){0};
}

static bool grow(mr_watermark *w) {
    int cap = w->cap ? w->cap * 2 : 64;
    struct mr_watermark_slot *slots = malloc((size_t)cap * sizeof(*slots));
    if (!slots) return false;
    for (int i = 0; i < w->n; i++) slots[i] = *slot(w, i);
    free(w->slots);
    w->slots = slots;
    w->cap = cap;
    w->head = 0;
    return true;
}

bool mr_watermark_begin(mr_watermark *w, int64_t offset) {
    if (w->n > 0 && slot(w, w->n - 1)->offset >= offset) return false;
    if (w->n == w->cap && !grow(w)) return false;
    w->n++;
    w->unfinished++;
    *slot(w, w->n - 1) = (struct mr_watermark_slot){.offset = offset};
    return true;
}

bool mr_watermark_cancel(mr_watermark *w, int64_t offset) {
    if (w->n == 0 || slot(w, w->n - 1)->offset != offset) return false;
    bool unfinished = !slot(w, w->n - 1)->finished;
    w->unfinished -= unfinished;
    w->n--;
    return unfinished;
}

static int find(mr_watermark *w, int64_t offset) {
    int low = 0, high = w->n;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (slot(w, mid)->offset < offset) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < w->n && slot(w, low)->offset == offset ? low : -1;
}

bool mr_watermark_finish(mr_watermark *w, int64_t offset) {
    int at = find(w, offset);
    if (at < 0 || slot(w, at)->finished) return false;
    slot(w, at)->finished = true;
    w->unfinished--;
    while (w->n > 0 && slot(w, 0)->finished) {
        w->next = slot(w, 0)->offset + 1;
        w->head = (w->head + 1) % w->cap;
        w->n--;
    }
    return true;
}

int64_t mr_watermark_low(const mr_watermark *w) {
    if (w->n > 0) return slot(w, 0)->offset;
    return w->next > 0 ? w->next : -1;
}

/* ---- what is finished behind it ---- */

static const char marker[] = "mr1:";
static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
#define DIGIT_BITS 6

static int digit_value(char c) {
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

int mr_finished_write(const mr_watermark *w, char out[MR_FINISHED_TEXT]) {
    unsigned char values[MR_FINISHED_CHARS] = {0};
    int64_t from = mr_watermark_low(w);
    int n = 0;
    for (int i = 0; i < w->n; i++) {
        int64_t at = slot(w, i)->offset - from;
        if (at >= (int64_t)MR_FINISHED_CHARS * DIGIT_BITS) break;
        if (!slot(w, i)->finished) continue;
        values[at / DIGIT_BITS] |= (unsigned char)(1 << at % DIGIT_BITS);
        n = (int)(at / DIGIT_BITS) + 1;
    }
    out[0] = '\0';
    if (n == 0) return 0;
    int head = snprintf(out, MR_FINISHED_TEXT, "%s%" PRId64 ":", marker, from);
    for (int i = 0; i < n; i++) out[head + i] = digits[values[i]];
    out[head + n] = '\0';
    return head + n;
}

/* The number and its colon, or -1. */
static int64_t take_offset(mr_str *text) {
    int64_t v = 0;
    size_t n = 0;
    for (; n < text->n && n < 18 && text->p[n] >= '0' && text->p[n] <= '9'; n++)
        v = 10 * v + (text->p[n] - '0');
    if (n == 0 || n == text->n || text->p[n] != ':') return -1;
    *text = (mr_str){text->p + n + 1, text->n - n - 1};
    return v;
}

bool mr_finished_read(mr_finished *f, int64_t committed, mr_str text) {
    const size_t head = sizeof(marker) - 1;
    f->n = 0;
    if (committed < 0 || text.n < head || memcmp(text.p, marker, head) != 0) return false;
    text = (mr_str){text.p + head, text.n - head};
    if (take_offset(&text) != committed || text.n > MR_FINISHED_CHARS) return false;
    for (size_t i = 0; i < text.n; i++) {
        if (digit_value(text.p[i]) < 0) return false;
    }
    memcpy(f->bits, text.p, text.n);
    f->from = committed;
    f->n = (int)text.n;
    return true;
}

bool mr_finished_has(const mr_finished *f, int64_t offset) {
    int64_t at = offset - f->from;
    if (offset < f->from || at / DIGIT_BITS >= f->n) return false;
    return digit_value(f->bits[at / DIGIT_BITS]) >> at % DIGIT_BITS & 1;
}
