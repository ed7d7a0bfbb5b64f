/* What the workers' statuses add up to: who is there, how fast a color works, how long a request would wait. */
#include "pool/view.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW 1790000000000

static mr_worker_status status(const char *id, int color, int64_t ok) {
    return (mr_worker_status){.worker = mr_str_of(id),
                              .pool = MR_STR("main"),
                              .color = color,
                              .state = MR_WORKER_READY,
                              .started_ms = NOW - 100000,
                              .sent_ms = NOW,
                              .partitions = 4,
                              .slots = 8,
                              .ok = ok};
}

static mr_color_view look(const mr_view *v, int color, int64_t now) {
    mr_color_view c;
    mr_view_color(v, "main", color, now, &c);
    return c;
}

static int open_view(void **state) {
    mr_error err;
    *state = mr_view_new(NULL, NULL, NULL, "test", &err);
    return *state ? 0 : -1;
}

static int close_view(void **state) {
    mr_view_free(*state);
    return 0;
}

static void ready_workers_of_a_color_are_summed_up(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0), b = status("b", MR_BLUE, 0), c = status("c", MR_GREEN, 0);
    b.state = MR_WORKER_STARTING;
    a.running = 3;
    mr_view_feed(*state, &a, NOW, false);
    mr_view_feed(*state, &b, NOW, false);
    mr_view_feed(*state, &c, NOW, false);
    mr_color_view blue = look(*state, MR_BLUE, NOW), green = look(*state, MR_GREEN, NOW);
    assert_int_equal(blue.workers, 2);
    assert_int_equal(blue.ready, 1);
    assert_int_equal(blue.slots, 8);
    assert_int_equal(blue.running, 3);
    assert_int_equal(green.ready, 1);
}

static void a_silent_worker_is_gone(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0);
    mr_view_feed(*state, &a, NOW, false);
    assert_int_equal(look(*state, MR_BLUE, NOW + MR_VIEW_LIVE_MS).ready, 1);
    assert_int_equal(look(*state, MR_BLUE, NOW + MR_VIEW_LIVE_MS + 1).ready, 0);
}

static void what_was_written_long_before_the_view_began_does_not_count_as_alive(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0);
    mr_view_feed(*state, &a, NOW + 60000, true);
    assert_int_equal(look(*state, MR_BLUE, NOW + 60000).ready, 0);
}

static void a_worker_that_says_goodbye_is_gone_at_once(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0);
    mr_view_feed(*state, &a, NOW, false);
    a.state = MR_WORKER_GONE;
    mr_view_feed(*state, &a, NOW, false);
    assert_int_equal(mr_view_count(*state), 0);
}

static void counts_begin_with_the_view_and_survive_a_restart(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 1000);
    mr_view_feed(*state, &a, NOW, false);
    assert_int_equal(look(*state, MR_BLUE, NOW).totals.ok, 0);
    a.ok = 1010;
    a.errors = 2;
    mr_view_feed(*state, &a, NOW + 1000, false);
    a.started_ms = NOW + 1500; /* it begins to count anew */
    a.ok = 5;
    a.errors = 0;
    mr_view_feed(*state, &a, NOW + 2000, false);
    mr_color_view blue = look(*state, MR_BLUE, NOW + 2000);
    assert_int_equal(blue.totals.ok, 15);
    assert_int_equal(blue.totals.errors, 2);
    a.started_ms = NOW - 100000; /* a late word of the one before */
    a.ok = 1020;
    mr_view_feed(*state, &a, NOW + 2000, false);
    assert_int_equal(look(*state, MR_BLUE, NOW + 2000).totals.ok, 15);
}

static void the_rate_is_that_of_the_last_half_minute(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0);
    mr_view_feed(*state, &a, NOW, false);
    for (int s = 1; s <= 30; s++) {
        a.sent_ms = NOW + s * 1000;
        a.ok += 2;
        mr_view_feed(*state, &a, a.sent_ms, false);
    }
    assert_true(fabs(look(*state, MR_BLUE, NOW + 30000).requests_s - 2) < 0.01);
    assert_true(look(*state, MR_BLUE, NOW + 90000).requests_s == 0);
}

static void nobody_waits_while_a_slot_is_free(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0);
    a.running = 7;
    a.waiting = 100;
    a.served = 10;
    a.service_ms = 10000;
    mr_view_feed(*state, &a, NOW, false);
    mr_color_view c = look(*state, MR_BLUE, NOW);
    assert_int_equal(mr_view_wait_ms(&c), 0);
}

static void the_wait_is_the_line_over_what_the_slots_can_do(void **state) {
    mr_worker_status a = status("a", MR_BLUE, 0);
    a.running = 8;
    a.waiting = 20;
    a.behind = 60;
    a.served = 10;
    a.service_ms = 20000; /* 2 s each, 8 at once: 4 a second */
    mr_view_feed(*state, &a, NOW, false);
    mr_color_view c = look(*state, MR_BLUE, NOW);
    assert_int_equal(mr_view_wait_ms(&c), 20000);
}

static void the_wait_is_unknown_without_workers_or_experience(void **state) {
    mr_color_view c = look(*state, MR_BLUE, NOW);
    assert_int_equal(mr_view_wait_ms(&c), -1);
    mr_worker_status a = status("a", MR_BLUE, 0);
    a.running = 8;
    a.waiting = 20;
    mr_view_feed(*state, &a, NOW, false);
    c = look(*state, MR_BLUE, NOW);
    assert_int_equal(mr_view_wait_ms(&c), -1);
    assert_int_equal(mr_view_model_wait_ms(*state, MR_STR("any"), NOW), -1);
}

/* ---- histograms ---- */

static void quantiles_are_within_a_fifth(void **state) {
    mr_hist h = {{0}};
    (void)state;
    for (int i = 1; i <= 1000; i++) mr_hist_add(&h, i);
    assert_int_equal(mr_hist_count(&h), 1000);
    assert_true(fabs(mr_hist_quantile(&h, 0.5) / 500 - 1) < 0.2);
    assert_true(fabs(mr_hist_quantile(&h, 0.9) / 900 - 1) < 0.2);
    assert_true(mr_hist_quantile(&(mr_hist){{0}}, 0.5) == 0);
}

static void a_histogram_survives_its_trip_and_hostile_counts(void **state) {
    mr_hist h = {{0}}, back;
    int64_t bad[MR_HIST_STEPS + 5] = {-7, 3};
    (void)state;
    mr_hist_add(&h, 0.2);
    mr_hist_add(&h, 40);
    mr_hist_add(&h, 1e30);
    mr_hist_read(&back, mr_hist_list(&h));
    assert_memory_equal(&h, &back, sizeof(h));
    mr_hist_read(&back, (mr_i64s){bad, MR_HIST_STEPS + 5});
    assert_int_equal(mr_hist_count(&back), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_view, close_view)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(ready_workers_of_a_color_are_summed_up),
        TEST(a_silent_worker_is_gone),
        TEST(what_was_written_long_before_the_view_began_does_not_count_as_alive),
        TEST(a_worker_that_says_goodbye_is_gone_at_once),
        TEST(counts_begin_with_the_view_and_survive_a_restart),
        TEST(the_rate_is_that_of_the_last_half_minute),
        TEST(nobody_waits_while_a_slot_is_free),
        TEST(the_wait_is_the_line_over_what_the_slots_can_do),
        TEST(the_wait_is_unknown_without_workers_or_experience),
        cmocka_unit_test(quantiles_are_within_a_fifth),
        cmocka_unit_test(a_histogram_survives_its_trip_and_hostile_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
