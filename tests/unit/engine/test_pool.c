/* The thread pool: every thread takes part, nobody passes a barrier early, and an idle pool uses no CPU. */
#include "engine/cpu/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

enum { ROUNDS = 200, MOST = 7 };

typedef struct job {
    pool *pool;
    int value[ROUNDS][MOST];
    atomic_int early;
} job;

/* In each round everybody writes its place, and after the barrier must see everybody else's. */
static void rounds(void *arg, int thread) {
    job *j = arg;
    for (int r = 0; r < ROUNDS; r++) {
        j->value[r][thread] = r + 1;
        pool_barrier(j->pool);
        for (int t = 0; t < pool_threads(j->pool); t++) {
            if (j->value[r][t] != r + 1) atomic_fetch_add(&j->early, 1);
        }
    }
}

static void nobody_passes_a_barrier_before_all_have_come(void **state) {
    (void)state;
    /* more threads than a small machine has CPUs, too */
    for (int threads = 1; threads <= MOST; threads++) {
        static job j;
        j = (job){.pool = pool_new(threads, NULL)};
        assert_non_null(j.pool);
        pool_run(j.pool, rounds, &j);
        assert_int_equal(atomic_load(&j.early), 0);
        assert_int_equal(j.value[ROUNDS - 1][threads - 1], ROUNDS);
        pool_free(j.pool);
    }
}

static void count(void *arg, int thread) {
    (void)thread;
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void each_job_runs_once_on_every_thread(void **state) {
    (void)state;
    pool *p = pool_new(3, NULL);
    assert_non_null(p);
    atomic_int n = 0;
    for (int i = 0; i < 1000; i++) {
        pool_run(p, count, &n);
        assert_int_equal(atomic_load(&n), 3 * (i + 1));
    }
    pool_free(p);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void an_idle_pool_burns_no_cpu(void **state) {
    (void)state;
    pool *p = pool_new(4, NULL);
    assert_non_null(p);
    atomic_int n = 0;
    pool_run(p, count, &n);
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
    assert_true(seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu < 0.05);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_passes_a_barrier_before_all_have_come),
        cmocka_unit_test(each_job_runs_once_on_every_thread),
        cmocka_unit_test(an_idle_pool_burns_no_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
