/* The knowledge base: what is found for which words, import, export, and replacing it under a reader. */
#include "router/kb.h"
#include "router/kb_import.h"
#include "router/kb_text.h"
#include "router/kb_tokenizer.h"
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

static int import_text(fixture *f, const char *text, mr_kb_counts *n, mr_error *err) {
    test_write_text(f->tsv, text);
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

/* The best hit; {0} when nothing is found. Its answer must be the expected one, where that is given. */
static mr_kb_hit find(fixture *f, const char *question, const char *answer) {
    mr_error err;
    mr_kb_hit hit = {0};
    int n = mr_kb_search(f->kb, mr_str_of(question), NULL, &hit, 1, &err);
    if (n < 0) fail_msg("%s: %s", question, err.msg);
    if (n > 0 && answer && !mr_str_eqz(hit.answer, answer))
        fail_msg("%s: %.*s", question, MR_FMT(hit.answer));
    return n > 0 ? hit : (mr_kb_hit){0};
}

static double search(fixture *f, const char *question, const char *answer) {
    return find(f, question, answer).similarity;
}

static double confidence(fixture *f, const char *question, const char *answer) {
    return find(f, question, answer).confidence;
}

/* ---- search ---- */

static void the_same_wording_is_sure(void **state) {
    assert_true(confidence(*state, "How do I reset my password?", "By the link.") == 1);
    assert_true(confidence(*state, "如何重置密码？", "点击忘记密码。") == 1);
    assert_true(confidence(*state, "如何重置密码", "点击忘记密码。") == 1);
    assert_true(confidence(*state, "how do I reset passwords", "By the link.") < 1);
}

static void case_width_and_punctuation_do_not_matter(void **state) {
    assert_true(confidence(*state, "  how do i RESET my password !!", "By the link.") == 1);
    assert_true(confidence(*state, "ＨＯＷ ｄｏ Ｉ ｒｅｓｅｔ ｍｙ ｐａｓｓｗｏｒｄ", "By the link.") == 1);
    assert_true(confidence(*state, "如何重置密碼", "点击忘记密码。") == 1); /* traditional characters */
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
    int n = mr_kb_search(f->kb, MR_STR("how do i change my order"), NULL, hits, MR_KB_HITS_MAX, &err);
    assert_in_range(n, 3, MR_KB_HITS_MAX);
    for (int i = 1; i < n; i++) assert_true(hits[i - 1].confidence >= hits[i].confidence);
}

/* Until what has changed is loaded. */
static int refresh(mr_kb *kb, mr_error *err) {
    int rc;
    while ((rc = mr_kb_refresh(kb, err)) == 0 && mr_kb_loading(kb)) usleep(1000);
    return rc;
}

static void import_and_refresh(fixture *f, const char *text) {
    mr_error err;
    mr_kb_counts n;
    if (import_text(f, text, &n, &err) != 0) fail_msg("%s", err.msg);
    assert_int_equal(refresh(f->kb, &err), 1);
}

static void of_two_answers_that_are_as_near_neither_is_sure(void **state) {
    fixture *f = *state;
    import_and_refresh(
        f, "How do I cancel my ticket today?\tCall.\nHow do I cancel my ticket tomorrow?\tWrite.\n"
           "Where do I park my car?\tBelow.\nWhere do I park my van?\tBelow.\n"
           "Why?\tBecause.\n");
    assert_true(search(f, "how do i cancel my ticket", NULL) > 0.5);
    assert_true(confidence(f, "how do i cancel my ticket", NULL) < 0.65);
    assert_true(confidence(f, "how do i cancel my ticket today", "Call.") == 1);
    assert_true(confidence(f, "where do I park", "Below.") > 0.8); /* two entries, but one answer */
    assert_true(confidence(f, "hello", NULL) < 0.1);
}

static void of_several_entries_with_the_same_question_none_is_sure(void **state) {
    fixture *f = *state;
    import_and_refresh(
        f, "Price?\tTen.\t\tapples\nPrice?\tTwenty.\t\tpears\nCost?\tTen.\t\ta\nCost?\tTen.\t\tb\n");
    double c = confidence(f, "price", NULL);
    assert_true(c > 0.3 && c < 0.6);
    assert_true(confidence(f, "cost", "Ten.") == 1);
}

static void words_are_one_in_all_their_forms(void **state) {
    fixture *f = *state;
    import_and_refresh(f, "Cancelling an order\tUnder Orders.\nShipping costs\tFive.\n");
    assert_true(search(f, "cancel orders", "Under Orders.") > 0.6);
    assert_true(search(f, "what does it cost to be shipped", "Five.") > search(f, "what is it", NULL));
}

static void other_phrasings_find_the_entry_too(void **state) {
    fixture *f = *state;
    import_and_refresh(f, "Delivery time?\tTwo days.\t\tdelivery\nhow long until it is here\t\nwo bleibt "
                          "mein paket\t\t\tdelivery\n"
                          "Returns?\tWithin a week.\t\treturns\nI want to send it back\t\n");
    assert_true(confidence(f, "How long until it is here?", "Two days.") == 1);
    assert_true(confidence(f, "wo bleibt mein Paket", "Two days.") == 1);
    assert_true(confidence(f, "i want to send it back", "Within a week.") == 1);
    assert_true(mr_str_eqz(find(f, "wo bleibt mein Paket", NULL).title, "Delivery time?"));
    assert_true(mr_str_eqz(find(f, "wo bleibt mein Paket", NULL).name, "delivery"));
    assert_int_equal(mr_kb_entries(f->kb), 12);
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
    assert_int_equal(refresh(f->kb, &err), 1);
    assert_int_equal(refresh(f->kb, &err), 0);
    assert_true(confidence(f, "How do I reset my password?", "Ask Bob.") == 1);
    assert_int_equal(mr_kb_entries(f->kb), 11);
}

static void the_old_answers_are_given_until_the_new_ones_are_loaded(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    assert_int_equal(import_text(f, "how do i reset my password\tAsk Bob.\n", &n, &err), 0);
    assert_int_equal(mr_kb_refresh(f->kb, &err), 0);
    assert_true(mr_kb_loading(f->kb));
    assert_true(confidence(f, "how do i reset my password", "By the link.") == 1);
    assert_int_equal(refresh(f->kb, &err), 1);
    assert_true(confidence(f, "how do i reset my password", "Ask Bob.") == 1);
}

static void only_the_very_words_with_one_answer_need_no_search(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_hit hit;
    import_and_refresh(
        f, "Price?\tTen.\t\tapples\nPrice?\tTwenty.\t\tpears\nCost?\tTen.\t\ta\nCost?\tTen.\t\tb\n");
    assert_int_equal(mr_kb_same_words(f->kb, MR_STR(" COST "), &hit, &err), 1);
    assert_true(mr_str_eqz(hit.answer, "Ten.") && hit.confidence == 1);
    assert_int_equal(mr_kb_same_words(f->kb, MR_STR("price"), &hit, &err), 0);
    assert_int_equal(mr_kb_same_words(f->kb, MR_STR("the cost"), &hit, &err), 0);
    assert_int_equal(mr_kb_same_words(f->kb, MR_STR("?!"), &hit, &err), 0);
}

/* Of `asked`, after `looked_up` was looked up: what a search alone says, which is `fresh`. */
static void assert_goes_on(fixture *f, const char *looked_up, const char *asked, mr_kb_hit fresh) {
    mr_error err;
    mr_kb_hit ignored;
    assert_true(mr_kb_same_words(f->kb, mr_str_of(looked_up), &ignored, &err) >= 0);
    mr_kb_hit hit = find(f, asked, NULL);
    assert_true(hit.confidence == fresh.confidence && hit.similarity == fresh.similarity);
    assert_int_equal(hit.answer.n, fresh.answer.n);
}

static void a_search_finds_the_same_after_the_words_were_looked_up(void **state) {
    static const char *const asked[] = {"price", "cost", "the cost of it", "How do I reset my password?",
                                        "?!"};
    fixture *f = *state;
    import_and_refresh(
        f, "Price?\tTen.\t\tapples\nPrice?\tTwenty.\t\tpears\nCost?\tTen.\t\ta\nCost?\tTen.\t\tb\n");
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        mr_kb_hit fresh = find(f, asked[i], NULL);
        for (size_t k = 0; k < sizeof asked / sizeof asked[0]; k++)
            assert_goes_on(f, asked[k], asked[i], fresh);
        assert_goes_on(f, asked[i], asked[i], fresh);
    }
}

static void words_that_were_looked_up_in_the_old_content_are_not_those_of_the_new(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_hit hit;
    assert_int_equal(mr_kb_same_words(f->kb, MR_STR("how do i reset my password"), &hit, &err), 1);
    import_and_refresh(f, "how do i reset my password\tAsk Bob.\n");
    assert_true(confidence(f, "how do i reset my password", "Ask Bob.") == 1);
}

/* A question asks the index once; what that said must not outlive the content that it said it of. */
static void a_question_asked_again_finds_the_same_until_there_is_something_new(void **state) {
    fixture *f = *state;
    mr_kb_hit first = find(f, "reset it", "By the link."), again = find(f, "reset it", "By the link.");
    assert_true(first.confidence == again.confidence && first.similarity == again.similarity);
    import_and_refresh(f, "Reset\tAsk Bob.\n");
    assert_true(search(f, "reset it", "Ask Bob.") > first.similarity);
}

static void replace_drops_what_was_there(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    test_write_text(f->tsv, "Only?\tThis.\n");
    assert_int_equal(mr_kb_import(f->db, f->tsv, true, &n, &err), 0);
    assert_int_equal(n.total, 1);
    assert_int_equal(refresh(f->kb, &err), 1);
    assert_true(search(f, "reset my password", NULL) == 0);
}

static char *export_all(const char *db, mr_kb_format format) {
    mr_error err;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    if (mr_kb_export(db, format, out, &err) != 0) fail_msg("%s", err.msg);
    fclose(out);
    return text;
}

/* Imports the text as a file of this name, and exports it again. */
static void assert_round_trip(fixture *f, const char *name, const char *text) {
    char db[100], path[120];
    mr_error err;
    mr_kb_counts n;
    snprintf(db, sizeof(db), "%s/copy.db", f->folder);
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    test_write_text(path, text);
    if (mr_kb_import(db, path, true, &n, &err) != 0) fail_msg("%s", err.msg);
    char *again = export_all(db, mr_kb_format_of(name));
    assert_string_equal(again, text);
    free(again);
}

static void tsv_is_exported_as_it_was_imported(void **state) {
    assert_round_trip(*state, "all.tsv",
                      "How do I pay?\tBy card,\\nor in cash.\tpayment\tpay\treturns,pay\n"
                      "Can I pay later?\t\n"
                      "Returns?\tA \\\\ and a\\ttab\\r\t\treturns\n"
                      "\\#1 question?\tYes. # no comment\n"
                      "如何付款？\t刷卡。\tpayment\n"
                      "怎么付钱\t\n");
}

static void jsonl_is_exported_as_it_was_imported(void **state) {
    assert_round_trip(
        *state, "all.jsonl",
        "{\"question\":\"How do I pay?\",\"answer\":\"By \\\"card\\\",\\nor in "
        "cash.\",\"intent\":\"payment\",\"name\":\"pay\",\"follow\":[\"returns\",\"pay\"],\"also\":["
        "\"Can I pay later?\",\"#pay\"]}\n"
        "{\"question\":\"Returns?\",\"answer\":\"七天内。\",\"name\":\"returns\"}\n");
}

static void both_formats_hold_the_same(void **state) {
    fixture *f = *state;
    char path[120], db[100];
    mr_error err;
    mr_kb_counts n;
    import_and_refresh(f, "Pay?\tBy card.\tpayment\tpay\tpay\nCan I pay later?\t\n");
    char *tsv = export_all(f->db, MR_KB_TSV), *json = export_all(f->db, MR_KB_JSONL);
    snprintf(path, sizeof(path), "%s/all.jsonl", f->folder);
    snprintf(db, sizeof(db), "%s/copy.db", f->folder);
    test_write_text(path, json);
    if (mr_kb_import(db, path, true, &n, &err) != 0) fail_msg("%s", err.msg);
    assert_int_equal(n.total, 11);
    assert_int_equal(n.phrasings, 12);
    char *again = export_all(db, MR_KB_TSV);
    assert_string_equal(again, tsv);
    free(tsv);
    free(json);
    free(again);
}

static void a_named_entry_is_changed_as_a_whole(void **state) {
    fixture *f = *state;
    import_and_refresh(f, "Pay?\tBy card.\tpayment\tpay\nCan I pay later?\t\n");
    import_and_refresh(f, "How does one pay?\tIn cash.\t\tpay\n");
    assert_true(confidence(f, "how does one pay", "In cash.") == 1);
    assert_true(confidence(f, "can I pay later", NULL) < 1);
    assert_true(confidence(f, "pay", NULL) < 1);
    assert_int_equal(mr_kb_entries(f->kb), 11);
}

static void an_entry_without_a_name_gets_one(void **state) {
    fixture *f = *state;
    import_and_refresh(f, "how do I reset my password\tAsk Bob.\t\treset\n");
    assert_int_equal(mr_kb_entries(f->kb), 10);
    assert_true(mr_str_eqz(find(f, "how do I reset my password", "Ask Bob.").name, "reset"));
    import_and_refresh(f, "how do I reset my password\tAsk Ann.\n"); /* and keeps it */
    assert_true(mr_str_eqz(find(f, "how do I reset my password", "Ask Ann.").name, "reset"));
}

static void assert_file_refused(fixture *f, const char *path, const char *text, size_t n, const char *where,
                                const char *why) {
    mr_error err;
    mr_kb_counts counts;
    char place[140];
    test_write(path, text, n);
    assert_int_equal(mr_kb_import(f->db, path, false, &counts, &err), -1);
    snprintf(place, sizeof(place), "%s:%s: ", path, where);
    if (!strstr(err.msg, place) || !strstr(err.msg, why))
        fail_msg("'%s' instead of '%s … %s'", err.msg, place, why);
    assert_int_equal(refresh(f->kb, &err), 0);
    snprintf(place, sizeof(place), "%s.new", f->db);
    assert_int_not_equal(access(place, F_OK), 0);
}

static void assert_refused(fixture *f, const char *text, size_t n, const char *where, const char *why) {
    assert_file_refused(f, f->tsv, text, n, where, why);
}

static void assert_json_refused(fixture *f, const char *text, const char *where, const char *why) {
    char path[120];
    snprintf(path, sizeof(path), "%s/kb.jsonl", f->folder);
    assert_file_refused(f, path, text, strlen(text), where, why);
}

/* One column of `n` letters, after `head`. */
static void assert_too_long(fixture *f, const char *head, int n, const char *tail, const char *why) {
    mr_buf big;
    mr_buf_init(&big, 2 << 20);
    mr_buf_puts(&big, head);
    for (int i = 0; i < n; i++) mr_buf_puts(&big, "q");
    mr_buf_puts(&big, tail);
    assert_refused(f, big.p, big.n, "1", why);
    mr_buf_done(&big);
}

/* Of a literal, which may hold a NUL. */
#define REFUSED(f, text, where, why) assert_refused(f, text, sizeof(text) - 1, where, why)

static void a_bad_line_is_named_and_nothing_is_imported(void **state) {
    fixture *f = *state;
    REFUSED(f, "a\tb\nno tab here\n", "2", "found no tab");
    REFUSED(f, "#\n\na\tb\tc\td\te\tf\n", "3", "found another tab");
    REFUSED(f, "a\t\n", "1", "the answer is empty");
    REFUSED(f, "a\tb\nc\t\t\tnobody\n", "2", "there is no entry 'nobody'");
    REFUSED(f, "a\tb\nc\t\tintent\n", "2", "one more phrasing has no intent");
    REFUSED(f, "?!\tb\n", "1", "no word in it");
    REFUSED(f, "\tb\n", "1", "no word in it");
    REFUSED(f, "a\t\xff\n", "1", "not valid UTF-8");
    REFUSED(f, "a\tb\nc\xc3\td", "2", "not valid UTF-8");
    REFUSED(f, "a\tb\0c\n", "1", "NUL character");
    REFUSED(f, "a\tb\t\tx y\n", "1", "a name has no spaces and commas");
    REFUSED(f, "a\tb\t\tx\t,\n", "1", "an empty name among those that follow");
    REFUSED(f, "a\tb\t\tx\tx\nc\td\t\ty\tx,z\n", "2", "'z' follows, but there is no entry of this name");
    REFUSED(f, "a\tb\t\tx\tx,x,x,x,x,x,x,x,x,x\n", "1", "more than 9 entries follow");
    REFUSED(f, "a\tHello {name}\n", "1", "{name} is no placeholder: there are {user}");
    assert_too_long(f, "", MR_KB_QUESTION_MAX + 1, "\ta\n",
                    "the question has 1001 bytes, at most 1000 are allowed");
    assert_too_long(f, "q\t", MR_KB_ANSWER_MAX + 1, "\n",
                    "the answer has 32769 bytes, at most 32768 are allowed");
    assert_too_long(f, "q\ta\t\t", MR_KB_NAME_MAX + 1, "\n", "the name has 65 bytes, at most 64 are allowed");
    assert_too_long(f, "q\ta\t", MR_KB_INTENT_MAX + 1, "\n",
                    "the intent has 201 bytes, at most 200 are allowed");
    assert_too_long(f, "q\t", MR_KB_LINE_MAX, "\n", "the line has more than 1048576 bytes");
    assert_true(confidence(f, "How do I reset my password?", "By the link.") == 1);
}

static void a_bad_line_of_json_is_named_too(void **state) {
    fixture *f = *state;
    assert_json_refused(f, "{\"question\":\"a\",\"answer\":\"b\"}\n\n{\"question\":\n", "3", "no JSON");
    assert_json_refused(f, "[1]", "1", "expected a JSON object");
    assert_json_refused(f, "{\"question\":\"a\",\"answr\":\"b\"}", "1",
                        "unknown member \"answr\" (did you mean \"answer\"?)");
    assert_json_refused(f, "{\"question\":\"a\",\"question\":\"c\",\"answer\":\"b\"}", "1", "no JSON");
    assert_json_refused(f, "{\"question\":1,\"answer\":\"b\"}", "1", "question is no string");
    assert_json_refused(f, "{\"question\":\"a\"}", "1", "the answer is empty");
    assert_json_refused(f, "{\"question\":\"a\",\"answer\":\"b\",\"follow\":\"x\"}", "1",
                        "follow is no list of names");
    assert_json_refused(f, "{\"question\":\"a\",\"answer\":\"b\",\"follow\":[\"x,y\"]}", "1",
                        "follow is no list of names");
    assert_json_refused(f, "{\"question\":\"a\",\"answer\":\"b\",\"also\":[\"?\"]}", "1", "no word in it");
    assert_json_refused(f, "{\"question\":\"a\",\"answer\":\"b\",\"also\":{}}", "1",
                        "also is no list of strings");
    assert_json_refused(f, "{\"question\":\"a\",\"answer\":\"{nam}\"}", "1", "{nam} is no placeholder");
}

static void a_byte_order_mark_is_skipped(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    assert_int_equal(import_text(f, "\xEF\xBB\xBFMark?\tYes.\n", &n, &err), 0);
    assert_int_equal(refresh(f->kb, &err), 1);
    assert_true(confidence(f, "mark", "Yes.") == 1);
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
    assert_int_equal(mr_kb_export("nowhere.db", MR_KB_TSV, stdout, &err), -1);
    assert_non_null(strstr(err.msg, "nowhere.db"));
    snprintf(other, sizeof(other), "%s/other", f->folder);
    test_write_text(other, "this is no database, not at all\n");
    assert_null(mr_kb_open(other, &err));
    assert_non_null(strstr(err.msg, other));
    test_write_text(f->tsv, "a\tb\n");
    assert_int_equal(mr_kb_import(other, f->tsv, false, &n, &err), -1);
    test_write_text(other, "");
    assert_null(mr_kb_open(other, &err));
    assert_non_null(strstr(err.msg, "not a knowledge base"));
}

static void a_broken_new_file_leaves_the_old_content(void **state) {
    fixture *f = *state;
    mr_error err;
    char other[100];
    snprintf(other, sizeof(other), "%s/other", f->folder);
    test_write_text(other, "garbage");
    assert_int_equal(rename(other, f->db), 0);
    assert_int_equal(refresh(f->kb, &err), -1);
    assert_int_equal(refresh(f->kb, &err), 0);
    assert_true(search(f, "How do I reset my password?", "By the link.") == 1);
    assert_int_equal(unlink(f->db), 0);
    assert_int_equal(refresh(f->kb, &err), -1);
    assert_int_equal(refresh(f->kb, &err), 0);
    assert_true(search(f, "How do I reset my password?", "By the link.") == 1);
}

static void a_file_of_an_older_format_has_to_be_imported_anew(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_kb_counts n;
    FILE *file = fopen(f->db, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, 63, SEEK_SET), 0); /* the last byte of SQLite's user_version */
    putc(2, file);
    fclose(file);
    assert_null(mr_kb_open(f->db, &err));
    assert_non_null(strstr(err.msg, "it has format 2, this program reads 3: import its entries anew"));
    test_write_text(f->tsv, "a\tb\n");
    assert_int_equal(mr_kb_import(f->db, f->tsv, false, &n, &err), -1);
    assert_non_null(strstr(err.msg, "anew with --replace"));
    assert_int_equal(mr_kb_import(f->db, f->tsv, true, &n, &err), 0);
}

/* ---- text ---- */

static int collect(void *arg, mr_str token) {
    mr_buf_printf(arg, "|%.*s", MR_FMT(token));
    return 0;
}

static void assert_tokens(const char *text, const char *expected) {
    mr_error err;
    mr_buf words, out;
    mr_buf_init(&words, 1000);
    mr_buf_init(&out, 1000);
    assert_int_equal(mr_text_words(mr_str_of(text), &words, &err), 0);
    assert_int_equal(mr_kb_tokens(mr_buf_str(&words), collect, &out), 0);
    mr_buf_put(&out, "", 1);
    assert_string_equal(out.p, expected);
    mr_buf_done(&words);
    mr_buf_done(&out);
}

static void text_is_read_as_stems_characters_pairs_and_trigrams(void **state) {
    (void)state;
    assert_tokens("I don't!", "|i|~ i |dont|~ do|~don|~ont|~nt ");
    assert_tokens("改密码", "|改|密|改密|码|密码");
    assert_tokens("用PayPal付", "|用|paypal|~ pa|~pay|~ayp|~ypa|~pal|~al |付");
    assert_tokens("Resets ﬁne", "|reset|~ re|~res|~ese|~set|~ets|~ts |fine|~ fi|~fin|~ine|~ne ");
    assert_tokens("", "");
}

static void the_index_is_asked_by_the_tokens_of_the_documents(void **state) {
    (void)state;
    sqlite3 *db = NULL;
    mr_error err;
    char *message = NULL;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    if (mr_kb_tokenizer_register(db, &err) < 0) fail_msg("%s", err.msg);
    assert_int_equal(
        sqlite3_exec(db,
                     "CREATE VIRTUAL TABLE t USING fts5(x, tokenize='millrace'); INSERT INTO t VALUES"
                     "('How do I RESET it?'), ('重設密碼'), ('resetting'), ('')",
                     NULL, NULL, &message),
        SQLITE_OK);
    static const struct {
        const char *query;
        int rows;
    } asked[] = {{"\"reset\"", 2}, {"\"密码\"", 1},  {"\"密\"", 1},
                 {"\"~ re\"", 2},  {"\"RESET\"", 0}, {"\"设重\"", 0}};
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        sqlite3_stmt *s = NULL;
        int rows = 0;
        assert_int_equal(sqlite3_prepare_v2(db, "SELECT rowid FROM t WHERE t MATCH ?1", -1, &s, NULL),
                         SQLITE_OK);
        sqlite3_bind_text(s, 1, asked[i].query, -1, SQLITE_STATIC);
        while (sqlite3_step(s) == SQLITE_ROW) rows++;
        sqlite3_finalize(s);
        if (rows != asked[i].rows) fail_msg("%s: %d rows", asked[i].query, rows);
    }
    sqlite3_close(db);
}

#define KB_TEST(t) cmocka_unit_test_setup_teardown(t, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        KB_TEST(the_same_wording_is_sure),
        KB_TEST(case_width_and_punctuation_do_not_matter),
        KB_TEST(a_typo_or_another_wording_still_finds_it),
        KB_TEST(short_chinese_questions_are_found),
        KB_TEST(what_is_not_in_there_scores_low),
        KB_TEST(what_has_no_word_finds_nothing),
        KB_TEST(a_search_is_text_and_no_query_language),
        KB_TEST(a_long_text_is_no_routine_question),
        KB_TEST(hits_come_best_first),
        KB_TEST(of_two_answers_that_are_as_near_neither_is_sure),
        KB_TEST(of_several_entries_with_the_same_question_none_is_sure),
        KB_TEST(words_are_one_in_all_their_forms),
        KB_TEST(other_phrasings_find_the_entry_too),
        KB_TEST(answers_keep_their_line_breaks),
        KB_TEST(a_known_question_gets_the_new_answer),
        KB_TEST(the_old_answers_are_given_until_the_new_ones_are_loaded),
        KB_TEST(only_the_very_words_with_one_answer_need_no_search),
        KB_TEST(a_search_finds_the_same_after_the_words_were_looked_up),
        KB_TEST(words_that_were_looked_up_in_the_old_content_are_not_those_of_the_new),
        KB_TEST(a_question_asked_again_finds_the_same_until_there_is_something_new),
        KB_TEST(replace_drops_what_was_there),
        KB_TEST(tsv_is_exported_as_it_was_imported),
        KB_TEST(jsonl_is_exported_as_it_was_imported),
        KB_TEST(both_formats_hold_the_same),
        KB_TEST(a_named_entry_is_changed_as_a_whole),
        KB_TEST(an_entry_without_a_name_gets_one),
        KB_TEST(a_bad_line_is_named_and_nothing_is_imported),
        KB_TEST(a_bad_line_of_json_is_named_too),
        KB_TEST(a_byte_order_mark_is_skipped),
        KB_TEST(files_that_are_missing_or_something_else_are_named),
        KB_TEST(a_broken_new_file_leaves_the_old_content),
        KB_TEST(a_file_of_an_older_format_has_to_be_imported_anew),
        cmocka_unit_test(text_is_read_as_stems_characters_pairs_and_trigrams),
        cmocka_unit_test(the_index_is_asked_by_the_tokens_of_the_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
