/* See regex_ranges.h. Pure functions. */
#include "engine/grammar/regex_ranges.h"

#include "engine/text/utf8.h"

#include <stdlib.h>

enum { CODE_MAX = 0x10FFFF, SURROGATE_FIRST = 0xD800, SURROGATE_LAST = 0xDFFF };

void code_set_add(code_set *s, uint32_t lo, uint32_t hi) {
    if (s->n == RANGES_MAX) {
        s->full = true;
        return;
    }
    s->v[s->n++] = (code_range){lo, hi};
}

static int compare(const void *a, const void *b) {
    const code_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void code_set_invert(code_set *s) {
    code_set out = {.full = s->full};
    uint32_t next = 0;

    code_set_add(s, SURROGATE_FIRST, SURROGATE_LAST);
    qsort(s->v, (size_t)s->n, sizeof *s->v, compare);
    for (int i = 0; i < s->n; i++) {
        if (s->v[i].lo > next) code_set_add(&out, next, s->v[i].lo - 1);
        if (s->v[i].hi + 1 > next) next = s->v[i].hi + 1;
    }
    if (next <= CODE_MAX) code_set_add(&out, next, CODE_MAX);
    out.full |= s->full;
    *s = out;
}

/* Cuts a range of equal length at the first place where its bytes are not independent of each other. */
static bool cut(code_range r, code_range *a, code_range *b) {
    static const uint32_t lengths[] = {0x7F, 0x7FF, 0xFFFF};
    for (int i = 0; i < 3; i++) {
        if (r.lo <= lengths[i] && r.hi > lengths[i]) {
            *a = (code_range){r.lo, lengths[i]};
            *b = (code_range){lengths[i] + 1, r.hi};
            return true;
        }
    }
    for (int shift = 6; r.hi > 0x7F && shift <= 18; shift += 6) {
        uint32_t mask = (1u << shift) - 1;
        if ((r.lo & ~mask) == (r.hi & ~mask)) return false;
        uint32_t at = (r.lo & mask) ? r.lo | mask : (r.hi & mask) != mask ? (r.hi & ~mask) - 1 : r.hi;
        if (at == r.hi) continue;
        *a = (code_range){r.lo, at};
        *b = (code_range){at + 1, r.hi};
        return true;
    }
    return false;
}

void code_range_sequences(code_range r, utf8_sequence_fn fn, void *ctx) {
    code_range todo[64];
    int n = 0;

    if (r.lo <= SURROGATE_LAST && r.hi >= SURROGATE_FIRST) {
        if (r.lo < SURROGATE_FIRST) todo[n++] = (code_range){r.lo, SURROGATE_FIRST - 1};
        if (r.hi > SURROGATE_LAST) todo[n++] = (code_range){SURROGATE_LAST + 1, r.hi};
    } else {
        todo[n++] = r;
    }
    while (n > 0) {
        code_range a, b, one = todo[--n];
        if (cut(one, &a, &b)) {
            todo[n++] = b;
            todo[n++] = a;
            continue;
        }
        char lo[4], hi[4];
        byte_range bytes[4];
        int len = (int)utf8_put(one.lo, lo);
        utf8_put(one.hi, hi);
        for (int i = 0; i < len; i++) bytes[i] = (byte_range){(uint8_t)lo[i], (uint8_t)hi[i]};
        fn(ctx, bytes, len);
    }
}
