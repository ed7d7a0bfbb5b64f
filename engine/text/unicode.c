/* Look-ups in the generated tables. Pure functions, any thread. */
#include "engine/text/unicode.h"

struct newer_range {
    uint32_t lo, hi;
    char category[3];
};
struct range {
    uint32_t lo, hi;
};
#include "engine/text/unicode_tables.inc"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

void unicode_newer(const char *category, void (*fn)(void *ctx, uint32_t lo, uint32_t hi), void *ctx) {
    for (size_t i = 0; i < COUNT(newer_ranges); i++) {
        const struct newer_range *r = &newer_ranges[i];
        if (r->category[0] != category[0]) continue;
        if (category[1] && r->category[1] != category[1]) continue;
        fn(ctx, r->lo, r->hi);
    }
}

bool unicode_unnormalized(uint32_t c) {
    size_t lo = 0, hi = COUNT(unnormalized_ranges);

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (unnormalized_ranges[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < COUNT(unnormalized_ranges) && unnormalized_ranges[lo].lo <= c;
}
