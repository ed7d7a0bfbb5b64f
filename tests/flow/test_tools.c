/* Tools through a whole pipeline, with a model whose template has them: its calls as clients see them, also when the engine
 * dies in the middle of one.
 *
 *     test_tools embedded|kafka
 */
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PREPARE "python3 -B " SOURCE_DIR "/tests/support/tool_model.py " SOURCE_DIR "/ops/demo/millrace-demo "

#define WEATHER                                                                                              \
    "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"The "                   \
    "weather.\",\"strict\":true,"                                                                            \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Paris\",\"Oslo\"]},\"days\":" \
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":999},\"minItems\":80,"    \
    "\"maxItems\":90}},\"required\":[\"city\",\"days\"],\"additionalProperties\":false}}}"
#define NOW    "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}"
#define CHOSEN "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}"

static const char *broker;

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
    int port;
    char folder[64];
} fixture;

static fixture suite;

static const ask weather = {.text = "What is the weather in Paris?",
                            .seed = 7,
                            .max_tokens = 2000,
                            .more = "{\"tools\":[" WEATHER "," NOW "]," CHOSEN "}"};

static int setup(void **state) {
    mr_error err;
    char model[128], command[512];
    if (system("command -v python3 >/dev/null") != 0) exit(77);
    test_folder_init(suite.folder);
    snprintf(model, sizeof(model), "%s/millrace-demo", suite.folder);
    snprintf(command, sizeof(command), PREPARE "%s", model);
    if (system(command) != 0) return -1;
    const pipeline_options opt = {.broker = broker, .model = model, .worker = "max_seqs = 4;"};
    suite.loop = mr_loop_new(&err);
    if (!suite.loop) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    suite.port = pipeline_port(suite.p);
    *state = &suite;
    return 0;
}

static void finish(bool failed) {
    pipeline_stop(suite.p, failed);
    mr_loop_free(suite.loop);
    test_folder_done(suite.folder);
}

static chat *answer_to(fixture *f, const ask *a) {
    chat *c = chat_ask(f->loop, f->port, a);
    chat_wait(f->loop, c);
    if (!chat_complete(c))
        fail_msg("not complete: status %d, finish '%s', %s", c->status, c->finish, c->message);
    return c;
}

/* The call's arguments, which the caller frees. */
static json_t *arguments_of(chat *c, const char *name) {
    size_t n = strlen(name);
    mr_buf_put(&c->calls, "", 1);
    assert_true(c->calls.n > n + 1);
    assert_memory_equal(c->calls.p, name, n);
    json_t *v = json_loads(c->calls.p + n + 1, 0, NULL);
    if (!v) fail_msg("not JSON: %s", c->calls.p);
    return v;
}

static void a_chosen_tool_is_called_with_arguments_of_its_schema(void **state) {
    chat *c = answer_to(*state, &weather);
    json_t *v = arguments_of(c, "get_weather");
    assert_string_equal(c->finish, "tool_calls");
    assert_int_equal(c->text.n, 0);
    assert_true(c->pieces > 3);
    assert_non_null(json_object_get(v, "city"));
    assert_in_range(json_array_size(json_object_get(v, "days")), 80, 90);
    assert_int_equal(json_object_size(v), 2);
    assert_memory_equal(c->ids, "call_", 5);
    json_decref(v);
    chat_free(c);
}

static void the_same_call_in_one_piece_is_the_same(void **state) {
    ask whole = weather;
    whole.whole = true;
    chat *x = answer_to(*state, &weather), *y = answer_to(*state, &whole);
    assert_int_equal(y->pieces, 1);
    assert_string_equal(y->finish, "tool_calls");
    assert_int_equal(x->calls.n, y->calls.n);
    assert_memory_equal(x->calls.p, y->calls.p, x->calls.n);
    chat_free(x);
    chat_free(y);
}

static void an_engine_killed_within_a_call_leaves_one_unbroken_call(void **state) {
    fixture *f = *state;
    chat *calm = answer_to(f, &weather), *c = chat_ask(f->loop, f->port, &weather);
    chat_wait_bytes(f->loop, c, 60);
    assert_false(c->over);
    pid_t engine = pipeline_engine_pid(f->p, PART_WORKER);
    assert_true(engine > 0);
    kill(engine, SIGKILL);
    chat_wait(f->loop, c);
    assert_true(chat_complete(c));
    assert_int_not_equal(pipeline_engine_pid(f->p, PART_WORKER), engine);
    assert_int_equal(c->calls.n, calm->calls.n);
    assert_memory_equal(c->calls.p, calm->calls.p, c->calls.n);
    assert_int_equal(strchr(c->ids, ' ') - c->ids, strlen(c->ids) - 1); /* one call */
    assert_int_equal(c->text.n, 0);
    chat_free(calm);
    chat_free(c);
}

static void a_conversation_with_calls_and_results_is_answered(void **state) {
    chat *c = answer_to(
        *state,
        &(ask){.text = "",
               .max_tokens = 8,
               .more =
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"Time?\"},{\"role\":\"assistant\","
                   "\"content\":null,\"tool_calls\":"
                   "[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"now\",\"arguments\":"
                   "\"{}\"}}]},"
                   "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"12:00\"}],\"tools\":[" NOW
                   "],"
                   "\"tool_choice\":\"none\"}"});
    assert_int_equal(c->calls.n, 0);
    chat_free(c);
}

static void a_schema_that_cannot_be_kept_is_refused_by_its_keyword(void **state) {
    fixture *f = *state;
    chat *c = chat_ask(f->loop, f->port,
                       &(ask){.text = "x",
                              .whole = true,
                              .more = "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                                      "\"strict\":true,\"parameters\":"
                                      "{\"type\":\"object\",\"patternProperties\":{\"a\":{}}}}}]}"});
    chat_wait(f->loop, c);
    assert_int_equal(c->status, 400);
    assert_non_null(strstr(c->message, "patternProperties is not supported"));
    chat_free(c);
}

int main(int argc, char **argv) {
    broker = pipeline_test_broker(argc, argv);
    if (!broker) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chosen_tool_is_called_with_arguments_of_its_schema),
        cmocka_unit_test(the_same_call_in_one_piece_is_the_same),
        cmocka_unit_test(an_engine_killed_within_a_call_leaves_one_unbroken_call),
        cmocka_unit_test(a_conversation_with_calls_and_results_is_answered),
        cmocka_unit_test(a_schema_that_cannot_be_kept_is_refused_by_its_keyword),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
