/* Streaming detokenisation: the bytes of tokens become whole characters. State is the caller's detok; any thread. */
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

#include <string.h>

/* Moves what is decided from the pending bytes to out; returns its length. At most an incomplete character stays. */
static size_t settle(detok *d, char *out) {
    size_t w = 0, len;
    uint32_t c;

    while (d->npart > 0) {
        utf8_kind kind = utf8_next((const char *)d->part, (size_t)d->npart, &c, &len);
        if (kind == UTF8_PARTIAL) break;
        const void *from = kind == UTF8_WHOLE ? (const void *)d->part : UTF8_REPLACEMENT;
        size_t n = kind == UTF8_WHOLE ? len : UTF8_REPLACEMENT_LEN;
        memcpy(out + w, from, n);
        w += n;
        d->npart -= (int)len;
        memmove(d->part, d->part + len, (size_t)d->npart);
    }
    return w;
}

size_t detok_push(detok *d, const char *piece, size_t n, char *out) {
    size_t w = 0;

    for (size_t i = 0; i < n; i++) {
        d->part[d->npart++] = (unsigned char)piece[i];
        w += settle(d, out + w);
    }
    return w;
}

size_t detok_finish(detok *d, char *out) {
    if (d->npart == 0) return 0;
    d->npart = 0;
    memcpy(out, UTF8_REPLACEMENT, UTF8_REPLACEMENT_LEN);
    return UTF8_REPLACEMENT_LEN;
}
