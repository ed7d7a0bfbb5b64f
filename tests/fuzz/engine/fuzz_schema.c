/* Any bytes as a JSON schema: refused with a reason, or a grammar under which an answer, drawn by the rest of the bytes, never
 * runs into a dead end. The schema ends at the first NUL. */
#include "tests/fuzz/engine/bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { TOKENS_MAX = 200 };

static void draw(grammar *g, const uint8_t *choices, size_t n) {
    grammar_cursor *c = grammar_cursor_new(g);
    bool extendable = true;
    if (!c) abort();
    for (size_t i = 0; i < n && i < TOKENS_MAX; i++) {
        if (grammar_cursor_complete(c, &extendable) && !extendable) break;
        int32_t id = bytes_nth(grammar_cursor_mask(c), choices[i]);
        char byte = (char)id;
        if (id < 0) abort();
        if (id == BYTES_END) break;
        if (!grammar_cursor_take(c, &byte, 1)) abort();
    }
    grammar_cursor_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *end = memchr(data, 0, n);
    size_t schema = end ? (size_t)(end - data) : n;
    engine_error err = {0};
    grammar *g = grammar_new(bytes_vocab(), (const char *)data, schema, &err);
    if (!g && !err.msg[0]) abort();
    if (g) draw(g, data + schema, n - schema);
    grammar_unref(g);
    return 0;
}
