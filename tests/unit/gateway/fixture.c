/* See fixture.h. */
#include "fixture.h"

#include "base/log.h"
#include "schemas/hash.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const keys[] = {"sk-test", "other=sk-other"}, *const models[] = {"small", "eye"},
                         *const vision[] = {"eye"};

/* ---- the worker ---- */

static void send_record(fixture *f, const mr_message_def *def, const void *msg, mr_str key) {
    mr_error err;
    mr_buf b;
    mr_header type = {"type", mr_str_of(def->name)};
    mr_buf_init(&b, 4 << 20);
    if (mr_pack(def, msg, &b, &err) != 0) fail_msg("%s", err.msg);
    mr_produce rec = {.topic = MR_TOPIC_RESPONSES,
                      .partition = (int32_t)f->conf.partition,
                      .key = key,
                      .value = mr_buf_str(&b),
                      .headers = &type,
                      .nheaders = 1};
    if (mr_producer_send(f->producer, &rec, &err) != 0) fail_msg("%s", err.msg);
    mr_buf_done(&b);
}

static void hash_of(const char *text, size_t n, char out[MR_TEXT_HASH_LEN + 1]) {
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), (mr_str){text, n}), out);
}

static mr_response_delta a_delta(const mr_chat_request *r, int channel, int attempt, const char *text,
                                 size_t from, size_t to, char hash[MR_TEXT_HASH_LEN + 1]) {
    mr_response_delta d = {0};
    hash_of(text, to, hash);
    MR_SET(&d, MR_RESPONSE_DELTA_V, v, MR_SCHEMA_VERSION);
    MR_SET(&d, MR_RESPONSE_DELTA_REQUEST, request, r->id);
    MR_SET(&d, MR_RESPONSE_DELTA_ATTEMPT, attempt, attempt);
    MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, (int64_t)from / 4);
    MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, 1);
    MR_SET(&d, MR_RESPONSE_DELTA_OFFSET, offset, (int64_t)from);
    MR_SET(&d, MR_RESPONSE_DELTA_CHANNEL, channel, channel);
    MR_SET(&d, MR_RESPONSE_DELTA_SOURCE, source, MR_SOURCE_KB);
    MR_SET(&d, MR_RESPONSE_DELTA_TEXT, text, ((mr_str){text + from, to - from}));
    MR_SET(&d, MR_RESPONSE_DELTA_HASH, hash, mr_str_of(hash));
    return d;
}

void worker_tokens(fixture *f, const mr_chat_request *r, int attempt, const char *text, size_t from,
                   size_t to) {
    char hash[MR_TEXT_HASH_LEN + 1];
    int64_t ids[1000];
    mr_response_delta d = a_delta(r, MR_CHANNEL_CONTENT, attempt, text, from, to, hash);
    assert_true(to - from <= 1000);
    for (size_t i = from; i < to; i++) ids[i - from] = (unsigned char)text[i];
    MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, (int64_t)from);
    MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, (int64_t)(to - from));
    d.token_ids.v = ids;
    d.token_ids.n = (uint32_t)(to - from);
    MR_MARK(&d, MR_RESPONSE_DELTA_TOKEN_IDS);
    send_record(f, &mr_response_delta_def, &d, r->id);
}

void worker_delta_as(fixture *f, const mr_chat_request *r, int channel, int attempt, const char *text,
                     size_t from, size_t to) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_response_delta d = a_delta(r, channel, attempt, text, from, to, hash);
    send_record(f, &mr_response_delta_def, &d, r->id);
}

void worker_call(fixture *f, const mr_chat_request *r, int64_t index, const char *name, const char *text,
                 size_t from, size_t to) {
    char id[32], hash[MR_TEXT_HASH_LEN + 1];
    mr_response_delta d = a_delta(r, MR_CHANNEL_TOOL_CALL, 1, text, from, to, hash);
    snprintf(id, sizeof(id), "call_%lld", (long long)index);
    MR_SET(&d.call, MR_DELTA_CALL_INDEX, index, index);
    MR_SET(&d.call, MR_DELTA_CALL_ID, id, mr_str_of(id));
    MR_SET(&d.call, MR_DELTA_CALL_NAME, name, mr_str_of(name));
    MR_MARK(&d, MR_RESPONSE_DELTA_CALL);
    send_record(f, &mr_response_delta_def, &d, r->id);
}

void worker_delta(fixture *f, const mr_chat_request *r, const char *text, size_t from, size_t to) {
    worker_delta_as(f, r, MR_CHANNEL_CONTENT, 1, text, from, to);
}

static mr_response_end an_end(const mr_chat_request *r, const char *text, char hash[MR_TEXT_HASH_LEN + 1]) {
    mr_response_end e = {0};
    hash_of(text, strlen(text), hash);
    MR_SET(&e, MR_RESPONSE_END_V, v, MR_SCHEMA_VERSION);
    MR_SET(&e, MR_RESPONSE_END_REQUEST, request, r->id);
    MR_SET(&e, MR_RESPONSE_END_TOKENS, tokens, (int64_t)strlen(text) / 4);
    MR_SET(&e, MR_RESPONSE_END_OFFSET, offset, (int64_t)strlen(text));
    MR_SET(&e, MR_RESPONSE_END_HASH, hash, mr_str_of(hash));
    MR_SET(&e, MR_RESPONSE_END_FINISH_REASON, finish_reason, MR_FINISH_STOP);
    MR_SET(&e, MR_RESPONSE_END_SOURCE, source, MR_SOURCE_KB);
    MR_MARK(&e, MR_RESPONSE_END_USAGE);
    MR_SET(&e.usage, MR_USAGE_PROMPT_TOKENS, prompt_tokens, 11);
    MR_SET(&e.usage, MR_USAGE_COMPLETION_TOKENS, completion_tokens, (int64_t)strlen(text));
    return e;
}

void worker_end(fixture *f, const mr_chat_request *r, const char *text) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_response_end e = an_end(r, text, hash);
    send_record(f, &mr_response_end_def, &e, r->id);
}

void worker_error(fixture *f, const mr_chat_request *r, const char *text, int status, const char *code,
                  const char *message) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_response_end e = an_end(r, text, hash);
    MR_SET(&e, MR_RESPONSE_END_ATTEMPT, attempt, 1);
    MR_SET(&e, MR_RESPONSE_END_FINISH_REASON, finish_reason, MR_FINISH_ERROR);
    MR_MARK(&e, MR_RESPONSE_END_ERROR);
    MR_SET(&e.error, MR_RESPONSE_ERROR_STATUS, status, status);
    MR_SET(&e.error, MR_RESPONSE_ERROR_TYPE, type, MR_STR("server_error"));
    MR_SET(&e.error, MR_RESPONSE_ERROR_CODE, code, mr_str_of(code));
    MR_SET(&e.error, MR_RESPONSE_ERROR_MESSAGE, message, mr_str_of(message));
    send_record(f, &mr_response_end_def, &e, r->id);
}

void worker_end_as(fixture *f, const mr_chat_request *r, const char *text, int source, int finish) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_response_end e = an_end(r, text, hash);
    e.source = source;
    e.finish_reason = finish;
    send_record(f, &mr_response_end_def, &e, r->id);
}

void worker_answer(fixture *f, const mr_chat_request *r, const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i += 7) worker_delta(f, r, text, i, i + 7 < n ? i + 7 : n);
    worker_end(f, r, text);
}

static void decode(fixture *f, const mr_message_def *def, const mr_record *rec, void *out) {
    mr_error err;
    if (mr_decode(def, rec->value, MR_STR(""), f->arena, out, &err) != 0)
        fail_msg("%s: %s", def->name, err.msg);
    assert_true(mr_str_eqz(mr_record_header(rec, "type"), def->name));
    assert_int_equal(mr_record_header(rec, "traceparent").n, 55);
}

static bool on_record(void *arg, const mr_record *rec) {
    fixture *f = arg;
    if (strcmp(rec->topic, MR_TOPIC_CONTROL) == 0) {
        assert_true(f->ncontrols < SEEN_MAX);
        decode(f, &mr_control_def, rec, &f->controls[f->ncontrols++]);
    } else if (strcmp(rec->topic, MR_TOPIC_AUDIT) == 0) {
        assert_true(f->naudits < SEEN_MAX);
        decode(f, &mr_audit_def, rec, &f->audits[f->naudits++]);
    } else if (strcmp(rec->topic, MR_TOPIC_FEEDBACK) == 0) {
        decode(f, &mr_feedback_def, rec, &f->feedback);
        f->nfeedback++;
    } else {
        assert_true(f->nrequests < SEEN_MAX);
        mr_chat_request *r = &f->requests[f->nrequests++];
        decode(f, &mr_chat_request_def, rec, r);
        assert_true(mr_str_eq(rec->key, r->session));
        if (f->auto_answer) worker_answer(f, r, f->auto_answer);
    }
    return true;
}

typedef struct wanted {
    fixture *f;
    int n;
    mr_str id;
} wanted;

static bool has_request(void *arg) {
    wanted *w = arg;
    return w->f->nrequests > w->n;
}

const mr_chat_request *worker_request(fixture *f, int i) {
    if (!test_wait(f->loop, WAIT_MS, has_request, &(wanted){f, i, {0}}))
        fail_msg("request %d did not come", i);
    return &f->requests[i];
}

static bool has_cancel(void *arg) {
    wanted *w = arg;
    for (int i = 0; i < w->f->ncontrols; i++) {
        if (w->f->controls[i].kind == MR_CONTROL_IS_CANCEL && mr_str_eq(w->f->controls[i].request, w->id))
            return true;
    }
    return false;
}

void worker_sees_cancel(fixture *f, const mr_chat_request *r) {
    if (!test_wait(f->loop, WAIT_MS, has_cancel, &(wanted){f, 0, r->id})) fail_msg("no cancel came");
}

typedef struct sought {
    fixture *f;
    int from;
    mr_str request;
    const char *rule;
    const mr_audit *found;
} sought;

static bool has_audit(void *arg) {
    sought *s = arg;
    s->found = NULL;
    for (int i = s->from; i < s->f->naudits && !s->found; i++) {
        const mr_audit *a = &s->f->audits[i];
        bool asked = s->request.n == 0 || mr_str_eq(a->request, s->request);
        if (asked && mr_str_eqz(a->rule, s->rule)) s->found = a;
    }
    return s->found != NULL;
}

const mr_audit *wait_audit(fixture *f, int from, mr_str request, const char *rule) {
    sought s = {f, from, request, rule, NULL};
    if (!test_wait(f->loop, WAIT_MS, has_audit, &s)) fail_msg("chat.audit has no record of %s", rule);
    return s.found;
}

/* ---- the whole ---- */

void fixture_init(fixture *f) {
    memset(f, 0, sizeof(*f));
    f->conf = (mr_gateway_conf){.host = "127.0.0.1",
                                .tls_cert = "",
                                .tls_key = "",
                                .partition = 1,
                                .keys = {(const char **)keys, 2},
                                .models = {(const char **)models, 2},
                                .vision_models = {(const char **)vision, 1},
                                .max_tokens = 100,
                                .limits_without_redis = "local",
                                .limits_answer = 100,
                                .body_max = 200000,
                                .output_max = 100000,
                                .max_in_flight = 200,
                                .request_timeout_s = 60,
                                .accept_timeout_s = 20,
                                .idle_timeout_s = 75,
                                .keep_alive_s = 1,
                                .headers_wait_ms = 100,
                                .drain_s = 5,
                                .guard_answers = "stop",
                                .guard_injection = "off",
                                .guard_personal = "off",
                                .guard_refusal = "I cannot help with this.",
                                .ai_label = "",
                                .metrics_host = "127.0.0.1"};
    f->redis_conf = (mr_redis_conf){.address = "", .password = "", .prefix = "t:", .timeout_ms = 500};
}

static bool is_ready(void *arg) {
    fixture *f = arg;
    char why[100];
    return mr_gateway_ready(f->gateway, why, sizeof(why)) && mr_consumer_caught_up(f->consumer);
}

void fixture_start(fixture *f) {
    mr_error err;
    f->kafka = test_kafka_start();
    test_kafka_topic(f->kafka, MR_TOPIC_REQUESTS, 4);
    test_kafka_topic(f->kafka, MR_TOPIC_RESPONSES, 4);
    test_kafka_topic(f->kafka, MR_TOPIC_CONTROL, 1);
    test_kafka_topic(f->kafka, MR_TOPIC_FEEDBACK, 1);
    test_kafka_topic(f->kafka, MR_TOPIC_AUDIT, 1);
    test_kafka_topic(f->kafka, MR_TOPIC_WORKERS, 1);
    f->kafka_conf = test_kafka_conf(f->kafka);
    f->arena = mr_arena_new(64u << 20);
    f->loop = mr_loop_new(&err);
    f->metrics = mr_metrics_new(&err);
    f->producer = mr_producer_new(&f->kafka_conf, f->loop, f->metrics, "test", NULL, NULL, &err);
    mr_consumer_options o = {
        .topics = {MR_TOPIC_REQUESTS, MR_TOPIC_CONTROL, MR_TOPIC_FEEDBACK, MR_TOPIC_AUDIT},
        .partition = -1,
        .start = MR_FROM_BEGINNING,
        .on_record = on_record,
        .arg = f};
    f->consumer = mr_consumer_new(&f->kafka_conf, &o, f->loop, f->metrics, "test", &err);
    if (!f->producer || !f->consumer) fail_msg("%s", err.msg);
    f->gateway = mr_gateway_new(&f->conf, &f->kafka_conf, &f->redis_conf, f->loop, &err);
    if (!f->gateway) fail_msg("%s", err.msg);
    if (!test_wait(f->loop, WAIT_MS, is_ready, f)) fail_msg("the gateway did not become ready");
}

void fixture_done(fixture *f) {
    mr_gateway_free(f->gateway);
    mr_consumer_free(f->consumer);
    mr_producer_free(f->producer, 100);
    mr_metrics_free(f->metrics);
    mr_loop_free(f->loop);
    mr_arena_free(f->arena);
    if (f->kafka) test_kafka_stop(f->kafka);
}

double metric(fixture *f, const char *line) {
    mr_buf b;
    double v = 0;
    mr_buf_init(&b, 1 << 20);
    mr_gateway_metrics(f->gateway, &b);
    mr_buf_put(&b, "", 1);
    assert_false(b.failed);
    for (const char *at = b.p; (at = strstr(at, line)); at++) { /* not in a HELP line */
        if (at == b.p || at[-1] == '\n') v = strtod(at + strlen(line), NULL);
    }
    mr_buf_done(&b);
    return v;
}

/* ---- clients ---- */

static void on_read(struct bufferevent *bev, void *arg) {
    client *c = arg;
    char part[4096];
    size_t n;
    while ((n = bufferevent_read(bev, part, sizeof(part))) > 0) mr_buf_put(&c->in, part, n);
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) ((client *)arg)->closed = true;
}

client *client_open(fixture *f) {
    return client_open_by(f, bufferevent_socket_new(mr_loop_base(f->loop), -1, BEV_OPT_CLOSE_ON_FREE));
}

client *client_open_by(fixture *f, struct bufferevent *bev) {
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)mr_gateway_port(f->gateway)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client *c = calloc(1, sizeof(*c));
    c->f = f;
    mr_buf_init(&c->in, 64u << 20);
    c->bev = bev;
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    assert_int_equal(bufferevent_socket_connect(c->bev, (struct sockaddr *)&to, sizeof(to)), 0);
    return c;
}

void client_close(client *c) {
    bufferevent_free(c->bev);
    mr_buf_done(&c->in);
    free(c);
}

void client_send_bytes(client *c, const void *p, size_t n) {
    assert_int_equal(bufferevent_write(c->bev, p, n), 0);
}

void client_send(client *c, const char *text) {
    client_send_bytes(c, text, strlen(text));
}

void client_post(client *c, const char *path, const char *body) {
    char head[300];
    snprintf(head, sizeof(head),
             "POST %s HTTP/1.1\r\nHost: x\r\n" KEY_HEADER
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             path, strlen(body));
    client_send(c, head);
    client_send(c, body);
}

void client_get(client *c, const char *path) {
    char head[300];
    snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\nHost: x\r\n" KEY_HEADER "\r\n", path);
    client_send(c, head);
}

bool client_has(const client *c, const char *needle) {
    return c->in.n > 0 && memmem(c->in.p, c->in.n, needle, strlen(needle)) != NULL;
}

typedef struct expectation {
    client *c;
    const char *needle;
} expectation;

static bool is_there(void *arg) {
    expectation *e = arg;
    return client_has(e->c, e->needle);
}

void client_expect(client *c, const char *needle) {
    expectation e = {c, needle};
    if (!test_wait(c->f->loop, WAIT_MS, is_there, &e)) {
        fail_msg("'%s' did not come, but:\n%.*s", needle, (int)c->in.n, c->in.p ? c->in.p : "");
    }
}

static bool is_closed(void *arg) {
    return ((client *)arg)->closed;
}

void client_expect_closed(client *c) {
    if (!test_wait(c->f->loop, WAIT_MS, is_closed, c)) fail_msg("the connection stays open");
}

void client_forget(client *c) {
    mr_buf_clear(&c->in);
}

char *client_body(const client *c, bool *clean) {
    char *out = calloc(1, c->in.n + 1);
    const char *end = c->in.p + c->in.n, *p = memmem(c->in.p, c->in.n, "\r\n\r\n", 4);
    size_t n = 0;
    *clean = false;
    if (!p) return out;
    bool chunked = memmem(c->in.p, (size_t)(p - c->in.p), "Transfer-Encoding: chunked", 26) != NULL;
    p += 4;
    if (!chunked) {
        memcpy(out, p, (size_t)(end - p));
        return out;
    }
    while (p < end) {
        char *after;
        size_t size = strtoul(p, &after, 16);
        if (size == 0) {
            *clean = end - after >= 4 && memcmp(after, "\r\n\r\n", 4) == 0;
            break;
        }
        if (after + 2 + size > end) break;
        memcpy(out + n, after + 2, size);
        n += size;
        p = after + 2 + size + 2;
    }
    return out;
}

char *client_content(const client *c) {
    bool clean;
    char *body = client_body(c, &clean), *out = calloc(1, strlen(body) + 1);
    for (char *line = body; (line = strstr(line, "data: {")); line++) {
        json_t *j = json_loads(line + 6, JSON_DISABLE_EOF_CHECK, NULL);
        json_t *delta = json_object_get(json_array_get(json_object_get(j, "choices"), 0), "delta");
        const char *text = json_string_value(json_object_get(delta, "content"));
        if (text) strcat(out, text);
        json_decref(j);
    }
    free(body);
    return out;
}
