/* See fixture.h. */
#include "fixture.h"

#include "base/log.h"
#include "router/kb_import.h"

#include <librdkafka/rdkafka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const pools[] = {"big-model=big"};

/* ---- what comes out ---- */

static mr_str keep(fixture *f, mr_str s) {
    return mr_arena_str(f->arena, s);
}

static bool on_record(void *arg, const mr_record *r) {
    fixture *f = arg;
    assert_true(f->nseen < SEEN_MAX);
    seen *s = &f->seen[f->nseen++];
    snprintf(s->topic, sizeof(s->topic), "%s", r->topic);
    s->partition = r->partition;
    s->key = keep(f, r->key);
    s->value = keep(f, r->value);
    s->type = keep(f, mr_record_header(r, "type"));
    s->traceparent = keep(f, mr_record_header(r, "traceparent"));
    return true;
}

typedef struct wanted {
    fixture *f;
    const char *topic, *key, *type;
    const seen *found;
} wanted;

static bool find_seen(void *arg) {
    wanted *w = arg;
    for (int i = 0; i < w->f->nseen; i++) {
        const seen *s = &w->f->seen[i];
        if (strcmp(s->topic, w->topic) != 0 || !mr_str_eqz(s->key, w->key)) continue;
        if (w->type && !mr_str_eqz(s->type, w->type)) continue;
        w->found = s;
        return true;
    }
    return false;
}

static const seen *wait_typed(fixture *f, const char *topic, const char *key, const char *type) {
    wanted w = {f, topic, key, type, NULL};
    if (!test_wait(f->loop, WAIT_MS, find_seen, &w))
        fail_msg("no record with key '%s' came to %s", key, topic);
    return w.found;
}

const seen *wait_record(fixture *f, const char *topic, const char *key) {
    return wait_typed(f, topic, key, NULL);
}

static void unpack(fixture *f, const mr_message_def *def, const seen *s, void *out) {
    mr_error err;
    assert_true(mr_str_eqz(s->type, def->name));
    assert_int_equal(s->traceparent.n, 55);
    if (mr_unpack(def, s->value, f->arena, out, &err) != 0) fail_msg("%s: %s", def->name, err.msg);
}

mr_response_end wait_end(fixture *f, const char *id) {
    mr_response_end e;
    unpack(f, &mr_response_end_def, wait_typed(f, MR_TOPIC_RESPONSES, id, "ResponseEnd"), &e);
    return e;
}

mr_dead wait_dead(fixture *f, const char *id) {
    mr_dead d;
    unpack(f, &mr_dead_def, wait_typed(f, MR_TOPIC_DEAD, id, "Dead"), &d);
    return d;
}

mr_audit wait_audit(fixture *f, const char *id) {
    mr_audit a;
    unpack(f, &mr_audit_def, wait_typed(f, MR_TOPIC_AUDIT, id, "Audit"), &a);
    return a;
}

mr_chat_request read_request(fixture *f, const seen *s) {
    mr_chat_request q;
    unpack(f, &mr_chat_request_def, s, &q);
    return q;
}

mr_str answer_text(fixture *f, const char *id) {
    mr_buf text;
    mr_response_delta d;
    mr_buf_init(&text, 1 << 20);
    for (int i = 0; i < f->nseen; i++) {
        if (!mr_str_eqz(f->seen[i].type, "ResponseDelta") || !mr_str_eqz(f->seen[i].key, id)) continue;
        unpack(f, &mr_response_delta_def, &f->seen[i], &d);
        assert_int_equal(d.offset, text.n);
        mr_buf_put(&text, d.text.p, d.text.n);
    }
    mr_str out = keep(f, mr_buf_str(&text));
    mr_buf_done(&text);
    return out;
}

const seen *last_record(const fixture *f, const char *topic) {
    for (int i = f->nseen - 1; i >= 0; i--) {
        if (strcmp(f->seen[i].topic, topic) == 0) return &f->seen[i];
    }
    return NULL;
}

int count_records(const fixture *f, const char *topic, const char *key) {
    int n = 0;
    for (int i = 0; i < f->nseen; i++) {
        n += strcmp(f->seen[i].topic, topic) == 0 && (!key || mr_str_eqz(f->seen[i].key, key));
    }
    return n;
}

/* ---- what goes in ---- */

static void on_delivered(void *arg, void *tag, const mr_error *err) {
    fixture *f = arg;
    (void)tag;
    if (err) fail_msg("%s", err->msg);
    f->unacknowledged--;
}

static bool all_acknowledged(void *arg) {
    return ((fixture *)arg)->unacknowledged == 0;
}

void send_record(fixture *f, const char *topic, mr_str key, mr_str value, const mr_header *headers,
                 int nheaders) {
    mr_error err;
    mr_produce rec = {topic, -1, key, value, headers, nheaders, f};
    f->unacknowledged++;
    if (mr_producer_send(f->producer, &rec, &err) != 0) fail_msg("%s", err.msg);
    if (!test_wait(f->loop, WAIT_MS, all_acknowledged, f)) fail_msg("Kafka does not take a record");
}

void send_json(fixture *f, const char *key, const char *json) {
    send_record(f, MR_TOPIC_REQUESTS, mr_str_of(key), mr_str_of(json), NULL, 0);
}

void send_weights(fixture *f, const char *pool, int blue, int green, int epoch) {
    char key[120];
    mr_error err;
    mr_buf b;
    mr_control c = {0};
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_WEIGHTS);
    MR_SET(&c, MR_CONTROL_POOL, pool, mr_str_of(pool));
    MR_SET(&c, MR_CONTROL_BLUE, blue, blue);
    MR_SET(&c, MR_CONTROL_GREEN, green, green);
    MR_SET(&c, MR_CONTROL_EPOCH, epoch, epoch);
    mr_buf_init(&b, 1000);
    if (mr_pack(&mr_control_def, &c, &b, &err) != 0) fail_msg("%s", err.msg);
    snprintf(key, sizeof(key), "weights/%s", pool);
    send_record(f, MR_TOPIC_CONTROL, mr_str_of(key), mr_buf_str(&b), NULL, 0);
    mr_buf_done(&b);
}

/* ---- the whole ---- */

static void make_topics(const fixture *f) {
    static const char *const topics[] = {
        MR_TOPIC_REQUESTS, MR_TOPIC_RESPONSES, MR_TOPIC_DEAD, MR_TOPIC_AUDIT, BLUE, GREEN, BIG_BLUE};
    for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++) test_kafka_topic(f->kafka, topics[i], 4);
    test_kafka_topic(f->kafka, MR_TOPIC_CONTROL, 1);
    test_kafka_topic(f->kafka, MR_TOPIC_WORKERS, 1);
}

static bool reads_all(void *arg) {
    return mr_consumer_caught_up(((fixture *)arg)->consumer);
}

void fixture_init(fixture *f) {
    mr_error err;
    memset(f, 0, sizeof(*f));
    f->conf = (mr_router_conf){.pools = {(const char **)pools, 1},
                               .kb = "",
                               .kb_threshold = 0.7,
                               .kb_follow = "See also:",
                               .kb_context = 3,
                               .kb_context_min = 0.05,
                               .kb_context_tokens = 200,
                               .intent_model = "",
                               .ai_share_max = 1,
                               .guard_injection = "off",
                               .guard_personal = "off",
                               .guard_refusal = "I cannot help with this.",
                               .request_timeout_s = 600,
                               .max_in_flight = 100,
                               .drain_s = 10,
                               .metrics_host = "127.0.0.1"};
    f->redis_conf = (mr_redis_conf){.address = "", .password = "", .prefix = "t:", .timeout_ms = 500};
    test_folder_init(f->folder);
    f->kafka = test_kafka_start();
    make_topics(f);
    f->kafka_conf = test_kafka_conf(f->kafka);
    f->kafka_conf.message_max = 500000; /* the mock cluster keeps 5 MB of a partition */
    f->arena = mr_arena_new(64u << 20);
    f->loop = mr_loop_new(&err);
    f->metrics = mr_metrics_new(&err);
    f->producer = mr_producer_new(&f->kafka_conf, f->loop, f->metrics, "test", on_delivered, f, &err);
    mr_consumer_options o = {
        .topics = {MR_TOPIC_RESPONSES, MR_TOPIC_DEAD, MR_TOPIC_AUDIT, BLUE, GREEN, BIG_BLUE},
        .partition = -1,
        .start = MR_FROM_BEGINNING,
        .on_record = on_record,
        .arg = f};
    f->consumer = mr_consumer_new(&f->kafka_conf, &o, f->loop, f->metrics, "test", &err);
    if (!f->producer || !f->consumer) fail_msg("%s", err.msg);
    if (!test_wait(f->loop, WAIT_MS, reads_all, f)) fail_msg("the test cannot read Kafka");
}

void fixture_kb(fixture *f, const char *tsv) {
    char path[100];
    mr_error err;
    mr_kb_counts n;
    snprintf(f->kb, sizeof(f->kb), "%s/kb.db", f->folder);
    snprintf(path, sizeof(path), "%s/kb.tsv", f->folder);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(tsv, out);
    fclose(out);
    if (mr_kb_import(f->kb, path, true, &n, &err) != 0) fail_msg("%s", err.msg);
    f->conf.kb = f->kb;
}

static bool is_ready(void *arg) {
    char why[100];
    return mr_router_ready(((fixture *)arg)->router, why, sizeof(why));
}

void fixture_start(fixture *f) {
    mr_error err;
    f->router = mr_router_new(&f->conf, &f->kafka_conf, &f->redis_conf, f->loop, &err);
    if (!f->router) fail_msg("%s", err.msg);
    char why[100];
    assert_false(mr_router_ready(f->router, why, sizeof(why)));
    assert_true(why[0] != '\0');
    if (!test_wait(f->loop, WAIT_MS, is_ready, f)) fail_msg("the router did not become ready");
}

void fixture_stop(fixture *f) {
    mr_router_free(f->router);
    f->router = NULL;
}

void fixture_done(fixture *f) {
    mr_router_free(f->router);
    mr_consumer_free(f->consumer);
    mr_producer_free(f->producer, 100);
    mr_metrics_free(f->metrics);
    mr_loop_free(f->loop);
    mr_arena_free(f->arena);
    test_kafka_stop(f->kafka);
    test_folder_done(f->folder);
}

int64_t committed(fixture *f, int partition) {
    char why[200];
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    rd_kafka_conf_set(c, "bootstrap.servers", f->kafka_conf.brokers, why, sizeof(why));
    rd_kafka_conf_set(c, "group.id", "millrace-router", why, sizeof(why));
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, c, why, sizeof(why));
    assert_non_null(rk);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, MR_TOPIC_REQUESTS, partition);
    rd_kafka_resp_err_t e = rd_kafka_committed(rk, list, WAIT_MS);
    assert_int_equal(e, RD_KAFKA_RESP_ERR_NO_ERROR);
    int64_t offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    return offset < 0 ? -1 : offset;
}

double metric(fixture *f, const char *line) {
    mr_buf b;
    double v = 0;
    mr_buf_init(&b, 1 << 20);
    mr_metrics_text(mr_router_metrics(f->router), &b);
    mr_buf_put(&b, "", 1);
    assert_false(b.failed);
    for (const char *at = b.p; (at = strstr(at, line)); at++) { /* not in a HELP line */
        if (at == b.p || at[-1] == '\n') v = strtod(at + strlen(line), NULL);
    }
    mr_buf_done(&b);
    return v;
}
