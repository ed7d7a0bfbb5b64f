/* See deal.h. Nothing but the items themselves goes through the words: what items make is seen after the barrier. */
#include "engine/cpu/deal.h"

enum { BITS = 24, NEIGHBOURS = 8 };

static const uint64_t field = (UINT64_C(1) << BITS) - 1;

static int share_begin(const deal *d, int thread) {
    return (int)((int64_t)d->items * thread / d->threads);
}

static uint64_t whole_share(const deal *d, int thread) {
    return (uint64_t)d->stage << 2 * BITS | (uint64_t)share_begin(d, thread) << BITS |
           (uint64_t)share_begin(d, thread + 1);
}

/* From the share of `thread`: its first item, or its last. The word gets the number of the stage even when the share is empty. */
static int take(const deal *d, int thread, bool first) {
    _Atomic uint64_t *word = &d->words[thread].left;
    uint64_t had = atomic_load_explicit(word, memory_order_relaxed);
    for (;;) {
        const uint64_t left = had >> 2 * BITS == d->stage ? had : whole_share(d, thread);
        const uint64_t begin = left >> BITS & field, end = left & field;
        if (begin == end && left == had) return -1;
        const uint64_t then = begin == end ? left : first ? left + (UINT64_C(1) << BITS) : left - 1;
        if (!atomic_compare_exchange_weak_explicit(word, &had, then, memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        return begin == end ? -1 : (int)(first ? begin : end - 1);
    }
}

int deal_take(const deal *d) {
    int item = take(d, d->thread, true);
    for (int i = 1; item < 0 && i < d->threads && i < NEIGHBOURS; i++)
        item = take(d, (d->thread + i) % d->threads, false);
    return item;
}

bool deal_owns(const deal *d, int item) {
    return item >= share_begin(d, d->thread) && item < share_begin(d, d->thread + 1);
}
