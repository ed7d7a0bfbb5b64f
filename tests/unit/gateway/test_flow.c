/* Chats through the gateway: what the client sees of what a worker does. */
#include "fixture.h"

#include "gateway/request_id.h"
#include "schemas/hash.h"

#include <event2/bufferevent.h>
#include <librdkafka/rdkafka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHAT "/v1/chat/completions"
#define STREAM(text)                                                                                         \
    "{\"model\":\"small\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"
#define WHOLE(text) "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]}"

static const char text[] = "Water turns the wheel, and the wheel grinds the corn.";
#define TEXT_LEN (sizeof(text) - 1)

static int setup(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    fixture_init(f);
    fixture_start(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture_done(*state);
    free(*state);
    return 0;
}

/* A client whose request has reached the worker. */
static client *ask(fixture *f, const char *body, const mr_chat_request **r) {
    int n = f->nrequests;
    client *c = client_open(f);
    client_post(c, CHAT, body);
    *r = worker_request(f, n);
    return c;
}

static void expect_content(client *c, const char *want) {
    char *got = client_content(c);
    assert_string_equal(got, want);
    free(got);
}

static bool ends_cleanly(const client *c) {
    bool clean;
    free(client_body(c, &clean));
    return clean;
}

/* ---- good answers ---- */

static void a_stream_says_accepted_then_tokens_then_done(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("hello"), &r);
    client_expect(c, ": accepted\n");
    assert_true(client_has(c, "HTTP/1.1 200 OK"));
    assert_true(client_has(c, "Content-Type: text/event-stream"));
    assert_true(client_has(c, "x-request-id: chatcmpl-"));
    assert_true(client_has(c, "X-Accel-Buffering: no"));
    assert_true(client_has(c, "Access-Control-Allow-Origin: *"));
    assert_false(client_has(c, "data:"));
    assert_false(client_has(c, "x-millrace-source:")); /* nobody has answered yet */
    assert_int_equal(r->reply_to, f->conf.partition);
    assert_true(r->deadline_ms > r->created_ms);
    worker_answer(f, r, text);
    client_expect(c, "data: [DONE]\n\n");
    client_expect(c, "0\r\n\r\n");
    assert_true(ends_cleanly(c));
    expect_content(c, text);
    assert_true(client_has(c, "\"delta\":{\"role\":\"assistant\",\"content\":\"Water t\"}"));
    assert_true(client_has(c, "\"finish_reason\":\"stop\""));
    assert_true(client_has(c, "\"millrace\":{\"source\":\"kb\"}"));
    assert_false(client_has(c, "\"usage\""));
    assert_false(c->closed); /* the connection is good for the next request */
    client_close(c);
}

static void a_stream_that_is_answered_at_once_names_its_source_in_the_headers(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    f->conf.headers_wait_ms = 60000;
    client *c = ask(f, STREAM("a routine question"), &r);
    worker_answer(f, r, text);
    client_expect(c, "data: [DONE]\n\n");
    client_expect(c, "0\r\n\r\n");
    assert_true(ends_cleanly(c));
    expect_content(c, text);
    assert_true(client_has(c, "HTTP/1.1 200 OK"));
    assert_true(client_has(c, "x-millrace-source: kb"));
    assert_true(client_has(c, ": accepted\n"));
    f->conf.headers_wait_ms = 100;
    client_close(c);
}

static void a_stream_that_fails_before_its_first_word_says_so_as_a_stream(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    f->conf.headers_wait_ms = 60000;
    client *c = ask(f, STREAM("fail at once"), &r);
    worker_error(f, r, "", 504, "deadline_exceeded", "Too late.");
    client_expect_closed(c);
    assert_true(client_has(c, "HTTP/1.1 200 OK"));
    assert_true(client_has(c, "\"code\":\"deadline_exceeded\""));
    assert_false(client_has(c, "[DONE]"));
    f->conf.headers_wait_ms = 100;
    client_close(c);
}

static void a_whole_answer_is_one_json_with_usage(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("title please"), &r);
    assert_false(r->stream);
    worker_answer(f, r, text);
    client_expect(c, "\"object\":\"chat.completion\"");
    client_expect(c, "\"total_tokens\":");
    assert_true(client_has(c, "Content-Type: application/json"));
    assert_true(client_has(c, "x-millrace-source: kb"));
    assert_true(client_has(c, text));
    assert_true(client_has(c, "\"prompt_tokens\":11"));
    client_close(c);
}

static void reasoning_goes_to_its_own_field(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("think"), &r);
    worker_delta_as(f, r, MR_CHANNEL_REASONING, 1, text, 0, 5);
    worker_delta(f, r, text, 5, TEXT_LEN);
    worker_end(f, r, text);
    client_expect(c, "[DONE]");
    assert_true(client_has(c, "\"delta\":{\"role\":\"assistant\",\"reasoning_content\":\"Water\"}"));
    expect_content(c, text + 5);
    client_close(c);
}

/* "Look. " and two calls; the records of an engine that died come twice, cut elsewhere. */
static const char with_calls[] = "Look. {\"a\":1}{}";
enum { CALLS_AT = 6, SECOND_AT = 13, WITH_CALLS = 15 };

static void play_calls(fixture *f, const mr_chat_request *r) {
    worker_delta(f, r, with_calls, 0, CALLS_AT);
    worker_call(f, r, 0, "f", with_calls, CALLS_AT, 8);
    worker_delta(f, r, with_calls, 0, CALLS_AT);
    worker_call(f, r, 0, "f", with_calls, CALLS_AT, 10);
    worker_call(f, r, 0, "f", with_calls, 10, SECOND_AT);
    worker_call(f, r, 1, "g", with_calls, SECOND_AT, WITH_CALLS);
    worker_call(f, r, 0, "f", with_calls, 10, SECOND_AT);
    worker_end(f, r, with_calls);
}

static void tool_calls_are_streamed_once_whatever_comes_again(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("call"), &r);
    play_calls(f, r);
    client_expect(c, "[DONE]");
    expect_content(c, "Look. ");
    static const char *const pieces[] = {
        "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"\",\"name\":\"f\"},\"id\":\"call_"
        "0\",\"type\":\"function\"}]",
        "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"a\\\"\"}}]",
        "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]",
        "\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\",\"name\":\"g\"},\"id\":\"call_1\","
        "\"type\":\"function\"}]"};
    bool clean;
    char *body = client_body(c, &clean), *at = body;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        at = strstr(at, pieces[i]);
        if (!at) fail_msg("piece %zu is not there, or too early: %s", i, body);
        assert_null(strstr(at + 1, pieces[i]));
    }
    free(body);
    client_close(c);
}

static void tool_calls_of_a_whole_answer_are_in_its_message(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("call"), &r);
    play_calls(f, r);
    client_expect(c, "\"content\":\"Look. "
                     "\",\"tool_calls\":[{\"id\":\"call_0\",\"type\":\"function\",\"function\":{\"name\":"
                     "\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"call_1\",");
    client_close(c);
}

static void a_call_that_changes_its_name_is_an_error(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("call"), &r);
    worker_delta(f, r, with_calls, 0, CALLS_AT);
    worker_call(f, r, 0, "f", with_calls, CALLS_AT, 8);
    worker_call(f, r, 0, "h", with_calls, 8, SECOND_AT);
    client_expect(c, "answer_mismatch");
    client_close(c);
}

static void usage_is_streamed_when_asked_for(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f,
                    "{\"model\":\"small\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
                    &r);
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    assert_true(client_has(c, "\"choices\":[],\"usage\":{\"prompt_tokens\":11"));
    client_close(c);
}

/* ---- several answers to one request ---- */

#define TWO(stream)                                                                                          \
    "{\"model\":\"small\",\"n\":2,\"seed\":5," stream                                                        \
    "\"messages\":[{\"role\":\"user\",\"content\":\"two\"}]}"
#define STREAMED "\"stream\":true,\"stream_options\":{\"include_usage\":true},"

static client *ask_for_two(fixture *f, const char *body, const mr_chat_request *r[2]) {
    int first = f->nrequests;
    client *c = ask(f, body, &r[0]);
    r[1] = worker_request(f, first + 1);
    return c;
}

static void each_choice_is_a_request_of_its_own(void **state) {
    fixture *f = *state;
    const mr_chat_request *r[2];
    client *c = ask_for_two(f, TWO(""), r);
    char second[MR_ID_MAX + 3];
    snprintf(second, sizeof(second), "%.*s-1", MR_FMT(r[0]->id));
    assert_true(mr_str_eqz(r[1]->id, second));
    assert_int_equal(r[0]->choice, 0);
    assert_int_equal(r[1]->choice, 1);
    assert_int_equal(r[1]->sampling.seed, r[0]->sampling.seed);
    assert_true(mr_str_eq(r[0]->session, r[1]->session)); /* they meet in one worker's cache */
    worker_answer(f, r[1], "the second");
    worker_answer(f, r[0], "the first");
    client_expect(c, "\"object\":\"chat.completion\"");
    client_expect(c, "\"total_tokens\":");
    assert_true(client_has(c,
                           "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"the "
                           "first\"}"));
    assert_true(
        client_has(c, "{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"the second\"}"));
    assert_true(client_has(c, "\"prompt_tokens\":11")); /* once, not twice */
    client_close(c);
}

static void choices_are_streamed_side_by_side_to_one_end(void **state) {
    fixture *f = *state;
    const mr_chat_request *r[2];
    client *c = ask_for_two(f, TWO(STREAMED), r);
    worker_delta(f, r[1], text, 0, 5);
    client_expect(c, "\"choices\":[{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"Water\"}");
    worker_answer(f, r[0], "first");
    client_expect(c, "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"first\"}");
    client_expect(c, "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}");
    worker_delta(f, r[1], text, 5, TEXT_LEN);
    worker_end(f, r[1], text);
    client_expect(c, "\"choices\":[{\"index\":1,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}");
    client_expect(c, "\"choices\":[],\"usage\":{\"prompt_tokens\":11");
    client_expect(c, "data: [DONE]\n\n");
    client_expect(c, "0\r\n\r\n");
    assert_true(ends_cleanly(c));
    client_close(c);
}

static void one_choice_that_fails_ends_the_others(void **state) {
    fixture *f = *state;
    const mr_chat_request *r[2];
    client *c = ask_for_two(f, TWO(""), r);
    worker_error(f, r[1], "", 500, "engine_error", "The engine stopped.");
    client_expect(c, "The engine stopped.");
    worker_sees_cancel(f, r[0]);
    client_close(c);
}

static void a_closed_tab_cancels_every_choice(void **state) {
    fixture *f = *state;
    const mr_chat_request *r[2];
    client *c = ask_for_two(f, TWO(STREAMED), r);
    client_expect(c, ": accepted\n");
    client_close(c);
    worker_sees_cancel(f, r[0]);
    worker_sees_cancel(f, r[1]);
}

static void an_empty_answer_still_has_a_role_and_an_end(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("nothing"), &r);
    worker_end(f, r, "");
    client_expect(c, "[DONE]");
    assert_true(client_has(c, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"));
    client_close(c);
}

static void the_path_of_deepseeks_clients_is_served(void **state) {
    fixture *f = *state;
    int n = f->nrequests;
    client *c = client_open(f);
    client_post(c, "/chat/completions", STREAM("hello"));
    worker_answer(f, worker_request(f, n), text);
    client_expect(c, "[DONE]");
    client_close(c);
}

static void a_chunked_upload_is_understood(void **state) {
    fixture *f = *state;
    static const char body[] = STREAM("in pieces");
    int n = f->nrequests;
    client *c = client_open(f);
    client_send(c, "POST " CHAT " HTTP/1.1\r\nHost: x\r\n" KEY_HEADER "Transfer-Encoding: chunked\r\n\r\n");
    for (size_t i = 0; i < sizeof(body) - 1; i++) {
        client_send(c, "1\r\n");
        client_send_bytes(c, body + i, 1);
        client_send(c, "\r\n");
    }
    client_send(c, "0\r\n\r\n");
    const mr_chat_request *r = worker_request(f, n);
    assert_true(mr_str_eqz(r->messages.v[0].content, "in pieces"));
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    client_close(c);
}

static void images_reach_the_worker(void **state) {
    fixture *f = *state;
    static const char head[] =
        "{\"model\":\"eye\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
        "\"image_url\",\"image_url\":{\"url\":\"data:image/jpeg;base64,";
    size_t n = 150000;
    char *body = calloc(1, n + sizeof(head) + 16);
    const mr_chat_request *r;
    memcpy(body, head, sizeof(head) - 1);
    memset(body + sizeof(head) - 1, 'A', n);
    strcat(body, "\"}}]}]}");
    client *c = ask(f, body, &r);
    assert_int_equal(r->messages.v[0].parts.v[0].image_url.url.n, n + strlen("data:image/jpeg;base64,"));
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    client_close(c);
    free(body);
}

static void an_http_1_0_stream_ends_with_its_connection(void **state) {
    fixture *f = *state;
    static const char body[] = STREAM("old");
    char head[200];
    int n = f->nrequests;
    client *c = client_open(f);
    snprintf(head, sizeof(head),
             "POST " CHAT " HTTP/1.0\r\nConnection: keep-alive\r\n" KEY_HEADER "Content-Length: %zu\r\n\r\n",
             sizeof(body) - 1);
    client_send(c, head);
    client_send(c, body);
    worker_answer(f, worker_request(f, n), text);
    client_expect(c, "[DONE]");
    client_expect_closed(c);
    assert_false(client_has(c, "Content-Length: 0"));
    assert_false(client_has(c, "chunked"));
    client_close(c);
}

static void a_waiting_stream_is_kept_alive(void **state) {
    fixture *f = *state; /* keep_alive_s is 1 */
    const mr_chat_request *r;
    client *c = ask(f, STREAM("slow"), &r);
    client_expect(c, ": keep-alive\n");
    client_forget(c);
    client_expect(c, ": keep-alive\n");
    /* one newline only: see render.h */
    assert_false(client_has(c, ": keep-alive\n\n"));
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    client_close(c);
}

static void one_hundred_streams_at_once_are_kept_apart(void **state) {
    fixture *f = *state;
    client *c[100];
    f->auto_answer = text;
    for (int i = 0; i < 100; i++) {
        c[i] = client_open(f);
        client_post(c[i], CHAT, STREAM("together"));
    }
    for (int i = 0; i < 100; i++) {
        client_expect(c[i], "[DONE]");
        expect_content(c[i], text);
        client_close(c[i]);
    }
    f->auto_answer = NULL;
    assert_true(metric(f, "millrace_gateway_in_flight ") == 0);
}

/* ---- attempts ---- */

static void a_second_attempt_continues_the_same_answer(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    double before = metric(f, "millrace_gateway_duplicate_bytes_total ");
    client *c = ask(f, STREAM("twice"), &r);
    worker_delta(f, r, text, 0, 10);
    worker_delta(f, r, text, 10, 20);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 0, 6);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 6, 25);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 25, TEXT_LEN);
    worker_end(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, text);
    assert_true(metric(f, "millrace_gateway_duplicate_bytes_total ") == before + 20);
    client_close(c);
}

static void expect_broken(client *c, const char *code) {
    client_expect_closed(c);
    assert_true(client_has(c, code));
    assert_true(client_has(c, "[Error: the answer could not be finished: "));
    assert_false(client_has(c, "[DONE]"));
    assert_false(ends_cleanly(c));
}

static void two_texts_are_never_spliced(void **state) {
    fixture *f = *state;
    static const char other[] = "Water turns the mill.";
    const mr_chat_request *r;
    double before = metric(f, "millrace_gateway_broken_answers_total{kind=\"mismatch\"} ");
    client *c = ask(f, STREAM("twice"), &r);
    worker_delta(f, r, text, 0, 20);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, other, 0, 16);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, other, 16, 21);
    expect_broken(c, "answer_mismatch");
    worker_sees_cancel(f, r);
    assert_true(metric(f, "millrace_gateway_broken_answers_total{kind=\"mismatch\"} ") == before + 1);
    client_close(c);
}

/* The request that goes on after the first n bytes of `sent`, each of them a token. */
static const mr_chat_request *asked_again(fixture *f, const mr_chat_request *first, const char *sent,
                                          size_t n, int generation) {
    char id[MR_ID_MAX + 1], hash[MR_TEXT_HASH_LEN + 1];
    const mr_chat_request *r = worker_request(f, f->nrequests);
    snprintf(id, sizeof(id), "%.*s~%d", MR_FMT(first->id), generation);
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), (mr_str){sent, n}), hash);
    assert_true(mr_str_eqz(r->id, id));
    assert_int_equal(r->forced.n, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(r->forced.v[i], sent[i]);
    assert_int_equal(r->forced_bytes, n);
    assert_true(mr_str_eqz(r->forced_hash, hash));
    assert_true(mr_str_eq(r->session, first->session));
    assert_int_equal(r->sampling.seed, first->sampling.seed);
    assert_int_equal(r->deadline_ms, first->deadline_ms);
    return r;
}

static void an_answer_that_comes_again_with_other_tokens_goes_on_after_those_that_were_sent(void **state) {
    fixture *f = *state;
    static const char other[] = "Water turns the mill, and so on and on.";
    static const char joined[] = "Water turns the wheel and goes on its way.";
    const mr_chat_request *first, *again;
    double before = metric(f, "millrace_gateway_differing_attempts_total ");
    client *c = ask(f, STREAM("other hardware"), &first);
    worker_tokens(f, first, 1, text, 0, 12);
    worker_tokens(f, first, 1, text, 8, 21);
    worker_tokens(f, first, 2, other, 0, 18);
    worker_tokens(f, first, 2, other, 18, 30);
    again = asked_again(f, first, text, 21, 2);
    worker_sees_cancel(f, first);
    worker_tokens(f, first, 3, other, 0, sizeof(other) - 1); /* of the old request: dropped, its end too */
    worker_end(f, first, other);
    worker_tokens(f, again, 1, joined, 21, 30);
    worker_tokens(f, again, 1, joined, 30, sizeof(joined) - 1);
    worker_end(f, again, joined);
    client_expect(c, "[DONE]");
    expect_content(c, joined);
    assert_true(ends_cleanly(c));
    assert_true(metric(f, "millrace_gateway_differing_attempts_total ") == before + 1);
    client_close(c);
}

static void a_lost_part_is_generated_again(void **state) {
    fixture *f = *state;
    const mr_chat_request *first, *again;
    client *c = ask(f, WHOLE("gap"), &first);
    worker_tokens(f, first, 1, text, 0, 20);
    worker_tokens(f, first, 1, text, 25, 30);
    again = asked_again(f, first, text, 20, 2);
    worker_tokens(f, again, 1, text, 20, TEXT_LEN);
    worker_end(f, again, text);
    client_expect(c, text);
    client_close(c);
}

/* The broker takes the record that differs, and then refuses what the gateway says: the cancel, and the request. */
static void a_request_for_the_rest_that_is_not_delivered_is_sent_once_more(void **state) {
    fixture *f = *state;
    const mr_chat_request *first, *again;
    client *c = ask(f, STREAM("refused once"), &first);
    worker_tokens(f, first, 1, text, 0, 20);
    client_expect(c, "Water");
    test_kafka_fail_produce(f->kafka, RD_KAFKA_RESP_ERR_NO_ERROR, 1);
    test_kafka_fail_produce(f->kafka, RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, 2);
    worker_delta_as(f, first, MR_CHANNEL_CONTENT, 2, "Wind turns the sails.", 0, 21);
    again = asked_again(f, first, text, 20, 2);
    test_kafka_fail_produce(f->kafka, 0, 0);
    worker_tokens(f, again, 1, text, 20, TEXT_LEN);
    worker_end(f, again, text);
    client_expect(c, "[DONE]");
    expect_content(c, text);
    assert_true(ends_cleanly(c));
    client_close(c);
}

static void a_request_for_the_rest_that_is_never_taken_ends_the_answer_as_an_error(void **state) {
    fixture *f = *state;
    const mr_chat_request *first;
    int64_t patience = f->conf.accept_timeout_s;
    f->conf.accept_timeout_s = 1;
    client *c = ask(f, STREAM("refused for good"), &first);
    worker_tokens(f, first, 1, text, 0, 20);
    client_expect(c, "Water");
    test_kafka_fail_produce(f->kafka, RD_KAFKA_RESP_ERR_NO_ERROR, 1);
    test_kafka_fail_produce(f->kafka, RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, 1000);
    worker_delta_as(f, first, MR_CHANNEL_CONTENT, 2, "Wind turns the sails.", 0, 21);
    expect_broken(c, "not_accepted");
    test_kafka_fail_produce(f->kafka, 0, 0);
    f->conf.accept_timeout_s = patience;
    client_close(c);
}

static void the_third_text_that_differs_ends_the_answer_as_an_error(void **state) {
    fixture *f = *state;
    const mr_chat_request *first, *again;
    client *c = ask(f, STREAM("hopeless"), &first);
    worker_tokens(f, first, 1, text, 0, 20);
    worker_delta_as(f, first, MR_CHANNEL_CONTENT, 2, "Wind turns the sails.", 0, 21);
    again = asked_again(f, first, text, 20, 2);
    worker_delta_as(f, again, MR_CHANNEL_CONTENT, 1, "Wind turns the sails, again.", 20, 28);
    again = asked_again(f, first, text, 20, 3);
    worker_delta_as(f, again, MR_CHANNEL_CONTENT, 1, "Wind turns the sails, again.", 20, 28);
    expect_broken(c, "answer_mismatch");
    worker_sees_cancel(f, again);
    client_close(c);
}

static void an_error_of_a_worker_taken_for_dead_does_not_end_the_answer(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("late error"), &r);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 0, 20);
    worker_error(f, r, text, 500, "engine_lost", "The engine died.");
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 20, TEXT_LEN);
    worker_end(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, text);
    client_close(c);
}

static void a_worker_taken_for_dead_cannot_break_the_answer(void **state) {
    fixture *f = *state;
    static const char other[] = "Water turns the mill, and so on and on.";
    const mr_chat_request *r;
    double before = metric(f, "millrace_gateway_late_records_total ");
    client *c = ask(f, STREAM("frozen"), &r);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 1, text, 0, 10);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 0, 20);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 1, other, 10, 30);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 1, other, 30, 35);
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 2, text, 20, TEXT_LEN);
    worker_end(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, text);
    assert_true(metric(f, "millrace_gateway_late_records_total ") == before + 2);
    client_close(c);
}

static void a_lost_part_ends_the_answer_as_an_error(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("gap"), &r);
    worker_delta(f, r, text, 0, 20);
    worker_delta(f, r, text, 21, 30);
    expect_broken(c, "answer_gap");
    worker_sees_cancel(f, r);
    client_close(c);
}

static void an_end_that_claims_more_than_came_is_an_error(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("gap"), &r);
    worker_delta(f, r, text, 0, 20);
    worker_end(f, r, text);
    client_expect(c, "HTTP/1.1 500 ");
    client_expect(c, "answer_gap");
    client_close(c);
}

/* ---- failures ---- */

static void an_error_in_the_middle_is_said_and_never_ends_cleanly(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("fail"), &r);
    worker_delta(f, r, text, 0, 20);
    worker_error(f, r, text, 500, "engine_lost", "The engine died.");
    client_expect_closed(c);
    assert_true(client_has(c, "data: {\"error\":{\"message\":\"The engine died.\",\"type\":\"server_error\","
                              "\"param\":null,\"code\":\"engine_lost\"}}"));
    assert_false(client_has(c, "[DONE]"));
    assert_false(ends_cleanly(c));
    expect_content(c, "Water turns the whee\n\n[Error: the answer could not be finished: The engine died.]");
    client_close(c);
}

static void an_error_before_the_headers_has_its_status(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("fail"), &r);
    worker_error(f, r, "", 400, "context_length_exceeded", "The conversation is too long.");
    client_expect(c, "HTTP/1.1 400 ");
    client_expect(c, "\"code\":\"context_length_exceeded\"");
    client_close(c);
}

static void a_closed_tab_cancels_its_answer(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, STREAM("stop me"), &r);
    worker_delta(f, r, text, 0, 10);
    client_expect(c, "Water");
    client_close(c);
    worker_sees_cancel(f, r);
    assert_true(metric(f, "millrace_gateway_in_flight ") == 0);
    /* what still comes for it does no harm */
    worker_delta(f, r, text, 10, TEXT_LEN);
    worker_end(f, r, text);
    c = ask(f, WHOLE("next"), &r);
    worker_answer(f, r, text);
    client_expect(c, "chat.completion");
    client_close(c);
}

static void a_closed_peer_is_noticed_while_nothing_was_sent_yet(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("stop me"), &r);
    client_close(c);
    worker_sees_cancel(f, r);
}

static void bytes_sent_during_an_answer_wait_for_its_end(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *c = ask(f, WHOLE("first"), &r);
    client_get(c, "/v1/models");
    test_idle(f->loop, 100);
    assert_int_equal(c->in.n, 0);
    worker_answer(f, r, text);
    client_expect(c, "chat.completion");
    client_expect(c, "\"object\":\"list\"");
    client_close(c);
}

static bool is_idle(void *arg) {
    return metric(arg, "millrace_gateway_in_flight ") == 0;
}

static void a_client_that_does_not_read_is_cut_off(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    size_t n = 900000;
    char *long_text = calloc(1, 20 * n + 1);
    memset(long_text, 'x', 20 * n);
    client *c = ask(f, STREAM("much"), &r);
    client_expect(c, "accepted");
    bufferevent_disable(c->bev, EV_READ);
    for (size_t i = 0; i < 20; i++) worker_delta(f, r, long_text, i * n, (i + 1) * n);
    assert_true(test_wait(f->loop, WAIT_MS, is_idle, f));
    worker_sees_cancel(f, r);
    assert_true(metric(f, "millrace_gateway_cancels_total{reason=\"slow_client\"} ") >= 1);
    client_close(c);
    free(long_text);
}

static void too_many_at_once_are_told_to_come_back(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    int64_t limit = f->conf.max_in_flight;
    f->conf.max_in_flight = 1;
    client *c = ask(f, STREAM("first"), &r), *other = client_open(f);
    client_post(other, CHAT, STREAM("second"));
    client_expect(other, "HTTP/1.1 429 ");
    client_expect(other, "Retry-After: 1");
    client_close(other);
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    client_close(c);
    f->conf.max_in_flight = limit;
}

static void an_answer_that_takes_too_long_is_ended(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    int64_t limit = f->conf.request_timeout_s;
    f->conf.request_timeout_s = -1; /* and 2 s of grace */
    client *c = ask(f, STREAM("forever"), &r);
    expect_broken(c, "deadline_exceeded");
    worker_sees_cancel(f, r);
    client_close(c);
    f->conf.request_timeout_s = limit;
}

/* ---- going on with an answer ---- */

static void resume_get(client *c, const mr_chat_request *r, const char *at, const char *key,
                       const char *query) {
    char head[500];
    snprintf(head, sizeof(head),
             "GET /v1/chat/completions/%.*s%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n",
             MR_FMT(r->id), query, key);
    client_send(c, head);
    if (at) {
        snprintf(head, sizeof(head), "Last-Event-ID: %s\r\n", at);
        client_send(c, head);
    }
    client_send(c, "\r\n");
}

static void an_ended_answer_is_had_again_from_any_event_on(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *first = ask(f, STREAM("ended"), &r), *whole = client_open(f), *rest = client_open(f),
           *json = client_open(f);
    worker_answer(f, r, text);
    client_expect(first, "[DONE]");
    resume_get(whole, r, NULL, "sk-test", "");
    client_expect(whole, "[DONE]");
    expect_content(whole, text);
    resume_get(rest, r, "21", "sk-test", "");
    client_expect(rest, "[DONE]");
    expect_content(rest, text + 21);
    assert_true(ends_cleanly(rest));
    resume_get(json, r, NULL, "sk-test", "?stream=false");
    client_expect(json, text);
    client_expect(json, "chat.completion\"");
    client_close(first);
    client_close(whole);
    client_close(rest);
    client_close(json);
}

static void a_running_answer_is_gone_on_with_while_its_first_connection_stands(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *first = ask(f, STREAM("running"), &r), *second = client_open(f);
    worker_delta(f, r, text, 0, 10);
    worker_delta(f, r, text, 10, 20);
    client_expect(first, "id: 20\n");
    resume_get(second, r, NULL, "sk-test", "?last_event_id=10");
    client_expect(second, "id: 20\n");
    client_close(first); /* the second has the answer now: no cancel */
    worker_delta(f, r, text, 20, TEXT_LEN);
    worker_end(f, r, text);
    client_expect(second, "[DONE]");
    expect_content(second, text + 10);
    for (int i = 0; i < f->ncontrols; i++) {
        assert_false(f->controls[i].kind == MR_CONTROL_IS_CANCEL && mr_str_eq(f->controls[i].request, r->id));
    }
    client_close(second);
}

static void a_client_with_grace_finds_its_answer_again(void **state) {
    fixture *f = *state;
    int n = f->nrequests;
    char head[300];
    static const char body[] = STREAM("grace");
    client *first = client_open(f), *second = client_open(f);
    snprintf(head, sizeof(head),
             "POST " CHAT " HTTP/1.1\r\nHost: x\r\n" KEY_HEADER
             "x-millrace-resume: 30\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    client_send(first, head);
    client_send(first, body);
    const mr_chat_request *r = worker_request(f, n);
    worker_delta(f, r, text, 0, 10);
    client_expect(first, "id: 10\n");
    client_close(first);
    worker_delta(f, r, text, 10, 20);
    resume_get(second, r, "10", "sk-test", "");
    client_expect(second, "id: 20\n");
    worker_delta(f, r, text, 20, TEXT_LEN);
    worker_end(f, r, text);
    client_expect(second, "[DONE]");
    expect_content(second, text + 10);
    client_close(second);
}

static void the_grace_ends(void **state) {
    fixture *f = *state;
    int n = f->nrequests;
    char head[300];
    static const char body[] = STREAM("short grace");
    client *c = client_open(f);
    snprintf(head, sizeof(head),
             "POST " CHAT " HTTP/1.1\r\nHost: x\r\n" KEY_HEADER
             "x-millrace-resume: 1\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    client_send(c, head);
    client_send(c, body);
    const mr_chat_request *r = worker_request(f, n);
    worker_delta(f, r, text, 0, 10);
    client_expect(c, "id: 10\n");
    client_close(c);
    worker_sees_cancel(f, r);
}

static void several_answers_are_gone_on_with_side_by_side(void **state) {
    fixture *f = *state;
    const mr_chat_request *r[2];
    int n = f->nrequests;
    client *first = client_open(f), *second = client_open(f);
    client_post(first, CHAT,
                "{\"model\":\"small\",\"n\":2,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
                "\"two\"}]}");
    for (int i = 0; i < 2; i++) r[i] = worker_request(f, n + i);
    worker_delta(f, r[0], text, 0, 10);
    client_expect(first, "id: 10,0\n");
    worker_delta(f, r[1], text, 0, 5);
    client_expect(first, "id: 10,5\n");
    resume_get(second, r[0], "10,0", "sk-test", "");
    client_expect(second, "id: 10,5\n");
    for (int i = 0; i < 2; i++) worker_answer(f, r[i], text);
    client_expect(second, "[DONE]");
    char *got = client_content(second);
    assert_int_equal(strlen(got), 2 * TEXT_LEN - 10);
    free(got);
    client_close(first);
    client_close(second);
}

static void another_ask_for_the_rest_is_followed(void **state) {
    fixture *f = *state;
    static const char other[] = "Water turns the mill, and so on and on.",
                      joined[] = "Water turns the wheel and so on.";
    const mr_chat_request *first, *again;
    client *c = ask(f, STREAM("followed"), &first), *second = client_open(f);
    worker_tokens(f, first, 1, text, 0, 21);
    client_expect(c, "id: 21\n");
    resume_get(second, first, "5", "sk-test", "");
    client_expect(second, "id: 21\n");
    worker_tokens(f, first, 2, other, 0, 30);
    again = asked_again(f, first, text, 21, 2);
    worker_tokens(f, again, 1, joined, 21, sizeof(joined) - 1);
    worker_end(f, again, joined);
    client_expect(second, "[DONE]");
    expect_content(second, joined + 5);
    client_close(c);
    client_close(second);
}

static void an_answer_of_others_or_of_nobody_is_not_found(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *first = ask(f, STREAM("mine"), &r), *c = client_open(f), *d = client_open(f), *e = client_open(f);
    mr_chat_request unknown = {.id = MR_STR("chatcmpl-nothing")};
    worker_answer(f, r, text);
    client_expect(first, "[DONE]");
    resume_get(c, r, NULL, "sk-other", "");
    client_expect(c, "HTTP/1.1 404 ");
    client_expect(c, "There is no answer with this id.");
    resume_get(d, &unknown, NULL, "sk-test", "");
    client_expect(d, "HTTP/1.1 404 ");
    resume_get(e, r, "1,2", "sk-test", "");
    client_expect(e, "HTTP/1.1 400 ");
    client_close(first);
    client_close(c);
    client_close(d);
    client_close(e);
}

static void an_answer_that_is_not_kept_any_more_is_gone(void **state) {
    fixture *f = *state;
    const mr_request_place far = {
        .partition = 1, .position = 1000000000, .created_s = mr_now_ms() / 1000, .n = 1};
    char id[MR_REQUEST_ID_LEN + 1];
    client *c = client_open(f);
    assert_int_equal(mr_request_id(&far, MR_STR("default"), id), 0);
    resume_get(c, &(mr_chat_request){.id = mr_str_of(id)}, NULL, "sk-test", "");
    client_expect(c, "HTTP/1.1 410 ");
    client_expect(c, "not kept any more");
    client_close(c);
}

static void an_answer_still_in_line_is_waited_for(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *first = ask(f, STREAM("in line"), &r), *second = client_open(f);
    resume_get(second, r, NULL, "sk-test", "");
    client_expect(second, ": accepted");
    worker_answer(f, r, text);
    client_expect(second, "[DONE]");
    expect_content(second, text);
    client_close(first);
    client_close(second);
}

/* ---- the rest ---- */

static void garbage_among_the_answers_is_skipped(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    mr_error err;
    client *c = ask(f, STREAM("hello"), &r);
    mr_produce garbage = {
        .topic = MR_TOPIC_RESPONSES, .partition = 1, .key = r->id, .value = MR_STR("\xc1 garbage")};
    assert_int_equal(mr_producer_send(f->producer, &garbage, &err), 0);
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    client_close(c);
}

static bool has_feedback(void *arg) {
    return ((fixture *)arg)->nfeedback > 0;
}

static void feedback_is_stored(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, "/v1/feedback", "{\"request\":\"chatcmpl-1\",\"rating\":1,\"comment\":\"good\"}");
    client_expect(c, "HTTP/1.1 200 OK");
    assert_true(test_wait(f->loop, WAIT_MS, has_feedback, f));
    assert_true(mr_str_eqz(f->feedback.request, "chatcmpl-1"));
    assert_int_equal(f->feedback.rating, 1);
    client_close(c);
}

/* ---- draining: last, the gateway does not come back ---- */

static void a_drain_lets_answers_finish_and_takes_no_new_ones(void **state) {
    fixture *f = *state;
    const mr_chat_request *r;
    client *idle = client_open(f), *c = ask(f, STREAM("last"), &r);
    client_get(idle, "/livez");
    client_expect(idle, "ok");
    client_forget(idle);
    mr_loop_drain(f->loop);
    client_post(idle, CHAT, STREAM("too late"));
    client_expect(idle, "HTTP/1.1 503 ");
    client_expect_closed(idle);
    client_close(idle);
    worker_answer(f, r, text);
    client_expect(c, "[DONE]");
    expect_content(c, text);
    client_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_says_accepted_then_tokens_then_done),
        cmocka_unit_test(a_stream_that_is_answered_at_once_names_its_source_in_the_headers),
        cmocka_unit_test(a_stream_that_fails_before_its_first_word_says_so_as_a_stream),
        cmocka_unit_test(a_whole_answer_is_one_json_with_usage),
        cmocka_unit_test(reasoning_goes_to_its_own_field),
        cmocka_unit_test(tool_calls_are_streamed_once_whatever_comes_again),
        cmocka_unit_test(tool_calls_of_a_whole_answer_are_in_its_message),
        cmocka_unit_test(a_call_that_changes_its_name_is_an_error),
        cmocka_unit_test(usage_is_streamed_when_asked_for),
        cmocka_unit_test(an_empty_answer_still_has_a_role_and_an_end),
        cmocka_unit_test(the_path_of_deepseeks_clients_is_served),
        cmocka_unit_test(a_chunked_upload_is_understood),
        cmocka_unit_test(images_reach_the_worker),
        cmocka_unit_test(an_http_1_0_stream_ends_with_its_connection),
        cmocka_unit_test(a_waiting_stream_is_kept_alive),
        cmocka_unit_test(one_hundred_streams_at_once_are_kept_apart),
        cmocka_unit_test(a_second_attempt_continues_the_same_answer),
        cmocka_unit_test(two_texts_are_never_spliced),
        cmocka_unit_test(an_answer_that_comes_again_with_other_tokens_goes_on_after_those_that_were_sent),
        cmocka_unit_test(a_lost_part_is_generated_again),
        cmocka_unit_test(a_request_for_the_rest_that_is_not_delivered_is_sent_once_more),
        cmocka_unit_test(a_request_for_the_rest_that_is_never_taken_ends_the_answer_as_an_error),
        cmocka_unit_test(the_third_text_that_differs_ends_the_answer_as_an_error),
        cmocka_unit_test(an_error_of_a_worker_taken_for_dead_does_not_end_the_answer),
        cmocka_unit_test(a_worker_taken_for_dead_cannot_break_the_answer),
        cmocka_unit_test(a_lost_part_ends_the_answer_as_an_error),
        cmocka_unit_test(an_end_that_claims_more_than_came_is_an_error),
        cmocka_unit_test(an_error_in_the_middle_is_said_and_never_ends_cleanly),
        cmocka_unit_test(an_error_before_the_headers_has_its_status),
        cmocka_unit_test(each_choice_is_a_request_of_its_own),
        cmocka_unit_test(choices_are_streamed_side_by_side_to_one_end),
        cmocka_unit_test(one_choice_that_fails_ends_the_others),
        cmocka_unit_test(a_closed_tab_cancels_every_choice),
        cmocka_unit_test(a_closed_tab_cancels_its_answer),
        cmocka_unit_test(a_closed_peer_is_noticed_while_nothing_was_sent_yet),
        cmocka_unit_test(bytes_sent_during_an_answer_wait_for_its_end),
        cmocka_unit_test(a_client_that_does_not_read_is_cut_off),
        cmocka_unit_test(too_many_at_once_are_told_to_come_back),
        cmocka_unit_test(an_answer_that_takes_too_long_is_ended),
        cmocka_unit_test(an_ended_answer_is_had_again_from_any_event_on),
        cmocka_unit_test(a_running_answer_is_gone_on_with_while_its_first_connection_stands),
        cmocka_unit_test(a_client_with_grace_finds_its_answer_again),
        cmocka_unit_test(the_grace_ends),
        cmocka_unit_test(several_answers_are_gone_on_with_side_by_side),
        cmocka_unit_test(another_ask_for_the_rest_is_followed),
        cmocka_unit_test(an_answer_of_others_or_of_nobody_is_not_found),
        cmocka_unit_test(an_answer_that_is_not_kept_any_more_is_gone),
        cmocka_unit_test(an_answer_still_in_line_is_waited_for),
        cmocka_unit_test(garbage_among_the_answers_is_skipped),
        cmocka_unit_test(feedback_is_stored),
        cmocka_unit_test(a_drain_lets_answers_finish_and_takes_no_new_ones),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
