/* The loop: a signal drains once, a second one or a drain that takes too long cuts short. */
#include "base/loop.h"
#include "support/support.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

typedef struct fixture {
    mr_loop *loop;
    int drained, ticks;
    bool stop_on_drain;
} fixture;

static void on_drain(void *arg) {
    fixture *f = arg;
    f->drained++;
    if (f->stop_on_drain) mr_loop_stop(f->loop);
}

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->loop = mr_loop_new(&err);
    f->stop_on_drain = true;
    *state = f;
    return f->loop ? 0 : -1;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_loop_free(f->loop);
    free(f);
    return 0;
}

static void sigterm_drains_once_and_the_loop_ends_well(void **state) {
    fixture *f = *state;
    mr_loop_on_drain(f->loop, 5000, on_drain, f);
    raise(SIGTERM);
    assert_int_equal(mr_loop_run(f->loop), 0);
    assert_int_equal(f->drained, 1);
    assert_true(mr_loop_draining(f->loop));
}

static void a_drain_asked_for_twice_happens_once(void **state) {
    fixture *f = *state;
    mr_loop_on_drain(f->loop, 5000, on_drain, f);
    mr_loop_drain(f->loop);
    mr_loop_drain(f->loop);
    assert_int_equal(f->drained, 0);
    assert_int_equal(mr_loop_run(f->loop), 0);
    assert_int_equal(f->drained, 1);
}

static void second_signal(void *arg) {
    fixture *f = arg;
    if (f->drained) raise(SIGINT);
}

static void a_second_signal_cuts_the_drain_short(void **state) {
    mr_error err;
    fixture *f = *state;
    f->stop_on_drain = false;
    mr_loop_on_drain(f->loop, 60000, on_drain, f);
    mr_timer *t = mr_timer_new(f->loop, 1, second_signal, f, &err);
    raise(SIGTERM);
    assert_int_equal(mr_loop_run(f->loop), 1);
    assert_int_equal(f->drained, 1);
    mr_timer_free(t);
}

static void a_drain_that_takes_too_long_is_cut_short(void **state) {
    fixture *f = *state;
    f->stop_on_drain = false;
    mr_loop_on_drain(f->loop, 20, on_drain, f);
    mr_loop_drain(f->loop);
    assert_int_equal(mr_loop_run(f->loop), 1);
}

static void a_stop_before_the_run_is_not_forgotten(void **state) {
    fixture *f = *state;
    mr_loop_stop(f->loop);
    assert_int_equal(mr_loop_run(f->loop), 0);
}

static void tick(void *arg) {
    ((fixture *)arg)->ticks++;
}
static bool ticked_thrice(void *arg) {
    return ((fixture *)arg)->ticks >= 3;
}

static void a_timer_repeats_until_freed(void **state) {
    mr_error err;
    fixture *f = *state;
    mr_timer *t = mr_timer_new(f->loop, 1, tick, f, &err);
    assert_true(test_wait(f->loop, 5000, ticked_thrice, f));
    mr_timer_free(t);
    int seen = f->ticks;
    test_idle(f->loop, 20);
    assert_int_equal(f->ticks, seen);
}

int main(void) {
    test_log_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sigterm_drains_once_and_the_loop_ends_well, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_asked_for_twice_happens_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_signal_cuts_the_drain_short, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_that_takes_too_long_is_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_before_the_run_is_not_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_repeats_until_freed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
