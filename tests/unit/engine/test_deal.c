/* Dealt items: each goes to one thread, stage after stage, and nobody waits for the share of a thread that is held up. */
#include "engine/cpu/deal.h"
#include "engine/cpu/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The first number is soon 0 again, which no word may mistake for its first state. */
enum { STAGES = 400, FIRST_STAGE = UINT16_MAX - STAGES / 2, MOST_THREADS = 7, MOST_ITEMS = 61 };

typedef struct game {
    pool *pool;
    deal_word words[MOST_THREADS];
    atomic_int taken[STAGES][MOST_ITEMS];
} game;

/* From nothing to more than enough for everybody */
static int items_of(int stage) {
    return stage * 7 % (MOST_ITEMS + 1);
}

static void play(void *arg, int thread) {
    game *g = arg;
    for (int s = 0; s < STAGES; s++) {
        const deal d = {.words = g->words,
                        .thread = thread,
                        .threads = pool_threads(g->pool),
                        .stage = (uint16_t)(FIRST_STAGE + s),
                        .items = items_of(s)};
        for (int item; (item = deal_take(&d)) >= 0;) atomic_fetch_add(&g->taken[s][item], 1);
        pool_barrier(g->pool);
    }
}

static void every_item_of_every_stage_goes_to_one_thread(void **state) {
    (void)state;
    static game g;
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        memset(&g, 0, sizeof g);
        g.pool = pool_new(threads, NULL);
        assert_non_null(g.pool);
        pool_run(g.pool, play, &g);
        pool_free(g.pool);
        for (int s = 0; s < STAGES; s++) {
            for (int i = 0; i < MOST_ITEMS; i++) assert_int_equal(g.taken[s][i], i < items_of(s));
        }
    }
}

static void the_share_of_a_thread_that_does_not_come_is_taken_from_its_end(void **state) {
    (void)state;
    deal_word words[2] = {0};
    const deal quick = {.words = words, .thread = 0, .threads = 2, .stage = 1, .items = 6};
    const int order[] = {0, 1, 2, 5, 4, 3, -1};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        assert_int_equal(deal_owns(&quick, order[i]), i < 3);
        assert_int_equal(deal_take(&quick), order[i]);
    }
    const deal slow = {.words = words, .thread = 1, .threads = 2, .stage = 1, .items = 6};
    assert_int_equal(deal_take(&slow), -1);
}

/* Numbers come again; who had nothing to do in between must not take the old stage for the new. */
static void a_number_that_comes_again_deals_everything_again(void **state) {
    (void)state;
    deal_word words[2] = {0};
    static const int stages[][2] = {{5, 4}, {6, 1}, {5, 4}, {6, 0}, {5, 4}}; /* number, items */
    for (size_t s = 0; s < sizeof stages / sizeof *stages; s++) {
        int taken = 0;
        for (int thread = 0; thread < 2; thread++) {
            const deal d = {.words = words,
                            .thread = thread,
                            .threads = 2,
                            .stage = (uint16_t)stages[s][0],
                            .items = stages[s][1]};
            while (deal_take(&d) >= 0) taken++;
        }
        assert_int_equal(taken, stages[s][1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_of_every_stage_goes_to_one_thread),
        cmocka_unit_test(the_share_of_a_thread_that_does_not_come_is_taken_from_its_end),
        cmocka_unit_test(a_number_that_comes_again_deals_everything_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
