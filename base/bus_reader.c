/* The reader (see bus.h): partitions read from places of the caller's choice.
 *
 * On librdkafka's simple consumer, which starts and stops each partition by itself. Every start gets a queue of its own, so
 * nothing of an earlier place can come after it. A partition that was read once keeps its entry until the reader ends. */
#include "base/bus_internal.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

#define POLL_MS    100
#define BACKOFF_MS 10
#define WAIT_MS    50 /* a place that is added begins only after the fetch that the others wait in */
#define POLL_BATCH 256
#define QUEUE_KIB  "4096" /* fetched ahead, each partition */

typedef struct place {
    char topic[250];
    int32_t number;
    rd_kafka_topic_t *rkt;
    rd_kafka_queue_t *queue; /* NULL: not being read */
} place;

struct mr_reader {
    rd_kafka_t *rk;
    mr_kafka_conf conf;
    mr_reader_options opt;
    mr_bus_wake wake;
    mr_timer *timer;
    place **places;
    int nplaces;
    bool held;
    mr_counter *records;
};

/* ---- places ---- */

static place *find(const mr_reader *r, const char *topic, int32_t number) {
    for (int i = 0; i < r->nplaces; i++) {
        if (r->places[i]->number == number && strcmp(r->places[i]->topic, topic) == 0) return r->places[i];
    }
    return NULL;
}

static place *add(mr_reader *r, const char *topic, int32_t number, mr_error *err) {
    place **more = realloc(r->places, (size_t)(r->nplaces + 1) * sizeof(*more));
    place *p = calloc(1, sizeof(*p));
    if (more) r->places = more;
    if (p) p->rkt = rd_kafka_topic_new(r->rk, topic, NULL);
    if (!more || !p || !p->rkt) {
        free(p);
        mr_fail(err, MR_ENOMEM, "out of memory for reading %s", topic);
        return NULL;
    }
    snprintf(p->topic, sizeof(p->topic), "%s", topic);
    p->number = number;
    r->places[r->nplaces++] = p;
    return p;
}

static void stop(place *p) {
    if (!p->queue) return;
    rd_kafka_consume_stop(p->rkt, p->number);
    rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
}

int mr_reader_start(mr_reader *r, const char *topic, int32_t number, int64_t offset, mr_error *err) {
    place *p = find(r, topic, number);
    if (!p && !(p = add(r, topic, number, err))) return -1;
    stop(p);
    p->queue = rd_kafka_queue_new(r->rk);
    mr_bus_wake_on(&r->wake, p->queue);
    if (rd_kafka_consume_start_queue(p->rkt, number, offset, p->queue) == 0) return 0;
    rd_kafka_resp_err_t e = rd_kafka_last_error();
    rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
    return mr_fail(err, MR_EKAFKA, "partition %d of %s cannot be read: %s", number, topic,
                   rd_kafka_err2str(e));
}

void mr_reader_stop(mr_reader *r, const char *topic, int32_t number) {
    place *p = find(r, topic, number);
    if (p) stop(p);
}

/* ---- what comes ---- */

static void on_event(mr_reader *r, place *p, const rd_kafka_message_t *m) {
    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF: r->opt.on_end(r->opt.arg, p->topic, p->number, m->offset); break;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        stop(p);
        r->opt.on_gone(r->opt.arg, p->topic, p->number, rd_kafka_err2str(m->err));
        break;
    default:
        mr_log(MR_WARN, "kafka reader", MR_S("error", rd_kafka_message_errstr(m)),
               MR_S("code", rd_kafka_err2name(m->err)), MR_S("topic", p->topic));
    }
}

static bool serve(mr_reader *r, place *p) {
    if (!p->queue || r->held) return false;
    rd_kafka_message_t *m = rd_kafka_consume_queue(p->queue, 0);
    if (!m) return false;
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        mr_record rec = mr_bus_record(m, p->topic);
        mr_counter_add(r->records, 1);
        r->opt.on_record(r->opt.arg, &rec);
    } else {
        on_event(r, p, m);
    }
    rd_kafka_message_destroy(m);
    return true;
}

static void on_ready(void *arg) {
    mr_reader *r = arg;
    bool more = true;
    rd_kafka_poll(r->rk, 0);
    for (int served = 0; more && served < POLL_BATCH;) {
        more = false;
        for (int i = 0; i < r->nplaces; i++) { /* in turn; a callback may add to them */
            if (!serve(r, r->places[i])) continue;
            more = true;
            served++;
        }
    }
    if (more) mr_bus_wake_again(&r->wake);
}

void mr_reader_hold(mr_reader *r, bool held) {
    r->held = held;
    if (!held) mr_bus_wake_again(&r->wake);
}

/* ---- opening and closing ---- */

static rd_kafka_conf_t *configure(const mr_reader *r, const char *part, mr_error *err) {
    rd_kafka_conf_t *k = mr_bus_conf(&r->conf, part, err);
    if (!k) return NULL;
    if (mr_bus_set_int(k, "fetch.wait.max.ms", MIN(r->conf.fetch_wait_ms, WAIT_MS), err) == 0 &&
        mr_bus_set(k, "queued.max.messages.kbytes", QUEUE_KIB, err) == 0 &&
        mr_bus_set(k, "enable.partition.eof", "true", err) == 0 &&
        /* after a place that is gone: while a fetch of the oldest record waits, that one may go as well */
        mr_bus_set_int(k, "fetch.error.backoff.ms", BACKOFF_MS, err) == 0 &&
        mr_bus_set(k, "enable.auto.commit", "false", err) == 0 &&
        mr_bus_set(k, "enable.auto.offset.store", "false", err) == 0 &&
        mr_bus_set(k, "auto.offset.reset", "error", err) == 0 && mr_bus_conf_extra(k, &r->conf, err) == 0) {
        return k;
    }
    rd_kafka_conf_destroy(k);
    return NULL;
}

static int open_client(mr_reader *r, const char *part, mr_error *err) {
    char why[300];
    rd_kafka_conf_t *k = configure(r, part, err);
    if (!k) return -1;
    r->rk = rd_kafka_new(RD_KAFKA_CONSUMER, k, why, sizeof(why));
    if (r->rk) return 0;
    rd_kafka_conf_destroy(k);
    return mr_fail(err, MR_EKAFKA, "kafka reader: %s", why);
}

mr_reader *mr_reader_new(const mr_kafka_conf *conf, const mr_reader_options *opt, mr_loop *l, mr_metrics *m,
                         const char *part, mr_error *err) {
    mr_reader *r = calloc(1, sizeof(*r));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "out of memory while starting the kafka reader");
        return NULL;
    }
    r->conf = *conf;
    r->opt = *opt;
    r->records = mr_bus_counter(m, part, "kafka_consumed_total", "Records that were taken from Kafka.");
    if (mr_bus_wake_init(&r->wake, l, on_ready, r, err) == 0 &&
        (r->timer = mr_timer_new(l, POLL_MS, on_ready, r, err)) != NULL && open_client(r, part, err) == 0) {
        return r;
    }
    mr_reader_free(r);
    return NULL;
}

void mr_reader_free(mr_reader *r) {
    if (!r) return;
    for (int i = 0; i < r->nplaces; i++) {
        stop(r->places[i]);
        rd_kafka_topic_destroy(r->places[i]->rkt);
        free(r->places[i]);
    }
    free(r->places);
    if (r->rk) rd_kafka_destroy(r->rk);
    mr_timer_free(r->timer);
    mr_bus_wake_done(&r->wake);
    free(r);
}

/* ---- questions ---- */

int mr_reader_partitions(mr_reader *r, const char *topic, int timeout_ms, mr_error *err) {
    const rd_kafka_metadata_t *md;
    int n = 0;
    /* all topics, since asking by name creates a topic on some brokers */
    rd_kafka_resp_err_t e = rd_kafka_metadata(r->rk, 1, NULL, &md, timeout_ms);
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return mr_fail(err, MR_EKAFKA,
                       "Kafka at %s cannot be reached: %s; is it running there (kafka.brokers)?",
                       r->conf.brokers, rd_kafka_err2str(e));
    }
    for (int i = 0; i < md->topic_cnt; i++) {
        if (strcmp(md->topics[i].topic, topic) == 0) n = md->topics[i].partition_cnt;
    }
    rd_kafka_metadata_destroy(md);
    return n > 0 ? n : mr_fail(err, MR_ENOTFOUND, "topic %s does not exist at %s", topic, r->conf.brokers);
}

int mr_reader_bounds(mr_reader *r, const char *topic, int32_t number, int timeout_ms, int64_t *low,
                     int64_t *high, mr_error *err) {
    rd_kafka_resp_err_t e = rd_kafka_query_watermark_offsets(r->rk, topic, number, low, high, timeout_ms);
    if (e == RD_KAFKA_RESP_ERR_NO_ERROR) return 0;
    return mr_fail(err, MR_EKAFKA, "the bounds of partition %d of %s cannot be had: %s", number, topic,
                   rd_kafka_err2str(e));
}

int mr_reader_at_time(mr_reader *r, const char *topic, int32_t number, int64_t ms, int timeout_ms,
                      int64_t *offset, mr_error *err) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, number)->offset = ms;
    rd_kafka_resp_err_t e = rd_kafka_offsets_for_times(r->rk, list, timeout_ms);
    if (e == RD_KAFKA_RESP_ERR_NO_ERROR) e = list->elems[0].err;
    *offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    if (e == RD_KAFKA_RESP_ERR_NO_ERROR) return 0;
    return mr_fail(err, MR_EKAFKA, "partition %d of %s cannot be looked up by time: %s", number, topic,
                   rd_kafka_err2str(e));
}
