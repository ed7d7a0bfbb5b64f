/* A test's other end of Kafka. See asker.h. */
#include "support/asker.h"

#include "schemas/hash.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_MS 30000

/* ---- answers ---- */

static const char *full_id(const asker *a, const char *id, char out[64]) {
    snprintf(out, 64, "%s%s", a->prefix, id);
    return out;
}

static answer *find(const asker *a, const char *full) {
    for (int i = 0; i < a->nanswers; i++) {
        if (strcmp(a->answers[i].id, full) == 0) return &a->answers[i];
    }
    return NULL;
}

answer *asker_answer(asker *a, const char *id) {
    char full[64];
    answer *x = find(a, full_id(a, id, full));
    if (x) return x;
    assert_true(a->nanswers < ASKER_ANSWERS);
    x = &a->answers[a->nanswers++];
    *x = (answer){.attempt = 0};
    memcpy(x->id, full, sizeof(full));
    mr_buf_init(&x->text, 1 << 20);
    mr_buf_init(&x->reasoning, 1 << 20);
    x->hash = mr_text_hash_init();
    return x;
}

static uint64_t parse_hash(mr_str hex) {
    uint64_t h = 0;
    assert_true(mr_text_hash_parse(hex, &h));
    return h;
}

static void note_gap(answer *x, int64_t sent_ms) {
    if (x->gap_ms && (!x->closest_ms || x->gap_ms < x->closest_ms)) x->closest_ms = x->gap_ms;
    x->gap_ms = x->sent_ms ? sent_ms - x->sent_ms : 0;
    x->sent_ms = sent_ms;
}

/* What is new of a delta goes on exactly where the answer ended, and its hash says that both are the same answer. */
static void join(answer *x, const mr_response_delta *d, int64_t sent_ms) {
    mr_str text = d->text;
    int64_t known = x->bytes - d->offset;
    assert_int_equal(x->ends, 0);
    if (known < 0) fail_msg("%s: a hole before byte %lld", x->id, (long long)d->offset);
    x->deltas++;
    if (d->attempt > x->attempt) x->attempt = d->attempt;
    if (known >= (int64_t)text.n) {
        x->repeated++;
        return;
    }
    text.p += known;
    text.n -= (size_t)known;
    x->hash = mr_text_hash_feed(x->hash, text);
    x->bytes += (int64_t)text.n;
    mr_buf *to = d->channel == MR_CHANNEL_REASONING ? &x->reasoning : &x->text;
    mr_buf_put(to, text.p, text.n);
    assert_true(x->hash == parse_hash(d->hash));
    x->logprobs += (int)d->logprobs.n;
    note_gap(x, sent_ms);
}

static void finish(answer *x, const mr_response_end *e) {
    x->ends++;
    x->tokens = e->tokens;
    x->finish = e->finish_reason;
    x->status = (int)e->error.status;
    mr_str_copy(e->error.code, x->code, sizeof(x->code));
    mr_str_copy(e->worker, x->worker, sizeof(x->worker));
    if (e->finish_reason == MR_FINISH_STOP || e->finish_reason == MR_FINISH_LENGTH) {
        assert_int_equal(e->offset, x->bytes);
        assert_true(parse_hash(e->hash) == x->hash);
    }
}

/* NULL: of an earlier test, late. */
static answer *answer_of(const asker *a, mr_str request) {
    char id[64];
    mr_str_copy(request, id, sizeof(id));
    answer *x = find(a, id);
    if (!x && strncmp(id, a->prefix, strlen(a->prefix)) == 0)
        fail_msg("an answer to %s, which was not asked", id);
    return x;
}

static bool on_response(void *arg, const mr_record *r) {
    asker *a = arg;
    mr_response_delta d;
    mr_response_end e;
    mr_error err;
    answer *x;
    mr_arena_reset(a->arena);
    if (mr_str_eqz(mr_record_header(r, "type"), "ResponseDelta")) {
        if (mr_unpack(&mr_response_delta_def, r->value, a->arena, &d, &err)) fail_msg("%s", err.msg);
        x = answer_of(a, d.request);
        if (x) join(x, &d, r->timestamp_ms);
    } else {
        if (mr_unpack(&mr_response_end_def, r->value, a->arena, &e, &err)) fail_msg("%s", err.msg);
        x = answer_of(a, e.request);
        if (x) finish(x, &e);
    }
    assert_int_equal(mr_record_header(r, "traceparent").n, 55);
    return true;
}

static bool on_dead(void *arg, const mr_record *r) {
    asker *a = arg;
    mr_dead d;
    mr_error err;
    mr_arena_reset(a->arena);
    if (mr_unpack(&mr_dead_def, r->value, a->arena, &d, &err)) fail_msg("%s", err.msg);
    mr_str_copy(d.reason, a->reason, sizeof(a->reason));
    size_t skip = strlen(a->prefix);
    if (d.request.n >= skip) d.request = (mr_str){d.request.p + skip, d.request.n - skip};
    mr_str_copy(d.request, a->letter_of, sizeof(a->letter_of));
    a->letters++;
    return true;
}

int asker_begun(const asker *a) {
    int n = 0;
    for (int i = 0; i < a->nanswers; i++) n += a->answers[i].bytes > 0;
    return n;
}

int asker_ended(const asker *a) {
    int n = 0;
    for (int i = 0; i < a->nanswers; i++) n += a->answers[i].ends > 0;
    return n;
}

typedef struct goal {
    asker *a;
    answer *x;
    int n;
} goal;

static bool has_ended(void *arg) {
    return ((goal *)arg)->x->ends > 0;
}
static bool have_ended(void *arg) {
    return asker_ended(((goal *)arg)->a) >= ((goal *)arg)->n;
}

answer *asker_wait(asker *a, const char *id) {
    goal g = {.a = a, .x = asker_answer(a, id)};
    if (!test_wait(a->loop, WAIT_MS, has_ended, &g)) {
        fail_msg("%s: no end; %lld bytes, %d letters", id, (long long)g.x->bytes, a->letters);
    }
    assert_int_equal(g.x->ends, 1);
    return g.x;
}

bool asker_wait_all(asker *a, int n, int timeout_ms) {
    goal g = {.a = a, .n = n};
    return test_wait(a->loop, timeout_ms, have_ended, &g);
}

/* ---- questions ---- */

static void send_record(asker *a, const char *topic, mr_str key, mr_str value, const char *type) {
    mr_error err;
    const mr_header h = {"content-type", mr_str_of(type)};
    const mr_produce rec = {
        .topic = topic, .partition = -1, .key = key, .value = value, .headers = &h, .nheaders = 1};
    if (mr_producer_send(a->producer, &rec, &err)) fail_msg("%s", err.msg);
}

void asker_put(asker *a, mr_str value) {
    send_record(a, a->to, MR_STR("raw"), value, "application/msgpack");
}

static void build(const question *q, const char *id, mr_chat_message *m, mr_chat_request *r) {
    *m = (mr_chat_message){.set = 0};
    *r = (mr_chat_request){.set = 0};
    MR_SET(m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(m, MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(q->text));
    r->messages.v = m;
    r->messages.n = 1;
    MR_MARK(r, MR_CHAT_REQUEST_MESSAGES);
    MR_SET(r, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(r, MR_CHAT_REQUEST_ID, id, mr_str_of(id));
    MR_SET(r, MR_CHAT_REQUEST_CREATED_MS, created_ms, mr_now_ms());
    if (q->tenant) MR_SET(r, MR_CHAT_REQUEST_TENANT, tenant, mr_str_of(q->tenant));
    if (q->session) MR_SET(r, MR_CHAT_REQUEST_SESSION, session, mr_str_of(q->session));
    if (q->deadline_ms) MR_SET(r, MR_CHAT_REQUEST_DEADLINE_MS, deadline_ms, q->deadline_ms);
    if (q->reply_to >= 0) MR_SET(r, MR_CHAT_REQUEST_REPLY_TO, reply_to, q->reply_to);
    if (q->seed) MR_SET(&r->sampling, MR_SAMPLING_SEED, seed, q->seed);
    if (q->max_tokens) MR_SET(&r->sampling, MR_SAMPLING_MAX_TOKENS, max_tokens, q->max_tokens);
    if (q->ignore_eos) MR_SET(&r->sampling, MR_SAMPLING_IGNORE_EOS, ignore_eos, true);
    if (q->logprobs) MR_SET(&r->sampling, MR_SAMPLING_LOGPROBS, logprobs, true);
    MR_MARK(r, MR_CHAT_REQUEST_SAMPLING);
}

void asker_ask(asker *a, const question *q) {
    mr_chat_message m;
    mr_chat_request r;
    mr_error err;
    mr_buf body;
    answer *x = asker_answer(a, q->id);
    x->asked = true;
    const char *id = x->id;
    build(q, id, &m, &r);
    if (q->as_json) {
        json_t *j = mr_to_json(&mr_chat_request_def, &r, &err);
        char *text = json_dumps(j, JSON_COMPACT);
        send_record(a, a->to, mr_str_of(id), mr_str_of(text), "application/json");
        free(text);
        json_decref(j);
        return;
    }
    mr_buf_init(&body, 1 << 20);
    if (mr_pack(&mr_chat_request_def, &r, &body, &err)) fail_msg("%s", err.msg);
    send_record(a, a->to, mr_str_of(id), mr_buf_str(&body), "application/msgpack");
    mr_buf_done(&body);
}

void asker_say(asker *a, const char *id, const char *text) {
    asker_ask(a, &(question){.id = id, .text = text, .reply_to = -1});
}

void asker_cancel(asker *a, const char *id) {
    mr_control c = {.set = 0};
    mr_error err;
    mr_buf body;
    char full[64], key[80];
    snprintf(key, sizeof(key), "cancel/%s", full_id(a, id, full));
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_CANCEL);
    MR_SET(&c, MR_CONTROL_REQUEST, request, mr_str_of(full));
    mr_buf_init(&body, 4096);
    if (mr_pack(&mr_control_def, &c, &body, &err)) fail_msg("%s", err.msg);
    send_record(a, a->control, mr_str_of(key), mr_buf_str(&body), "application/msgpack");
    mr_buf_done(&body);
}

/* ---- life ---- */

static mr_consumer *reader_of(asker *a, mr_metrics *m, const char *name, mr_record_cb *cb) {
    char topic[250];
    mr_error err;
    mr_bus_topic(a->conf, name, topic);
    const mr_consumer_options opt = {
        .topics = {topic}, .partition = -1, .start = MR_FROM_BEGINNING, .on_record = cb, .arg = a};
    mr_consumer *c = mr_consumer_new(a->conf, &opt, a->loop, m, name + strlen("chat."), &err);
    if (!c) fail_msg("%s", err.msg);
    return c;
}

static void next_round(asker *a) {
    snprintf(a->prefix, sizeof(a->prefix), "t%d-", ++a->rounds);
}

void asker_init(asker *a, mr_loop *l, mr_metrics *m, const mr_kafka_conf *conf) {
    mr_error err;
    *a = (asker){.loop = l, .conf = conf, .arena = mr_arena_new(16 << 20)};
    a->answers = calloc(ASKER_ANSWERS, sizeof(answer));
    mr_bus_generate_topic(conf, "main", "blue", a->to);
    mr_bus_topic(conf, MR_TOPIC_CONTROL, a->control);
    a->producer = mr_producer_new(conf, l, m, "asker", NULL, a, &err);
    if (!a->producer) fail_msg("%s", err.msg);
    next_round(a);
    a->responses = reader_of(a, m, MR_TOPIC_RESPONSES, on_response);
    a->dead = reader_of(a, m, MR_TOPIC_DEAD, on_dead);
}

static void forget_answers(asker *a) {
    for (int i = 0; i < a->nanswers; i++) {
        mr_buf_done(&a->answers[i].text);
        mr_buf_done(&a->answers[i].reasoning);
    }
    a->nanswers = 0;
}

void asker_clear(asker *a) {
    int asked = 0;
    for (int i = 0; i < a->nanswers; i++) {
        if (!a->answers[i].asked) continue;
        asked++;
        if (!a->answers[i].ends) asker_cancel(a, a->answers[i].id + strlen(a->prefix));
    }
    assert_true(asker_wait_all(a, asked, WAIT_MS));
    forget_answers(a);
    next_round(a);
    a->letters = 0;
    a->reason[0] = a->letter_of[0] = '\0';
}

void asker_done(asker *a) {
    mr_producer_free(a->producer, 1000);
    mr_consumer_free(a->responses);
    mr_consumer_free(a->dead);
    forget_answers(a);
    free(a->answers);
    mr_arena_free(a->arena);
}
