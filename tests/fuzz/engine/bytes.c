/* See bytes.h. */
#include "tests/fuzz/engine/bytes.h"

#include <stdlib.h>

static const char *piece(void *owner, int32_t id, size_t *n, bool *special) {
    (void)owner;
    static char bytes[256];
    *special = id == BYTES_END;
    *n = 1;
    if (id == BYTES_END) return "";
    bytes[id] = (char)id;
    return &bytes[id];
}

grammar_vocab *bytes_vocab(void) {
    static grammar_vocab *v;
    static const int32_t end = BYTES_END;
    engine_error err;
    if (!v) v = grammar_vocab_new(BYTES_VOCAB, piece, NULL, &end, 1, &err);
    if (!v) abort();
    return v;
}

int32_t bytes_nth(const uint64_t *mask, unsigned n) {
    int allowed = 0;
    for (int i = 0; i < BYTES_VOCAB; i++) allowed += mask[i / 64] >> (i % 64) & 1;
    if (!allowed) return -1;
    n %= (unsigned)allowed;
    for (int32_t id = 0;; id++) {
        if ((mask[id / 64] >> (id % 64) & 1) && n-- == 0) return id;
    }
}
