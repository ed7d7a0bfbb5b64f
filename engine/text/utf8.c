/* UTF-8 decoding and repair. Pure functions, any thread. */
#include "engine/text/utf8.h"

#include <string.h>

/* What may follow a lead byte: how many bytes, and the range of the first of them, which alone excludes overlong forms,
 * surrogates and what lies above U+10FFFF. */
static size_t lead(unsigned char b, unsigned char *lo, unsigned char *hi) {
    *lo = 0x80;
    *hi = 0xBF;
    if (b >= 0xC2 && b <= 0xDF) return 2;
    if (b >= 0xE0 && b <= 0xEF) {
        if (b == 0xE0) *lo = 0xA0;
        if (b == 0xED) *hi = 0x9F;
        return 3;
    }
    if (b >= 0xF0 && b <= 0xF4) {
        if (b == 0xF0) *lo = 0x90;
        if (b == 0xF4) *hi = 0x8F;
        return 4;
    }
    return 0;
}

utf8_kind utf8_next(const char *s, size_t n, uint32_t *c, size_t *len) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lo, hi;

    *c = p[0];
    *len = 1;
    if (p[0] < 0x80) return UTF8_WHOLE;
    size_t want = lead(p[0], &lo, &hi);
    if (want == 0) return UTF8_BAD;
    *c = p[0] & (0xFFu >> (want + 1));
    for (; *len < want; ++*len) {
        if (*len == n) return UTF8_PARTIAL;
        unsigned char b = p[*len];
        if (b < lo || b > hi) return UTF8_BAD;
        *c = *c << 6 | (b & 0x3F);
        lo = 0x80;
        hi = 0xBF;
    }
    return UTF8_WHOLE;
}

size_t utf8_valid_prefix(const char *s, size_t n) {
    size_t at = 0, len;
    uint32_t c;

    while (at < n && utf8_next(s + at, n - at, &c, &len) == UTF8_WHOLE) at += len;
    return at;
}

size_t utf8_repair(const char *s, size_t n, char *out) {
    size_t at = 0, w = 0, len;
    uint32_t c;

    while (at < n) {
        /* a partial character here is one at the very end: the rest of the text */
        if (utf8_next(s + at, n - at, &c, &len) == UTF8_WHOLE) {
            memcpy(out + w, s + at, len);
            w += len;
        } else {
            memcpy(out + w, UTF8_REPLACEMENT, UTF8_REPLACEMENT_LEN);
            w += UTF8_REPLACEMENT_LEN;
        }
        at += len;
    }
    return w;
}

size_t utf8_put(uint32_t c, char out[4]) {
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    if (n == 1) {
        out[0] = (char)c;
        return 1;
    }
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> n & 0xFF) | c);
    return n;
}

uint32_t utf8_first(const char *s, const char *end, size_t *len) {
    uint32_t c;

    (void)utf8_next(s, (size_t)(end - s), &c, len);
    return c;
}

uint32_t utf8_last(const char *begin, const char *s, size_t *len) {
    const char *p = s - 1;

    while (p > begin && ((unsigned char)*p & 0xC0) == 0x80) p--;
    return utf8_first(p, s, len);
}

bool utf8_is_space(uint32_t c) {
    if (c >= 0x09 && c <= 0x0D) return true;
    if (c >= 0x2000 && c <= 0x200A) return true;
    switch (c) {
    case 0x20:
    case 0x85:
    case 0xA0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202F:
    case 0x205F:
    case 0x3000: return true;
    default: return false;
    }
}
