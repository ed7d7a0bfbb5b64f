/* What happens when time runs out, or Kafka does. The last test of each group leaves nothing to go on with. */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHAT   "/v1/chat/completions"
#define STREAM "{\"model\":\"small\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

static const char text[] = "Water turns the wheel.";

static fixture *prepare(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    fixture_init(f);
    *state = f;
    return f;
}

static int setup(void **state) {
    fixture_start(prepare(state));
    return 0;
}

static int setup_idle(void **state) {
    fixture *f = prepare(state);
    f->conf.idle_timeout_s = 1;
    fixture_start(f);
    return 0;
}

static int setup_drain(void **state) {
    fixture *f = prepare(state);
    f->conf.drain_s = 1;
    fixture_start(f);
    return 0;
}

static int teardown(void **state) {
    fixture_done(*state);
    free(*state);
    return 0;
}

static void an_idle_connection_is_closed(void **state) {
    client *c = client_open(*state);
    client_get(c, "/v1/models");
    client_expect(c, "\"list\"");
    client_expect_closed(c);
    client_close(c);
}

static void a_connection_that_waits_for_its_answer_is_not_idle(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, CHAT, "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    const mr_chat_request *r = worker_request(f, 0);
    test_idle(f->loop, 1500);
    assert_false(c->closed);
    worker_answer(f, r, text);
    client_expect(c, "chat.completion");
    client_expect_closed(c); /* now it is */
    client_close(c);
}

/* ---- at the door ---- */

static void routers_say(fixture *f, int64_t wait_ms) {
    mr_pool_status s = {0};
    mr_error err;
    mr_buf body;
    mr_buf_init(&body, 1000);
    MR_SET(&s, MR_POOL_STATUS_V, v, MR_SCHEMA_VERSION);
    MR_SET(&s, MR_POOL_STATUS_POOL, pool, MR_STR("main"));
    MR_SET(&s, MR_POOL_STATUS_SENT_MS, sent_ms, mr_now_ms());
    if (wait_ms >= 0) MR_SET(&s, MR_POOL_STATUS_WAIT_MS, wait_ms, wait_ms);
    if (mr_pack(&mr_pool_status_def, &s, &body, &err) != 0) fail_msg("%s", err.msg);
    const mr_header type = {"type", MR_STR("PoolStatus")};
    const mr_produce rec = {.topic = MR_TOPIC_WORKERS,
                            .partition = 0,
                            .key = MR_STR("pool/main"),
                            .value = mr_buf_str(&body),
                            .headers = &type,
                            .nheaders = 1};
    double seen = metric(f, "millrace_gateway_workers_kafka_consumed_total");
    if (mr_producer_send(f->producer, &rec, &err) != 0) fail_msg("%s", err.msg);
    for (int i = 0; i < WAIT_MS / 20 && metric(f, "millrace_gateway_workers_kafka_consumed_total") == seen;
         i++) {
        test_idle(f->loop, 20);
    }
    mr_buf_done(&body);
}

static void expect_taken(fixture *f, int i) {
    client *c = client_open(f);
    client_post(c, CHAT, STREAM);
    worker_answer(f, worker_request(f, i), text);
    client_expect(c, "[DONE]");
    client_close(c);
}

static void who_would_wait_too_long_is_refused_at_the_door(void **state) {
    fixture *f = *state;
    int n = f->nrequests;
    routers_say(f, f->conf.request_timeout_s * 1000 - 1);
    expect_taken(f, n);
    routers_say(f, f->conf.request_timeout_s * 1000 + 4500);
    client *c = client_open(f);
    client_post(c, CHAT, STREAM);
    client_expect(c, "HTTP/1.1 503 ");
    client_expect(c, "Retry-After: 5");
    client_expect(c, "\"overloaded\"");
    client_close(c);
    assert_int_equal(f->nrequests, n + 1);
    assert_true(metric(f, "millrace_gateway_refused_waits_total") == 1);
    routers_say(f, -1); /* they do not know: nobody is refused */
    expect_taken(f, n + 1);
}

static void a_broker_that_takes_too_long_gets_503(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    int64_t patience = f->conf.accept_timeout_s;
    f->conf.accept_timeout_s = 1;
    test_kafka_delay(f->kafka, 3000);
    client_post(c, CHAT, STREAM);
    client_expect(c, "HTTP/1.1 503 ");
    client_expect(c, "could not be queued in time");
    test_kafka_delay(f->kafka, 0);
    f->conf.accept_timeout_s = patience;
    worker_sees_cancel(f, worker_request(f, 0)); /* the record was on its way */
    client_close(c);
}

static bool is_away(void *arg) {
    char why[100];
    return !mr_gateway_ready(((fixture *)arg)->gateway, why, sizeof(why));
}

static void without_kafka_a_request_gets_503_and_streams_wait(void **state) {
    fixture *f = *state;
    client *streaming = client_open(f);
    client_post(streaming, CHAT, STREAM);
    client_expect(streaming, "accepted");
    test_kafka_stop(f->kafka);
    f->kafka = NULL;
    assert_true(test_wait(f->loop, WAIT_MS, is_away, f));
    client *c = client_open(f);
    client_post(c, CHAT, STREAM);
    client_expect(c, "HTTP/1.1 503 ");
    client_expect(c, "Retry-After: ");
    client_get(c, "/readyz");
    client_expect(c, "Kafka is not connected");
    client_get(c, "/livez");
    client_expect(c, "\"ok\"");
    client_forget(streaming);
    client_expect(streaming, ": keep-alive");
    client_close(c);
    client_close(streaming);
}

static void a_drain_that_takes_too_long_ends_answers_with_a_word(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, CHAT, STREAM);
    worker_delta(f, worker_request(f, 0), text, 0, 5);
    client_expect(c, "Water");
    mr_loop_drain(f->loop);
    client_expect_closed(c);
    assert_true(client_has(c, "shutting_down"));
    assert_true(client_has(c, "[Error: "));
    assert_false(client_has(c, "[DONE]"));
    client_close(c);
}

static void a_gateway_may_go_with_answers_on_their_way(void **state) {
    fixture *f = *state;
    client *c = client_open(f), *half = client_open(f), *feedback = client_open(f);
    client_post(c, CHAT, STREAM);
    worker_delta(f, worker_request(f, 1), text, 0, 5);
    client_expect(c, "Water");
    client_post(c, CHAT, STREAM);
    client_send(half, "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
    client_post(feedback, "/v1/feedback", "{\"request\":\"chatcmpl-1\",\"rating\":1}");
    test_idle(f->loop, 5);
    client_close(feedback);
    client_close(half);
    client_close(c);
    /* the teardown frees everything in the middle; the sanitizers watch */
}

int main(void) {
    const struct CMUnitTest idle[] = {
        cmocka_unit_test(an_idle_connection_is_closed),
        cmocka_unit_test(a_connection_that_waits_for_its_answer_is_not_idle),
        cmocka_unit_test(a_gateway_may_go_with_answers_on_their_way),
    };
    const struct CMUnitTest away[] = {
        cmocka_unit_test(a_broker_that_takes_too_long_gets_503),
        cmocka_unit_test(without_kafka_a_request_gets_503_and_streams_wait),
    };
    const struct CMUnitTest door[] = {cmocka_unit_test(who_would_wait_too_long_is_refused_at_the_door)};
    const struct CMUnitTest drain[] = {
        cmocka_unit_test(a_drain_that_takes_too_long_ends_answers_with_a_word)};
    int failed = cmocka_run_group_tests(idle, setup_idle, teardown);
    failed += cmocka_run_group_tests(away, setup, teardown);
    failed += cmocka_run_group_tests(door, setup, teardown);
    return failed + cmocka_run_group_tests(drain, setup_drain, teardown);
}
