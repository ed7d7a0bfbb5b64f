/* The compute threads of a backend.
 *
 * All waiting is at one barrier: workers wait at it for a job, inside a job, and at its end. It has two words: `arrived`
 * counts, and `phase` is bumped by whoever comes last, which is also the futex that late sleepers wait on. Everything
 * written before the barrier is seen after it (release and acquire on `phase`). The pool owns its threads.
 */
#include "engine/cpu/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 50 microseconds: longer than the stages of a layer are apart, shorter than a time slice. */
#define SPINS              1500
/* From one job to the next, about as long as the caller takes to draw a token of a large vocabulary: waking costs as much again. */
#define SPINS_BETWEEN_JOBS (4 * SPINS)

typedef struct worker {
    pool *pool;
    pthread_t thread;
    int index;
} worker;

struct pool {
    atomic_int threads; /* changes only when starting fails half-way */
    bool spin;
    int caller_cpu; /* the one that no worker is pinned to; -1: they are not pinned */
    pool_job *job;  /* written before the barrier that starts it */
    void *arg;
    bool stop;
    worker *worker; /* [threads]; 0 is the caller and has no thread */
    int started;
    /* a cache line each: arriving threads must not disturb those that watch the phase */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
    _Alignas(64) atomic_int sleepers;
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_while(pool *p, unsigned phase) {
    atomic_fetch_add(&p->sleepers, 1);
    /* the kernel compares the phase again, so a wake-up between our look and the sleep is not lost */
    while (atomic_load(&p->phase) == phase) {
        syscall(SYS_futex, &p->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
    }
    atomic_fetch_sub(&p->sleepers, 1);
}

/* Spins first, and then sleeps. */
static void meet(pool *p, int spins) {
    unsigned phase = atomic_load_explicit(&p->phase, memory_order_acquire);
    if (atomic_fetch_add(&p->arrived, 1) + 1 == atomic_load_explicit(&p->threads, memory_order_relaxed)) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        atomic_fetch_add(&p->phase, 1);
        if (atomic_load(&p->sleepers))
            syscall(SYS_futex, &p->phase, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        return;
    }
    for (int i = 0; p->spin && i < spins; i++) {
        if (atomic_load_explicit(&p->phase, memory_order_acquire) != phase) return;
        relax();
    }
    sleep_while(p, phase);
}

void pool_barrier(pool *p) {
    meet(p, SPINS);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    pool *p = w->pool;
    for (;;) {
        meet(p, SPINS_BETWEEN_JOBS);
        if (p->stop) return NULL;
        p->job(p->arg, w->index);
        pool_barrier(p);
    }
}

/* The kernel may have put the caller on a worker's CPU while that slept, and takes some milliseconds to see that both compute: it
 * moves to the one that is left for it. It is not kept there. Best effort. */
static void leave_workers_cpus(const pool *p) {
    cpu_set_t before, one;
    if (p->caller_cpu < 0 || sched_getcpu() == p->caller_cpu || sched_getaffinity(0, sizeof before, &before))
        return;
    CPU_ZERO(&one);
    CPU_SET(p->caller_cpu, &one);
    if (!sched_setaffinity(0, sizeof one, &one)) sched_setaffinity(0, sizeof before, &before);
}

void pool_run(pool *p, pool_job *job, void *arg) {
    leave_workers_cpus(p);
    p->job = job;
    p->arg = arg;
    pool_barrier(p);
    job(arg, 0);
    pool_barrier(p);
}

/* Pins the workers one to a CPU, only when we have all CPUs of our mask: pinning fewer would let two engines of one
 * machine choose the same CPUs while others idle. The caller's thread is not ours to pin. Best effort. */
static void pin_workers(pool *p, const cpu_set_t *mask) {
    int cpu = -1;
    for (int i = 0; i < p->threads; i++) {
        do cpu++;
        while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, mask));
        if (i == 0) {
            p->caller_cpu = cpu;
            continue;
        }
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(p->worker[i].thread, sizeof one, &one);
    }
}

static int start_workers(pool *p, engine_error *err) {
    for (int i = 1; i < p->threads; i++) {
        p->worker[i] = (worker){.pool = p, .index = i};
        int rc = pthread_create(&p->worker[i].thread, NULL, worker_main, &p->worker[i]);
        if (rc)
            return engine_fail(err, ENGINE_ENOMEM, "cannot start compute thread %d of %d: %s", i, p->threads,
                               strerror(rc));
        p->started = i;
    }
    return 0;
}

pool *pool_new(int threads, engine_error *err) {
    pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    memset(p, 0, sizeof *p);
    cpu_set_t mask;
    int cpus = sched_getaffinity(0, sizeof mask, &mask) ? 0 : CPU_COUNT(&mask);
    p->caller_cpu = -1;
    atomic_init(&p->threads, threads);
    /* with more threads than CPUs, who spins keeps the one it waits for from running */
    p->spin = threads <= cpus;
    p->worker = calloc((size_t)threads, sizeof *p->worker);
    if (!p->worker) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
    } else if (!start_workers(p, err)) {
        if (threads == cpus) pin_workers(p, &mask);
        return p;
    }
    pool_free(p);
    return NULL;
}

void pool_free(pool *p) {
    if (!p) return;
    /* when only some could be started, those wait at the barrier for as many as are there */
    if (p->started + 1 != p->threads) p->threads = p->started + 1;
    p->stop = true;
    if (p->started) pool_barrier(p);
    for (int i = 1; i <= p->started; i++) pthread_join(p->worker[i].thread, NULL);
    free(p->worker);
    free(p);
}

int pool_threads(const pool *p) {
    return atomic_load_explicit(&p->threads, memory_order_relaxed);
}
