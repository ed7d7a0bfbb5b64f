/* The ranks are threads of one process and read each other's buffers.
 *
 * A collective is two barriers. Before the first each rank posts where its buffer is; between them everybody reads and
 * writes its own slice of all buffers, so that nothing is copied twice and no scratch is needed; after the second the
 * buffers are their owners' again. Waiting spins for some microseconds and then sleeps in the kernel.
 *
 * Each rank's thread calls for itself. The group is shared by its ranks' ends and freed with the last of them.
 */
#include "engine/comm/comm.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPINS = 1500, /* as long as two ranks' stages are apart */
    LINE = 16,    /* floats; slices are whole cache lines */
    CHUNK = 1024, /* floats that are summed at once, on the stack */
};

typedef enum { ALL_REDUCE, ALL_GATHER } collective;

/* What a rank is about to do, for the others to see. */
typedef struct post {
    _Alignas(64) float *x;
    size_t n;
    collective what;
} post;

typedef struct group {
    int size, spins;
    atomic_int ends; /* that are not freed yet */
    _Alignas(64) atomic_int arrived;
    _Alignas(64)
        atomic_uint phase; /* bumped by whoever comes last, and by an abort; the futex of the sleepers */
    _Alignas(64) atomic_int sleepers;
    atomic_int state; /* of the next: */
    engine_error why;
    post post[]; /* [size] */
} group;
enum { SOUND, BREAKING, BROKEN };

typedef struct end {
    comm base;
    group *group;
} end;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- the barrier ---- */

static void next_phase(group *g) {
    atomic_fetch_add(&g->phase, 1);
    if (atomic_load(&g->sleepers)) syscall(SYS_futex, &g->phase, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static int check_sound(const group *g, engine_error *err) {
    if (atomic_load_explicit(&g->state, memory_order_acquire) == SOUND) return 0;
    /* who breaks it is writing the reason: some instructions */
    while (atomic_load_explicit(&g->state, memory_order_acquire) != BROKEN) relax();
    if (err) *err = g->why;
    return -1;
}

static void wait_for_phase(group *g, unsigned phase) {
    for (int i = 0; i < g->spins; i++) {
        if (atomic_load_explicit(&g->phase, memory_order_acquire) != phase) return;
        relax();
    }
    atomic_fetch_add(&g->sleepers, 1);
    /* the kernel compares the phase again, so a wake-up between our look and the sleep is not lost */
    while (atomic_load(&g->phase) == phase) {
        syscall(SYS_futex, &g->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    }
    atomic_fetch_sub(&g->sleepers, 1);
}

static int meet(group *g, engine_error *err) {
    /* The phase comes first: an abort after this look has bumped it, so nobody sleeps through one. */
    unsigned phase = atomic_load(&g->phase);
    if (check_sound(g, err)) return -1;
    if (atomic_fetch_add(&g->arrived, 1) + 1 == g->size) {
        atomic_store_explicit(&g->arrived, 0, memory_order_relaxed);
        next_phase(g);
    } else {
        wait_for_phase(g, phase);
    }
    return check_sound(g, err);
}

static int local_barrier(comm *c, engine_error *err) {
    return meet(((end *)c)->group, err);
}

static void break_group(group *g, const engine_error *why) {
    int sound = SOUND;
    if (!atomic_compare_exchange_strong(&g->state, &sound, BREAKING)) return;
    g->why = *why;
    atomic_store(&g->state, BROKEN);
    next_phase(g);
}

static void local_abort(comm *c, const engine_error *why) {
    break_group(((end *)c)->group, why);
}

/* ---- collectives ---- */

/* Every rank sees every post, so all come to the same verdict. */
static int check_posts(group *g, engine_error *err) {
    const post *first = &g->post[0];
    for (int r = 1; r < g->size; r++) {
        const post *p = &g->post[r];
        if (p->what == first->what && p->n == first->n) continue;
        engine_error why;
        engine_fail(&why, ENGINE_EINTERNAL,
                    "ranks 0 and %d do not agree on a collective: kinds %d and %d of %zu and %zu numbers", r,
                    (int)first->what, (int)p->what, first->n, p->n);
        break_group(g, &why);
        return check_sound(g, err);
    }
    return 0;
}

static int begin(comm *c, collective what, float *x, size_t n, engine_error *err) {
    group *g = ((end *)c)->group;
    g->post[c->rank] = (post){.x = x, .n = n, .what = what};
    if (meet(g, err)) return -1;
    return check_posts(g, err);
}

/* Numbers [at, at + n) of all buffers: rank by rank, whatever else there is. */
static void reduce_chunk(const group *g, size_t at, size_t n) {
    float sum[CHUNK];
    memcpy(sum, g->post[0].x + at, n * sizeof *sum);
    for (int r = 1; r < g->size; r++) {
        const float *x = g->post[r].x + at;
        for (size_t i = 0; i < n; i++) sum[i] += x[i];
    }
    for (int r = 0; r < g->size; r++) memcpy(g->post[r].x + at, sum, n * sizeof *sum);
}

static int local_all_reduce(comm *c, float *x, size_t n, engine_error *err) {
    group *g = ((end *)c)->group;
    if (begin(c, ALL_REDUCE, x, n, err)) return -1;
    const size_t lines = (n + LINE - 1) / LINE, rank = (size_t)c->rank, size = (size_t)c->size;
    size_t at = lines * rank / size * LINE, stop = lines * (rank + 1) / size * LINE;
    if (stop > n) stop = n;
    for (; at < stop; at += CHUNK) reduce_chunk(g, at, stop - at < CHUNK ? stop - at : CHUNK);
    return meet(g, err);
}

static int local_all_gather(comm *c, float *x, size_t n, engine_error *err) {
    group *g = ((end *)c)->group;
    if (begin(c, ALL_GATHER, x, n, err)) return -1;
    for (int r = 0; r < c->size; r++) {
        const size_t at = (size_t)r * n;
        if (r != c->rank) memcpy(x + at, g->post[r].x + at, n * sizeof *x);
    }
    return meet(g, err);
}

/* ---- life ---- */

static void local_free(comm *c) {
    group *g = ((end *)c)->group;
    if (atomic_fetch_sub(&g->ends, 1) == 1) free(g);
    free(c);
}

static group *group_new(int size) {
    const size_t bytes = sizeof(group) + (size_t)size * sizeof(post);
    group *g = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!g) return NULL;
    memset(g, 0, bytes);
    cpu_set_t mask;
    int cpus = sched_getaffinity(0, sizeof mask, &mask) ? 0 : CPU_COUNT(&mask);
    g->size = size;
    /* with more ranks than CPUs, who spins keeps the one it waits for from running */
    g->spins = size <= cpus ? SPINS : 0;
    return g;
}

int comm_local_new(int size, comm **ranks, engine_error *err) {
    static const comm_ops ops = {.all_reduce = local_all_reduce,
                                 .all_gather = local_all_gather,
                                 .barrier = local_barrier,
                                 .abort = local_abort,
                                 .free = local_free};
    if (size < 1 || size > COMM_RANKS_MAX) {
        return engine_fail(err, ENGINE_EINVAL, "a model is split over 1 to %d ranks, not %d", COMM_RANKS_MAX,
                           size);
    }
    group *g = group_new(size);
    end *made[COMM_RANKS_MAX] = {0};
    bool whole = g != NULL;
    for (int r = 0; whole && r < size; r++) whole = (made[r] = calloc(1, sizeof *made[r])) != NULL;
    if (!whole) {
        for (int r = 0; r < size; r++) free(made[r]);
        free(g);
        return engine_fail(err, ENGINE_ENOMEM, "out of memory");
    }
    g->ends = size;
    for (int r = 0; r < size; r++) {
        *made[r] = (end){.base = {.ops = &ops, .rank = r, .size = size}, .group = g};
        ranks[r] = &made[r]->base;
    }
    return 0;
}
