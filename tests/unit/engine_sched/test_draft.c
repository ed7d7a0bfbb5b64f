/* Guesses by prompt lookup: what they are, and when they are given up. */
#include "engine/sched/draft.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <string.h>

/* Letters as tokens. Returns what is guessed after them, as text. */
static const char *guess_after(drafter *d, const char *text, int room) {
    static char guess[DRAFT_MAX + 1];
    int32_t tokens[256];
    int n = (int)strlen(text);
    for (int i = 0; i < n; i++) tokens[i] = text[i];
    int k = drafter_guess(d, tokens, n, room);
    for (int i = 0; i < k; i++) guess[i] = (char)tokens[n + i];
    guess[k] = 0;
    return guess;
}

static void test_what_followed_the_longest_earlier_match_is_guessed(void **state) {
    (void)state;
    drafter d;
    drafter_start(&d);
    assert_string_equal(guess_after(&d, "the cat sat. the c", 7), "at ");
    assert_string_equal(guess_after(&d, "in abcd, not xbcf; abc", 7), "d, "); /* not the later, shorter one */
    assert_string_equal(guess_after(&d, "abx aby ab", 7), "y a");             /* of equals the later one */
    assert_string_equal(guess_after(&d, "hahaha", 7), "hah");                 /* it runs into itself */
    assert_string_equal(guess_after(&d, "the cat sat. the c", 2), "at");
}

static void test_without_a_match_of_two_there_is_no_guess(void **state) {
    (void)state;
    drafter d;
    drafter_start(&d);
    assert_string_equal(guess_after(&d, "abcdefgh a", 7), "");
    assert_string_equal(guess_after(&d, "a", 7), "");
    assert_string_equal(guess_after(&d, "", 7), "");
    assert_string_equal(guess_after(&d, "hahaha", 0), "");
}

static void test_guesses_grow_with_success_and_shrink_with_failure(void **state) {
    (void)state;
    const char *text = "abcdefghijklm abcdefghijklm ab";
    drafter d;
    drafter_start(&d);
    drafter_learn(&d, 3, 3);
    assert_string_equal(guess_after(&d, text, 99), "cdefgh");
    drafter_learn(&d, 6, 6);
    assert_string_equal(guess_after(&d, text, 99), "cdefghi");
    drafter_learn(&d, 7, 3);
    assert_string_equal(guess_after(&d, text, 99), "cdef");
    drafter_learn(&d, 4, 0);
    assert_string_equal(guess_after(&d, text, 99), "cd");
}

static void test_repeated_failure_rests_longer_and_longer_until_a_success(void **state) {
    (void)state;
    drafter d;
    drafter_start(&d);
    int rest = 0, before = 0;
    for (int round = 0; round < 10; round++) {
        drafter_learn(&d, 2, 0);
        assert_string_equal(guess_after(&d, "hahaha", 7), "ha");
        drafter_learn(&d, 2, 0);
        for (rest = 0; !*guess_after(&d, "hahaha", 7); rest++) assert_true(rest < 1000);
        assert_true(rest > before || rest == 256);
        before = rest;
    }
    drafter_learn(&d, 2, 1);
    drafter_learn(&d, 2, 0);
    drafter_learn(&d, 2, 0);
    for (rest = 0; !*guess_after(&d, "hahaha", 7); rest++) assert_true(rest < 1000);
    assert_int_equal(rest, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed_the_longest_earlier_match_is_guessed),
        cmocka_unit_test(test_without_a_match_of_two_there_is_no_guess),
        cmocka_unit_test(test_guesses_grow_with_success_and_shrink_with_failure),
        cmocka_unit_test(test_repeated_failure_rests_longer_and_longer_until_a_success),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
