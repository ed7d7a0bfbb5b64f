/* See lag.h. One client asks for all groups: their offsets through the admin interface, the ends of all partitions in one
 * request a broker, and the oldest record of each lagging partition by reading just that. */
#include "pool/lag.h"

#include "base/bus_internal.h"
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_MS 5000
#define OLDEST_MS 1000 /* for the oldest records; what has not come by then is left out */

typedef rd_kafka_topic_partition_list_t part_list;

struct mr_lag_reader {
    rd_kafka_t *rk;
    rd_kafka_queue_t *answers;
    mr_lag_source *sources;
    int n, interval_ms;
    pthread_t thread;
    bool started, stop, failing; /* failing: said once */
    pthread_mutex_t lock;        /* of stop and lags */
    pthread_cond_t wake;
    mr_lag *lags;
};

void mr_lag_of_workers(const mr_kafka_conf *kafka, const char *pool, const char *color, mr_lag_source *out) {
    mr_bus_generate_topic(kafka, pool, color, out->topic);
    snprintf(out->group, sizeof(out->group), "%smillrace-worker-%s-%s", kafka->prefix, pool, color);
}

/* ---- questions: each blocks, and returns false with the reason ---- */

static bool said(rd_kafka_resp_err_t e, mr_error *err, const char *what, const char *name) {
    if (e == RD_KAFKA_RESP_ERR_NO_ERROR) return true;
    mr_fail(err, MR_EKAFKA, "%s %s: %s", what, name, rd_kafka_err2str(e));
    return false;
}

/* NULL when there is no such topic. */
static part_list *partitions_of(const rd_kafka_metadata_t *md, const char *topic) {
    for (int i = 0; i < md->topic_cnt; i++) {
        const rd_kafka_metadata_topic_t *t = &md->topics[i];
        if (strcmp(t->topic, topic) != 0 || t->partition_cnt == 0) continue;
        part_list *l = rd_kafka_topic_partition_list_new(t->partition_cnt);
        for (int k = 0; k < t->partition_cnt; k++) rd_kafka_topic_partition_list_add(l, topic, k);
        return l;
    }
    return NULL;
}

static bool take_committed(rd_kafka_event_t *ev, part_list *parts, mr_error *err) {
    size_t n = 0;
    const rd_kafka_ListConsumerGroupOffsets_result_t *result =
        rd_kafka_event_ListConsumerGroupOffsets_result(ev);
    const rd_kafka_group_result_t **groups =
        result ? rd_kafka_ListConsumerGroupOffsets_result_groups(result, &n) : NULL;
    if (n != 1 || rd_kafka_event_error(ev) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return said(rd_kafka_event_error(ev) ? rd_kafka_event_error(ev) : RD_KAFKA_RESP_ERR__BAD_MSG, err,
                    "offsets of", "a group");
    }
    const part_list *got = rd_kafka_group_result_partitions(groups[0]);
    for (int i = 0; got && i < got->cnt; i++) {
        rd_kafka_topic_partition_t *p =
            rd_kafka_topic_partition_list_find(parts, got->elems[i].topic, got->elems[i].partition);
        if (p) p->offset = got->elems[i].offset;
    }
    return true;
}

/* Fills in the committed offsets, negative where there are none. */
static bool ask_committed(mr_lag_reader *r, const char *group, part_list *parts, mr_error *err) {
    rd_kafka_ListConsumerGroupOffsets_t *q = rd_kafka_ListConsumerGroupOffsets_new(group, parts);
    rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(r->rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
    char why[200];
    bool ok = false;
    rd_kafka_AdminOptions_set_request_timeout(o, ANSWER_MS, why, sizeof(why));
    for (int i = 0; i < parts->cnt; i++) parts->elems[i].offset = RD_KAFKA_OFFSET_INVALID;
    rd_kafka_ListConsumerGroupOffsets(r->rk, &q, 1, o, r->answers);
    rd_kafka_event_t *ev = rd_kafka_queue_poll(r->answers, 2 * ANSWER_MS);
    if (ev) {
        ok = take_committed(ev, parts, err);
        rd_kafka_event_destroy(ev);
    } else {
        said(RD_KAFKA_RESP_ERR__TIMED_OUT, err, "offsets of", group);
    }
    rd_kafka_AdminOptions_destroy(o);
    rd_kafka_ListConsumerGroupOffsets_destroy(q);
    return ok;
}

/* Replaces the offsets by those of the times that stand there. */
static bool ask_offsets(mr_lag_reader *r, part_list *parts, int64_t time, mr_error *err) {
    for (int i = 0; i < parts->cnt; i++) parts->elems[i].offset = time;
    return said(rd_kafka_offsets_for_times(r->rk, parts, ANSWER_MS), err, "ends of", parts->elems[0].topic);
}

/* The time of the first record of each partition in `late`, the oldest of them. */
static int64_t ask_oldest(mr_lag_reader *r, const part_list *late) {
    int64_t oldest = 0, until = mr_mono_us() + OLDEST_MS * 1000LL;
    part_list *left = rd_kafka_topic_partition_list_copy(late);
    if (rd_kafka_assign(r->rk, late) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        while (left->cnt > 0 && mr_mono_us() < until) {
            rd_kafka_message_t *m = rd_kafka_consumer_poll(r->rk, 100);
            if (!m) continue;
            int64_t t = m->err ? 0 : rd_kafka_message_timestamp(m, NULL);
            if (!m->err &&
                rd_kafka_topic_partition_list_del(left, rd_kafka_topic_name(m->rkt), m->partition) == 1 &&
                t > 0 && (oldest == 0 || t < oldest)) {
                oldest = t;
            }
            rd_kafka_message_destroy(m);
        }
    }
    rd_kafka_assign(r->rk, NULL);
    rd_kafka_topic_partition_list_destroy(left);
    return oldest;
}

/* ---- the answer ---- */

/* committed is turned into what is late, each from where the group stands. */
static int64_t sum_up(part_list *committed, const part_list *low, const part_list *high) {
    int64_t records = 0;
    for (int i = committed->cnt; i-- > 0;) {
        rd_kafka_topic_partition_t *p = &committed->elems[i];
        int64_t from = p->offset >= low->elems[i].offset ? p->offset : low->elems[i].offset;
        int64_t behind = high->elems[i].offset - from;
        p->offset = from;
        if (behind > 0) {
            records += behind;
        } else {
            rd_kafka_topic_partition_list_del_by_idx(committed, i);
        }
    }
    return records;
}

static bool ask(mr_lag_reader *r, const rd_kafka_metadata_t *md, const mr_lag_source *s, mr_lag *out,
                mr_error *err) {
    *out = (mr_lag){.at_us = mr_mono_us()};
    part_list *committed = partitions_of(md, s->topic);
    if (!committed) return true; /* nothing there, nothing late */
    part_list *low = rd_kafka_topic_partition_list_copy(committed);
    part_list *high = rd_kafka_topic_partition_list_copy(committed);
    /* the end last, so that lag is never said to be 0 while it is not */
    bool ok = ask_offsets(r, low, RD_KAFKA_OFFSET_BEGINNING, err) &&
              ask_committed(r, s->group, committed, err) && ask_offsets(r, high, RD_KAFKA_OFFSET_END, err);
    if (ok) {
        out->records = sum_up(committed, low, high);
        if (committed->cnt > 0) out->oldest_ms = ask_oldest(r, committed);
    }
    rd_kafka_topic_partition_list_destroy(committed);
    rd_kafka_topic_partition_list_destroy(low);
    rd_kafka_topic_partition_list_destroy(high);
    return ok;
}

static bool ask_all(mr_lag_reader *r, mr_error *err) {
    const rd_kafka_metadata_t *md;
    mr_lag lag;
    rd_kafka_resp_err_t e = rd_kafka_metadata(r->rk, 1, NULL, &md, ANSWER_MS);
    if (!said(e, err, "topics at", "Kafka")) return false;
    bool ok = true;
    for (int i = 0; i < r->n && ok; i++) {
        ok = ask(r, md, &r->sources[i], &lag, err);
        if (!ok) break;
        pthread_mutex_lock(&r->lock);
        r->lags[i] = lag;
        ok = !r->stop;
        pthread_mutex_unlock(&r->lock);
    }
    rd_kafka_metadata_destroy(md);
    return ok;
}

/* ---- the thread ---- */

/* False when it is to end. */
static bool sleep_until_next(mr_lag_reader *r) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += r->interval_ms / 1000;
    until.tv_nsec += r->interval_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&r->lock);
    while (!r->stop && pthread_cond_timedwait(&r->wake, &r->lock, &until) == 0) continue;
    bool stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    return !stop;
}

static void *run(void *arg) {
    mr_lag_reader *r = arg;
    mr_error err = {0};
    do {
        bool ok = ask_all(r, &err);
        if (!ok && !r->failing && err.code) mr_log(MR_WARN, "lag is not known", MR_S("error", err.msg));
        r->failing = !ok;
    } while (sleep_until_next(r));
    return NULL;
}

/* ---- life ---- */

static int open_client(mr_lag_reader *r, const mr_kafka_conf *kafka, mr_error *err) {
    char why[300];
    rd_kafka_conf_t *c = mr_bus_conf(kafka, "lag", err);
    if (!c) return -1;
    if (mr_bus_set(c, "group.id", "millrace-unused", err) != 0 ||
        mr_bus_set(c, "enable.auto.commit", "false", err) != 0 ||
        mr_bus_set(c, "auto.offset.reset", "earliest", err) != 0 ||
        /* the first record is all that is wanted */
        mr_bus_set(c, "queued.min.messages", "1", err) != 0 ||
        mr_bus_set(c, "fetch.message.max.bytes", "16384", err) != 0 ||
        mr_bus_conf_extra(c, kafka, err) != 0) {
        rd_kafka_conf_destroy(c);
        return -1;
    }
    r->rk = rd_kafka_new(RD_KAFKA_CONSUMER, c, why, sizeof(why));
    if (!r->rk) {
        rd_kafka_conf_destroy(c);
        return mr_fail(err, MR_EKAFKA, "kafka client: %s", why);
    }
    rd_kafka_poll_set_consumer(r->rk);
    r->answers = rd_kafka_queue_new(r->rk);
    return 0;
}

mr_lag_reader *mr_lag_reader_new(const mr_kafka_conf *kafka, const mr_lag_source *sources, int n,
                                 int interval_ms, mr_error *err) {
    mr_lag_reader *r = calloc(1, sizeof(*r));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "out of memory for the lag");
        return NULL;
    }
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    r->n = n;
    r->interval_ms = interval_ms;
    r->sources = calloc((size_t)n + 1, sizeof(*r->sources));
    r->lags = calloc((size_t)n + 1, sizeof(*r->lags));
    if (!r->sources || !r->lags) {
        mr_fail(err, MR_ENOMEM, "out of memory for the lag");
        goto fail;
    }
    memcpy(r->sources, sources, (size_t)n * sizeof(*sources));
    if (open_client(r, kafka, err) != 0) goto fail;
    r->started = pthread_create(&r->thread, NULL, run, r) == 0;
    if (r->started) return r;
    mr_fail(err, MR_EIO, "no thread for the lag");
fail:
    mr_lag_reader_free(r);
    return NULL;
}

void mr_lag_reader_free(mr_lag_reader *r) {
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    if (r->started) pthread_join(r->thread, NULL);
    if (r->answers) rd_kafka_queue_destroy(r->answers);
    if (r->rk) rd_kafka_destroy(r->rk);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r->sources);
    free(r->lags);
    free(r);
}

mr_lag mr_lag_get(mr_lag_reader *r, int i) {
    pthread_mutex_lock(&r->lock);
    mr_lag lag = r->lags[i];
    pthread_mutex_unlock(&r->lock);
    return lag;
}
