/* The alphabet: printable Latin-1 stands for itself, the other 68 bytes are U+0100 and on, in order. Pure functions. */
#include "engine/text/bytelevel.h"

#include "engine/text/utf8.h"

/* The bytes without a printable Latin-1 character: 00-20, 7F-A0, AD. */
#define LOW_LAST    0x20
#define HIGH_FIRST  0x7F
#define HIGH_LAST   0xA0
#define SOFT_HYPHEN 0xAD

static int byte_of(uint32_t c) {
    if (c >= 0x100) {
        uint32_t k = c - 0x100;
        if (k <= LOW_LAST) return (int)k;
        k += HIGH_FIRST - LOW_LAST - 1;
        if (k <= HIGH_LAST) return (int)k;
        return k == HIGH_LAST + 1 ? SOFT_HYPHEN : -1;
    }
    bool moved = c <= LOW_LAST || (c >= HIGH_FIRST && c <= HIGH_LAST) || c == SOFT_HYPHEN;
    return moved ? -1 : (int)c;
}

bool bytelevel_bytes(const char *s, size_t n, char *out, size_t *out_n) {
    size_t w = 0, len;

    for (size_t at = 0; at < n; at += len) {
        int b = byte_of(utf8_first(s + at, s + n, &len));
        if (b < 0) return false;
        out[w++] = (char)b;
    }
    *out_n = w;
    return true;
}
