/* Any bytes as a JSON schema: refused with a reason, or a grammar under which an answer, drawn by the rest of the bytes, never
 * runs into a dead end. The schema ends at the first NUL. */
#include "engine/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { END = 256, VOCAB, TOKENS_MAX = 200 };

/* A token a byte. */
static const char *piece(void *owner, int32_t id, size_t *n, bool *special) {
    (void)owner;
    static char bytes[256];
    *special = id == END;
    *n = 1;
    if (id == END) return "";
    bytes[id] = (char)id;
    return &bytes[id];
}

static grammar_vocab *vocab(void) {
    static grammar_vocab *v;
    static const int32_t end = END;
    engine_error err;
    if (!v) v = grammar_vocab_new(VOCAB, piece, NULL, &end, 1, &err);
    if (!v) abort();
    return v;
}

static int32_t nth_allowed(const uint64_t *mask, unsigned n) {
    int32_t last = -1;
    for (unsigned round = 0; round < 2; round++) {
        for (int32_t id = 0; id < VOCAB; id++) {
            if (!(mask[id / 64] >> (id % 64) & 1)) continue;
            last = id;
            if (n-- == 0) return id;
        }
    }
    return last;
}

static void draw(grammar *g, const uint8_t *choices, size_t n) {
    grammar_cursor *c = grammar_cursor_new(g);
    bool extendable = true;
    if (!c) abort();
    for (size_t i = 0; i < n && i < TOKENS_MAX; i++) {
        if (grammar_cursor_complete(c, &extendable) && !extendable) break;
        int32_t id = nth_allowed(grammar_cursor_mask(c), choices[i]);
        char byte = (char)id;
        if (id < 0) abort();
        if (id == END) break;
        if (!grammar_cursor_take(c, &byte, 1)) abort();
    }
    grammar_cursor_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *end = memchr(data, 0, n);
    size_t schema = end ? (size_t)(end - data) : n;
    engine_error err = {0};
    grammar *g = grammar_new(vocab(), (const char *)data, schema, &err);
    if (!g && !err.msg[0]) abort();
    if (g) draw(g, data + schema, n - schema);
    grammar_unref(g);
    return 0;
}
