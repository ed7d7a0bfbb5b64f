/* What goes over the wire, event by event, as clients parse it. */
#include "gateway/render.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const mr_render plain = {"chatcmpl-1", "small", 1700000000, false, 0, false, NULL};
static const mr_render with_usage = {"chatcmpl-1", "small", 1700000000, true, 0, false, NULL};

static mr_response_end an_end(void) {
    mr_response_end e = {.finish_reason = MR_FINISH_STOP};
    MR_SET(&e, MR_RESPONSE_END_SOURCE, source, MR_SOURCE_KB);
    e.usage = (mr_usage){
        .prompt_tokens = 10, .completion_tokens = 7, .reasoning_tokens = 3, .prompt_cache_hit_tokens = 4};
    return e;
}

static const mr_calls no_calls;
static mr_buf out;

static void expect(const char *text) {
    mr_buf_put(&out, "", 1);
    assert_false(out.failed);
    assert_string_equal(out.p, text);
    mr_buf_clear(&out);
}

static void a_piece_is_one_event_with_one_field(void **state) {
    (void)state;
    mr_piece p = {.channel = MR_CHANNEL_CONTENT, .text = MR_STR("你好\n\"x\""), .first = true, .at = "10"};
    mr_render_piece(&plain, &p, &out);
    expect("id: 10\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
           "\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
           "\"你好\\n\\\"x\\\"\"},"
           "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    p = (mr_piece){.channel = MR_CHANNEL_REASONING, .text = MR_STR("hm"), .at = "12"};
    mr_render_piece(&plain, &p, &out);
    expect("id: 12\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
           "\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"},"
           "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
}

static mr_delta_call call_of(int64_t index, const char *id, const char *name) {
    mr_delta_call c = {0};
    MR_SET(&c, MR_DELTA_CALL_INDEX, index, index);
    MR_SET(&c, MR_DELTA_CALL_ID, id, mr_str_of(id));
    MR_SET(&c, MR_DELTA_CALL_NAME, name, mr_str_of(name));
    return c;
}

static void a_tool_call_says_its_name_once(void **state) {
    (void)state;
    const mr_delta_call call = call_of(1, "call_7", "f");
    mr_piece p = {.channel = MR_CHANNEL_TOOL_CALL,
                  .text = MR_STR("{\"a"),
                  .call = &call,
                  .call_begins = true,
                  .at = "3"};
    p.first = true;
    mr_render_piece(&plain, &p, &out);
    expect(
        "id: 3\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":"
        "{\"arguments\":\"{\\\"a\",\"name\":\"f\"},\"id\":\"call_7\",\"type\":\"function\"}],"
        "\"role\":\"assistant\",\"content\":null},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    p.first = p.call_begins = false;
    mr_render_piece(&plain, &p, &out);
    expect(
        "id: 3\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":"
        "{\"arguments\":\"{\\\"a\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
}

static void an_answer_of_calls_has_them_instead_of_content(void **state) {
    (void)state;
    mr_calls calls = {0};
    const mr_delta_call first = call_of(0, "call_1", "f"), second = call_of(1, "call_2", "g"),
                        other = call_of(1, "call_2", "h"), gap = call_of(3, "call_4", "g");
    assert_int_equal(mr_calls_see(&calls, &first), MR_CALLS_BEGINS);
    mr_calls_append(&calls, MR_STR("{\"a\":"));
    assert_int_equal(mr_calls_see(&calls, &first), MR_CALLS_GOES_ON);
    mr_calls_append(&calls, MR_STR("1}"));
    assert_int_equal(mr_calls_see(&calls, &second), MR_CALLS_BEGINS);
    mr_calls_append(&calls, MR_STR("{}"));
    assert_int_equal(mr_calls_see(&calls, &other), MR_CALLS_MISMATCH);
    assert_int_equal(mr_calls_see(&calls, &first), MR_CALLS_MISMATCH);
    assert_int_equal(mr_calls_see(&calls, &gap), MR_CALLS_MISMATCH);
    mr_response_end e = an_end();
    e.finish_reason = MR_FINISH_TOOL_CALLS;
    mr_render_json(mr_render_choice(&plain, &(mr_reply){MR_STR(""), MR_STR(""), &calls, NULL}, &e), &out);
    expect("{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
           "{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":"
           "1}\"}},"
           "{\"id\":\"call_2\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
           "\"logprobs\":null,\"finish_reason\":\"tool_calls\"}");
    mr_calls_done(&calls);
}

static void an_end_says_why_and_where_from(void **state) {
    mr_response_end e = an_end();
    (void)state;
    mr_render_end(&plain, &e, "12", &out);
    expect("id: 12\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
           "\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
           "\"stop\"}],"
           "\"millrace\":{\"source\":\"kb\"}}\n\n");
}

static void usage_comes_last_when_asked_for(void **state) {
    mr_response_end e = an_end();
    (void)state;
    mr_render_end(&with_usage, &e, "12", &out);
    mr_render_usage(&with_usage, &e, "12", &out);
    expect(
        "id: 12\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
        "\"stop\"}],"
        "\"usage\":null,\"millrace\":{\"source\":\"kb\"}}\n\n"
        "id: 12\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"small\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":7,"
        "\"total_tokens\":17,\"prompt_tokens_details\":{\"cached_tokens\":4},\"completion_tokens_details\":"
        "{\"reasoning_tokens\":3},\"prompt_cache_hit_tokens\":4,\"prompt_cache_miss_tokens\":6,\"source\":"
        "\"kb\"},"
        "\"millrace\":{\"source\":\"kb\"}}\n\n");
}

static void a_completion_is_one_json(void **state) {
    mr_response_end e = an_end();
    (void)state;
    json_t *choice = mr_render_choice(&plain, &(mr_reply){MR_STR("hi"), MR_STR("hm"), &no_calls, NULL}, &e);
    mr_render_completion(&plain, json_pack("[o]", choice), &e, &out);
    expect(
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"small\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\",\"reasoning_"
        "content\":\"hm\"},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_"
        "tokens\":7,"
        "\"total_tokens\":17,\"prompt_tokens_details\":{\"cached_tokens\":4},\"completion_tokens_details\":"
        "{\"reasoning_tokens\":3},\"prompt_cache_hit_tokens\":4,\"prompt_cache_miss_tokens\":6,\"source\":"
        "\"kb\"},"
        "\"millrace\":{\"source\":\"kb\"}}");
}

static void an_empty_completion_has_empty_content(void **state) {
    mr_response_end e = an_end();
    (void)state;
    json_t *choice = mr_render_choice(&plain, &(mr_reply){MR_STR(""), MR_STR(""), &no_calls, NULL}, &e);
    mr_render_completion(&plain, json_pack("[o]", choice), &e, &out);
    mr_buf_put(&out, "", 1);
    assert_non_null(strstr(out.p, "{\"role\":\"assistant\",\"content\":\"\"}"));
    mr_buf_clear(&out);
}

static void logprobs_have_bytes_and_alternatives(void **state) {
    mr_top_logprob top = {.token = MR_STR("a"), .logprob = -0.5};
    mr_logprob p = {.token = MR_STR("\xc3\xa9"), .logprob = -0.25};
    (void)state;
    p.top.v = &top;
    p.top.n = 1;
    json_t *list = json_array();
    assert_int_equal(mr_render_logprobs(&p, 1, list), 0);
    mr_render_json(list, &out);
    expect("[{\"token\":\"\xc3\xa9\",\"logprob\":-0.25,\"bytes\":[195,169],\"top_logprobs\":"
           "[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97]}]}]");
}

static void an_error_is_said_to_machines_and_to_people(void **state) {
    mr_api_error e;
    (void)state;
    mr_refuse(&e, 500, "engine_lost", NULL, "The engine died.");
    mr_render_error(&e, "5", &out);
    expect(
        "id: 5\ndata: {\"error\":{\"message\":\"The engine died.\",\"type\":\"server_error\",\"param\":null,"
        "\"code\":\"engine_lost\"}}\n\n");
    mr_render_sentence(&e, false, &out);
    expect("\n\n[Error: the answer could not be finished: The engine died.]");
    mr_render_sentence(&e, true, &out);
    expect("[Error: the answer could not be finished: The engine died.]");
}

static void a_cut_message_is_still_json(void **state) {
    mr_api_error e;
    char name[1001];
    (void)state;
    for (size_t i = 0; i < sizeof(name) - 1; i++) name[i] = "\xe6\xb2\xb3"[i % 3];
    name[sizeof(name) - 1] = '\0';
    mr_refuse(&e, 404, "model_not_found", "model", "The model `%.100s` and %s does not exist.", name, name);
    json_t *j = mr_api_error_json(&e);
    assert_non_null(j);
    json_decref(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_piece_is_one_event_with_one_field),
        cmocka_unit_test(a_tool_call_says_its_name_once),
        cmocka_unit_test(an_answer_of_calls_has_them_instead_of_content),
        cmocka_unit_test(an_end_says_why_and_where_from),
        cmocka_unit_test(usage_comes_last_when_asked_for),
        cmocka_unit_test(a_completion_is_one_json),
        cmocka_unit_test(an_empty_completion_has_empty_content),
        cmocka_unit_test(logprobs_have_bytes_and_alternatives),
        cmocka_unit_test(an_error_is_said_to_machines_and_to_people),
        cmocka_unit_test(a_cut_message_is_still_json),
    };
    mr_buf_init(&out, 1 << 20);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    mr_buf_done(&out);
    return rc;
}
