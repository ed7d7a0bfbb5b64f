/* The normal form of text: what counts as the same wording. */
#include "text/text_norm.h"
#include "text/text_stem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef int form(mr_str text, mr_buf *out, mr_error *err);

static void assert_becomes(form *to_form, const char *text, const char *expected) {
    mr_buf out;
    mr_error err;
    mr_buf_init(&out, 1000);
    if (to_form(mr_str_of(text), &out, &err) != 0) fail_msg("%s", err.msg);
    assert_string_equal(out.p ? out.p : "", expected);
    mr_buf_done(&out);
}

static void case_and_width_do_not_matter(void **state) {
    (void)state;
    assert_becomes(mr_text_fold, "Ｒｅｓｅｔ　ＭＹ Straße", "reset my strasse");
    assert_becomes(mr_text_fold, "ｶﾞｯﾂ ﬁle ①", "ガッツ file 1");
}

/* Behind it stands a character that takes the whole text the long way. */
static void assert_same_as_within_other_text(form *to_form, const char *text) {
    char longer[40], expected[40] = "";
    mr_buf out;
    mr_error err;
    mr_buf_init(&out, 1000);
    snprintf(longer, sizeof(longer), "%sx é", text);
    assert_int_equal(to_form(mr_str_of(longer), &out, &err), 0);
    memcpy(expected, out.p, out.n - strlen(" é"));
    mr_buf_done(&out);
    snprintf(longer, sizeof(longer), "%sx", text);
    assert_becomes(to_form, longer, expected);
}

static void ascii_alone_becomes_what_it_becomes_within_other_text(void **state) {
    (void)state;
    for (int c = 1; c < 128; c++) {
        char text[] = {'A', (char)c, 'b', (char)c, '\0'};
        assert_same_as_within_other_text(mr_text_fold, text);
        assert_same_as_within_other_text(mr_text_words, text);
    }
}

static void traditional_chinese_is_simplified_chinese(void **state) {
    (void)state;
    assert_becomes(mr_text_fold, "如何重設密碼？", "如何重设密码?");
    assert_becomes(mr_text_fold, "漢語國際", "汉语国际");
    assert_becomes(mr_text_words, "請問，退貨運費誰付？", "请问 退货运费谁付");
    assert_becomes(mr_text_words, "退货", "退货");
}

static void what_cannot_be_seen_is_not_there(void **state) {
    (void)state;
    assert_becomes(mr_text_fold, "pass\xE2\x80\x8Bword \xEF\xBB\xBFnew\xC2\xADline", "password newline");
}

static void words_form_keeps_letters_and_digits_only(void **state) {
    (void)state;
    assert_becomes(mr_text_words, "  What's  the -- price (in $)? ", "whats the price in");
    assert_becomes(mr_text_words, "C++", "c");
    assert_becomes(mr_text_words, "?!…", "");
    assert_becomes(mr_text_words, "", "");
}

static void assert_stem(const char *word, const char *expected) {
    char out[MR_TEXT_STEM_MAX];
    mr_str stem = mr_text_stem(mr_str_of(word), out);
    if (!mr_str_eqz(stem, expected)) fail_msg("%s: %.*s", word, MR_FMT(stem));
}

static void forms_of_a_word_have_one_stem(void **state) {
    (void)state;
    static const char *const forms[][4] = {
        {"reset", "resets", "resetting", "reset"},    {"cancel", "cancels", "cancelling", "canceling"},
        {"order", "orders", "ordered", "ordering"},   {"city", "cities", "city", "city"},
        {"change", "changes", "changed", "changing"}, {"address", "addresses", "addressed", "address"},
        {"pass", "passes", "passed", "passing"},      {"quick", "quickly", "quick", "quick"}};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        char out[MR_TEXT_STEM_MAX], z[MR_TEXT_STEM_MAX + 1] = "";
        mr_str stem = mr_text_stem(mr_str_of(forms[i][0]), out);
        memcpy(z, stem.p, stem.n);
        for (int k = 1; k < 4; k++) assert_stem(forms[i][k], z);
    }
}

static void what_only_looks_like_a_form_stays(void **state) {
    (void)state;
    static const char *const words[] = {"bus", "this", "status", "red",    "sing", "thing",
                                        "fly", "a",    "x2s",    "müssen", "密码"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) assert_stem(words[i], words[i]);
    assert_stem("abcdefghijklmnopqrstuvwxyzabcdefghs", "abcdefghijklmnopqrstuvwxyzabcdefghs");
}

static void malformed_text_and_text_that_grows_too_long_fail(void **state) {
    (void)state;
    mr_buf out;
    mr_error err;
    mr_buf_init(&out, 20);
    assert_int_equal(mr_text_words(MR_STR("\xFF\xFE"), &out, &err), -1);
    assert_int_equal(err.code, MR_EINVAL);
    assert_int_equal(mr_text_fold(MR_STR("\xEF\xB7\xBA"), &out, &err),
                     -1); /* one character becomes eighteen */
    assert_int_equal(err.code, MR_ETOOBIG);
    mr_buf_done(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_and_width_do_not_matter),
        cmocka_unit_test(ascii_alone_becomes_what_it_becomes_within_other_text),
        cmocka_unit_test(traditional_chinese_is_simplified_chinese),
        cmocka_unit_test(what_cannot_be_seen_is_not_there),
        cmocka_unit_test(words_form_keeps_letters_and_digits_only),
        cmocka_unit_test(forms_of_a_word_have_one_stem),
        cmocka_unit_test(what_only_looks_like_a_form_stays),
        cmocka_unit_test(malformed_text_and_text_that_grows_too_long_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
