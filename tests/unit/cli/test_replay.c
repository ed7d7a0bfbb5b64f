/* Replay without Kafka: the ends of the range, and the comparison of two answers. */
#include "ops/cli/replay_heard.h"
#include "ops/cli/replay_range.h"
#include "schemas/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1790000000000)

static void range(const char *text, int kind, int64_t value) {
    mr_replay_end end;
    mr_error err;
    assert_int_equal(mr_replay_end_read(text, NOW, &end, &err), 0);
    assert_int_equal(end.kind, kind);
    assert_int_equal(end.value, value);
}

static void a_range_ends_at_an_offset_or_at_a_time(void **state) {
    (void)state;
    range("", MR_END_OPEN, 0);
    range("0", MR_END_OFFSET, 0);
    range("4711", MR_END_OFFSET, 4711);
    range("-90s", MR_END_TIME, NOW - 90000);
    range("-2h", MR_END_TIME, NOW - 7200000);
    range("-1d", MR_END_TIME, NOW - 86400000);
    range("1970-01-02", MR_END_TIME, 86400000);
    range("2026-09-21T14:13:20Z", MR_END_TIME, NOW);
    range("2026-09-21T14:13Z", MR_END_TIME, NOW - 20000);
}

static void what_is_neither_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"yesterday",   "-5",
                                        "-h",          "-5x",
                                        "-5mm",        "12:00",
                                        "2026-13-01",  "-",
                                        "1.5",         "99999999999999999999",
                                        "-999999999s", "2026-09-21T14:13:20"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        mr_replay_end end;
        mr_error err;
        assert_int_equal(mr_replay_end_read(wrong[i], NOW, &end, &err), -1);
    }
}

/* ---- comparing ---- */

typedef struct fixture {
    mr_heard recorded, again;
    char what[300];
} fixture;

static int setup(void **state) {
    static fixture f;
    mr_chat_request q = {0};
    mr_heard_init(&f.recorded, &q);
    mr_heard_init(&f.again, &q);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_heard_done(&f->recorded);
    mr_heard_done(&f->again);
    return 0;
}

static void hash_of(const char *text, size_t n, char hash[MR_TEXT_HASH_LEN + 1]) {
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), (mr_str){text, n}), hash);
}

/* Two deltas; with tokens, every byte is one. */
static void hear(mr_heard *h, const char *text, bool tokens) {
    size_t n = strlen(text), cuts[] = {0, n / 2, n};
    int64_t ids[200];
    char hash[MR_TEXT_HASH_LEN + 1];
    for (size_t i = 0; i < n; i++) ids[i] = (unsigned char)text[i];
    for (int i = 0; i < 2; i++) {
        mr_response_delta d = {0};
        hash_of(text, cuts[i + 1], hash);
        MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, (int64_t)cuts[i]);
        MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, (int64_t)(cuts[i + 1] - cuts[i]));
        MR_SET(&d, MR_RESPONSE_DELTA_OFFSET, offset, (int64_t)cuts[i]);
        MR_SET(&d, MR_RESPONSE_DELTA_TEXT, text, ((mr_str){text + cuts[i], cuts[i + 1] - cuts[i]}));
        MR_SET(&d, MR_RESPONSE_DELTA_HASH, hash, mr_str_of(hash));
        if (tokens) {
            d.token_ids.v = ids + cuts[i];
            d.token_ids.n = (uint32_t)(cuts[i + 1] - cuts[i]);
            MR_MARK(&d, MR_RESPONSE_DELTA_TOKEN_IDS);
        }
        mr_heard_delta(h, &d);
    }
}

static void end(mr_heard *h, const char *text, int finish) {
    mr_response_end e = {0};
    char hash[MR_TEXT_HASH_LEN + 1];
    hash_of(text, strlen(text), hash);
    MR_SET(&e, MR_RESPONSE_END_OFFSET, offset, (int64_t)strlen(text));
    MR_SET(&e, MR_RESPONSE_END_HASH, hash, mr_str_of(hash));
    MR_SET(&e, MR_RESPONSE_END_FINISH_REASON, finish_reason, finish);
    if (finish == MR_FINISH_ERROR)
        MR_SET(&e.error, MR_RESPONSE_ERROR_MESSAGE, message, MR_STR("The engine died."));
    mr_heard_end(h, &e);
}

static void compare(fixture *f, mr_heard_verdict want, const char *what) {
    assert_int_equal(mr_heard_compare(&f->recorded, &f->again, f->what, sizeof(f->what)), want);
    if (!strstr(f->what, what)) fail_msg("'%s' is not in '%s'", what, f->what);
}

static void the_same_answer_is_the_same(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mill", true);
    hear(&f->recorded, "the mill", true); /* by a second attempt */
    end(&f->recorded, "the mill", MR_FINISH_STOP);
    hear(&f->again, "the mill", true);
    end(&f->again, "the mill", MR_FINISH_STOP);
    compare(f, MR_HEARD_SAME, "");
}

static void the_first_token_that_differs_is_named(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mill", true);
    end(&f->recorded, "the mill", MR_FINISH_STOP);
    hear(&f->again, "the moor", true);
    end(&f->again, "the moor", MR_FINISH_STOP);
    compare(f, MR_HEARD_DIFFERS, "token 5: recorded 105, now 111; byte 5: \"ill\", now \"oor\"");
}

static void without_token_ids_the_text_is_compared(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mill", false);
    end(&f->recorded, "the mill", MR_FINISH_STOP);
    hear(&f->again, "the moor", true);
    end(&f->again, "the moor", MR_FINISH_STOP);
    compare(f, MR_HEARD_DIFFERS, "byte 5: recorded \"ill\", now \"oor\"");
}

static void a_longer_answer_and_another_end_are_differences(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mill", true);
    end(&f->recorded, "the mill", MR_FINISH_STOP);
    hear(&f->again, "the mill turns", true);
    end(&f->again, "the mill turns", MR_FINISH_STOP);
    compare(f, MR_HEARD_DIFFERS, "byte 8: recorded \"\", now \" turns\"");
}

static void the_same_text_that_ends_otherwise_differs(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mill", true);
    end(&f->recorded, "the mill", MR_FINISH_LENGTH);
    hear(&f->again, "the mill", true);
    end(&f->again, "the mill", MR_FINISH_STOP);
    compare(f, MR_HEARD_DIFFERS, "ended by length, and now by stop");
}

static void a_cancelled_answer_is_compared_as_far_as_it_goes(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mi", true);
    end(&f->recorded, "the mi", MR_FINISH_CANCELLED);
    hear(&f->again, "the mill", true);
    end(&f->again, "the mill", MR_FINISH_STOP);
    compare(f, MR_HEARD_SAME, "cut short");
}

static void an_answer_that_is_not_there_cannot_be_compared(void **state) {
    fixture *f = *state;
    hear(&f->again, "the mill", true);
    end(&f->again, "the mill", MR_FINISH_STOP);
    compare(f, MR_HEARD_INCOMPARABLE, "no recorded answer");
}

static void an_answer_that_fails_now_cannot_be_compared(void **state) {
    fixture *f = *state;
    hear(&f->recorded, "the mill", true);
    end(&f->recorded, "the mill", MR_FINISH_STOP);
    hear(&f->again, "the", true);
    end(&f->again, "the", MR_FINISH_ERROR);
    compare(f, MR_HEARD_INCOMPARABLE, "not made again: The engine died.");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_ends_at_an_offset_or_at_a_time),
        cmocka_unit_test(what_is_neither_is_refused),
        TEST(the_same_answer_is_the_same),
        TEST(the_first_token_that_differs_is_named),
        TEST(without_token_ids_the_text_is_compared),
        TEST(a_longer_answer_and_another_end_are_differences),
        TEST(the_same_text_that_ends_otherwise_differs),
        TEST(a_cancelled_answer_is_compared_as_far_as_it_goes),
        TEST(an_answer_that_is_not_there_cannot_be_compared),
        TEST(an_answer_that_fails_now_cannot_be_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
