/* The producer (see bus.h): idempotent, acks=all; delivery reports come to the loop's thread.
 *
 * An idempotent producer can fail fatally (for example when the broker lost its producer id). Then every record in
 * the air is reported as failed, and a new client takes the old one's place: at-least-once is kept by those who
 * send again, and duplicates are dropped at the edge. */
#include "base/bus_internal.h"

#include "base/log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS          100
#define PURGE_MS         2000
#define LEARN_MS         2000
#define QUEUE_RECORDS    "200000"
#define QUEUE_KBYTES     "262144" /* 256 MiB: 64 of the largest vision requests */
#define DELIVERY_TIMEOUT "30000"

struct mr_producer {
    rd_kafka_t *rk;
    mr_kafka_conf conf; /* strings are the mr_conf's */
    char part[32];
    mr_bus_wake wake;
    mr_timer *timer;
    mr_delivered_cb *cb;
    void *arg;
    bool connected, fatal, closing;
    mr_counter *delivered, *failed;
    mr_gauge *in_flight;
};

/* ---- callbacks of librdkafka, all from rd_kafka_poll ---- */

static enum mr_error_code code_of(rd_kafka_resp_err_t e) {
    if (e == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE) return MR_ETOOBIG;
    return e == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ? MR_ENOTFOUND : MR_EKAFKA;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    mr_producer *p = opaque;
    mr_error err;
    (void)rk;
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        mr_counter_add(p->delivered, 1);
        if (m->_private && p->cb) p->cb(p->arg, m->_private, NULL);
        return;
    }
    mr_counter_add(p->failed, 1);
    mr_fail(&err, code_of(m->err), "record for topic %s was not delivered: %s",
            m->rkt ? rd_kafka_topic_name(m->rkt) : "?", rd_kafka_err2str(m->err));
    if (p->cb) p->cb(p->arg, m->_private, &err);
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque) {
    mr_producer *p = opaque;
    char why[300];
    if (code == RD_KAFKA_RESP_ERR__FATAL) {
        rd_kafka_resp_err_t real = rd_kafka_fatal_error(rk, why, sizeof(why));
        mr_log(MR_ERROR, "kafka producer failed; a new one is started", MR_S("code", rd_kafka_err2name(real)),
               MR_S("error", why));
        p->fatal = true;
    } else if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        if (p->connected) mr_log(MR_WARN, "kafka is away", MR_S("error", reason));
        p->connected = false;
    }
}

static bool any_broker_up(json_t *stats) {
    const char *name;
    json_t *broker;
    json_object_foreach(json_object_get(stats, "brokers"), name, broker) {
        const char *state = json_string_value(json_object_get(broker, "state"));
        const char *source = json_string_value(json_object_get(broker, "source"));
        bool real = source && strcmp(source, "logical") != 0 && strcmp(source, "internal") != 0;
        if (real && state && (strcmp(state, "UP") == 0 || strcmp(state, "UPDATE") == 0)) return true;
    }
    return false;
}

/* librdkafka has no call that tells whether a broker is connected; its statistics do. */
static int on_stats(rd_kafka_t *rk, char *text, size_t n, void *opaque) {
    mr_producer *p = opaque;
    (void)rk;
    json_t *stats = json_loadb(text, n, 0, NULL);
    if (stats) p->connected = any_broker_up(stats);
    json_decref(stats);
    mr_gauge_set(p->in_flight, rd_kafka_outq_len(p->rk));
    return 0;
}

/* ---- the client ---- */

static int configure(mr_producer *p, rd_kafka_conf_t *c, mr_error *err) {
    static const char *const fixed[][2] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        /* as Java's default, so that a key has one partition whoever sends it */
        {"partitioner", "murmur2_random"},
        {"delivery.timeout.ms", DELIVERY_TIMEOUT},
        {"statistics.interval.ms", "500"},
        {"queue.buffering.max.messages", QUEUE_RECORDS},
        {"queue.buffering.max.kbytes", QUEUE_KBYTES},
    };
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        if (mr_bus_set(c, fixed[i][0], fixed[i][1], err) != 0) return -1;
    }
    if (mr_bus_set_int(c, "linger.ms", p->conf.linger_ms, err) != 0) return -1;
    rd_kafka_conf_set_dr_msg_cb(c, on_delivery);
    rd_kafka_conf_set_error_cb(c, on_error);
    rd_kafka_conf_set_stats_cb(c, on_stats);
    rd_kafka_conf_set_opaque(c, p);
    return mr_bus_conf_extra(c, &p->conf, err);
}

static int open_client(mr_producer *p, mr_error *err) {
    char why[300];
    rd_kafka_conf_t *c = mr_bus_conf(&p->conf, p->part, err);
    if (!c) return -1;
    if (configure(p, c, err) != 0) {
        rd_kafka_conf_destroy(c);
        return -1;
    }
    p->rk = rd_kafka_new(RD_KAFKA_PRODUCER, c, why, sizeof(why));
    if (!p->rk) {
        rd_kafka_conf_destroy(c);
        return mr_fail(err, MR_EKAFKA, "kafka producer: %s", why);
    }
    rd_kafka_queue_t *q = rd_kafka_queue_get_main(p->rk);
    mr_bus_wake_on(&p->wake, q);
    rd_kafka_queue_destroy(q);
    return 0;
}

/* Every record that is still here gets its delivery report, as failed. */
static void close_client(mr_producer *p, int flush_ms) {
    if (!p->rk) return;
    if (flush_ms > 0) rd_kafka_flush(p->rk, flush_ms);
    rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_flush(p->rk, PURGE_MS); /* hands over the reports of what was purged */
    rd_kafka_destroy(p->rk);
    p->rk = NULL;
}

static void replace_client(mr_producer *p) {
    mr_error err;
    p->fatal = p->connected = false;
    close_client(p, 0);
    if (open_client(p, &err) != 0) {
        mr_log(MR_ERROR, "kafka producer cannot be started again; trying on", MR_S("error", err.msg));
    }
}

static void on_ready(void *arg) {
    mr_producer *p = arg;
    if (p->fatal || !p->rk) replace_client(p);
    if (p->rk) rd_kafka_poll(p->rk, 0);
}

/* Without it the first record to each topic waits a second: librdkafka looks for topics that it does not know by a timer
 * of that length. An outage is no reason to fail, the timer takes over then. */
static void learn_topics(rd_kafka_t *rk) {
    const rd_kafka_metadata_t *md = NULL;
    if (rd_kafka_metadata(rk, 1, NULL, &md, LEARN_MS) == RD_KAFKA_RESP_ERR_NO_ERROR)
        rd_kafka_metadata_destroy(md);
}

mr_producer *mr_producer_new(const mr_kafka_conf *conf, mr_loop *l, mr_metrics *m, const char *part,
                             mr_delivered_cb *cb, void *arg, mr_error *err) {
    mr_producer *p = calloc(1, sizeof(*p));
    if (!p) {
        mr_fail(err, MR_ENOMEM, "out of memory while starting the kafka producer");
        return NULL;
    }
    p->conf = *conf;
    p->cb = cb;
    p->arg = arg;
    snprintf(p->part, sizeof(p->part), "%s", part);
    p->delivered = mr_bus_counter(m, part, "kafka_delivered_total", "Records that the brokers acknowledged.");
    p->failed =
        mr_bus_counter(m, part, "kafka_delivery_failed_total", "Records that could not be delivered.");
    p->in_flight = mr_bus_gauge(m, part, "kafka_in_flight_records", "Records sent and not yet acknowledged.");
    if (mr_bus_wake_init(&p->wake, l, on_ready, p, err) != 0) goto fail;
    p->timer = mr_timer_new(l, POLL_MS, on_ready, p, err);
    if (!p->timer || open_client(p, err) != 0) goto fail;
    learn_topics(p->rk);
    return p;
fail:
    mr_producer_free(p, 0);
    return NULL;
}

void mr_producer_free(mr_producer *p, int flush_ms) {
    if (!p) return;
    p->closing = true;
    close_client(p, flush_ms);
    mr_timer_free(p->timer);
    mr_bus_wake_done(&p->wake);
    free(p);
}

/* ---- sending ---- */

static int check_size(const mr_producer *p, const mr_produce *rec, mr_error *err) {
    size_t n = rec->key.n + rec->value.n;
    for (int i = 0; i < rec->nheaders; i++) n += strlen(rec->headers[i].name) + rec->headers[i].value.n;
    if (n <= (size_t)p->conf.message_max) return 0;
    return mr_fail(err, MR_ETOOBIG,
                   "record of %zu bytes for topic %s is larger than kafka.message_max (%lld)", n, rec->topic,
                   (long long)p->conf.message_max);
}

static rd_kafka_headers_t *make_headers(const mr_produce *rec) {
    if (rec->nheaders == 0) return NULL;
    rd_kafka_headers_t *h = rd_kafka_headers_new((size_t)rec->nheaders);
    for (int i = 0; i < rec->nheaders; i++) {
        rd_kafka_header_add(h, rec->headers[i].name, -1, rec->headers[i].value.p,
                            (ssize_t)rec->headers[i].value.n);
    }
    return h;
}

static int fail_send(const mr_producer *p, const mr_produce *rec, rd_kafka_resp_err_t e, mr_error *err) {
    enum mr_error_code code = code_of(e);
    /* a fatal error is over as soon as the loop has put a new client in place */
    if (e == RD_KAFKA_RESP_ERR__QUEUE_FULL || rd_kafka_fatal_error(p->rk, NULL, 0)) code = MR_ESTATE;
    return mr_fail(err, code, "record for topic %s cannot be sent: %s", rec->topic, rd_kafka_err2str(e));
}

int mr_producer_send(mr_producer *p, const mr_produce *rec, mr_error *err) {
    if (check_size(p, rec, err) != 0) return -1;
    if (!p->rk || p->closing)
        return mr_fail(err, MR_ESTATE, "the kafka producer is being started or stopped");
    rd_kafka_headers_t *headers = make_headers(rec);
    /* an empty value is sent as an empty one: NULL would be a tombstone */
    const char *value = rec->value.p ? rec->value.p : "";
    rd_kafka_vu_t vu[] = {
        {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = rec->topic},
        {.vtype = RD_KAFKA_VTYPE_PARTITION,
         .u.i32 = rec->partition < 0 ? RD_KAFKA_PARTITION_UA : rec->partition},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {(void *)rec->key.p, rec->key.n}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)value, rec->value.n}},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = rec->tag},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
    };
    rd_kafka_error_t *e = rd_kafka_produceva(p->rk, vu, sizeof(vu) / sizeof(vu[0]) - (headers ? 0 : 1));
    if (!e) return 0;
    rd_kafka_resp_err_t code = rd_kafka_error_code(e);
    rd_kafka_error_destroy(e);
    if (headers) rd_kafka_headers_destroy(headers); /* the client takes them only with the record */
    return fail_send(p, rec, code, err);
}

int mr_producer_in_flight(const mr_producer *p) {
    return p->rk ? rd_kafka_outq_len(p->rk) : 0;
}

bool mr_producer_connected(const mr_producer *p) {
    return p->rk && p->connected;
}

rd_kafka_t *mr_producer_client(mr_producer *p) {
    return p->rk;
}
