/* The watermark of a partition: a ring of the records from the lowest unfinished one on.
 *
 * Offsets are looked up by value, never by distance: gaps are normal (compaction, control records).
 * Plain data of the loop's thread, owned by the consumer. */
#include "base/bus_internal.h"

#include <stdlib.h>

struct mr_watermark_slot {
    int64_t offset;
    bool finished;
};

static struct mr_watermark_slot *slot(mr_watermark *w, int i) {
    return &w->slots[(w->head + i) % w->cap];
}

void mr_watermark_reset(mr_watermark *w) {
    w->head = w->n = w->unfinished = 0;
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

void mr_watermark_cancel(mr_watermark *w, int64_t offset) {
    if (w->n == 0 || slot(w, w->n - 1)->offset != offset) return;
    if (!slot(w, w->n - 1)->finished) w->unfinished--;
    w->n--;
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

int64_t mr_watermark_finish(mr_watermark *w, int64_t offset) {
    int at = find(w, offset);
    if (at < 0 || slot(w, at)->finished) return -1;
    slot(w, at)->finished = true;
    w->unfinished--;
    int64_t next = -1;
    while (w->n > 0 && slot(w, 0)->finished) {
        next = slot(w, 0)->offset + 1;
        w->head = (w->head + 1) % w->cap;
        w->n--;
    }
    return next;
}
