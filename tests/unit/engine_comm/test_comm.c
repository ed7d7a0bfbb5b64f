/* Collectives among threads: right, the same bits every time, and nobody waits for a rank that is gone. */
#include "engine/comm/comm.h"
#include "engine/cpu/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 8, LONGEST = 20000 };

typedef struct world {
    int size, bad; /* bad: the rank that does something else */
    size_t n;
    comm *rank[MOST];
    float *x[MOST]; /* [LONGEST] each */
    atomic_int failures, arrived;
    engine_error error[MOST];
} world;

static void world_run(world *w, pool_job *job) {
    pool *p = pool_new(w->size, NULL);
    assert_non_null(p);
    pool_run(p, job, w);
    pool_free(p);
}

static void world_open(world *w, int size) {
    *w = (world){.size = size};
    assert_int_equal(comm_local_new(size, w->rank, NULL), 0);
    for (int r = 0; r < size; r++) {
        assert_int_equal(w->rank[r]->rank, r);
        assert_int_equal(w->rank[r]->size, size);
        assert_non_null(w->x[r] = malloc(LONGEST * sizeof(float)));
    }
}

static void world_close(world *w) {
    for (int r = 0; r < w->size; r++) {
        comm_free(w->rank[r]);
        free(w->x[r]);
    }
}

/* Of very different sizes, so that another order of summing shows. */
static float number(int rank, size_t i) {
    uint64_t z = (uint64_t)i * 0x9e3779b97f4a7c15u + (uint64_t)rank * 0xbf58476d1ce4e5b9u + 1;
    z = (z ^ (z >> 30)) * 0x94d049bb133111ebu;
    return ((float)(z >> 40) * 0x1p-24f - 0.5f) * (float)(1u << (z & 15));
}

static void fill(world *w, size_t n) {
    w->n = n;
    for (int r = 0; r < w->size; r++) {
        for (size_t i = 0; i < n; i++) w->x[r][i] = number(r, i);
    }
}

static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 4096, 19999};
enum { NSIZES = sizeof sizes / sizeof *sizes };

static void all_reduce(void *arg, int rank) {
    world *w = arg;
    if (comm_all_reduce(w->rank[rank], w->x[rank], w->n, NULL)) atomic_fetch_add(&w->failures, 1);
}

static void every_rank_gets_the_sum_in_rank_order_to_the_last_bit(void **state) {
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        world w;
        world_open(&w, size);
        for (int s = 0; s < NSIZES; s++) {
            fill(&w, sizes[s]);
            world_run(&w, all_reduce);
            assert_int_equal(atomic_load(&w.failures), 0);
            for (size_t i = 0; i < w.n; i++) {
                float sum = number(0, i);
                for (int r = 1; r < size; r++) sum += number(r, i);
                for (int r = 0; r < size; r++) assert_memory_equal(&w.x[r][i], &sum, sizeof sum);
            }
        }
        world_close(&w);
    }
}

/* The same numbers again and again, with no rest between the calls. */
static void reduce_in_a_row(void *arg, int rank) {
    world *w = arg;
    for (int round = 0; round < 300; round++) {
        for (size_t i = 0; i < w->n; i++) w->x[rank][i] = (float)(rank + 1);
        if (comm_all_reduce(w->rank[rank], w->x[rank], w->n, NULL)) atomic_fetch_add(&w->failures, 1);
        const float sum = (float)(w->size * (w->size + 1) / 2);
        for (size_t i = 0; i < w->n; i++) {
            if (w->x[rank][i] != sum) atomic_fetch_add(&w->failures, 1);
        }
    }
}

static void collectives_in_a_row_do_not_mix(void **state) {
    (void)state;
    for (int size = 2; size <= MOST; size *= 2) {
        world w;
        world_open(&w, size);
        w.n = 40;
        world_run(&w, reduce_in_a_row);
        assert_int_equal(atomic_load(&w.failures), 0);
        world_close(&w);
    }
}

static void all_gather(void *arg, int rank) {
    world *w = arg;
    if (comm_all_gather(w->rank[rank], w->x[rank], w->n, NULL)) atomic_fetch_add(&w->failures, 1);
}

static void every_rank_gets_what_each_has_brought(void **state) {
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        world w;
        world_open(&w, size);
        for (size_t n = 0; n <= 2000; n = n * 3 + 1) {
            fill(&w, n * (size_t)size);
            w.n = n;
            world_run(&w, all_gather);
            assert_int_equal(atomic_load(&w.failures), 0);
            for (int r = 0; r < size; r++) {
                for (size_t i = 0; i < n * (size_t)size; i++) {
                    assert_true(w.x[r][i] == number((int)(i / n), i));
                }
            }
        }
        world_close(&w);
    }
}

static void count_at_barriers(void *arg, int rank) {
    world *w = arg;
    for (int round = 1; round <= 200; round++) {
        atomic_fetch_add(&w->arrived, 1);
        if (comm_barrier(w->rank[rank], NULL)) atomic_fetch_add(&w->failures, 1);
        if (atomic_load(&w->arrived) < round * w->size) atomic_fetch_add(&w->failures, 1);
    }
}

static void nobody_passes_a_barrier_before_all_have_come(void **state) {
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        world w;
        world_open(&w, size);
        world_run(&w, count_at_barriers);
        assert_int_equal(atomic_load(&w.failures), 0);
        world_close(&w);
    }
}

/* One rank gives up where the others wait for it, in some round. */
static void one_gives_up(void *arg, int rank) {
    world *w = arg;
    comm *c = w->rank[rank];
    for (int round = 0; round < 1000; round++) {
        if (rank == w->bad && round == 20 * rank) {
            engine_error why;
            engine_fail(&why, ENGINE_ENOMEM, "rank %d lost its device", rank);
            comm_abort(c, &why);
        }
        if (comm_all_reduce(c, w->x[rank], w->n, &w->error[rank])) {
            atomic_fetch_add(&w->failures, 1);
            return;
        }
    }
}

static void a_rank_that_gives_up_ends_every_wait_with_its_reason(void **state) {
    (void)state;
    for (int bad = 0; bad < MOST; bad++) {
        world w;
        char why[64];
        world_open(&w, MOST);
        fill(&w, 100);
        w.bad = bad;
        world_run(&w, one_gives_up);
        assert_int_equal(atomic_load(&w.failures), MOST);
        snprintf(why, sizeof why, "rank %d lost its device", bad);
        for (int r = 0; r < MOST; r++) {
            assert_int_equal(w.error[r].code, ENGINE_ENOMEM);
            assert_string_equal(w.error[r].msg, why);
        }
        world_close(&w);
    }
}

static void a_group_that_was_given_up_stays_so_for_the_first_reason(void **state) {
    (void)state;
    world w;
    world_open(&w, 2);
    engine_error first, second, seen = {0};
    engine_fail(&first, ENGINE_EIO, "first");
    engine_fail(&second, ENGINE_EINVAL, "second");
    comm_abort(w.rank[1], &first);
    comm_abort(w.rank[0], &second);
    assert_int_equal(comm_barrier(w.rank[0], &seen), -1);
    assert_string_equal(seen.msg, "first");
    assert_int_equal(comm_all_reduce(w.rank[1], w.x[1], 1, &seen), -1);
    assert_int_equal(comm_all_gather(w.rank[1], w.x[1], 1, NULL), -1);
    world_close(&w);
}

static void one_has_another_size(void *arg, int rank) {
    world *w = arg;
    size_t n = rank == w->bad ? 11 : 10;
    if (comm_all_reduce(w->rank[rank], w->x[rank], n, &w->error[rank])) atomic_fetch_add(&w->failures, 1);
}

static void ranks_that_disagree_are_told_so(void **state) {
    (void)state;
    for (int bad = 0; bad < 3; bad++) {
        world w;
        world_open(&w, 3);
        fill(&w, 11);
        w.bad = bad;
        world_run(&w, one_has_another_size);
        assert_int_equal(atomic_load(&w.failures), 3);
        for (int r = 0; r < 3; r++) assert_non_null(strstr(w.error[r].msg, "do not agree"));
        world_close(&w);
    }
}

static void a_group_of_no_or_too_many_ranks_is_refused(void **state) {
    (void)state;
    comm *ranks[1];
    engine_error err = {0};
    assert_int_equal(comm_local_new(0, ranks, &err), -1);
    assert_int_equal(comm_local_new(COMM_RANKS_MAX + 1, ranks, &err), -1);
    assert_non_null(strstr(err.msg, "1 to 64 ranks, not 65"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_gets_the_sum_in_rank_order_to_the_last_bit),
        cmocka_unit_test(collectives_in_a_row_do_not_mix),
        cmocka_unit_test(every_rank_gets_what_each_has_brought),
        cmocka_unit_test(nobody_passes_a_barrier_before_all_have_come),
        cmocka_unit_test(a_rank_that_gives_up_ends_every_wait_with_its_reason),
        cmocka_unit_test(a_group_that_was_given_up_stays_so_for_the_first_reason),
        cmocka_unit_test(ranks_that_disagree_are_told_so),
        cmocka_unit_test(a_group_of_no_or_too_many_ranks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
