/* The normal form of text: what counts as the same wording. */
#include "text/text_norm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

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
        cmocka_unit_test(traditional_chinese_is_simplified_chinese),
        cmocka_unit_test(what_cannot_be_seen_is_not_there),
        cmocka_unit_test(words_form_keeps_letters_and_digits_only),
        cmocka_unit_test(malformed_text_and_text_that_grows_too_long_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
