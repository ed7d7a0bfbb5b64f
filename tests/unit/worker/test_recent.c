/* The bounded memory: remembers the last ones, forgets the oldest, never grows. */
#include "worker/recent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static mr_str nth(int i, char out[16]) {
    int n = snprintf(out, 16, "id-%d", i);
    return (mr_str){out, (size_t)n};
}

static void the_last_ones_are_remembered_and_the_oldest_forgotten(void **state) {
    (void)state;
    mr_error err;
    char s[16];
    mr_recent *r = mr_recent_new(10, &err);
    assert_non_null(r);
    for (int i = 0; i < 1000; i++) mr_recent_add(r, nth(i, s));
    for (int i = 0; i < 1000; i++) assert_int_equal(mr_recent_has(r, nth(i, s)), i >= 990);
    mr_recent_free(r);
}

static void the_same_string_again_takes_no_second_place(void **state) {
    (void)state;
    mr_error err;
    char s[16];
    mr_recent *r = mr_recent_new(2, &err);
    mr_recent_add(r, nth(1, s));
    for (int i = 0; i < 5; i++) mr_recent_add(r, nth(2, s));
    assert_true(mr_recent_has(r, nth(1, s)));
    assert_true(mr_recent_has(r, nth(2, s)));
    mr_recent_free(r);
}

static void what_is_longer_than_any_id_is_not_there(void **state) {
    (void)state;
    mr_error err;
    static char huge[10000];
    memset(huge, 'x', sizeof(huge));
    mr_recent *r = mr_recent_new(2, &err);
    assert_false(mr_recent_has(r, (mr_str){huge, sizeof(huge)}));
    mr_recent_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_ones_are_remembered_and_the_oldest_forgotten),
        cmocka_unit_test(the_same_string_again_takes_no_second_place),
        cmocka_unit_test(what_is_longer_than_any_id_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
