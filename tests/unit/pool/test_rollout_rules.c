/* Who may drive a rollout, which canary is good enough, and which sessions a step moves. */
#include "ops/rollout/judge.h"
#include "router/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- the register ---- */

static void feed(mr_register *r, int64_t epoch, const char *owner, int state) {
    mr_control c;
    mr_rollout_at at = {.epoch = epoch, .state = state, .to = MR_GREEN, .steps = {100}, .nsteps = 1};
    snprintf(at.owner, sizeof(at.owner), "%s", owner);
    mr_register_control(&at, MR_STR("main"), &c);
    mr_register_feed(r, &c);
}

static void the_first_to_open_an_epoch_owns_it(void **state) {
    mr_register r;
    (void)state;
    mr_register_init(&r, "main");
    assert_false(mr_register_active(&r));
    feed(&r, 1, "a", MR_ROLLOUT_WAITING);
    feed(&r, 1, "b", MR_ROLLOUT_WAITING);
    assert_string_equal(r.at.owner, "a");
    assert_true(r.contested);
    feed(&r, 1, "a", MR_ROLLOUT_SHIFTING);
    assert_int_equal(r.at.state, MR_ROLLOUT_SHIFTING);
    assert_false(r.contested);
}

static void a_higher_epoch_takes_over_and_the_old_owner_is_not_heard(void **state) {
    mr_register r;
    (void)state;
    mr_register_init(&r, "main");
    feed(&r, 1, "a", MR_ROLLOUT_SHIFTING);
    feed(&r, 2, "b", MR_ROLLOUT_RETURNING);
    feed(&r, 1, "a", MR_ROLLOUT_DONE);
    assert_string_equal(r.at.owner, "b");
    assert_int_equal(r.at.state, MR_ROLLOUT_RETURNING);
    assert_int_equal(mr_register_next_epoch(&r), 3);
}

static void other_pools_do_not_count(void **state) {
    mr_register r;
    (void)state;
    mr_register_init(&r, "other");
    feed(&r, 1, "a", MR_ROLLOUT_SHIFTING);
    assert_false(r.known);
}

static void weights_of_an_old_epoch_do_not_count(void **state) {
    mr_register r;
    mr_control c = {.kind = MR_CONTROL_IS_WEIGHTS, .pool = MR_STR("main"), .green = 1, .epoch = 5};
    (void)state;
    mr_register_init(&r, "main");
    mr_register_feed(&r, &c);
    c = (mr_control){.kind = MR_CONTROL_IS_WEIGHTS, .pool = MR_STR("main"), .blue = 1, .epoch = 4};
    mr_register_feed(&r, &c);
    assert_true(mr_register_percent(&r, MR_GREEN) == 100);
    assert_int_equal(mr_register_next_epoch(&r), 6);
}

/* ---- the judge ---- */

static const mr_limits limits = {0.01, 1.5, 0.7, 20};

static mr_totals totals(int64_t ok, int64_t errors, double first_ms, double tokens_s) {
    mr_totals t = {.ok = ok, .errors = errors};
    for (int64_t i = 0; i < ok; i++) {
        mr_hist_add(&t.first_token, first_ms);
        mr_hist_add(&t.speed, MR_HIST_SPEED_UNITS * tokens_s);
    }
    return t;
}

static void assert_judged(mr_totals canary, mr_totals old, const char *reason) {
    char why[501] = "";
    bool good = mr_judge(&canary, &old, &limits, why);
    if (!reason) {
        if (!good) fail_msg("%s", why);
        return;
    }
    assert_false(good);
    if (!strstr(why, reason)) fail_msg("%s", why);
}

static void an_equal_canary_passes(void **state) {
    (void)state;
    assert_judged(totals(100, 0, 300, 40), totals(1000, 0, 300, 40), NULL);
    assert_judged(totals(100, 0, 390, 32), totals(1000, 0, 300, 40), NULL);
}

static void a_failing_canary_does_not(void **state) {
    (void)state;
    assert_judged(totals(97, 3, 300, 40), totals(1000, 0, 300, 40), "3.00 % of its requests failed");
    assert_judged(totals(0, 3, 300, 40), totals(0, 0, 300, 40), "100.00 %"); /* however few they are */
    assert_judged(totals(98, 2, 300, 40), totals(1000, 0, 300, 40), NULL);   /* bad luck */
    assert_judged(totals(97, 3, 300, 40), totals(970, 30, 300, 40), NULL);   /* not its fault */
}

static void a_slow_canary_does_not(void **state) {
    (void)state;
    assert_judged(totals(100, 0, 900, 40), totals(1000, 0, 300, 40), "time to first token");
    assert_judged(totals(100, 0, 300, 20), totals(1000, 0, 300, 40), "tokens/s");
    assert_judged(totals(100, 0, 90, 40), totals(1000, 0, 10, 40), NULL); /* nobody notices 80 ms */
}

static void times_of_too_few_requests_say_nothing(void **state) {
    (void)state;
    assert_judged(totals(19, 0, 9000, 1), totals(1000, 0, 300, 40), NULL);
    assert_judged(totals(100, 0, 9000, 1), totals(19, 0, 300, 40), NULL);
}

/* ---- the steps ---- */

static void a_step_moves_only_the_sessions_that_it_needs(void **state) {
    enum { SESSIONS = 10000 };
    static const int steps[] = {0, 1, 10, 50, 100, 0};
    static bool green[SESSIONS];
    mr_error err;
    mr_arena *arena = mr_arena_new(1 << 16);
    mr_weights *w = mr_weights_new(&err);
    (void)state;
    assert_true(arena && w);
    for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
        char json[200], id[32];
        int moved = 0, expected = k > 0 ? steps[k] - steps[k - 1] : 0;
        snprintf(json, sizeof(json),
                 "{\"v\":1,\"kind\":\"weights\",\"pool\":\"main\",\"blue\":%d,\"green\":%d,\"epoch\":%zu}",
                 100 - steps[k], steps[k], k);
        mr_arena_reset(arena);
        assert_int_equal(mr_weights_update(w, MR_STR("weights/main"), mr_str_of(json), arena, &err), 0);
        for (int i = 0; i < SESSIONS; i++) {
            snprintf(id, sizeof(id), "session-%d", i);
            bool now = strcmp(mr_weights_color(w, MR_STR("main"), mr_str_of(id)), "green") == 0;
            if (now != green[i]) assert_int_equal(now, expected > 0); /* none the other way */
            moved += now != green[i];
            green[i] = now;
        }
        int wanted = (expected > 0 ? expected : -expected) * SESSIONS / 100;
        assert_in_range(moved, wanted * 9 / 10 > 50 ? wanted * 9 / 10 : wanted / 2, wanted * 11 / 10 + 50);
    }
    mr_weights_free(w);
    mr_arena_free(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_to_open_an_epoch_owns_it),
        cmocka_unit_test(a_higher_epoch_takes_over_and_the_old_owner_is_not_heard),
        cmocka_unit_test(other_pools_do_not_count),
        cmocka_unit_test(weights_of_an_old_epoch_do_not_count),
        cmocka_unit_test(an_equal_canary_passes),
        cmocka_unit_test(a_failing_canary_does_not),
        cmocka_unit_test(a_slow_canary_does_not),
        cmocka_unit_test(times_of_too_few_requests_say_nothing),
        cmocka_unit_test(a_step_moves_only_the_sessions_that_it_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
