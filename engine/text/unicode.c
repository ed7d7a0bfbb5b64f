/* Look-ups in the generated tables, and in utf8proc's. Pure functions, any thread. */
#include "engine/text/unicode.h"

#include <string.h>
#include <utf8proc.h>

struct newer_range {
    uint32_t lo, hi;
    const char *of; /* general category or script */
};
struct range {
    uint32_t lo, hi;
};
#include "engine/text/unicode_tables.inc"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

bool unicode_has_script(const char *name) {
    for (size_t i = 0; i < COUNT(script_names); i++)
        if (strcmp(script_names[i], name) == 0) return true;
    return false;
}

void unicode_newer(const char *of, void (*fn)(void *ctx, uint32_t lo, uint32_t hi), void *ctx) {
    bool script = unicode_has_script(of);
    const struct newer_range *rows = script ? newer_scripts : newer_ranges;
    size_t n = script ? COUNT(newer_scripts) : COUNT(newer_ranges);

    for (size_t i = 0; i < n; i++)
        if (strncmp(rows[i].of, of, strlen(of)) == 0) fn(ctx, rows[i].lo, rows[i].hi);
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

/* General category; newer characters are in the reference's tables only. */
static const char *category(uint32_t c) {
    const char *known = utf8proc_category_string((utf8proc_int32_t)c);
    size_t lo = 0, hi = COUNT(newer_ranges);

    if (strcmp(known, "Cn") != 0) return known;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (newer_ranges[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < COUNT(newer_ranges) && newer_ranges[lo].lo <= c ? newer_ranges[lo].of : known;
}

/* The letters in circles and squares: symbols by category, alphabetic all the same. */
static bool is_enclosed_letter(uint32_t c) {
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

bool unicode_is_word(uint32_t c) {
    const char *of = category(c);

    if (of[0] == 'L' || of[0] == 'M') return true;
    return strcmp(of, "Nd") == 0 || strcmp(of, "Nl") == 0 || strcmp(of, "Pc") == 0 || c == 0x200C ||
           c == 0x200D || is_enclosed_letter(c);
}
