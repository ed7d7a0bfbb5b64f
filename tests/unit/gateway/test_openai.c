/* Bodies as clients send them: what they become, and what the wrong ones are told. */
#include "gateway/openai.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LIST(...)                                                                                            \
    ((mr_strlist){(const char *[]){__VA_ARGS__},                                                             \
                  (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))})
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define M  "\"model\":\"small\","

static mr_arena *arena;
static mr_api_error error;
static const char *session;
static bool may_go_ahead;

static int parse(const char *body, mr_openai_request *out) {
    const mr_gateway_conf conf = {.models = LIST("small", "eye"),
                                  .aliases = LIST("gpt-4o=small"),
                                  .vision_models = LIST("eye"),
                                  .max_tokens = 777};
    const mr_openai_caller caller = {.id = MR_STR("chatcmpl-1"),
                                     .tenant = MR_STR("acme"),
                                     .session = session,
                                     .may_go_ahead = may_go_ahead};
    mr_arena_reset(arena);
    memset(&error, 0, sizeof(error));
    return mr_openai_parse(&conf, &caller, mr_str_of(body), arena, out, &error);
}

static void good(const char *body, mr_openai_request *out) {
    mr_error err;
    if (parse(body, out) != 0) fail_msg("%s: %s", body, error.message);
    if (mr_validate(&mr_chat_request_def, &out->chat, &err) != 0) fail_msg("%s: %s", body, err.msg);
}

/* ---- good ---- */

static void a_plain_request_has_what_it_needs(void **state) {
    mr_openai_request r;
    (void)state;
    good(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello there\"}],\"stream\":true,\"model\":\"small\","
        "\"temperature\":0.5,\"presence_penalty\":0,\"frequency_penalty\":0,\"top_p\":1}",
        &r);
    assert_true(r.stream);
    assert_false(r.include_usage);
    assert_string_equal(r.model, "small");
    assert_true(mr_str_eqz(r.chat.id, "chatcmpl-1"));
    assert_true(mr_str_eqz(r.chat.tenant, "acme"));
    assert_true(mr_str_eqz(r.chat.model, "small"));
    assert_int_equal(r.chat.messages.n, 1);
    assert_int_equal(r.chat.messages.v[0].role, MR_ROLE_USER);
    assert_true(mr_str_eqz(r.chat.messages.v[0].content, "Hello there"));
    assert_true(r.chat.sampling.temperature == 0.5);
    assert_true(MR_HAS(&r.chat.sampling, MR_SAMPLING_PRESENCE_PENALTY));
    assert_false(MR_HAS(&r.chat.sampling, MR_SAMPLING_SEED));
    assert_int_equal(r.chat.sampling.max_tokens, 777);      /* the configured default */
    assert_false(MR_HAS(&r.chat, MR_CHAT_REQUEST_PURPOSE)); /* the router's to find out */
}

static void every_sampling_parameter_arrives(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M HI ",\"temperature\":1,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.05,\"presence_penalty\":-1,"
         "\"frequency_penalty\":2,\"repetition_penalty\":1.1,\"seed\":-5,\"max_tokens\":100,\"min_tokens\":3,"
         "\"ignore_eos\":true,\"logprobs\":true,\"top_logprobs\":5,\"stop\":[\"a\",\"b\"],\"user\":\"u1\"}",
         &r);
    const mr_sampling *s = &r.chat.sampling;
    assert_true(s->temperature == 1 && s->top_p == 0.9 && s->min_p == 0.05 && s->repetition_penalty == 1.1);
    assert_true(s->presence_penalty == -1 && s->frequency_penalty == 2);
    assert_int_equal(s->top_k, 40);
    assert_int_equal(s->seed, -5);
    assert_int_equal(s->max_tokens, 100);
    assert_int_equal(s->min_tokens, 3);
    assert_true(s->ignore_eos && s->logprobs);
    assert_int_equal(s->top_logprobs, 5);
    assert_int_equal(s->stop.n, 2);
    assert_true(mr_str_eqz(s->stop.v[1], "b"));
    assert_true(mr_str_eqz(r.chat.user, "u1"));
}

static void other_names_and_forms_mean_the_same(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M HI ",\"max_completion_tokens\":50}", &r);
    assert_int_equal(r.chat.sampling.max_tokens, 50);
    good("{" M HI ",\"stop\":\"END\"}", &r);
    assert_int_equal(r.chat.sampling.stop.n, 1);
    assert_true(mr_str_eqz(r.chat.sampling.stop.v[0], "END"));
    good("{" M HI ",\"stop\":null,\"temperature\":null,\"n\":null,\"tools\":null,\"stream\":null}", &r);
    assert_false(MR_HAS(&r.chat.sampling, MR_SAMPLING_TEMPERATURE));
    assert_int_equal(r.chat.sampling.stop.n, 0);
    good("{\"model\":\"gpt-4o\"," HI "}", &r);
    assert_string_equal(r.model, "small");
    good("{" M HI ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", &r);
    assert_true(r.include_usage);
}

static void a_response_format_is_handed_on(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M HI "}", &r);
    assert_false(MR_HAS(&r.chat, MR_CHAT_REQUEST_RESPONSE_FORMAT));
    good("{" M HI ",\"response_format\":{\"type\":\"json_object\"}}", &r);
    assert_int_equal(r.chat.response_format.type, MR_FORMAT_JSON_OBJECT);
    good("{" M HI
         ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"point\",\"strict\":true,"
         "\"schema\":{\"type\":\"object\",\"properties\":{\"y\":{},\"x\":{}}}}}}",
         &r);
    assert_int_equal(r.chat.response_format.type, MR_FORMAT_JSON_SCHEMA);
    /* the members keep their order: it is the order in which they will be written */
    assert_true(mr_str_eqz(r.chat.response_format.schema,
                           "{\"type\":\"object\",\"properties\":{\"y\":{},\"x\":{}}}"));
}

#define TOOL(function) "{\"type\":\"function\",\"function\":{" function "}}"

static void tools_are_handed_on(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M HI "}", &r);
    assert_false(MR_HAS(&r.chat, MR_CHAT_REQUEST_TOOLS));
    good("{" M HI ",\"parallel_tool_calls\":false,\"tool_choice\":\"auto\",\"tools\":[" TOOL(
             "\"name\":\"f-1\",\"description\":\"d\",\"strict\":true,\"parameters\":{\"type\":\"object\","
             "\"b\":0.1}") "," TOOL("\"name\":\"g\",\"strict\":null,\"description\":null") "]}",
         &r);
    assert_int_equal(r.chat.tools.n, 2);
    const mr_tool *t = r.chat.tools.v;
    assert_true(mr_str_eqz(t[0].name, "f-1") && mr_str_eqz(t[0].description, "d") && t[0].strict);
    assert_non_null(strstr(t[0].parameters.p, "{\"type\":\"object\",\"b\":0.1"));
    assert_true(mr_str_eqz(t[1].name, "g") && !MR_HAS(&t[1], MR_TOOL_PARAMETERS) && !t[1].strict);
    assert_int_equal(r.chat.tool_choice.type, MR_TOOLS_AUTO);
    assert_true(MR_HAS(&r.chat, MR_CHAT_REQUEST_PARALLEL_TOOL_CALLS) && !r.chat.parallel_tool_calls);
    good("{" M HI ",\"tools\":[" TOOL("\"name\":\"g\"") "],\"tool_choice\":\"required\"}", &r);
    assert_int_equal(r.chat.tool_choice.type, MR_TOOLS_REQUIRED);
    good("{" M HI ",\"tools\":[" TOOL("\"name\":\"g\"") "],\"tool_choice\":" TOOL("\"name\":\"g\"") "}", &r);
    assert_int_equal(r.chat.tool_choice.type, MR_TOOLS_FUNCTION);
    assert_true(mr_str_eqz(r.chat.tool_choice.name, "g"));
}

static void calls_and_their_results_are_part_of_the_conversation(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M "\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":null,"
         "\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
         "\"arguments\":\"{}\"}}]},"
         "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"21\"}]}",
         &r);
    assert_int_equal(r.chat.messages.v[1].tool_calls.n, 1);
    assert_true(mr_str_eqz(r.chat.messages.v[1].tool_calls.v[0].function.arguments, "{}"));
    assert_int_equal(r.chat.messages.v[2].role, MR_ROLE_TOOL);
}

static void what_does_no_harm_is_accepted(void **state) {
    static const char *const extras[] = {"\"n\":1",
                                         "\"store\":false",
                                         "\"metadata\":{\"a\":\"b\"}",
                                         "\"tools\":[]",
                                         "\"tool_choice\":\"none\"",
                                         "\"response_format\":{\"type\":\"text\"}",
                                         "\"modalities\":[\"text\"]",
                                         "\"logit_bias\":{}",
                                         "\"parallel_tool_calls\":true",
                                         "\"something_new\":[1,{\"x\":2}]"};
    (void)state;
    for (size_t i = 0; i < sizeof(extras) / sizeof(extras[0]); i++) {
        mr_openai_request r;
        char body[300];
        snprintf(body, sizeof(body), "{" M HI ",%s}", extras[i]);
        good(body, &r);
    }
}

static void all_roles_and_empty_turns_are_taken(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M
         "\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"developer\",\"content\":\"d\"},"
         "{\"role\":\"user\",\"content\":\"\"},{\"role\":\"assistant\",\"content\":null},"
         "{\"role\":\"tool\",\"content\":\"t\",\"tool_call_id\":\"c\"}]}",
         &r);
    assert_int_equal(r.chat.messages.n, 5);
    assert_true(MR_HAS(&r.chat.messages.v[3], MR_CHAT_MESSAGE_CONTENT));
    assert_int_equal(r.chat.messages.v[3].content.n, 0);
}

static void a_vision_model_gets_the_images(void **state) {
    mr_openai_request r;
    (void)state;
    good("{\"model\":\"eye\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
         "\"what?\"},"
         "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/jpeg;base64,AAAA\"}}]}]}",
         &r);
    assert_int_equal(r.chat.messages.v[0].parts.n, 2);
    assert_true(mr_str_eqz(r.chat.messages.v[0].parts.v[1].image_url.url, "data:image/jpeg;base64,AAAA"));
}

/* ---- sessions ---- */

static void turns_of_a_conversation_share_a_session(void **state) {
    mr_openai_request r;
    char first[MR_NAME_MAX + 1];
    (void)state;
    good("{" M "\"messages\":[{\"role\":\"user\",\"content\":\"rivers?\"}]}", &r);
    mr_str_copy(r.chat.session, first, sizeof(first));
    assert_memory_equal(first, "acme/", 5);
    good("{" M
         "\"messages\":[{\"role\":\"system\",\"content\":\"x\"},{\"role\":\"user\",\"content\":\"rivers?\"},"
         "{\"role\":\"assistant\",\"content\":\"yes\"},{\"role\":\"user\",\"content\":\"and lakes?\"}]}",
         &r);
    assert_true(mr_str_eqz(r.chat.session, first));
    good("{" M "\"messages\":[{\"role\":\"user\",\"content\":\"lakes?\"}]}", &r);
    assert_false(mr_str_eqz(r.chat.session, first));
}

static void a_client_may_name_its_session(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M HI ",\"session_id\":\"s-1\"}", &r);
    assert_true(mr_str_eqz(r.chat.session, "acme/s-1"));
    session = "from-header";
    good("{" M HI ",\"session_id\":\"s-1\"}", &r);
    assert_true(mr_str_eqz(r.chat.session, "acme/from-header"));
    session = NULL;
}

/* ---- bad ---- */

typedef struct bad_case {
    const char *body;
    int status;
    const char *code, *param;
} bad_case;

static const bad_case bad_cases[] = {
    {"", 400, "invalid_json", ""},
    {"{", 400, "invalid_json", ""},
    {"hello", 400, "invalid_json", ""},
    {"[]", 400, "invalid_json", ""},
    {"{\"model\":\"sm\\u0000all\"," HI "}", 400, "invalid_json", ""},
    {"{\"model\":\"\xff\"," HI "}", 400, "invalid_json", ""},
    {"{" HI "}", 400, "missing_required_parameter", "model"},
    {"{\"model\":5," HI "}", 400, "invalid_type", "model"},
    {"{\"model\":\"gpt-9\"," HI "}", 404, "model_not_found", "model"},
    {"{\"model\":\"small\"}", 400, "missing_required_parameter", "messages"},
    {"{" M "\"messages\":[]}", 400, "invalid_value", "messages"},
    {"{" M "\"messages\":\"hi\"}", 400, "invalid_value", "messages"},
    {"{" M "\"messages\":[\"hi\"]}", 400, "invalid_value", "messages[0]"},
    {"{" M "\"messages\":[{\"content\":\"hi\"}]}", 400, "invalid_value", "messages[0].role"},
    {"{" M "\"messages\":[{\"role\":\"king\",\"content\":\"hi\"}]}", 400, "invalid_value",
     "messages[0].role"},
    {"{" M "\"messages\":[{\"role\":\"user\",\"content\":5}]}", 400, "invalid_value", "messages[0].content"},
    {"{" M "\"messages\":[{\"role\":\"user\"}]}", 400, "invalid_value", "messages[0]"},
    {"{" M "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}]}", 400, "invalid_value",
     "messages[0].content[0].type"},
    {"{" M HI ",\"temperature\":3}", 400, "invalid_value", "temperature"},
    {"{" M HI ",\"temperature\":\"hot\"}", 400, "invalid_value", "temperature"},
    {"{" M HI ",\"top_p\":-0.1}", 400, "invalid_value", "top_p"},
    {"{" M HI ",\"presence_penalty\":2.5}", 400, "invalid_value", "presence_penalty"},
    {"{" M HI ",\"max_tokens\":0}", 400, "invalid_value", "max_tokens"},
    {"{" M HI ",\"max_tokens\":\"many\"}", 400, "invalid_value", "max_tokens"},
    {"{" M HI ",\"seed\":1.5}", 400, "invalid_value", "seed"},
    {"{" M HI ",\"stop\":5}", 400, "invalid_value", "stop"},
    {"{" M HI ",\"stop\":[1]}", 400, "invalid_value", "stop[0]"},
    {"{" M HI ",\"logprobs\":true,\"top_logprobs\":21}", 400, "invalid_value", "top_logprobs"},
    {"{" M HI ",\"top_logprobs\":2}", 400, "invalid_value", "top_logprobs"},
    {"{" M HI ",\"max_tokens\":5,\"min_tokens\":6}", 400, "invalid_value", "min_tokens"},
    {"{" M HI ",\"stream\":\"yes\"}", 400, "invalid_type", "stream"},
    {"{" M HI ",\"stream_options\":true}", 400, "invalid_type", "stream_options"},
    {"{" M HI ",\"stream_options\":{\"include_usage\":1}}", 400, "invalid_type",
     "stream_options.include_usage"},
    {"{" M HI ",\"n\":0}", 400, "invalid_value", "n"},
    {"{" M HI ",\"n\":17}", 400, "invalid_value", "n"},
    {"{" M HI ",\"n\":\"2\"}", 400, "invalid_type", "n"},
    {"{" M HI ",\"tools\":5}", 400, "invalid_type", "tools"},
    {"{" M HI ",\"tools\":[{\"type\":\"function\"}]}", 400, "invalid_type", "tools[0].function"},
    {"{" M HI ",\"tools\":[{\"type\":\"web_search\"}]}", 400, "invalid_value", "tools[0].type"},
    {"{" M HI ",\"tools\":[" TOOL("\"name\":\"f\",\"parameters\":[]") "]}", 400, "invalid_type",
     "tools[0].function.parameters"},
    {"{" M HI ",\"tools\":[" TOOL("") "]}", 400, "invalid_value", "tools[0].name"},
    {"{" M HI ",\"tools\":[" TOOL("\"name\":\"a b\"") "]}", 400, "invalid_value", "tools[0]"},
    {"{" M HI ",\"tools\":[" TOOL("\"name\":\"f\"") "," TOOL("\"name\":\"f\"") "]}", 400, "invalid_value",
     ""},
    {"{" M HI ",\"tools\":[" TOOL("\"name\":\"f\"") "],\"tool_choice\":" TOOL("\"name\":\"g\"") "}", 400,
     "invalid_value", ""},
    {"{" M HI ",\"tools\":[" TOOL("\"name\":\"f\"") "],\"tool_choice\":\"maybe\"}", 400, "invalid_type",
     "tool_choice"},
    {"{" M HI ",\"tools\":[" TOOL("\"name\":\"f\"") "],\"parallel_tool_calls\":\"no\"}", 400, "invalid_value",
     "parallel_tool_calls"},
    {"{" M HI ",\"tool_choice\":\"required\"}", 400, "invalid_value", "tool_choice"},
    {"{" M HI ",\"function_call\":{\"name\":\"f\"}}", 400, "unsupported_parameter", "function_call"},
    {"{" M HI ",\"functions\":[{}]}", 400, "unsupported_parameter", "functions"},
    {"{" M HI ",\"response_format\":{\"type\":\"xml\"}}", 400, "invalid_value", "response_format.type"},
    {"{" M HI ",\"response_format\":\"json\"}", 400, "invalid_value", "response_format.type"},
    {"{" M HI ",\"response_format\":{\"type\":\"json_schema\"}}", 400, "invalid_type",
     "response_format.json_schema"},
    {"{" M HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"}}}", 400,
     "invalid_type", "response_format.json_schema.schema"},
    {"{" M HI ",\"modalities\":[\"text\",\"audio\"]}", 400, "unsupported_parameter", "modalities"},
    {"{" M HI ",\"logit_bias\":{\"50256\":-100}}", 400, "unsupported_parameter", "logit_bias"},
    {"{" M HI ",\"user\":5}", 400, "invalid_value", "user"},
    {"{" M HI ",\"session_id\":5}", 400, "invalid_type", "session_id"},
    {"{" M HI ",\"session_id\":\"a b\"}", 400, "invalid_value", "session_id"},
    {"{" M "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
     "\"data:image/png;base64,AA\"}}]}]}",
     400, "images_unsupported", "messages[0].content[0].image_url"},
    {"{\"model\":\"eye\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
     "{\"url\":"
     "\"https://example.org/a.png\"}}]}]}",
     400, "invalid_image_url", "messages[0].content[0].image_url"},
    {"{\"model\":\"eye\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
     "{\"url\":"
     "\"data:image/png,AA\"}}]}]}",
     400, "invalid_image_url", "messages[0].content[0].image_url"},
};

static void what_is_wrong_is_said_with_its_parameter(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++) {
        const bad_case *c = &bad_cases[i];
        mr_openai_request r;
        if (parse(c->body, &r) == 0) fail_msg("accepted: %s", c->body);
        if (error.status != c->status || strcmp(error.code, c->code) != 0 ||
            strcmp(error.param, c->param) != 0) {
            fail_msg("%s\ngave %d %s param '%s': %s", c->body, error.status, error.code, error.param,
                     error.message);
        }
        assert_true(strlen(error.message) > 10 && !strstr(error.message, "sampling"));
        json_t *j = mr_api_error_json(&error);
        assert_non_null(j);
        json_decref(j);
    }
}

static void a_picture_over_its_limit_is_refused(void **state) {
    static const char head[] = "{\"model\":\"eye\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
                               "\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,";
    size_t n = MR_IMAGE_URL_MAX + 1;
    char *body = malloc(n + sizeof(head) + 32);
    mr_openai_request r;
    (void)state;
    memcpy(body, head, sizeof(head) - 1);
    memset(body + sizeof(head) - 1, 'A', n);
    strcpy(body + sizeof(head) - 1 + n, "\"}}]}]}");
    assert_int_equal(parse(body, &r), -1);
    assert_int_equal(error.status, 400);
    assert_string_equal(error.param, "messages[0].content[0].image_url.url");
    free(body);
}

static void deep_nesting_does_no_harm(void **state) {
    size_t depth = 100000;
    char *body = malloc(depth + 1);
    mr_openai_request r;
    (void)state;
    memset(body, '[', depth);
    body[depth] = '\0';
    assert_int_equal(parse(body, &r), -1);
    assert_string_equal(error.code, "invalid_json");
    free(body);
}

/* ---- feedback ---- */

static void feedback_is_checked(void **state) {
    mr_feedback f;
    (void)state;
    mr_arena_reset(arena);
    assert_int_equal(
        mr_openai_feedback(MR_STR("{\"request\":\"chatcmpl-1\",\"rating\":-1,\"comment\":\"没用\"}"), arena,
                           &f, &error),
        0);
    assert_true(mr_str_eqz(f.request, "chatcmpl-1"));
    assert_int_equal(f.rating, -1);
    assert_int_equal(
        mr_openai_feedback(MR_STR("{\"request\":\"a\",\"rating\":-1,\"label\":\"挂失\"}"), arena, &f, &error),
        0);
    assert_true(mr_str_eqz(f.label, "挂失"));
    assert_int_equal(mr_openai_feedback(MR_STR("{\"request\":\"a\",\"rating\":-1,\"label\":\"a\\tb\"}"),
                                        arena, &f, &error),
                     -1);
    assert_string_equal(error.param, "label");
    assert_int_equal(mr_openai_feedback(MR_STR("{\"request\":\"a\",\"rating\":2}"), arena, &f, &error), -1);
    assert_string_equal(error.param, "rating");
    assert_int_equal(mr_openai_feedback(MR_STR("{\"request\":\"a b\",\"rating\":1}"), arena, &f, &error), -1);
    assert_string_equal(error.param, "request");
    assert_int_equal(mr_openai_feedback(MR_STR("{\"rating\":1}"), arena, &f, &error), -1);
}

static void priority_is_turned_round_and_going_ahead_takes_a_scope(void **state) {
    mr_openai_request r;
    (void)state;
    good("{" M HI "}", &r);
    assert_false(MR_HAS(&r.chat, MR_CHAT_REQUEST_PRIORITY));
    good("{" M HI ",\"priority\":7}", &r);
    assert_int_equal(r.chat.priority, -7);
    assert_int_equal(parse("{" M HI ",\"priority\":-7}", &r), -1);
    assert_int_equal(error.status, 403);
    assert_string_equal(error.param, "priority");
    may_go_ahead = true;
    good("{" M HI ",\"priority\":-7}", &r);
    assert_int_equal(r.chat.priority, 7);
    assert_int_equal(parse("{" M HI ",\"priority\":101}", &r), -1);
    assert_int_equal(error.status, 400);
    assert_int_equal(parse("{" M HI ",\"priority\":\"high\"}", &r), -1);
    may_go_ahead = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request_has_what_it_needs),
        cmocka_unit_test(every_sampling_parameter_arrives),
        cmocka_unit_test(priority_is_turned_round_and_going_ahead_takes_a_scope),
        cmocka_unit_test(other_names_and_forms_mean_the_same),
        cmocka_unit_test(a_response_format_is_handed_on),
        cmocka_unit_test(tools_are_handed_on),
        cmocka_unit_test(calls_and_their_results_are_part_of_the_conversation),
        cmocka_unit_test(what_does_no_harm_is_accepted),
        cmocka_unit_test(all_roles_and_empty_turns_are_taken),
        cmocka_unit_test(a_vision_model_gets_the_images),
        cmocka_unit_test(turns_of_a_conversation_share_a_session),
        cmocka_unit_test(a_client_may_name_its_session),
        cmocka_unit_test(what_is_wrong_is_said_with_its_parameter),
        cmocka_unit_test(a_picture_over_its_limit_is_refused),
        cmocka_unit_test(deep_nesting_does_no_harm),
        cmocka_unit_test(feedback_is_checked),
    };
    arena = mr_arena_new(16u << 20);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    mr_arena_free(arena);
    return rc;
}
