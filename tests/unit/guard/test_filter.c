/* Texts that are filtered while they are written. */
#include "guard/filter.h"

#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static mr_words *words;

static int compile(void **state) {
    static const struct {
        const char *word;
        mr_guard_action action;
    } list[] = {
        {"badword", MR_GUARD_BLOCK},        {"法轮功", MR_GUARD_REPLACE}, {"kill yourself", MR_GUARD_REPLACE},
        {"yourself now", MR_GUARD_REPLACE}, {"odd", MR_GUARD_FLAG},       {"反法轮功", MR_GUARD_ALLOW}};
    mr_error err;
    (void)state;
    words = mr_words_new(&err);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        assert_int_equal(
            mr_words_add(words, mr_str_of(list[i].word), list[i].word, "words", list[i].action, &err), 0);
    assert_int_equal(mr_words_compile(words, &err), 0);
    return 0;
}

static int release(void **state) {
    (void)state;
    mr_words_release(words);
    return 0;
}

static void count(void *arg, const mr_guard_rule *rule, mr_guard_action done, mr_str text) {
    (void)rule, (void)done;
    assert_true(text.n > 0);
    ++*(int *)arg;
}

typedef struct outcome {
    char text[4000];
    bool stopped;
    int found;
    size_t held_back; /* at most */
} outcome;

/* Fed in pieces of so many characters. */
static outcome filter(const char *text, int piece, bool stop, size_t skip) {
    outcome o = {0};
    mr_error err;
    mr_buf out;
    mr_str rest = mr_str_of(text);
    mr_filter *f = mr_filter_new(words, stop, skip, count, &o.found, &err);
    assert_non_null(f);
    mr_buf_init(&out, sizeof o.text - 1);
    while (rest.n > 0) {
        size_t n = 0;
        for (int i = 0; i < piece && n < rest.n; i++) n += mr_str_utf8_char((mr_str){rest.p + n, rest.n - n});
        assert_int_equal(mr_filter_feed(f, (mr_str){rest.p, n}, false, &out, &err), 0);
        rest = (mr_str){rest.p + n, rest.n - n};
        size_t held = (size_t)(rest.p - text) - mr_filter_passed(f);
        if (held > o.held_back && !mr_filter_stopped(f)) o.held_back = held;
    }
    assert_int_equal(mr_filter_feed(f, MR_STR(""), true, &out, &err), 0);
    assert_false(out.failed);
    memcpy(o.text, out.p ? out.p : "", out.n);
    o.stopped = mr_filter_stopped(f);
    mr_buf_done(&out);
    mr_filter_free(f);
    return o;
}

static void expect(const char *text, const char *want, bool stopped, int found) {
    for (int piece = 1; piece < 40; piece++) {
        outcome o = filter(text, piece, true, 0);
        assert_string_equal(o.text, want);
        assert_int_equal(o.stopped, stopped);
        assert_int_equal(o.found, found);
    }
}

static void what_goes_out_does_not_depend_on_how_the_text_is_cut(void **state) {
    (void)state;
    expect("", "", false, 0);
    expect("Nothing is here.", "Nothing is here.", false, 0);
    expect("说法轮功和法 輪 功。", "说***和***。", false, 2);
    expect("他们反法轮功，法轮功", "他们反法轮功，***", false, 1);
    expect("You, b.a.d.w.o.r.d! 法轮功", "You, ", true, 1);
    expect("法轮功 badword", "*** ", true, 2);
    expect("an odd bad word", "an odd bad word", false, 1);
    expect("BADWORD", "", true, 1);
}

static void no_disguise_gets_through_and_ordinary_text_does(void **state) {
    static const char *const dressed[] = {
        "ＢａＤwoＲd", "bad\xE2\x80\x8Bword", "b a d w o r d", "b-a-d-w-o-r-d", "b\na\nd\nw\no\nr\nd",
        "bädwörd",     "bad\xC2\xADword",     "ⓑⓐⓓⓦⓞⓡⓓ",       "ba-dwo.rd",     "b*a*d*w*o*r*d"};
    static const char *const ordinary[] = {"Badminton was bad that day; word came that the odder of the two "
                                           "would kill time by himself. Forwarding a "
                                           "bad cheque is no good: your password, not your self, is what "
                                           "they are after. A word, bad or good, counts.",
                                           "法国的轮船功能很多，讲法律的轮流用功。各位请按时到会，带上次的材"
                                           "料；忘记密码时请打开设置，按提示操作。"};
    (void)state;
    for (size_t i = 0; i < sizeof dressed / sizeof dressed[0]; i++) {
        for (int piece = 1; piece < 20; piece++) {
            outcome o = filter(dressed[i], piece, true, 0);
            if (!o.stopped || o.text[0]) fail_msg("'%s' got through in pieces of %d", dressed[i], piece);
        }
    }
    for (int i = 0; i < 2; i++) expect(ordinary[i], ordinary[i], false, 0);
}

static void of_words_that_overlap_the_first_ones_substitute_stands_for_all(void **state) {
    (void)state;
    expect("Oh, kill yourself now please.", "Oh, *** please.", false, 2);
}

static void a_word_that_blocks_is_replaced_where_the_text_shall_go_on(void **state) {
    (void)state;
    outcome o = filter("a badword, and more", 3, false, 0);
    assert_string_equal(o.text, "a ***, and more");
    assert_false(o.stopped);
}

static void a_part_that_is_known_already_is_left_out(void **state) {
    static const char text[] = "说法轮功 and more";
    (void)state;
    assert_string_equal(filter(text, 2, true, 3).text, "*** and more");
    assert_string_equal(filter(text, 2, true, 6).text, "*** and more"); /* from within the word: the same */
    assert_string_equal(filter(text, 2, true, 12).text, " and more");
    assert_string_equal(filter(text, 2, true, 1).text,
                        "*** and more"); /* from within a character: whole ones */
    assert_string_equal(filter(text, 2, true, 1000).text, "");
    assert_int_equal(filter(text, 2, true, 12).found, 0);
}

static void no_more_is_held_back_than_could_become_a_word(void **state) {
    (void)state;
    assert_true(
        filter("The quick brown fox jumps over the lazy dog again and again.", 1, true, 0).held_back <= 20);
    /* nothing goes on over a long gap */
    assert_true(
        filter("word --------------------------------------------------------", 1, true, 0).held_back <= 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_out_does_not_depend_on_how_the_text_is_cut),
        cmocka_unit_test(no_disguise_gets_through_and_ordinary_text_does),
        cmocka_unit_test(of_words_that_overlap_the_first_ones_substitute_stands_for_all),
        cmocka_unit_test(a_word_that_blocks_is_replaced_where_the_text_shall_go_on),
        cmocka_unit_test(a_part_that_is_known_already_is_left_out),
        cmocka_unit_test(no_more_is_held_back_than_could_become_a_word),
    };
    return cmocka_run_group_tests_name("guard_filter", tests, compile, release);
}
