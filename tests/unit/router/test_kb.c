/* The knowledge base: what is found for which words, import, export, and replacing it under a reader. */
#include "router/kb.h"
#include "router/kb_import.h"
#include "router/kb_text.h"
#include "support/support.h"
#include "text/text_norm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char entries[] = "# a comment\n"
                              "\n"
                              "How do I reset my password?\tBy the link.\n"
                              "How do I change my e-mail address?\tIn the settings.\n"
                              "How do I cancel my order?\tUnder Orders.\n"
                              "What are your opening hours?\tNine to six.\r\n"
                              "如何重置密码？\t点击忘记密码。\n"
                              "你们几点开门？\t九点。\n"
                              "退款\t七天内。\n"
                              "パスワードを忘れました\tリンクから。\n"
                              "C++?\tIt is a language.\n"
                              "Lines?\tone\\ntwo\\tthree\\\\four\n";

typedef struct fixture {
    char folder[64], db[100], tsv[100];
    mr_kb *kb;
} fixture;

static void write_file(const char *path, const char *text, size_t n) {
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, n, out), n);
    fclose(out);
}

static int import_text(fixture *f, const char *text, mr_kb_counts *n, mr_error *err) {
    write_file(f->tsv, text, strlen(text));
    return mr_kb_import(f->db, f->tsv, false, n, err);
}

static int open_fixture(void **state) {
    static fixture f;
    mr_error err;
    mr_kb_counts n;
    test_folder_init(f.folder);
    snprintf(f.db, sizeof(f.db), "%s/kb.db", f.folder);
    snprintf(f.tsv, sizeof(f.tsv), "%s/kb.tsv", f.folder);
    if (import_text(&f, entries, &n, &err) != 0) fail_msg("%s", err.msg);
    f.kb = mr_kb_open(f.db, &err);
    if (!f.kb) fail_msg("%s", err.msg);
    *state = &f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    mr_kb_close(f->kb);
    test_folder_done(f->folder);
    return 0;
}

/* The best hit's score; 0 when nothing is found. Its answer must be the expected one, where that is given. */
static double search(fixture *f, const char *question, const char *answer) {
    mr_error err;
    mr_kb_hit hit = {0};
    int n = mr_kb_search(f->kb, mr_str_of(question), &hit, 1, &err);
    if (n < 0) fail_msg("%s: %s", question, err.msg);
    if (n > 0 && answer && !mr_str_eqz(hit.answer, answer))
        fail_msg("%s: %.*s", question, MR_FMT(hit.answer));
    return n > 0 ? hit.score : 0;
}

/* ---- search ---- */

static void the_same_wording_scores_1(void **state) {
    assert_true(search(*state, "How do I reset my password?", "By the link.") == 1);
    assert_true(search(*state, "如何重置密码？", "点击忘记密码。") == 1);
}

static void case_width_and_punctuation_do_not_matter(void **state) {
    assert_true(search(*state, "  how do i RESET my password !!", "By the link.") == 1);
    assert_true(search(*state, "ＨＯＷ ｄｏ Ｉ ｒｅｓｅｔ ｍｙ ｐａｓｓｗｏｒｄ", "By the link.") == 1);
}

static void a_typo_or_another_wording_still_finds_it(void **state) {
    assert_true(search(*state, "how do I reset my pasword", "By the link.") > 0.6);
    assert_true(search(*state, "please, how can I reset my password", "By the link.") > 0.5);
    assert_true(search(*state, "怎么重置密码", "点击忘记密码。") > 0.4);
    assert_true(search(*state, "パスワードを忘れた", "リンクから。") > 0.5);
}

static void short_chinese_questions_are_found(void **state) {
    assert_true(search(*state, "退款", "七天内。") == 1);
    assert_true(search(*state, "密码", "点击忘记密码。") > 0.3);
    assert_true(search(*state, "门", "九点。") > 0.1);
}

static void what_is_not_in_there_scores_low(void **state) {
    assert_true(search(*state, "What is the longest river in the world?", NULL) < 0.4);
    assert_true(search(*state, "Write a poem about passwords and the sea, with rhymes", NULL) < 0.4);
    assert_true(search(*state, "世界上最长的河是哪条？", NULL) < 0.4);
    assert_true(search(*state, "hello", NULL) < 0.4);
}

static void what_has_no_word_finds_nothing(void **state) {
    assert_true(search(*state, "", NULL) == 0);
    assert_true(search(*state, "?!… \n", NULL) == 0);
    assert_true(search(*state, "😀", NULL) == 0);
    assert_true(search(*state, "\xff\xfe", NULL) == 0);
}

static void a_search_is_text_and_no_query_language(void **state) {
    assert_true(search(*state, "\" OR * NEAR(password) NOT x: ^-()", NULL) < 1);
    assert_true(search(*state, "c++", "It is a language.") == 1);
}

static void a_long_text_is_no_routine_question(void **state) {
    char text[MR_KB_QUESTION_MAX + 2] = "how do i reset my password ";
    size_t n = strlen(text);
    memset(text + n, 'x', sizeof(text) - 1 - n);
    assert_true(search(*state, text, NULL) == 0);
}

static void hits_come_best_first(void **state) {
    fixture *f = *state;
    mr_kb_hit hits[MR_KB_HITS_MAX];
    mr_error err;
    int n = mr_kb_search(f->kb, MR_STR("how do i change my order"), hits, MR_KB_HITS_MAX, &err);
    assert_in_range(n, 3, MR_KB_HITS_MAX);
    for (int i = 1; i < n; i++) assert_true(hits[i - 1].score >= hits[i].score);
}

static bool answers(fixture *f, const char *question) {
    mr_kb_hit hits[MR_KB_RIVALS];
    mr_error err;
    int n = mr_kb_search(f->kb, mr_str_of(question), hits, MR_KB_RIVALS, &err);
    if (n < 0) fail_msg("%s", err.msg);
    return mr_kb_answers(hits, n, 0.5);
}

static void of_two_answers_that_are_as_near_neither_is_given(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    assert_int_equal(
        import_text(f,
                    "How do I cancel my ticket today?\tCall.\nHow do I cancel my ticket tomorrow?\tWrite.\n"
                    "Where do I park my car?\tBelow.\nWhere do I park my cars?\tBelow.\n",
                    &n, &err),
        0);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 1);
    assert_true(search(f, "how do i cancel my ticket", NULL) > 0.5);
    assert_false(answers(f, "how do i cancel my ticket"));
    assert_true(answers(f, "how do i cancel my ticket today")); /* the same wording is sure */
    assert_true(answers(f, "where can I park my car"));         /* two entries, but one answer */
    assert_false(answers(f, "hello"));
}

/* ---- import and export ---- */

static void answers_keep_their_line_breaks(void **state) {
    search(*state, "lines", "one\ntwo\tthree\\four");
}

static void a_known_question_gets_the_new_answer(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    assert_int_equal(import_text(f, "how do i reset my PASSWORD\tAsk Bob.\nNew?\tYes.\n", &n, &err), 0);
    assert_int_equal(n.added, 1);
    assert_int_equal(n.changed, 1);
    assert_int_equal(n.total, 11);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 1);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 0);
    assert_true(search(f, "How do I reset my password?", "Ask Bob.") == 1);
    assert_int_equal(mr_kb_entries(f->kb), 11);
}

static void replace_drops_what_was_there(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    write_file(f->tsv, "Only?\tThis.\n", 12);
    assert_int_equal(mr_kb_import(f->db, f->tsv, true, &n, &err), 0);
    assert_int_equal(n.total, 1);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 1);
    assert_true(search(f, "reset my password", NULL) == 0);
}

static void an_export_imports_as_it_was(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    char *first = NULL, *second = NULL, copy[100];
    size_t size;
    FILE *out = open_memstream(&first, &size);
    assert_int_equal(mr_kb_export(f->db, out, &err), 0);
    fclose(out);
    snprintf(copy, sizeof(copy), "%s/copy.db", f->folder);
    write_file(f->tsv, first, strlen(first));
    if (mr_kb_import(copy, f->tsv, false, &n, &err) != 0) fail_msg("%s", err.msg);
    out = open_memstream(&second, &size);
    assert_int_equal(mr_kb_export(copy, out, &err), 0);
    fclose(out);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

static void assert_refused(fixture *f, const char *text, size_t n, const char *where, const char *why) {
    mr_error err;
    mr_kb_counts counts;
    char place[120];
    write_file(f->tsv, text, n);
    assert_int_equal(mr_kb_import(f->db, f->tsv, false, &counts, &err), -1);
    snprintf(place, sizeof(place), "%s:%s: ", f->tsv, where);
    if (!strstr(err.msg, place) || !strstr(err.msg, why))
        fail_msg("'%s' instead of '%s … %s'", err.msg, place, why);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 0);
    assert_int_equal(access(f->tsv, F_OK), 0);
    snprintf(place, sizeof(place), "%s.new", f->db);
    assert_int_not_equal(access(place, F_OK), 0);
}

static void a_bad_line_is_named_and_nothing_is_imported(void **state) {
    fixture *f = *state;
    mr_buf big;
    assert_refused(f, "a\tb\nno tab here\n", 16, "2", "found no tab");
    assert_refused(f, "#\n\na\tb\tc\n", 9, "3", "found a second tab");
    assert_refused(f, "a\t\n", 3, "1", "the answer is empty");
    assert_refused(f, "?!\tb\n", 5, "1", "no word in it");
    assert_refused(f, "\tb\n", 3, "1", "no word in it");
    assert_refused(f, "a\t\xff\n", 4, "1", "not valid UTF-8");
    assert_refused(f, "a\tb\nc\xc3\td", 8, "2", "not valid UTF-8");
    mr_buf_init(&big, 1 << 20);
    for (int i = 0; i < MR_KB_QUESTION_MAX + 1; i++) mr_buf_puts(&big, "q");
    mr_buf_puts(&big, "\ta\n");
    assert_refused(f, big.p, big.n, "1", "the question has 1001 bytes, at most 1000 are allowed");
    mr_buf_clear(&big);
    mr_buf_puts(&big, "q\t");
    for (int i = 0; i < MR_KB_ANSWER_MAX + 1; i++) mr_buf_puts(&big, "a");
    assert_refused(f, big.p, big.n, "1", "the answer has 32769 bytes, at most 32768 are allowed");
    mr_buf_done(&big);
    assert_true(search(f, "How do I reset my password?", "By the link.") == 1);
}

static void a_byte_order_mark_is_skipped(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    assert_int_equal(import_text(f, "\xEF\xBB\xBFMark?\tYes.\n", &n, &err), 0);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 1);
    assert_true(search(f, "mark", "Yes.") == 1);
}

static void files_that_are_missing_or_something_else_are_named(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    char other[100];
    assert_int_equal(mr_kb_import(f->db, "nowhere.tsv", false, &n, &err), -1);
    assert_non_null(strstr(err.msg, "nowhere.tsv: No such file"));
    assert_null(mr_kb_open("nowhere.db", &err));
    assert_non_null(strstr(err.msg, "nowhere.db: No such file"));
    assert_non_null(strstr(err.msg, "millrace kb import"));
    assert_int_equal(mr_kb_export("nowhere.db", stdout, &err), -1);
    assert_non_null(strstr(err.msg, "nowhere.db"));
    snprintf(other, sizeof(other), "%s/other", f->folder);
    write_file(other, "this is no database, not at all\n", 32);
    assert_null(mr_kb_open(other, &err));
    assert_non_null(strstr(err.msg, other));
    write_file(f->tsv, "a\tb\n", 4);
    assert_int_equal(mr_kb_import(other, f->tsv, false, &n, &err), -1);
    write_file(other, "", 0);
    assert_null(mr_kb_open(other, &err));
    assert_non_null(strstr(err.msg, "not a knowledge base"));
}

static void a_broken_new_file_leaves_the_old_content(void **state) {
    fixture *f = *state;
    mr_error err;
    char other[100];
    snprintf(other, sizeof(other), "%s/other", f->folder);
    write_file(other, "garbage", 7);
    assert_int_equal(rename(other, f->db), 0);
    assert_int_equal(mr_kb_refresh(f->kb, &err), -1);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 0);
    assert_true(search(f, "How do I reset my password?", "By the link.") == 1);
    assert_int_equal(unlink(f->db), 0);
    assert_int_equal(mr_kb_refresh(f->kb, &err), -1);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 0);
    assert_true(search(f, "How do I reset my password?", "By the link.") == 1);
}

/* ---- text ---- */

static void collect(void *arg, mr_kb_feature_kind kind, mr_str feature) {
    mr_buf *b = arg;
    mr_buf_printf(b, "%s%.*s", kind == MR_KB_WORD ? "|" : "~", MR_FMT(feature));
}

static void assert_features(const char *text, const char *expected) {
    mr_error err;
    mr_buf norm, out;
    mr_buf_init(&norm, 1000);
    mr_buf_init(&out, 1000);
    assert_int_equal(mr_text_words(mr_str_of(text), &norm, &err), 0);
    mr_kb_features(mr_buf_str(&norm), collect, &out);
    mr_buf_put(&out, "", 1);
    assert_string_equal(out.p, expected);
    mr_buf_done(&norm);
    mr_buf_done(&out);
}

static void text_is_read_as_words_and_trigrams(void **state) {
    (void)state;
    assert_features("I don't!", "|i|dont~i d~ do~don~ont");
    assert_features("改密码", "|改|密|改密|码|密码~改密码");
    assert_features("用PayPal付", "|用|paypal|付~用pa~pay~ayp~ypa~pal~al付");
    assert_features("Straße ﬁn", "|strasse|fin~str~tra~ras~ass~sse~se ~e f~ fi~fin");
    assert_features("", "");
}

#define KB_TEST(t) cmocka_unit_test_setup_teardown(t, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        KB_TEST(the_same_wording_scores_1),
        KB_TEST(case_width_and_punctuation_do_not_matter),
        KB_TEST(a_typo_or_another_wording_still_finds_it),
        KB_TEST(short_chinese_questions_are_found),
        KB_TEST(what_is_not_in_there_scores_low),
        KB_TEST(what_has_no_word_finds_nothing),
        KB_TEST(a_search_is_text_and_no_query_language),
        KB_TEST(a_long_text_is_no_routine_question),
        KB_TEST(hits_come_best_first),
        KB_TEST(of_two_answers_that_are_as_near_neither_is_given),
        KB_TEST(answers_keep_their_line_breaks),
        KB_TEST(a_known_question_gets_the_new_answer),
        KB_TEST(replace_drops_what_was_there),
        KB_TEST(an_export_imports_as_it_was),
        KB_TEST(a_bad_line_is_named_and_nothing_is_imported),
        KB_TEST(a_byte_order_mark_is_skipped),
        KB_TEST(files_that_are_missing_or_something_else_are_named),
        KB_TEST(a_broken_new_file_leaves_the_old_content),
        cmocka_unit_test(text_is_read_as_words_and_trigrams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
