/* Base64 for bytes in JSON (RFC 4648, padded, strict: no line breaks, no other alphabet). */
#include "schemas/codec_internal.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t mr_base64_len(size_t n) {
    return (n + 2) / 3 * 4;
}

void mr_base64_encode(mr_str in, char *out) {
    for (size_t i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        uint32_t w = (uint32_t)(unsigned char)in.p[i] << 16;
        if (left > 1) w |= (uint32_t)(unsigned char)in.p[i + 1] << 8;
        if (left > 2) w |= (unsigned char)in.p[i + 2];
        *out++ = digits[w >> 18];
        *out++ = digits[w >> 12 & 63];
        *out++ = left > 1 ? digits[w >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[w & 63] : '=';
    }
}

static int digit_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int64_t mr_base64_decode(mr_str in, char *out) {
    if (in.n % 4 != 0) return -1;
    size_t pad = 0;
    if (in.n > 0 && in.p[in.n - 1] == '=') pad = in.p[in.n - 2] == '=' ? 2 : 1;
    char *o = out;
    uint32_t w = 0;
    for (size_t i = 0; i < in.n; i++) {
        int v = i >= in.n - pad ? 0 : digit_value(in.p[i]);
        if (v < 0) return -1;
        w = w << 6 | (uint32_t)v;
        if (i % 4 == 3) {
            *o++ = (char)(w >> 16);
            *o++ = (char)(w >> 8);
            *o++ = (char)w;
            w = 0;
        }
    }
    return o - out - (int64_t)pad;
}
