/* Memory taken once, in huge pages where the kernel has them, and handed out in cache-line pieces.
 *
 * A layout is a function that takes its pieces from an arena; it runs twice: over an empty arena to measure, and over the
 * real one to place. Everything is freed together.
 */
#ifndef ENGINE_CPU_ARENA_H
#define ENGINE_CPU_ARENA_H

#include "engine/error.h"

#include <stddef.h>

typedef struct arena {
    unsigned char *base; /* NULL while measuring */
    size_t size, used;
    void *map; /* what was mapped: base is the first huge page in it */
    size_t map_size;
} arena;

/* Maps and touches what a measured arena used; it is then empty and zeroed. */
int arena_take(arena *a, const char *what, engine_error *err);
void arena_done(arena *a);
/* n bytes aligned to 64; NULL while measuring. Sizes that overflow saturate, so that arena_take fails. */
void *arena_get(arena *a, size_t count, size_t size);

#endif
