/* A ring of bytes and a table of where they begin; see kb_recent.h. */
#include "router/kb_recent.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 14 /* power of two */, ALIGN = 8 };

/* `at` counts what was ever written; in the ring that is at % size. */
typedef struct slot {
    uint64_t key, at;
    size_t n;
    bool used;
} slot;

struct mr_kb_recent {
    size_t size;
    uint64_t written, begun; /* begun: what is being written */
    slot slots[SLOTS];       /* by key; of two with one slot the later stays */
    char ring[];
};

mr_kb_recent *mr_kb_recent_new(size_t bytes, mr_error *err) {
    mr_kb_recent *r = calloc(1, sizeof *r + bytes);
    if (!r) {
        mr_fail(err, MR_ENOMEM, "no memory for what the knowledge base answers");
        return NULL;
    }
    r->size = bytes;
    return r;
}

void mr_kb_recent_free(mr_kb_recent *r) {
    free(r);
}

void mr_kb_recent_forget(mr_kb_recent *r) {
    memset(r->slots, 0, sizeof r->slots);
}

static size_t slot_of(uint64_t key) {
    return (key ^ key >> 14) & (SLOTS - 1);
}

const void *mr_kb_recent_find(const mr_kb_recent *r, uint64_t key, size_t *n) {
    const slot *s = &r->slots[slot_of(key)];
    if (!s->used || s->key != key || r->written - s->at > r->size) return NULL;
    *n = s->n;
    return r->ring + s->at % r->size;
}

void *mr_kb_recent_begin(mr_kb_recent *r, size_t most) {
    size_t left = r->size - (size_t)(r->written % r->size);
    if (most > r->size) return NULL;
    most = (most + ALIGN - 1) / ALIGN * ALIGN;
    if (left < most) r->written += left; /* it lies in one piece */
    r->begun = r->written;
    r->written += most;
    return r->ring + r->begun % r->size;
}

void mr_kb_recent_end(mr_kb_recent *r, uint64_t key, size_t n) {
    r->slots[slot_of(key)] = (slot){.key = key, .at = r->begun, .n = n, .used = true};
}
