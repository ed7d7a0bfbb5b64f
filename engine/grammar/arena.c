/* Memory of a grammar: pieces out of chunks, a limit on the whole, one call to free it. */
#include "engine/grammar/node.h"

#include <stdalign.h>
#include <stdlib.h>

enum { CHUNK = 64 << 10, TOTAL_MAX = 32 << 20 };

struct arena_chunk {
    struct arena_chunk *next;
    char *at;
};

static bool add_chunk(grammar_arena *a, size_t size) {
    if (size > TOTAL_MAX - a->total) return false;
    struct arena_chunk *c = calloc(1, sizeof *c + size);
    if (!c) return false;
    *c = (struct arena_chunk){a->chunks, (char *)(c + 1)};
    a->chunks = c;
    a->left = size;
    a->total += size;
    return true;
}

void *grammar_alloc(grammar_arena *a, size_t n, size_t size) {
    const size_t align = alignof(max_align_t);
    if (n > TOTAL_MAX / size) return NULL;
    size_t bytes = (n * size + align - 1) / align * align;
    if (bytes > a->left && !add_chunk(a, bytes > CHUNK ? bytes : CHUNK)) return NULL;
    void *p = a->chunks->at;
    a->chunks->at += bytes;
    a->left -= bytes;
    return p;
}

void grammar_arena_done(grammar_arena *a) {
    while (a->chunks) {
        struct arena_chunk *c = a->chunks;
        a->chunks = c->next;
        free(c);
    }
    *a = (grammar_arena){0};
}
