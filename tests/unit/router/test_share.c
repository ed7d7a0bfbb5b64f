/* The running share of chats for the model, and when it is told of. */
#include "router/share.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void add(mr_share *s, int n, int of_ten) {
    for (int i = 0; i < n; i++) mr_share_add(s, i % 10 < of_ten);
}

static void the_share_is_that_of_the_last_chats(void **state) {
    (void)state;
    static mr_share s;
    assert_true(isnan(mr_share_value(&s)));
    add(&s, 3000, 8);
    assert_true(mr_share_value(&s) == 0.8);
    add(&s, MR_SHARE_WINDOW / 2, 2);
    assert_true(mr_share_value(&s) == 0.5);
    add(&s, MR_SHARE_WINDOW / 2, 2);
    assert_true(mr_share_value(&s) == 0.2);
}

static void a_few_chats_say_nothing(void **state) {
    (void)state;
    static mr_share s;
    add(&s, MR_SHARE_ENOUGH - 1, 10);
    assert_false(mr_share_crossed(&s, 0.15, 0.2));
    add(&s, 1, 10);
    assert_true(mr_share_crossed(&s, 0.15, 0.2));
    assert_true(s.outside);
}

static void leaving_the_band_and_coming_back_is_told_once(void **state) {
    (void)state;
    static mr_share s;
    int told = 0;
    for (int i = 0; i < 100; i++) {
        add(&s, 100, 4);
        told += mr_share_crossed(&s, 0.15, 0.25);
    }
    assert_int_equal(told, 1);
    for (int i = 0; i < 100; i++) {
        add(&s, 100, 2);
        told += mr_share_crossed(&s, 0.15, 0.25);
    }
    assert_int_equal(told, 2);
    assert_false(s.outside);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_share_is_that_of_the_last_chats),
        cmocka_unit_test(a_few_chats_say_nothing),
        cmocka_unit_test(leaving_the_band_and_coming_back_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
