/* Topic creation (see bus.h): blocking, for command-line tools and for the start of a pipeline. */
#include "base/bus_internal.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <unistd.h>

#define POLL_MS   100
#define CREATE_MS 10000

typedef struct topic_job {
    rd_kafka_t *rk;
    const mr_kafka_conf *conf;
    const mr_topic_spec *specs;
    int n;
    int64_t deadline_us;
    char refused[300]; /* why the broker lets this client not in; empty: it does */
} topic_job;

static int ms_left(const topic_job *j) {
    int64_t left = (j->deadline_us - mr_mono_us()) / 1000;
    return left > 0 ? (int)left : 0;
}

static const rd_kafka_metadata_topic_t *find_topic(const rd_kafka_metadata_t *md, const char *name) {
    for (int i = 0; i < md->topic_cnt; i++) {
        if (strcmp(md->topics[i].topic, name) == 0 && md->topics[i].err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            return &md->topics[i];
        }
    }
    return NULL;
}

/* On our thread, while it polls. */
static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque) {
    topic_job *j = opaque;
    (void)rk;
    if (code == RD_KAFKA_RESP_ERR__AUTHENTICATION) snprintf(j->refused, sizeof(j->refused), "%s", reason);
}

/* All topics are asked for, not ours by name: asking by name would create them on the embedded broker, with
 * the wrong number of partitions. */
static const rd_kafka_metadata_t *get_metadata(topic_job *j, mr_error *err) {
    const rd_kafka_metadata_t *md;
    rd_kafka_resp_err_t e;
    do {
        int wait = ms_left(j) < 1000 ? ms_left(j) : 1000;
        e = rd_kafka_metadata(j->rk, 1, NULL, &md, wait > 0 ? wait : 1);
        if (e == RD_KAFKA_RESP_ERR_NO_ERROR) return md;
        rd_kafka_poll(j->rk, 0);
    } while (ms_left(j) > 0 && !j->refused[0]);
    if (j->refused[0]) {
        mr_fail(err, MR_EKAFKA,
                "Kafka at %s lets us not in: %s; user, password and mechanism are in kafka.extra (sasl.…)",
                j->conf->brokers, j->refused);
        return NULL;
    }
    mr_fail(err, MR_EKAFKA, "Kafka at %s cannot be reached: %s; is it running there (kafka.brokers)?",
            j->conf->brokers, rd_kafka_err2str(e));
    return NULL;
}

static bool has_leaders(const rd_kafka_metadata_topic_t *t) {
    for (int i = 0; i < t->partition_cnt; i++) {
        if (t->partitions[i].leader < 0) return false;
    }
    return t->partition_cnt > 0;
}

/* The first topic that is missing or leaderless, or NULL. */
static const mr_topic_spec *first_unready(const topic_job *j, const rd_kafka_metadata_t *md) {
    for (int i = 0; i < j->n; i++) {
        const rd_kafka_metadata_topic_t *t = find_topic(md, j->specs[i].name);
        if (!t || !has_leaders(t)) return &j->specs[i];
    }
    return NULL;
}

static void warn_of_fewer_partitions(const topic_job *j, const rd_kafka_metadata_t *md) {
    for (int i = 0; i < j->n; i++) {
        const rd_kafka_metadata_topic_t *t = find_topic(md, j->specs[i].name);
        if (t && t->partition_cnt < j->specs[i].partitions) {
            mr_log(MR_WARN, "topic has fewer partitions than asked for", MR_S("topic", t->topic),
                   MR_I("partitions", t->partition_cnt), MR_I("asked", j->specs[i].partitions));
        }
    }
}

static int topic_config(rd_kafka_NewTopic_t *t, const char *name, int64_t value) {
    char text[32];
    snprintf(text, sizeof(text), "%lld", (long long)value);
    return rd_kafka_NewTopic_set_config(t, name, text) == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -1;
}

static rd_kafka_NewTopic_t *new_topic(const topic_job *j, const mr_topic_spec *s, mr_error *err) {
    char why[200];
    /* replication -1: the broker's default.replication.factor */
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(s->name, s->partitions, -1, why, sizeof(why));
    if (!t) {
        mr_fail(err, MR_EINVAL, "topic %s: %s", s->name, why);
        return NULL;
    }
    bool ok = topic_config(t, "max.message.bytes", j->conf->message_max + MR_BUS_OVERHEAD) == 0;
    if (s->compacted) {
        ok = ok && rd_kafka_NewTopic_set_config(t, "cleanup.policy", "compact") == RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    if (s->retention_ms > 0) ok = ok && topic_config(t, "retention.ms", s->retention_ms) == 0;
    if (ok) return t;
    mr_fail(err, MR_EINVAL, "topic %s: its configuration was refused", s->name);
    rd_kafka_NewTopic_destroy(t);
    return NULL;
}

static int check_created(rd_kafka_event_t *ev, mr_error *err) {
    rd_kafka_resp_err_t e = rd_kafka_event_error(ev);
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return mr_fail(err, MR_EKAFKA, "topics cannot be created: %s", rd_kafka_event_error_string(ev));
    }
    size_t n;
    const rd_kafka_topic_result_t **r =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n);
    for (size_t i = 0; i < n; i++) {
        e = rd_kafka_topic_result_error(r[i]);
        if (e == RD_KAFKA_RESP_ERR_NO_ERROR || e == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) continue;
        const char *why = rd_kafka_topic_result_error_string(r[i]);
        return mr_fail(err, MR_EKAFKA, "topic %s cannot be created: %s", rd_kafka_topic_result_name(r[i]),
                       why ? why : rd_kafka_err2str(e));
    }
    return 0;
}

static bool all_there(const topic_job *j) {
    const rd_kafka_metadata_t *md;
    if (rd_kafka_metadata(j->rk, 1, NULL, &md, POLL_MS) != RD_KAFKA_RESP_ERR_NO_ERROR) return false;
    int there = 0;
    for (int i = 0; i < j->n; i++) there += find_topic(md, j->specs[i].name) != NULL;
    rd_kafka_metadata_destroy(md);
    return there == j->n;
}

/* The embedded broker never answers: its protocol lacks the request, and librdkafka waits for one that has it. It makes its
 * topics itself while it starts, as another client may do anywhere: then nothing is left to wait for. */
static int wait_created(const topic_job *j, rd_kafka_queue_t *q, size_t n, mr_error *err) {
    int64_t until_us = mr_mono_us() + 1000LL * MIN(CREATE_MS, ms_left(j));
    do {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(q, POLL_MS);
        if (ev) {
            int rc = check_created(ev, err);
            rd_kafka_event_destroy(ev);
            return rc;
        }
        if (all_there(j)) return 0;
    } while (mr_mono_us() < until_us);
    return mr_fail(
        err, MR_ENOTFOUND,
        "the broker at %s lacks %zu of our topics and did not create them; the embedded broker gets "
        "its topics at its start",
        j->conf->brokers, n);
}

static int send_create(const topic_job *j, rd_kafka_NewTopic_t **topics, size_t n, mr_error *err) {
    rd_kafka_queue_t *q = rd_kafka_queue_new(j->rk);
    rd_kafka_CreateTopics(j->rk, topics, n, NULL, q);
    int rc = wait_created(j, q, n, err);
    rd_kafka_queue_destroy(q);
    return rc;
}

static int create_missing(const topic_job *j, const rd_kafka_metadata_t *md, mr_error *err) {
    rd_kafka_NewTopic_t **missing = calloc((size_t)j->n + 1, sizeof(rd_kafka_NewTopic_t *));
    size_t n = 0;
    int rc = -1;
    if (!missing) return mr_fail(err, MR_ENOMEM, "out of memory while creating topics");
    for (int i = 0; i < j->n; i++) {
        if (find_topic(md, j->specs[i].name)) continue;
        missing[n] = new_topic(j, &j->specs[i], err);
        if (!missing[n]) goto out;
        n++;
    }
    rc = n > 0 ? send_create(j, missing, n, err) : 0;
out:
    rd_kafka_NewTopic_destroy_array(missing, n);
    free(missing);
    return rc;
}

static int wait_for_leaders(topic_job *j, mr_error *err) {
    for (;;) {
        const rd_kafka_metadata_t *md = get_metadata(j, err);
        if (!md) return -1;
        const mr_topic_spec *unready = first_unready(j, md);
        if (!unready) warn_of_fewer_partitions(j, md);
        rd_kafka_metadata_destroy(md);
        if (!unready) return 0;
        if (ms_left(j) == 0)
            return mr_fail(err, MR_EKAFKA, "topic %s has no leader yet; try again", unready->name);
        usleep(POLL_MS * 1000);
    }
}

int mr_bus_create_topics(const mr_kafka_conf *conf, const mr_topic_spec *specs, int n, int timeout_ms,
                         mr_error *err) {
    topic_job j = {
        .conf = conf, .specs = specs, .n = n, .deadline_us = mr_mono_us() + (int64_t)timeout_ms * 1000};
    char why[300];
    rd_kafka_conf_t *c = mr_bus_conf(conf, "topics", err);
    if (!c) return -1;
    if (mr_bus_conf_extra(c, conf, err) != 0) {
        rd_kafka_conf_destroy(c);
        return -1;
    }
    rd_kafka_conf_set_error_cb(c, on_error);
    rd_kafka_conf_set_opaque(c, &j);
    j.rk = rd_kafka_new(RD_KAFKA_PRODUCER, c, why, sizeof(why));
    if (!j.rk) {
        rd_kafka_conf_destroy(c);
        return mr_fail(err, MR_EKAFKA, "kafka client: %s", why);
    }
    int rc = -1;
    const rd_kafka_metadata_t *md = get_metadata(&j, err);
    if (md) {
        rc = create_missing(&j, md, err);
        rd_kafka_metadata_destroy(md);
        if (rc == 0) rc = wait_for_leaders(&j, err);
    }
    rd_kafka_destroy(j.rk);
    return rc;
}
