/* Arenas over anonymous mappings. Used at open and close only, from one thread. */
#include "engine/cpu/arena.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define LINE      ((size_t)64)

int arena_take(arena *a, const char *what, engine_error *err) {
    size_t n = a->used;
    if (n > SIZE_MAX / 4) return engine_fail(err, ENGINE_ENOMEM, "%s: the size overflows", what);
    n = (n + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    size_t map_size = n + HUGE_PAGE;
    void *map = mmap(NULL, map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return engine_fail(err, ENGINE_ENOMEM, "%s: cannot take %zu MiB: %s", what, n >> 20, strerror(errno));
    }
    unsigned char *base = (unsigned char *)(((uintptr_t)map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(base, n, MADV_HUGEPAGE);
    /* Touched now: what cannot be had is missing at open, not in the middle of an answer. */
    memset(base, 0, n);
    *a = (arena){.base = base, .size = n, .map = map, .map_size = map_size};
    return 0;
}

void arena_done(arena *a) {
    if (a->map) munmap(a->map, a->map_size);
    *a = (arena){0};
}

void *arena_get(arena *a, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4 || a->used > SIZE_MAX / 4) {
        a->used = SIZE_MAX / 2;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    a->used += (bytes + LINE - 1) / LINE * LINE;
    return p;
}
