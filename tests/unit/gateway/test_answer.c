/* An answer is passed on once, whole, and never spliced from two texts. */
#include "gateway/answer.h"
#include "schemas/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char text[] = "The quick brown fox jumps.";

/* A delta text[begin, end) as a worker would send it, from a text that begins with `from`. */
static mr_answer_verdict give(mr_answer *a, const char *from, size_t begin, size_t end, mr_str *fresh) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), (mr_str){from, end}), hash);
    return mr_answer_delta(a, (int64_t)begin, (mr_str){from + begin, end - begin}, mr_str_of(hash), fresh);
}

static mr_answer_verdict end(const mr_answer *a, const char *from, size_t n) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), (mr_str){from, n}), hash);
    return mr_answer_end(a, (int64_t)n, mr_str_of(hash));
}

static void an_answer_in_order_is_passed_on_whole(void **state) {
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    for (size_t i = 0; i < strlen(text); i++) {
        assert_int_equal(give(&a, text, i, i + 1, &fresh), MR_ANSWER_NEW);
        assert_true(mr_str_eq(fresh, (mr_str){text + i, 1}));
    }
    assert_int_equal(end(&a, text, strlen(text)), MR_ANSWER_NEW);
}

static void what_came_before_is_dropped(void **state) {
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    assert_int_equal(give(&a, text, 0, 9, &fresh), MR_ANSWER_NEW);
    assert_int_equal(give(&a, text, 0, 9, &fresh), MR_ANSWER_DUPLICATE);
    assert_int_equal(give(&a, text, 0, 4, &fresh), MR_ANSWER_DUPLICATE);
    assert_int_equal(give(&a, text, 4, 9, &fresh), MR_ANSWER_DUPLICATE);
    assert_int_equal(a.bytes, 9);
    assert_int_equal(a.duplicate_bytes, 9 + 4 + 5);
}

static void of_a_delta_that_overlaps_the_rest_is_taken(void **state) {
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    assert_int_equal(give(&a, text, 0, 9, &fresh), MR_ANSWER_NEW);
    assert_int_equal(give(&a, text, 4, 15, &fresh), MR_ANSWER_NEW);
    assert_true(mr_str_eqz(fresh, " brown"));
    assert_int_equal(a.duplicate_bytes, 5);
    assert_int_equal(give(&a, text, 15, strlen(text), &fresh), MR_ANSWER_NEW);
    assert_int_equal(end(&a, text, strlen(text)), MR_ANSWER_NEW);
}

static void a_missing_part_is_a_gap(void **state) {
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    assert_int_equal(give(&a, text, 0, 9, &fresh), MR_ANSWER_NEW);
    assert_int_equal(give(&a, text, 10, 15, &fresh), MR_ANSWER_GAP);
    assert_int_equal(fresh.n, 0);
    assert_int_equal(end(&a, text, 15), MR_ANSWER_GAP);
    assert_int_equal(mr_answer_delta(&a, -1, MR_STR("x"), MR_STR("0000000000000000"), &fresh), MR_ANSWER_GAP);
}

static void another_text_is_never_spliced(void **state) {
    static const char other[] = "The quiet brown fox jumps.";
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    assert_int_equal(give(&a, text, 0, 9, &fresh), MR_ANSWER_NEW);
    assert_int_equal(give(&a, other, 0, 9, &fresh), MR_ANSWER_MISMATCH);
    assert_int_equal(give(&a, other, 0, 4, &fresh), MR_ANSWER_DUPLICATE); /* the same so far */
    assert_int_equal(give(&a, other, 4, 15, &fresh), MR_ANSWER_MISMATCH);
    assert_int_equal(give(&a, other, 9, 15, &fresh), MR_ANSWER_MISMATCH);
    assert_int_equal(fresh.n, 0);
    assert_int_equal(a.bytes, 9);
}

static void an_end_that_does_not_fit_is_a_mismatch(void **state) {
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    assert_int_equal(give(&a, text, 0, 9, &fresh), MR_ANSWER_NEW);
    assert_int_equal(end(&a, text, 4), MR_ANSWER_MISMATCH);        /* shorter than what was passed on */
    assert_int_equal(end(&a, "The quiet", 9), MR_ANSWER_MISMATCH); /* as long, but another text */
    assert_int_equal(mr_answer_end(&a, 9, MR_STR("not a hash")), MR_ANSWER_MISMATCH);
}

static void an_empty_answer_has_an_end(void **state) {
    (void)state;
    mr_answer a;
    mr_str fresh;
    mr_answer_init(&a);
    assert_int_equal(give(&a, text, 0, 0, &fresh), MR_ANSWER_NEW);
    assert_int_equal(end(&a, text, 0), MR_ANSWER_NEW);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_in_order_is_passed_on_whole),
        cmocka_unit_test(what_came_before_is_dropped),
        cmocka_unit_test(of_a_delta_that_overlaps_the_rest_is_taken),
        cmocka_unit_test(a_missing_part_is_a_gap),
        cmocka_unit_test(another_text_is_never_spliced),
        cmocka_unit_test(an_end_that_does_not_fit_is_a_mismatch),
        cmocka_unit_test(an_empty_answer_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
