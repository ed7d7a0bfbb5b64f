/* Limits: by the minute and at once, counted in Redis or without it. */
#include "fixture.h"

#include "base/log.h"
#include "base/store.h"
#include "gateway/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHAT "/v1/chat/completions"
#define BODY                                                                                                 \
    "{\"model\":\"small\",\"stream\":true,\"max_tokens\":40,\"messages\":[{\"role\":\"user\",\"content\":"   \
    "\"hi\"}]}"

static test_redis *redis;
static char address[64];

static int stop_suite(void **state) {
    fixture *f = *state;
    fixture_done(f);
    test_redis_stop(redis);
    redis = NULL;
    free(f);
    return 0;
}

static bool redis_is_up(void *arg) {
    return metric(arg, "millrace_gateway_redis_up ") == 1;
}

static bool redis_is_away(void *arg) {
    return metric(arg, "millrace_gateway_redis_up ") == 0;
}

static int start(void **state, const char *key, const char *without) {
    fixture *f = calloc(1, sizeof(*f));
    redis = test_redis_start(0, NULL);
    if (!redis) exit(77);
    fixture_init(f);
    snprintf(address, sizeof(address), "127.0.0.1:%d", test_redis_port(redis));
    f->redis_conf.address = address;
    f->redis_conf.timeout_ms = 20000; /* slow is not away here */
    f->conf.limits_key = key;
    f->conf.limits_without_redis = without;
    fixture_start(f);
    assert_true(test_wait(f->loop, WAIT_MS, redis_is_up, f));
    *state = f;
    return 0;
}

static int two_requests(void **state) {
    return start(state, "requests=2", "local");
}
static int sixty_tokens(void **state) {
    return start(state, "tokens=60", "local");
}
static int one_at_once(void **state) {
    return start(state, "concurrent=1", "local");
}
static int two_or_nobody(void **state) {
    return start(state, "requests=2", "closed");
}
static int two_or_everybody(void **state) {
    return start(state, "requests=2", "open");
}

/* Asks, and sees the answer through. */
static client *ask(fixture *f, const char *answer) {
    int i = f->nrequests;
    client *c = client_open(f);
    client_post(c, CHAT, BODY);
    worker_answer(f, worker_request(f, i), answer);
    client_expect(c, "[DONE]");
    return c;
}

static void ask_in_vain(fixture *f, const char *status, const char *code) {
    int n = f->nrequests;
    client *c = client_open(f);
    client_post(c, CHAT, BODY);
    client_expect(c, status);
    client_expect(c, code);
    assert_int_equal(f->nrequests, n);
    client_close(c);
}

static void lose_redis(fixture *f) {
    test_redis_stop(redis);
    redis = NULL;
    assert_true(test_wait(f->loop, WAIT_MS, redis_is_away, f));
}

/* ---- by the minute ---- */

static void requests_over_the_limit_are_told_when_to_come_again(void **state) {
    fixture *f = *state;
    client *c = ask(f, "one");
    assert_true(client_has(c, "x-ratelimit-limit-requests: 2\r\n"));
    assert_true(client_has(c, "x-ratelimit-remaining-requests: 1\r\n"));
    assert_true(client_has(c, "x-ratelimit-reset-requests: "));
    assert_false(client_has(c, "x-ratelimit-limit-tokens"));
    client_close(c);
    client_close(ask(f, "two"));
    c = client_open(f);
    client_post(c, CHAT, BODY);
    client_expect(c, "HTTP/1.1 429 ");
    client_expect(c, "\"rate_limit_exceeded\"");
    client_expect(c, "x-ratelimit-remaining-requests: 0\r\n");
    client_expect(c, "Retry-After: ");
    client_close(c);
    assert_true(metric(f, "millrace_gateway_limited_requests_total{scope=\"key\",limit=\"requests\"} ") == 1);
}

/* A request is taken to cost 45 tokens of the 60: the second one finds them only because the first cost 15. */
static void tokens_are_held_by_a_guess_and_settled_by_what_they_were(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, CHAT, BODY);
    const mr_chat_request *r = worker_request(f, 0);
    ask_in_vain(f, "HTTP/1.1 429 ", "\"rate_limit_exceeded\"");
    worker_answer(f, r, "four"); /* with a prompt of 11 */
    client_expect(c, "[DONE]");
    assert_true(client_has(c, "x-ratelimit-remaining-tokens: 15\r\n"));
    client_close(c);
    client_close(ask(f, "again"));
}

static void a_request_that_is_wrong_costs_nothing(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        client *c = client_open(f);
        client_post(c, CHAT, "{\"model\":\"small\",\"messages\":[]}");
        client_expect(c, "HTTP/1.1 400 ");
        client_close(c);
    }
    client *c = ask(f, "one");
    assert_true(client_has(c, "x-ratelimit-remaining-requests: 1\r\n"));
    client_close(c);
}

/* ---- at once ---- */

static void a_place_is_free_again_however_the_answer_ends(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 4; i++) {
        int n = f->nrequests;
        client *c = client_open(f);
        client_post(c, CHAT, BODY);
        const mr_chat_request *r = worker_request(f, n);
        ask_in_vain(f, "HTTP/1.1 429 ", "\"too_many_requests\"");
        if (i == 0) {
            worker_answer(f, r, "text");
            client_expect(c, "[DONE]");
        } else if (i == 1) {
            worker_error(f, r, "", 500, "engine_error", "It broke.");
            client_expect(c, "engine_error");
        } else if (i == 2) {
            worker_delta(f, r, "text", 0, 2);
            client_expect(c, "\"te\"");
        }
        client_close(c);
        if (i == 2) worker_sees_cancel(f, r);
    }
}

/* ---- without Redis ---- */

static void without_redis_a_bucket_of_its_own_takes_over(void **state) {
    fixture *f = *state;
    client_close(ask(f, "one"));
    client_close(ask(f, "two"));
    ask_in_vain(f, "HTTP/1.1 429 ", "\"rate_limit_exceeded\"");
    lose_redis(f);
    client_close(ask(f, "three"));
    client_close(ask(f, "four"));
    ask_in_vain(f, "HTTP/1.1 429 ", "\"rate_limit_exceeded\"");
    assert_true(metric(f, "millrace_gateway_limits_without_redis_total ") == 3);
}

static void closed_lets_nobody_in_without_redis(void **state) {
    fixture *f = *state;
    client_close(ask(f, "one"));
    lose_redis(f);
    ask_in_vain(f, "HTTP/1.1 503 ", "\"limits_unavailable\"");
}

static void open_lets_everybody_in_without_redis(void **state) {
    fixture *f = *state;
    lose_redis(f);
    for (int i = 0; i < 4; i++) client_close(ask(f, "any"));
}

/* What ran when Redis went away ends as it should, and its place is not missed. */
static void an_answer_outlives_redis(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    client_post(c, CHAT, BODY);
    const mr_chat_request *r = worker_request(f, 0);
    lose_redis(f);
    worker_answer(f, r, "text");
    client_expect(c, "[DONE]");
    client_close(c);
    client_close(ask(f, "next"));
}

/* Its refusal goes on record, so what records it is still there. */
static void a_chat_that_waits_for_redis_ends_with_its_gateway(void **state) {
    fixture *f = *state;
    mr_error err;
    redisContext *r = mr_store_connect_sync(&f->redis_conf, &err);
    assert_non_null(r);
    freeReplyObject(redisCommand(r, "CLIENT PAUSE 60000"));
    redisFree(r);
    client *c = client_open(f);
    client_post(c, CHAT, BODY);
    test_idle(f->loop, 200);
    assert_false(client_has(c, "HTTP/1.1"));
    mr_gateway_free(f->gateway);
    f->gateway = NULL;
    client_close(c);
}

/* ---- many gateways, one Redis ---- */

#define GATEWAYS 8
#define EACH     40

typedef struct many {
    mr_loop *loop;
    mr_metrics *metrics[GATEWAYS];
    mr_redis_conf redis;
    mr_gateway_conf conf;
    mr_limiter *limiter[GATEWAYS];
    mr_hold *hold[GATEWAYS * EACH];
    int answers, let_in;
} many;

typedef struct one {
    many *m;
    int i;
} one;

static void on_verdict(void *arg, const mr_limit_verdict *v) {
    one *o = arg;
    o->m->answers++;
    if (v->refused == MR_LIMIT_NONE) {
        o->m->let_in++;
    } else {
        o->m->hold[o->i] = NULL;
    }
}

static bool all_answered(void *arg) {
    return ((many *)arg)->answers == GATEWAYS * EACH;
}

static const mr_grant acme = {.key = "k", .tenant = "acme"};

static bool all_reach_redis(void *arg) {
    many *m = arg;
    int up = 0;
    for (int i = 0; i < GATEWAYS; i++) {
        mr_buf b;
        mr_buf_init(&b, 1 << 20);
        mr_metrics_text(m->metrics[i], &b);
        mr_buf_put(&b, "", 1);
        up += strstr(b.p, "\nmillrace_gateway_redis_up 1") != NULL;
        mr_buf_done(&b);
    }
    return up == GATEWAYS;
}

static void open_many(many *m, const char *tenant) {
    mr_error err;
    memset(m, 0, sizeof(*m));
    redis = test_redis_start(0, NULL);
    if (!redis) skip();
    snprintf(address, sizeof(address), "127.0.0.1:%d", test_redis_port(redis));
    m->redis = (mr_redis_conf){.address = address, .password = "", .prefix = "t:", .timeout_ms = 20000};
    m->conf =
        (mr_gateway_conf){.limits_tenant = tenant, .limits_without_redis = "closed", .request_timeout_s = 60};
    m->loop = mr_loop_new(&err);
    for (int i = 0; i < GATEWAYS; i++) {
        m->metrics[i] = mr_metrics_new(&err);
        m->limiter[i] = mr_limiter_new(&m->conf, &m->redis, m->loop, m->metrics[i], &err);
        if (!m->limiter[i]) fail_msg("%s", err.msg);
    }
    assert_true(test_wait(m->loop, WAIT_MS, all_reach_redis, m));
}

static void ask_all(many *m, one all[GATEWAYS * EACH], int round) {
    m->answers = m->let_in = 0;
    for (int i = 0; i < GATEWAYS * EACH; i++) {
        char id[32];
        mr_limit_verdict v;
        all[i] = (one){m, i};
        snprintf(id, sizeof(id), "%d/%d", round, i);
        assert_false(
            mr_limiter_take(m->limiter[i % GATEWAYS], &acme, id, 1, &m->hold[i], &v, on_verdict, &all[i]));
    }
    assert_true(test_wait(m->loop, WAIT_MS, all_answered, m));
}

static void close_many(many *m) {
    for (int i = 0; i < GATEWAYS * EACH; i++) mr_hold_settle(m->hold[i], 1);
    for (int i = 0; i < GATEWAYS; i++) {
        mr_limiter_free(m->limiter[i]);
        mr_metrics_free(m->metrics[i]);
    }
    mr_loop_free(m->loop);
    test_redis_stop(redis);
    redis = NULL;
}

static void many_gateways_share_one_bucket(void **state) {
    static many m;
    static one all[GATEWAYS * EACH];
    (void)state;
    open_many(&m, "requests=100");
    int64_t start_us = mr_mono_us();
    ask_all(&m, all, 0);
    double grown = (double)(mr_mono_us() - start_us) / 1e6 * 100 / 60;
    assert_true(m.let_in >= 100);
    assert_true(m.let_in <= 101 + grown);
    close_many(&m);
}

static void many_gateways_share_the_places(void **state) {
    static many m;
    static one all[GATEWAYS * EACH];
    (void)state;
    open_many(&m, "concurrent=10");
    ask_all(&m, all, 0);
    assert_int_equal(m.let_in, 10);
    for (int i = 0; i < GATEWAYS * EACH; i++) {
        mr_hold_settle(m.hold[i], 1);
        m.hold[i] = NULL;
    }
    ask_all(&m, all, 1);
    assert_int_equal(m.let_in, 10);
    close_many(&m);
}

/* ---- which limit ---- */

static mr_limit_kind take(mr_limiter *l, const mr_grant *who, int64_t tokens) {
    mr_hold *hold;
    mr_limit_verdict v;
    assert_true(mr_limiter_take(l, who, "x", tokens, &hold, &v, NULL, NULL));
    mr_hold_settle(hold, tokens);
    return v.refused;
}

static void the_narrowest_of_key_tenant_and_all_counts(void **state) {
    static const mr_redis_conf none = {.address = "", .password = "", .prefix = "", .timeout_ms = 100};
    mr_gateway_conf conf = {.limits_key = "requests=2",
                            .limits_tenant = "requests=3",
                            .limits_global = "requests=4 tokens=1000",
                            .limits_without_redis = "local"};
    const mr_grant a = {.key = "a", .tenant = "t"}, b = {.key = "b", .tenant = "t"},
                   c = {.key = "c", .tenant = "u"};
    const mr_grant wide = {.key = "d", .tenant = "v", .limited = true};
    mr_error err;
    (void)state;
    mr_loop *loop = mr_loop_new(&err);
    mr_metrics *m = mr_metrics_new(&err);
    mr_limiter *l = mr_limiter_new(&conf, &none, loop, m, &err);
    assert_non_null(l);
    assert_true(mr_limiter_applies(l, &wide)); /* to all together */
    assert_int_equal(take(l, &a, 1), MR_LIMIT_NONE);
    assert_int_equal(take(l, &a, 1), MR_LIMIT_NONE);
    assert_int_equal(take(l, &a, 1), MR_LIMIT_REQUESTS); /* of the key */
    assert_int_equal(take(l, &b, 1), MR_LIMIT_NONE);
    assert_int_equal(take(l, &b, 1), MR_LIMIT_REQUESTS); /* of the tenant */
    assert_int_equal(take(l, &c, 1), MR_LIMIT_NONE);
    assert_int_equal(take(l, &wide, 1), MR_LIMIT_REQUESTS); /* of all */
    mr_limiter_free(l);
    conf = (mr_gateway_conf){.limits_global = "tokens=100", .limits_without_redis = "local"};
    l = mr_limiter_new(&conf, &none, loop, m, &err);
    assert_int_equal(take(l, &a, 5000), MR_LIMIT_NONE); /* larger than a minute's: a full bucket must do */
    assert_int_equal(take(l, &b, 1), MR_LIMIT_TOKENS);
    mr_limiter_free(l);
    conf = (mr_gateway_conf){.limits_tenant = "requests=many"};
    assert_null(mr_limiter_new(&conf, &none, loop, m, &err));
    assert_non_null(strstr(err.msg, "gateway.limits_tenant: 'requests=many'"));
    mr_metrics_free(m);
    mr_loop_free(loop);
}

static void waits_are_written_as_openai_does(void **state) {
    static const struct {
        int64_t ms;
        const char *text;
    } all[] = {{0, "0ms"}, {250, "250ms"}, {1000, "1s"}, {1001, "2s"}, {61000, "1m1s"}, {360000, "6m0s"}};
    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        char out[MR_LIMIT_TIME_MAX];
        mr_limit_time(all[i].ms, out);
        assert_string_equal(out, all[i].text);
    }
}

int main(void) {
#define WITH(test, setup) cmocka_unit_test_setup_teardown(test, setup, stop_suite)
    const struct CMUnitTest tests[] = {
        WITH(requests_over_the_limit_are_told_when_to_come_again, two_requests),
        WITH(tokens_are_held_by_a_guess_and_settled_by_what_they_were, sixty_tokens),
        WITH(a_request_that_is_wrong_costs_nothing, two_requests),
        WITH(a_place_is_free_again_however_the_answer_ends, one_at_once),
        WITH(without_redis_a_bucket_of_its_own_takes_over, two_requests),
        WITH(closed_lets_nobody_in_without_redis, two_or_nobody),
        WITH(open_lets_everybody_in_without_redis, two_or_everybody),
        WITH(an_answer_outlives_redis, one_at_once),
        WITH(a_chat_that_waits_for_redis_ends_with_its_gateway, two_or_nobody),
        cmocka_unit_test(many_gateways_share_one_bucket),
        cmocka_unit_test(many_gateways_share_the_places),
        cmocka_unit_test(the_narrowest_of_key_tenant_and_all_counts),
        cmocka_unit_test(waits_are_written_as_openai_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
