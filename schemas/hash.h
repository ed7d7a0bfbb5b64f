/* FNV-1a 64: the running hash that proves two attempts at an answer equal, and the stable hash by which a session keeps
 * its color. It detects difference, it does not resist forgery. Values are part of the protocol: never change them.
 *
 *     uint64_t h = mr_text_hash_init();
 *     h = mr_text_hash_feed(h, text);    feeding in pieces gives the same as feeding at once
 */
#ifndef MR_HASH_H
#define MR_HASH_H

#include "base/str.h"

#define MR_TEXT_HASH_LEN 16

static inline uint64_t mr_text_hash_init(void) {
    return UINT64_C(0xcbf29ce484222325);
}

static inline uint64_t mr_text_hash_feed(uint64_t h, mr_str text) {
    for (size_t i = 0; i < text.n; i++) {
        h = (h ^ (unsigned char)text.p[i]) * UINT64_C(0x100000001b3);
    }
    return h;
}

/* As it stands in the records: 16 hexadecimal digits, lower case. */
static inline void mr_text_hash_hex(uint64_t h, char out[MR_TEXT_HASH_LEN + 1]) {
    for (int i = MR_TEXT_HASH_LEN - 1; i >= 0; i--, h >>= 4) out[i] = "0123456789abcdef"[h & 15];
    out[MR_TEXT_HASH_LEN] = '\0';
}

static inline bool mr_text_hash_parse(mr_str hex, uint64_t *out) {
    uint64_t h = 0;
    if (hex.n != MR_TEXT_HASH_LEN) return false;
    for (size_t i = 0; i < hex.n; i++) {
        int digit = mr_hex_digit(hex.p[i]);
        if (digit < 0) return false;
        h = h << 4 | (uint64_t)digit;
    }
    *out = h;
    return true;
}

#endif
