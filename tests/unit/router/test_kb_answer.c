/* The text of an answer: placeholders, and the list of what may be asked next. */
#include "router/kb_answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_expands(const char *answer, const char *user, const char *expected) {
    mr_buf out;
    mr_kb_values v = {mr_str_of(user), MR_STR("acme"), MR_STR("demo"),
                      1795512600}; /* 2026-11-24 09:30 UTC, a Tuesday */
    mr_buf_init(&out, 1000);
    mr_kb_answer_expand(mr_str_of(answer), &v, &out);
    mr_buf_put(&out, "", 1);
    assert_string_equal(out.p, expected);
    mr_buf_done(&out);
}

static void placeholders_become_what_they_stand_for(void **state) {
    (void)state;
    assert_expands("Hello {user}!", "Ann", "Hello Ann!");
    assert_expands("{tenant}/{model}: {date} {time}, {weekday}", "", "acme/demo: 2026-11-24 09:30, Tuesday");
    assert_expands("您好，{user}。", "安", "您好，安。");
}

static void a_value_that_is_missing_is_replaced_by_what_the_answer_says(void **state) {
    (void)state;
    assert_expands("Hello {user|friend}!", "", "Hello friend!");
    assert_expands("Hello {user|friend}!", "Ann", "Hello Ann!");
    assert_expands("Hello{user|}, {user}.", "", "Hello, .");
}

static void braces_that_are_no_placeholders_stay(void **state) {
    (void)state;
    assert_expands("{ \"a\": 1 } {} {A} {1} }{", "Ann", "{ \"a\": 1 } {} {A} {1} }{");
    assert_expands("{{user} {{{user}", "Ann", "{user} {Ann");
    assert_expands("{user", "Ann", "{user");
}

static void a_value_is_not_looked_at_for_placeholders(void **state) {
    (void)state;
    assert_expands("{user}", "{date}", "{date}");
}

static void unknown_placeholders_are_named(void **state) {
    (void)state;
    mr_error err;
    assert_int_equal(mr_kb_answer_check(MR_STR("{user} {date|x} {{nobody} { x }"), &err), 0);
    assert_int_equal(mr_kb_answer_check(MR_STR("Hi {usr|x}"), &err), -1);
    assert_non_null(strstr(err.msg, "{usr} is no placeholder: there are {user}"));
}

static const char list[] = "Two days.\n\n1. Returns?\n2. How do I pay?\n3. 你们几点开门？";

static void assert_picks(const char *answer, const char *said, const char *expected) {
    mr_str title = mr_kb_answer_pick(mr_str_of(answer), mr_str_of(said));
    if (!mr_str_eqz(title, expected)) fail_msg("'%s': '%.*s'", said, MR_FMT(title));
}

static void a_number_picks_from_the_list(void **state) {
    (void)state;
    static const char *const second[] = {"2", "2.", " #2 ", "２", "(2)", "第2个", "第二个", "二", "第二條"};
    for (size_t i = 0; i < sizeof(second) / sizeof(second[0]); i++)
        assert_picks(list, second[i], "How do I pay?");
    assert_picks(list, "1", "Returns?");
    assert_picks(list, "3", "你们几点开门？");
}

static void what_is_no_number_of_the_list_picks_nothing(void **state) {
    (void)state;
    static const char *const others[] = {"4", "0", "22", "two days", "2 days", "", "第", "how do I pay?"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) assert_picks(list, others[i], "");
    assert_picks("No list here.", "1", "");
    assert_picks("1. Returns?\nand so on", "1", "");
    assert_picks("1. Returns?\n5. Pay?", "1", "");
    assert_picks("", "1", "");
}

static void a_list_that_was_written_can_be_picked_from(void **state) {
    (void)state;
    mr_buf out;
    mr_buf_init(&out, 1000);
    mr_buf_puts(&out, "Yes.\n");
    mr_kb_answer_list(1, MR_STR("One\nmore?"), &out);
    mr_kb_answer_list(2, MR_STR("Two?"), &out);
    mr_buf_put(&out, "", 1);
    assert_string_equal(out.p, "Yes.\n\n1. One more?\n2. Two?");
    assert_picks(out.p, "1", "One more?");
    mr_buf_done(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placeholders_become_what_they_stand_for),
        cmocka_unit_test(a_value_that_is_missing_is_replaced_by_what_the_answer_says),
        cmocka_unit_test(braces_that_are_no_placeholders_stay),
        cmocka_unit_test(a_value_is_not_looked_at_for_placeholders),
        cmocka_unit_test(unknown_placeholders_are_named),
        cmocka_unit_test(a_number_picks_from_the_list),
        cmocka_unit_test(what_is_no_number_of_the_list_picks_nothing),
        cmocka_unit_test(a_list_that_was_written_can_be_picked_from),
    };
    setenv("TZ", "UTC", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
