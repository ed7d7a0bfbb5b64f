/* What the reader sees of an answer, however its text is cut into tokens. */
#include "fake.h"

#include "engine/answer.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <stdio.h>
#include <string.h>

typedef struct reading {
    char content[4096], reasoning[4096];
    bool stopped;
    int longest_wait; /* bytes pushed without anything coming out */
} reading;

typedef struct how {
    bool thinking;
    const char *stops[4];
    int nstops;
} how;

static void take(reading *r, answer_text t) {
    char *to = t.channel == ENGINE_REASONING ? r->reasoning : r->content;
    size_t at = strlen(to);
    assert_true(at + t.n < sizeof r->content);
    memcpy(to + at, t.p, t.n);
    to[at + t.n] = 0;
}

/* Pushes text in pieces of the given size (0: random sizes). */
static void read_in_pieces(const char *text, const how *h, size_t size, uint64_t seed, reading *r) {
    answer a;
    engine_error err;
    int quiet = 0;
    memset(r, 0, sizeof *r);
    assert_int_equal(answer_init(&a, 64, &err), 0);
    assert_int_equal(answer_start(&a, h->thinking, h->stops, h->nstops, &err), 0);
    for (size_t i = 0, n = strlen(text), k; i < n && !a.stopped; i += k) {
        k = size ? size : 1 + rnd(&seed, 9);
        if (k > n - i) k = n - i;
        answer_text t = answer_push(&a, text + i, k, true);
        take(r, t);
        quiet = t.n ? 0 : quiet + (int)k;
        if (quiet > r->longest_wait) r->longest_wait = quiet;
    }
    take(r, answer_finish(&a));
    r->stopped = a.stopped;
    answer_done(&a);
}

static void expect(const char *text, how h, const char *reasoning, const char *content, bool stopped) {
    reading r;
    for (int i = 0; i < 40; i++) {
        read_in_pieces(text, &h, i < 20 ? (size_t)i + 1 : 0, (uint64_t)i, &r);
        assert_string_equal(r.reasoning, reasoning);
        assert_string_equal(r.content, content);
        assert_int_equal(r.stopped, stopped);
    }
}

static void test_plain_text_passes_unchanged(void **state) {
    (void)state;
    expect(" Hello, \n\nworld. ", (how){0}, "", " Hello, \n\nworld. ", false);
    expect("", (how){0}, "", "", false);
    expect("  \n ", (how){0}, "", "  \n ", false);
}

static void test_reasoning_is_told_apart_and_its_tags_never_show(void **state) {
    (void)state;
    expect("<think>\nhm, 2<3\n</think>\n\nIt is 4.", (how){0}, "hm, 2<3\n", "It is 4.", false);
    expect("\n<think>a</think>b", (how){0}, "a", "b", false);
    expect("still thinking", (how){.thinking = true}, "still thinking", "", false);
    expect("so</thin</think>\nyes", (how){.thinking = true}, "so</thin", "yes", false);
    expect("\n\n</think>\n\nhi", (how){.thinking = true}, "", "hi", false);
    expect("cut </thi", (how){.thinking = true}, "cut </thi", "", false);
}

static void test_tags_later_in_an_answer_are_text(void **state) {
    (void)state;
    expect("Write <think> and </think>.", (how){0}, "", "Write <think> and </think>.", false);
    expect("<think>a</think>b <think>c</think>", (how){0}, "a", "b <think>c</think>", false);
    expect("<thinker>", (how){0}, "", "<thinker>", false);
    expect("<thi", (how){0}, "", "<thi", false);
}

static void test_a_stop_string_never_shows_nor_what_follows(void **state) {
    (void)state;
    how h = {.stops = {"\n\nUser:", "END"}, .nstops = 2};
    expect("one\n\ntwo\n\nUser: three", h, "", "one\n\ntwo", true);
    expect("oneENDtwo", h, "", "one", true);
    expect("one\n\nUser", h, "", "one\n\nUser", false);
    expect("END", h, "", "", true);
    expect("EN", h, "", "EN", false);
    expect("EEND", h, "", "E", true);
}

static void test_the_earliest_stop_string_wins(void **state) {
    (void)state;
    expect("abcdef", (how){.stops = {"def", "cd"}, .nstops = 2}, "", "ab", true);
    expect("aXYZb", (how){.stops = {"XYZ", "XY"}, .nstops = 2}, "", "a", true);
}

static void test_stop_strings_hold_in_reasoning_too(void **state) {
    (void)state;
    how h = {.thinking = true, .stops = {"STOP"}, .nstops = 1};
    expect("think STOP more</think>x", h, "think ", "", true);
    expect("a</think>STOP", h, "a", "", true);
    expect("think ST</think>OP", h, "think ST", "OP", false);
}

static void test_characters_are_never_split(void **state) {
    (void)state;
    const char *text = "Gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80!";
    answer a;
    engine_error err;
    expect(text, (how){0}, "", text, false);
    assert_int_equal(answer_init(&a, 4, &err), 0);
    assert_int_equal(answer_start(&a, false, NULL, 0, &err), 0);
    for (const char *p = text; *p; p++) {
        answer_text t = answer_push(&a, p, 1, true);
        if (t.n) assert_true(((unsigned char)t.p[0] & 0xc0) != 0x80);
        if (t.n) assert_true(((unsigned char)p[1] & 0xc0) != 0x80);
    }
    answer_done(&a);
    expect("broken \xe4\xbd", (how){0}, "", "broken \xef\xbf\xbd", false);
}

static void test_nothing_is_held_back_longer_than_needed(void **state) {
    (void)state;
    reading r;
    how h = {.stops = {"STOPHERE"}, .nstops = 1};
    read_in_pieces("STO STOP STOPHE and on it goes", &h, 1, 0, &r);
    assert_true(r.longest_wait <= 8);
    char blanks[401];
    memset(blanks, '\n', 400);
    blanks[400] = 0;
    read_in_pieces(blanks, &(how){0}, 1, 0, &r);
    assert_int_equal(strlen(r.content), 400);
    assert_true(r.longest_wait <= 65);
}

static void test_stop_strings_wait_for_min_tokens(void **state) {
    (void)state;
    answer a;
    engine_error err;
    const char *stops[] = {"x"};
    assert_int_equal(answer_init(&a, 4, &err), 0);
    assert_int_equal(answer_start(&a, false, stops, 1, &err), 0);
    assert_int_equal(answer_push(&a, "ax", 2, false).n, 2);
    assert_false(a.stopped);
    assert_int_equal(answer_push(&a, "bx", 2, true).n, 1);
    assert_true(a.stopped);
    answer_done(&a);
}

static void test_bad_stop_strings_are_refused(void **state) {
    (void)state;
    answer a;
    engine_error err;
    char longer[300];
    memset(longer, 'a', 299);
    longer[299] = 0;
    const char *empty[] = {""}, *large[] = {longer}, *many[17];
    for (int i = 0; i < 17; i++) many[i] = "a";
    assert_int_equal(answer_init(&a, 4, &err), 0);
    assert_int_equal(answer_start(&a, false, empty, 1, &err), -1);
    assert_int_equal(answer_start(&a, false, large, 1, &err), -1);
    assert_int_equal(answer_start(&a, false, many, 17, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    assert_int_equal(answer_start(&a, false, many, 16, &err), 0);
    answer_done(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_text_passes_unchanged),
        cmocka_unit_test(test_reasoning_is_told_apart_and_its_tags_never_show),
        cmocka_unit_test(test_tags_later_in_an_answer_are_text),
        cmocka_unit_test(test_a_stop_string_never_shows_nor_what_follows),
        cmocka_unit_test(test_the_earliest_stop_string_wins),
        cmocka_unit_test(test_stop_strings_hold_in_reasoning_too),
        cmocka_unit_test(test_characters_are_never_split),
        cmocka_unit_test(test_nothing_is_held_back_longer_than_needed),
        cmocka_unit_test(test_stop_strings_wait_for_min_tokens),
        cmocka_unit_test(test_bad_stop_strings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
