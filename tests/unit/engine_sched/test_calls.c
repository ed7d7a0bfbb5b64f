/* Tool calls come out of an answer as calls, whatever their markup, and never as text. Tokens are bytes here: markup is split
 * everywhere. */
#include "fake.h"

#include "tests/unit/engine_sched/cmocka_all.h"

#include "engine/calls.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char weather_schema[] = "{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Paris\","
                                     "\"Oslo\"]},\"days\":{\"type\":\"integer\","
                                     "\"minimum\":1,\"maximum\":9}},\"required\":[\"city\",\"days\"]}";
static const char odd_schema[] = "{\"type\":\"object\",\"patternProperties\":{\"^a\":{\"type\":\"string\"}}}";
static const engine_tool tools[] = {
    {.name = "get_weather", .parameters = weather_schema, .parameters_len = sizeof weather_schema - 1},
    {.name = "get", .description = "any"},
    {.name = "odd", .parameters = odd_schema, .parameters_len = sizeof odd_schema - 1},
};

static engine_request ask(engine_tools how) {
    engine_request q = request_of(7, "hi");
    q.tools = how;
    q.tools.v = tools;
    if (!how.n) q.tools.n = 3;
    return q;
}

/* What the model says word for word, as far as it may. */
static void say_script(call_form form, const char *script, const engine_request *q, said *s) {
    static int32_t ids[4096];
    fake f = {.calls = form, .script = ids, .script_at = 2};
    for (; script[f.nscript]; f.nscript++) ids[f.nscript] = (unsigned char)script[f.nscript];
    engine *e = fake_open(&f, &(engine_limits){.max_context = 512});
    say(e, q, s);
    engine_close(e);
    fake_done(&f);
}

static void expect_said(call_form form, const char *script, const engine_request *q, const char *content,
                        const char *called, engine_finish finish) {
    said s;
    say_script(form, script, q, &s);
    if (s.len[ENGINE_CONTENT] != strlen(content) ||
        memcmp(s.text[ENGINE_CONTENT], content, s.len[ENGINE_CONTENT]))
        fail_msg("%s: content is \"%s\"", script, s.text[ENGINE_CONTENT]);
    if (strcmp(s.text[ENGINE_CALL], called) != 0)
        fail_msg("%s: calls are \"%s\"", script, s.text[ENGINE_CALL]);
    assert_int_equal(s.finish, finish);
}

#define CALL(name, arguments)                                                                                \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " arguments "}\n</tool_call>"
#define ODD "{\"q\": \"a}]\\\"\\\\ </tool_call>\", \"x\": [1, {\"y\": {}}], \"z\": null}"

static void test_calls_come_out_without_markup(void **state) {
    (void)state;
    const engine_request q = ask((engine_tools){0}), one = ask((engine_tools){.one_call = true});
    expect_said(CALL_HERMES, CALL("get", "{}"), &q, "", "get({}", ENGINE_FINISH_CALLS);
    expect_said(CALL_HERMES, "Let me see.\n\n" CALL("get_weather", ODD), &q, "Let me see.",
                "get_weather(" ODD, ENGINE_FINISH_CALLS);
    expect_said(CALL_HERMES, CALL("get", "{\"a\": 1}") "\n" CALL("odd", "{}") "\n" CALL("get", "{}"), &q, "",
                "get({\"a\": 1})odd({})get({}", ENGINE_FINISH_CALLS);
    expect_said(CALL_HERMES, CALL("get", "{\"a\": 1}") "\n" CALL("odd", "{}"), &one, "", "get({\"a\": 1}",
                ENGINE_FINISH_CALLS);
    expect_said(CALL_LLAMA, "{\"name\": \"get\", \"parameters\": " ODD "}", &q, "", "get(" ODD,
                ENGINE_FINISH_CALLS);
    expect_said(CALL_LLAMA, "\n {\"name\":\"odd\",\"parameters\":{}}", &q, "", "odd({}", ENGINE_FINISH_CALLS);
}

static void test_what_is_no_call_stays_text(void **state) {
    (void)state;
    const engine_request q = ask((engine_tools){0});
    static const char *const texts[] = {"plain",
                                        "blanks at the end \n\n ",
                                        "\n\nat the beginning",
                                        "1 < 2, <tool>, </tool_call>, <tool_cal",
                                        " <tool_call",
                                        ""};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        expect_said(CALL_HERMES, texts[i], &q, texts[i], "", ENGINE_FINISH_STOP);
    static const char *const objects[] = {"{\"name\": \"nobody\", \"parameters\": {}}",
                                          "{\"a\": {\"name\": \"get\", \"parameters\": {}}}",
                                          "{\"name\"",
                                          "{\"name\": \"get",
                                          "x {\"name\": \"get\", \"parameters\": {}}",
                                          " \n{",
                                          "{\"name\": \"get_weather2\"}"};
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        expect_said(CALL_LLAMA, objects[i], &q, objects[i], "", ENGINE_FINISH_STOP);
}

static void test_a_call_that_begins_is_held_to_the_tools(void **state) {
    (void)state;
    const engine_request q = ask((engine_tools){0});
    said s;
    say_script(CALL_HERMES, CALL("nobody", "7"), &q, &s);
    assert_int_equal(s.len[ENGINE_CONTENT], 0);
    assert_true(s.calls > 0);
    assert_null(strstr(s.text[ENGINE_CALL], "nobody"));
}

static void test_stop_strings_and_minimum_length_are_of_text_not_of_calls(void **state) {
    (void)state;
    engine_request q = ask((engine_tools){.must_call = true, .only = "get"});
    static const char *const stops[] = {"\n", "stop"};
    q.sampling.stop = stops;
    q.sampling.nstop = 2;
    q.sampling.min_tokens = 400;
    expect_said(CALL_HERMES, CALL("get", "{\"a\": \"stop\"}"), &q, "", "get({\"a\": \"stop\"}",
                ENGINE_FINISH_CALLS);
    q = ask((engine_tools){0});
    q.sampling.stop = stops + 1;
    q.sampling.nstop = 1;
    expect_said(CALL_HERMES, "Non" CALL("get", "{\"a\": \"stop\"}"), &q, "Non", "get({\"a\": \"stop\"}",
                ENGINE_FINISH_CALLS);
    expect_said(CALL_HERMES, "Nonstop" CALL("get", "{}"), &q, "Non", "", ENGINE_FINISH_STOP);
    q.sampling.max_tokens = 50;
    expect_said(CALL_HERMES, "Non" CALL("get", "{\"a\": \"stop\"}"), &q, "Non",
                "get({\"a\": ", ENGINE_FINISH_LENGTH);
}

static void check_arguments(const json_t *v) {
    const char *city = json_string_value(json_object_get(v, "city"));
    json_int_t days = json_integer_value(json_object_get(v, "days"));
    assert_non_null(city);
    assert_true(strcmp(city, "Paris") == 0 || strcmp(city, "Oslo") == 0);
    assert_in_range(days, 1, 9);
    assert_int_equal(json_object_size(v), 2);
}

/* "get_weather(ARGUMENTS)get_weather(ARGUMENTS": the schema's values have no parenthesis. */
static int check_weather_calls(char *called) {
    static const char name[] = "get_weather(";
    int n = 0;
    for (char *at = called; at && *at; n++) {
        assert_memory_equal(at, name, sizeof name - 1);
        at += sizeof name - 1;
        char *end = strchr(at, ')');
        if (end) *end = 0;
        json_t *v = json_loads(at, 0, NULL);
        if (!v) fail_msg("not JSON: %s", at);
        check_arguments(v);
        json_decref(v);
        at = end ? end + 1 : NULL;
    }
    return n;
}

static void test_a_call_that_must_come_comes_and_fits_its_schema(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        fake f = {.calls = seed % 2 ? CALL_HERMES : CALL_LLAMA, .opens_thinking = seed % 3 == 0};
        const engine_limits limits = {.max_context = 2048, .max_seqs = 1, .guess_tokens = seed % 5 ? 0 : 8};
        engine *e = fake_open(&f, &limits);
        engine_request q =
            ask((engine_tools){.must_call = true, .only = "get_weather", .one_call = seed % 4 < 2});
        q.sampling.seed = seed;
        said s;
        if (f.opens_thinking) { /* the model has to stop thinking first */
            static const int32_t thoughts[] = {'h', 'm', FAKE_UNTHINK};
            q.forced = thoughts;
            q.nforced = 3;
        }
        say(e, &q, &s);
        assert_int_equal(s.len[ENGINE_CONTENT], 0);
        int n = check_weather_calls(s.text[ENGINE_CALL]);
        assert_true(n == s.calls && n >= 1 && (n == 1 || f.calls == CALL_HERMES));
        if (q.tools.one_call) assert_int_equal(n, 1);
        assert_int_equal(s.finish,
                         n == CALLS_MAX || s.finish != ENGINE_FINISH_LENGTH ? ENGINE_FINISH_CALLS : s.finish);
        engine_close(e);
        fake_done(&f);
    }
}

static void expect_refused(call_form form, const engine_request *q, const char *says) {
    fake f = {.calls = form};
    engine_error err = {0};
    engine *e = fake_open(&f, NULL);
    assert_int_equal(engine_submit(e, q, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    if (!strstr(err.msg, says)) fail_msg("the error says only: %s", err.msg);
    engine_close(e);
    fake_done(&f);
}

static void test_tools_that_cannot_be_kept_are_refused(void **state) {
    (void)state;
    engine_request q = ask((engine_tools){0});
    expect_refused(CALL_NONE, &q, "tools: this model's chat template has none");
    engine_tool strict[] = {tools[2], tools[0]};
    strict[0].strict = true;
    q.tools = (engine_tools){.v = strict, .n = 1};
    expect_refused(CALL_HERMES, &q, "tools: odd");
    expect_refused(CALL_HERMES, &q, "patternProperties is not supported");
    strict[1].parameters = "{\"type\":\"string\"}";
    strict[1].parameters_len = strlen(strict[1].parameters);
    strict[1].strict = true;
    q.tools = (engine_tools){.v = strict + 1, .n = 1};
    expect_refused(CALL_HERMES, &q, "must be an object");
    q = ask((engine_tools){.must_call = true, .only = "nobody"});
    expect_refused(CALL_HERMES, &q, "no tool nobody");
    q = ask((engine_tools){0});
    q.format.json = true;
    expect_refused(CALL_HERMES, &q, "cannot be combined with a response format");
    /* what need not be kept is not refused */
    q = ask((engine_tools){.must_call = true, .only = "odd", .one_call = true});
    expect_said(CALL_HERMES, CALL("odd", "{\"b\": 1}"), &q, "", "odd({\"b\": 1}", ENGINE_FINISH_CALLS);
}

/* From every place in a whole answer, the rest is the same text in the same channels. */
static void check_resumed(call_form form, const char *script, const engine_request *ask_for) {
    static said whole, rest;
    say_script(form, script, ask_for, &whole);
    for (int cut = 1; cut <= whole.n; cut++) {
        engine_request q = *ask_for;
        q.forced = whole.token;
        q.nforced = cut;
        say_script(form, script, &q, &rest);
        assert_int_equal(rest.finish, whole.finish);
        assert_int_equal(rest.completion_tokens, whole.completion_tokens);
        assert_memory_equal(rest.token, whole.token + cut, (size_t)rest.n * sizeof *rest.token);
        for (int i = 0; i < 2; i++) {
            assert_true(rest.len[i] <= whole.len[i]);
            assert_memory_equal(rest.text[i], whole.text[i] + whole.len[i] - rest.len[i], rest.len[i]);
        }
        if (!rest.len[ENGINE_CALL]) continue;
        const char *arguments = strchr(rest.text[ENGINE_CALL], '(') + 1;
        assert_string_equal(whole.text[ENGINE_CALL] + whole.len[ENGINE_CALL] - strlen(arguments), arguments);
    }
}

static void test_forced_tokens_resume_a_call_wherever_it_was_cut(void **state) {
    (void)state;
    const engine_request q = ask((engine_tools){0}), must = ask((engine_tools){.must_call = true});
    check_resumed(CALL_HERMES, "I look:\n" CALL("get", ODD) "\n" CALL("odd", "{\"ab\": \"\xe4\xbd\xa0\"}"),
                  &q);
    check_resumed(CALL_HERMES, CALL("get_weather", "{\"city\": \"Oslo\", \"days\": 3}"), &must);
    check_resumed(CALL_LLAMA, "{\"name\": \"get\", \"parameters\": " ODD "}", &q);
}

int main(int argc, char **argv) {
    fake_be(argc > 1 ? argv[1] : "");
    const struct CMUnitTest tests_[] = {
        cmocka_unit_test(test_calls_come_out_without_markup),
        cmocka_unit_test(test_what_is_no_call_stays_text),
        cmocka_unit_test(test_a_call_that_begins_is_held_to_the_tools),
        cmocka_unit_test(test_stop_strings_and_minimum_length_are_of_text_not_of_calls),
        cmocka_unit_test(test_a_call_that_must_come_comes_and_fits_its_schema),
        cmocka_unit_test(test_tools_that_cannot_be_kept_are_refused),
        cmocka_unit_test(test_forced_tokens_resume_a_call_wherever_it_was_cut),
    };
    return cmocka_run_group_tests(tests_, NULL, NULL);
}
