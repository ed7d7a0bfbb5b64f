/* Which tokens stand for what was sent of an answer. */
#include "gateway/prefix.h"

#include "schemas/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    mr_answer answer;
    mr_prefix sent;
} fixture;

static int setup(void **state) {
    static fixture f;
    mr_answer_init(&f.answer);
    mr_prefix_init(&f.sent);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    mr_prefix_done(&((fixture *)*state)->sent);
    return 0;
}

/* A delta of `whole` from byte `from` to `to`, made of the n tokens `ids`, the first of them number `index`. */
static void pass(fixture *f, const char *whole, size_t from, size_t to, int64_t index, int64_t *ids,
                 uint32_t n) {
    mr_response_delta d = {0};
    mr_str fresh;
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), (mr_str){whole, to}), hash);
    MR_SET(&d, MR_RESPONSE_DELTA_OFFSET, offset, (int64_t)from);
    MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, index);
    MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, n);
    MR_SET(&d, MR_RESPONSE_DELTA_TEXT, text, ((mr_str){whole + from, to - from}));
    if (ids) {
        d.token_ids.v = ids;
        d.token_ids.n = n;
        MR_MARK(&d, MR_RESPONSE_DELTA_TOKEN_IDS);
    }
    if (mr_answer_delta(&f->answer, d.offset, d.text, mr_str_of(hash), &fresh) == MR_ANSWER_NEW) {
        mr_prefix_add(&f->sent, &d, &f->answer);
    }
}

static void expect(const fixture *f, const char *text, const int64_t *ids, uint32_t n) {
    assert_int_equal(f->sent.bytes, strlen(text));
    assert_true(f->sent.hash == mr_text_hash_feed(mr_text_hash_init(), mr_str_of(text)));
    assert_int_equal(f->sent.n, n);
    if (n) assert_memory_equal(f->sent.ids, ids, n * sizeof(*ids));
}

static void tokens_follow_each_other_as_their_text_does(void **state) {
    fixture *f = *state;
    pass(f, "abcdef", 0, 2, 0, (int64_t[]){1}, 1);
    pass(f, "abcdef", 2, 6, 1, (int64_t[]){2, 3}, 2);
    expect(f, "abcdef", (int64_t[]){1, 2, 3}, 3);
}

static void what_another_attempt_repeats_counts_once(void **state) {
    fixture *f = *state;
    pass(f, "abcdef", 0, 4, 0, (int64_t[]){1, 2}, 2);
    pass(f, "abcdef", 0, 2, 0, (int64_t[]){1}, 1);
    pass(f, "abcdef", 2, 6, 1, (int64_t[]){2, 3}, 2);
    expect(f, "abcdef", (int64_t[]){1, 2, 3}, 3);
}

static void a_token_without_text_counts_once_wherever_an_attempt_cuts(void **state) {
    fixture *f = *state;
    pass(f, "abcdef", 0, 4, 0, (int64_t[]){1, 2, 3}, 3); /* 3 has no text of its own */
    pass(f, "abcdef", 0, 4, 0, (int64_t[]){1, 2}, 2);
    pass(f, "abcdef", 4, 6, 2, (int64_t[]){3, 4}, 2);
    expect(f, "abcdef", (int64_t[]){1, 2, 3, 4}, 4);
}

static void the_same_text_of_other_tokens_goes_on_at_its_end(void **state) {
    fixture *f = *state;
    pass(f, "abcdef", 0, 4, 0, (int64_t[]){1, 2}, 2);
    pass(f, "abcdef", 4, 6, 3, (int64_t[]){9}, 1);
    expect(f, "abcdef", (int64_t[]){1, 2, 9}, 3);
}

static void tokens_that_do_not_line_up_are_not_guessed(void **state) {
    fixture *f = *state;
    pass(f, "abcdefgh", 0, 4, 0, (int64_t[]){1, 2}, 2);
    pass(f, "abcdefgh", 3, 6, 5, (int64_t[]){7, 8}, 2);
    pass(f, "abcdefgh", 6, 8, 7, (int64_t[]){9}, 1);
    expect(f, "abcd", (int64_t[]){1, 2}, 2);
}

static void text_that_was_held_back_until_the_end_is_not_covered(void **state) {
    fixture *f = *state;
    pass(f, "abcdef", 0, 4, 0, (int64_t[]){1, 2}, 2);
    pass(f, "abcdef", 4, 6, 2, (int64_t[]){0}, 0);
    expect(f, "abcd", (int64_t[]){1, 2}, 2);
}

static void deltas_without_token_ids_are_not_covered(void **state) {
    fixture *f = *state;
    pass(f, "abcdef", 0, 2, 0, (int64_t[]){1}, 1);
    pass(f, "abcdef", 2, 4, 1, NULL, 1);
    pass(f, "abcdef", 4, 6, 2, (int64_t[]){3}, 1);
    expect(f, "ab", (int64_t[]){1}, 1);
}

static void an_answer_longer_than_a_request_may_carry_is_covered_up_to_there(void **state) {
    fixture *f = *state;
    static int64_t ids[60000];
    static char text[5 * 60000];
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < 5; i++) pass(f, text, i * 60000, (i + 1) * 60000, (int64_t)i * 60000, ids, 60000);
    assert_int_equal(f->sent.n, 240000);
    assert_int_equal(f->sent.bytes, 240000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(tokens_follow_each_other_as_their_text_does),
        TEST(what_another_attempt_repeats_counts_once),
        TEST(a_token_without_text_counts_once_wherever_an_attempt_cuts),
        TEST(the_same_text_of_other_tokens_goes_on_at_its_end),
        TEST(tokens_that_do_not_line_up_are_not_guessed),
        TEST(text_that_was_held_back_until_the_end_is_not_covered),
        TEST(deltas_without_token_ids_are_not_covered),
        TEST(an_answer_longer_than_a_request_may_carry_is_covered_up_to_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
