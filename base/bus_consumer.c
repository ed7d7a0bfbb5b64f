/* The consumer (see bus.h): joining, handing records over, back-pressure by not taking them. Committing is bus_offsets.h's.
 *
 * All of it runs on the loop's thread: librdkafka wakes the loop, on_ready polls, and the callbacks of librdkafka
 * (rebalance, errors) come from inside that poll. The consumer owns its partitions' state, and a
 * record that the application had no room for until it takes it.
 *
 * Each assigned partition has a queue of its own, and a partition that stands still is one whose queue is left alone:
 * librdkafka's own pause would throw away what was fetched, and needs up to a second to begin again. What waits there is
 * bounded by QUEUE_KIB. */
#include "base/bus_offsets.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_MS    100 /* the longest time between polls: librdkafka's rebalancing lives from them */
/* A join that is not answered is given up and tried again after this time, or after the session timeout where that is longer. The
 * embedded broker may leave a join unanswered when another member dies meanwhile; and nothing here keeps from polling for so long. */
#define JOIN_MS    20000
#define POLL_BATCH 256 /* records handled before other events of the loop get their turn */
#define CLOSE_MS   5000
#define QUEUE_KIB                                                                                            \
    "8192" /* fetched ahead of the application, each partition; one more record may go over it */
#define METADATA_MS 30000

struct mr_consumer {
    rd_kafka_t *rk;
    mr_kafka_conf conf;
    mr_consumer_options opt;
    char part[32];
    mr_bus_wake wake;
    mr_timer *timer;
    mr_partitions all;
    mr_offsets offsets; /* of a group's member */
    int unfinished;
    bool paused;
    mr_counter *records, *rebalances, *lost, *skipped;
    mr_gauge *assigned_gauge, *unfinished_gauge, *lag_gauge, *paused_gauge;
};

/* ---- partitions ---- */

static void drop_kept(mr_partition *p) {
    if (p->kept) rd_kafka_message_destroy(p->kept);
    p->kept = NULL;
    p->retry = false;
}

static void drop_queue(mr_partition *p) {
    if (p->queue) rd_kafka_queue_destroy(p->queue);
    p->queue = NULL;
}

static void show_state(mr_consumer *c) {
    mr_gauge_set(c->assigned_gauge, c->all.nassigned);
    mr_gauge_set(c->unfinished_gauge, c->unfinished);
    mr_gauge_set(c->paused_gauge, c->paused ? 1 : 0);
}

/* ---- pausing ---- */

/* A partition stands still while the application says so, while its record is kept, and while its window is full. */
static bool stands_still(const mr_consumer *c, const mr_partition *p) {
    return c->paused || p->kept || mr_watermark_full(&p->done) || mr_offsets_asked(p);
}

void mr_consumer_pause(mr_consumer *c) {
    c->paused = true;
    show_state(c);
}

void mr_consumer_resume(mr_consumer *c) {
    mr_partition *p;
    c->paused = false;
    MR_FOR_ASSIGNED(&c->all, p) p->retry = p->kept != NULL;
    show_state(c);
    /* records go out from the loop, not from inside the caller */
    mr_bus_wake_again(&c->wake);
}

bool mr_consumer_paused(const mr_consumer *c) {
    return c->paused;
}

/* ---- handing records over ---- */

static bool has_offsets(const mr_consumer *c) {
    return c->opt.start == MR_FROM_COMMITTED;
}

/* Offers the record to the application; false when it has no room. */
static bool offer(mr_consumer *c, mr_partition *p, const rd_kafka_message_t *m) {
    mr_record r = mr_bus_record(m, p->topic);
    bool tracked = has_offsets(c) && mr_watermark_begin(&p->done, m->offset);
    if (tracked) c->unfinished++;
    if (c->opt.on_record(c->opt.arg, &r)) {
        mr_counter_add(c->records, 1);
        p->next = m->offset + 1;
        return true;
    }
    if (tracked && mr_watermark_cancel(&p->done, m->offset)) c->unfinished--;
    return false;
}

/* It comes again, and was finished by the one who had it before. */
static bool skip(mr_consumer *c, mr_partition *p, int64_t offset) {
    if (!mr_finished_has(&p->known, offset)) return false;
    c->unfinished += mr_watermark_begin(&p->done, offset);
    p->next = offset + 1;
    mr_counter_add(c->skipped, 1);
    mr_bus_done(c, p->topic, p->number, offset);
    return true;
}

/* Takes ownership of m. */
static void handle_record(mr_consumer *c, mr_partition *p, rd_kafka_message_t *m) {
    /* librdkafka before 2.4 may repeat records */
    if (m->offset < p->next || skip(c, p, m->offset) || offer(c, p, m)) {
        rd_kafka_message_destroy(m);
    } else {
        p->kept = m;
    }
}

static void retry_kept(mr_consumer *c, mr_partition *p) {
    if (!p->kept || !p->retry || c->paused || mr_watermark_full(&p->done)) return;
    p->retry = false;
    if (offer(c, p, p->kept)) drop_kept(p);
}

/* ---- finishing ---- */

void mr_bus_done(mr_consumer *c, const char *topic, int32_t number, int64_t offset) {
    mr_partition *p = mr_partitions_find(&c->all, topic, number);
    if (!p || !p->assigned || !has_offsets(c)) return;
    bool was_full = mr_watermark_full(&p->done);
    if (!mr_watermark_finish(&p->done, offset)) return;
    p->dirty = true;
    c->unfinished--;
    if (was_full && !mr_watermark_full(&p->done)) mr_bus_wake_again(&c->wake);
}

/* ---- assignment ---- */

/* Gives the partition its own queue; to be called before librdkafka starts to fetch it. */
static bool split_queue(mr_consumer *c, mr_partition *p) {
    drop_queue(p);
    p->queue = rd_kafka_queue_get_partition(c->rk, p->topic, p->number);
    if (!p->queue) return false;
    rd_kafka_queue_forward(p->queue, NULL);
    mr_bus_wake_on(&c->wake, p->queue);
    return true;
}

static void assigned(mr_consumer *c, const rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        mr_partition *p = mr_partitions_add(&c->all, list->elems[i].topic, list->elems[i].partition);
        if (!p || !split_queue(c, p)) {
            mr_log(MR_ERROR, "out of memory: a partition is not served", MR_S("topic", list->elems[i].topic),
                   MR_I("partition", list->elems[i].partition));
            continue;
        }
        if (!p->assigned) c->all.nassigned++;
        p->assigned = true;
        p->next = -1;
        mr_watermark_reset(&p->done);
    }
    if (has_offsets(c)) mr_offsets_ask(&c->offsets, list);
}

static void revoked(mr_consumer *c, const rd_kafka_topic_partition_list_t *list) {
    for (int i = 0; i < list->cnt; i++) {
        mr_partition *p = mr_partitions_find(&c->all, list->elems[i].topic, list->elems[i].partition);
        if (!p || !p->assigned) continue;
        p->assigned = false;
        c->all.nassigned--;
        c->unfinished -= p->done.unfinished;
        mr_watermark_reset(&p->done);
        drop_kept(p);
        drop_queue(p);
        if (c->opt.on_revoked) c->opt.on_revoked(c->opt.arg, p->topic, p->number);
    }
}

static void log_rebalance(const char *what, const rd_kafka_topic_partition_list_t *list, rd_kafka_t *rk) {
    mr_log(MR_INFO, what, MR_I("partitions", list->cnt),
           MR_S("lost", rd_kafka_assignment_lost(rk) ? "yes" : "no"));
}

static void check_rebalance(rd_kafka_t *rk, rd_kafka_error_t *incremental, rd_kafka_resp_err_t eager) {
    const char *why = incremental ? rd_kafka_error_string(incremental) : rd_kafka_err2str(eager);
    bool failed = incremental != NULL || eager != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (failed)
        mr_log(MR_ERROR, "kafka assignment failed", MR_S("client", rd_kafka_name(rk)), MR_S("error", why));
    if (incremental) rd_kafka_error_destroy(incremental);
}

static void on_committed(rd_kafka_t *rk, rd_kafka_resp_err_t all, rd_kafka_topic_partition_list_t *list,
                         void *opaque) {
    mr_consumer *c = opaque;
    (void)rk;
    mr_offsets_committed(&c->offsets, all, list);
}

/* What is finished is committed before the unassignment, which librdkafka keeps in this order; nothing here waits for a request. */
static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t e, rd_kafka_topic_partition_list_t *list,
                         void *opaque) {
    mr_consumer *c = opaque;
    bool incremental = strcmp(rd_kafka_rebalance_protocol(rk), "COOPERATIVE") == 0;
    mr_counter_add(c->rebalances, 1);
    if (e == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        log_rebalance("partitions assigned", list, rk);
        assigned(c, list);
        if (incremental) {
            check_rebalance(rk, rd_kafka_incremental_assign(rk, list), RD_KAFKA_RESP_ERR_NO_ERROR);
        } else {
            check_rebalance(rk, NULL, rd_kafka_assign(rk, list));
        }
    } else {
        if (e != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
            mr_log(MR_ERROR, "kafka rebalance failed", MR_S("error", rd_kafka_err2str(e)));
        }
        log_rebalance("partitions revoked", list, rk);
        if (!rd_kafka_assignment_lost(rk)) mr_offsets_commit(&c->offsets);
        revoked(c, list);
        if (incremental) {
            check_rebalance(rk, rd_kafka_incremental_unassign(rk, list), RD_KAFKA_RESP_ERR_NO_ERROR);
        } else {
            check_rebalance(rk, NULL, rd_kafka_assign(rk, NULL));
        }
    }
    show_state(c);
}

/* ---- errors ---- */

/* The only sign of records that the broker dropped before they were read is this line of librdkafka's log
 * (auto.offset.reset=error would give an event, but then the partition cannot be started again). A group's first
 * start, where nothing is lost, is not logged as a warning. Called by librdkafka's threads. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    mr_consumer *c = rd_kafka_opaque(rk);
    if (level <= 4 && strcmp(facility, "OFFSET") == 0) {
        mr_counter_add(c->lost, 1);
        mr_log(MR_ERROR,
               "records were lost: the broker dropped them before they were read; going on with the oldest",
               MR_S("text", text));
    } else {
        mr_bus_log(rk, level, facility, text);
    }
}

static void on_error_event(mr_consumer *c, const rd_kafka_message_t *m) {
    mr_partition *p = m->rkt ? mr_partitions_find(&c->all, rd_kafka_topic_name(m->rkt), m->partition) : NULL;
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if (!p) return;
        p->eof_seen = true;
        if (m->offset > p->next) p->next = m->offset;
    } else {
        mr_log(MR_WARN, "kafka consumer", MR_S("error", rd_kafka_message_errstr(m)),
               MR_S("code", rd_kafka_err2name(m->err)), MR_S("topic", p ? p->topic : ""));
    }
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque) {
    char why[300];
    (void)opaque;
    if (code != RD_KAFKA_RESP_ERR__FATAL) return; /* the client's log has it, and it recovers by itself */
    rd_kafka_resp_err_t real = rd_kafka_fatal_error(rk, why, sizeof(why));
    mr_log(MR_ERROR, "kafka consumer failed for good", MR_S("code", rd_kafka_err2name(real)),
           MR_S("error", why), MR_S("reason", reason));
}

/* ---- polling ---- */

/* Rebalances and errors: what is not of one partition. False when there was none. */
static bool serve_events(mr_consumer *c) {
    rd_kafka_message_t *m = rd_kafka_consumer_poll(c->rk, 0);
    if (!m) return false;
    /* a record in here is of a partition without a queue, which is not assigned */
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR) on_error_event(c, m);
    rd_kafka_message_destroy(m);
    return true;
}

/* Takes one record of the partition, if it may. */
static bool serve_partition(mr_consumer *c, mr_partition *p) {
    if (stands_still(c, p)) return false;
    rd_kafka_message_t *m = rd_kafka_consume_queue(p->queue, 0);
    if (!m) return false;
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        handle_record(c, p, m);
    } else {
        on_error_event(c, m);
        rd_kafka_message_destroy(m);
    }
    return true;
}

static void on_ready(void *arg) {
    mr_consumer *c = arg;
    mr_partition *p;
    bool more = true;
    for (int i = 0; more && i < POLL_BATCH; i++) more = serve_events(c);
    if (has_offsets(c)) mr_offsets_serve(&c->offsets);
    MR_FOR_ASSIGNED(&c->all, p) retry_kept(c, p);
    more = true;
    for (int served = 0; more && served < POLL_BATCH;) {
        more = false;
        MR_FOR_ASSIGNED(&c->all, p) { /* in turn, so that no partition starves another */
            if (!serve_partition(c, p)) continue;
            more = true;
            served++;
        }
    }
    if (more) mr_bus_wake_again(&c->wake); /* librdkafka will not say so again */
    if (has_offsets(c)) mr_offsets_commit_when_due(&c->offsets);
}

/* Not by librdkafka's statistics, which cost an idle process more than all else that it does. */
static void show_lag(mr_consumer *c) {
    mr_partition *p;
    int64_t lag = 0, low, high;
    MR_FOR_ASSIGNED(&c->all, p) {
        int64_t from = p->done.n > 0 ? mr_watermark_low(&p->done) : p->next;
        if (from >= 0 && rd_kafka_get_watermark_offsets(c->rk, p->topic, p->number, &low, &high) == 0 &&
            high > from) {
            lag += high - from;
        }
    }
    mr_gauge_set(c->lag_gauge, (double)lag);
}

static void on_time(void *arg) {
    mr_consumer *c = arg;
    on_ready(c);
    show_lag(c);
    show_state(c);
}

/* ---- opening ---- */

/* range below 2.3: cooperative-sticky aborts the process there (librdkafka #4312, #4381). */
static const char *assignor(void) {
    return rd_kafka_version() < 0x020300ff ? "range" : "cooperative-sticky";
}

static int configure_group(const mr_consumer *c, rd_kafka_conf_t *k, mr_error *err) {
    const int64_t session = c->conf.session_timeout_ms;
    if (mr_bus_set(k, "group.id", c->opt.group, err) != 0 ||
        mr_bus_set(k, "partition.assignment.strategy", assignor(), err) != 0 ||
        mr_bus_set_int(k, "session.timeout.ms", session, err) != 0 ||
        mr_bus_set_int(k, "max.poll.interval.ms", session > JOIN_MS ? session : JOIN_MS, err) != 0 ||
        mr_bus_set(k, "heartbeat.interval.ms", "500", err) != 0 ||
        mr_bus_set(k, "auto.offset.reset", "earliest", err) != 0) {
        return -1;
    }
    rd_kafka_conf_set_rebalance_cb(k, on_rebalance);
    rd_kafka_conf_set_offset_commit_cb(k, on_committed);
    return c->opt.instance ? mr_bus_set(k, "group.instance.id", c->opt.instance, err) : 0;
}

static int configure_by_hand(rd_kafka_conf_t *k, mr_error *err) {
    /* librdkafka wants a group.id even where no group is joined */
    if (mr_bus_set(k, "group.id", "millrace-unused", err) != 0) return -1;
    if (mr_bus_set(k, "auto.offset.reset", "earliest", err) != 0) return -1;
    return mr_bus_set(k, "enable.partition.eof", "true", err);
}

static int configure(mr_consumer *c, rd_kafka_conf_t *k, mr_error *err) {
    if (mr_bus_set(k, "enable.auto.commit", "false", err) != 0) return -1;
    if (mr_bus_set(k, "enable.auto.offset.store", "false", err) != 0) return -1;
    if (mr_bus_set_int(k, "fetch.wait.max.ms", c->conf.fetch_wait_ms, err) != 0) return -1;
    if (mr_bus_set(k, "queued.max.messages.kbytes", QUEUE_KIB, err) != 0) return -1;
    if ((has_offsets(c) ? configure_group(c, k, err) : configure_by_hand(k, err)) != 0) return -1;
    rd_kafka_conf_set_log_cb(k, on_log);
    rd_kafka_conf_set_error_cb(k, on_error);
    rd_kafka_conf_set_opaque(k, c);
    return mr_bus_conf_extra(k, &c->conf, err);
}

static int open_client(mr_consumer *c, mr_error *err) {
    char why[300];
    rd_kafka_conf_t *k = mr_bus_conf(&c->conf, c->part, err);
    if (!k) return -1;
    if (configure(c, k, err) != 0) {
        rd_kafka_conf_destroy(k);
        return -1;
    }
    c->rk = rd_kafka_new(RD_KAFKA_CONSUMER, k, why, sizeof(why));
    if (!c->rk) {
        rd_kafka_conf_destroy(k);
        return mr_fail(err, MR_EKAFKA, "kafka consumer: %s", why);
    }
    rd_kafka_poll_set_consumer(c->rk);
    if (has_offsets(c)) mr_offsets_open(&c->offsets, c->rk, c->opt.group, &c->all, &c->wake);
    return 0;
}

static int subscribe(mr_consumer *c, mr_error *err) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(c->all.ntopics);
    for (int i = 0; i < c->all.ntopics; i++) {
        rd_kafka_topic_partition_list_add(list, c->all.topics[i].name, RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t e = rd_kafka_subscribe(c->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (e == RD_KAFKA_RESP_ERR_NO_ERROR) return 0;
    return mr_fail(err, MR_EKAFKA, "cannot subscribe to %s: %s", c->all.topics[0].name, rd_kafka_err2str(e));
}

static int partition_count(const rd_kafka_metadata_t *md, const char *topic) {
    for (int i = 0; i < md->topic_cnt; i++) {
        if (strcmp(md->topics[i].topic, topic) == 0) return md->topics[i].partition_cnt;
    }
    return 0;
}

/* librdkafka's own tail begins before the oldest record of a short or trimmed partition, which looks like a loss. */
static int64_t tail_offset(mr_consumer *c, const char *topic, int32_t number) {
    int64_t low, high;
    rd_kafka_resp_err_t e = rd_kafka_query_watermark_offsets(c->rk, topic, number, &low, &high, METADATA_MS);
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) return RD_KAFKA_OFFSET_END;
    return high - low > MR_BUS_TAIL ? high - MR_BUS_TAIL : low;
}

static int64_t first_offset(mr_consumer *c, const char *topic, int32_t number) {
    switch (c->opt.start) {
    case MR_FROM_END: return RD_KAFKA_OFFSET_END;
    case MR_FROM_TAIL: return tail_offset(c, topic, number);
    default: return RD_KAFKA_OFFSET_BEGINNING;
    }
}

/* Adds the wanted partitions of topic i; fails when they do not exist. */
static int add_wanted(mr_consumer *c, int i, const rd_kafka_metadata_t *md,
                      rd_kafka_topic_partition_list_t *list, mr_error *err) {
    const char *topic = c->all.topics[i].name;
    int count = partition_count(md, topic), from = 0, to = count;
    if (count == 0) {
        return mr_fail(err, MR_ENOTFOUND,
                       "topic %s does not exist at %s; create the topics with: millrace topics", topic,
                       c->conf.brokers);
    }
    c->all.topics[i].exist = count;
    if (c->opt.partition >= 0) {
        from = c->opt.partition;
        to = from + 1;
    }
    if (from >= count) {
        return mr_fail(err, MR_EINVAL, "topic %s has partitions 0 to %d, there is no partition %d", topic,
                       count - 1, from);
    }
    for (int k = from; k < to; k++) {
        rd_kafka_topic_partition_list_add(list, topic, k)->offset = first_offset(c, topic, k);
    }
    return 0;
}

static int list_wanted(mr_consumer *c, int timeout_ms, rd_kafka_topic_partition_list_t *list, mr_error *err) {
    const rd_kafka_metadata_t *md;
    int rc = 0;
    /* all topics, since asking by name creates a topic on some brokers */
    rd_kafka_resp_err_t e = rd_kafka_metadata(c->rk, 1, NULL, &md, timeout_ms);
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return mr_fail(err, MR_EKAFKA,
                       "Kafka at %s cannot be reached: %s; is it running there (kafka.brokers)?",
                       c->conf.brokers, rd_kafka_err2str(e));
    }
    for (int i = 0; i < c->all.ntopics && rc == 0; i++) rc = add_wanted(c, i, md, list, err);
    rd_kafka_metadata_destroy(md);
    return rc;
}

static int assign_by_hand(mr_consumer *c, mr_error *err) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(c->all.ntopics);
    int64_t deadline = mr_mono_us() + METADATA_MS * 1000LL;
    int rc = list_wanted(c, METADATA_MS, list, err);
    /* at the start of a cluster the topics may be a moment behind */
    while (rc != 0 && err->code == MR_ENOTFOUND && mr_mono_us() < deadline) {
        usleep(POLL_MS * 1000);
        rd_kafka_topic_partition_list_destroy(list);
        list = rd_kafka_topic_partition_list_new(c->all.ntopics);
        rc = list_wanted(c, METADATA_MS, list, err);
    }
    if (rc == 0) {
        assigned(c, list);
        rd_kafka_resp_err_t e = rd_kafka_assign(c->rk, list);
        if (e != RD_KAFKA_RESP_ERR_NO_ERROR) {
            rc = mr_fail(err, MR_EKAFKA, "cannot read %s: %s", c->all.topics[0].name, rd_kafka_err2str(e));
        }
    }
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

static int copy_topics(mr_consumer *c, mr_error *err) {
    mr_partitions *all = &c->all;
    for (; all->ntopics < MR_CONSUMER_TOPICS && c->opt.topics[all->ntopics]; all->ntopics++) {
        char *name = all->topics[all->ntopics].name;
        snprintf(name, sizeof(all->topics[0].name), "%s", c->opt.topics[all->ntopics]);
    }
    return all->ntopics > 0 ? 0 : mr_fail(err, MR_EINVAL, "a consumer needs at least one topic");
}

static void register_metrics(mr_consumer *c, mr_metrics *m) {
    c->records = mr_bus_counter(m, c->part, "kafka_consumed_total", "Records that were taken from Kafka.");
    c->rebalances =
        mr_bus_counter(m, c->part, "kafka_rebalances_total", "Assignments and revocations of partitions.");
    c->lost = mr_bus_counter(m, c->part, "kafka_lost_ranges_total",
                             "Times that the broker had dropped records before they were read.");
    c->skipped = mr_bus_counter(m, c->part, "kafka_skipped_total",
                                "Records that came again, and were finished by the one who had them before.");
    c->assigned_gauge =
        mr_bus_gauge(m, c->part, "kafka_assigned_partitions", "Partitions that this process reads.");
    c->unfinished_gauge =
        mr_bus_gauge(m, c->part, "kafka_unfinished_records", "Records taken and not yet finished.");
    c->lag_gauge =
        mr_bus_gauge(m, c->part, "kafka_lag_records", "Records behind the end of the assigned partitions.");
    c->paused_gauge = mr_bus_gauge(m, c->part, "kafka_paused", "1 while no more records are taken.");
}

mr_consumer *mr_consumer_new(const mr_kafka_conf *conf, const mr_consumer_options *opt, mr_loop *l,
                             mr_metrics *m, const char *part, mr_error *err) {
    mr_consumer *c = calloc(1, sizeof(*c));
    if (!c) {
        mr_fail(err, MR_ENOMEM, "out of memory while starting the kafka consumer");
        return NULL;
    }
    c->conf = *conf;
    c->opt = *opt;
    snprintf(c->part, sizeof(c->part), "%s", part);
    register_metrics(c, m);
    if (copy_topics(c, err) != 0 || mr_bus_wake_init(&c->wake, l, on_ready, c, err) != 0) goto fail;
    c->timer = mr_timer_new(l, POLL_MS, on_time, c, err);
    if (!c->timer || open_client(c, err) != 0) goto fail;
    if ((has_offsets(c) ? subscribe(c, err) : assign_by_hand(c, err)) != 0) goto fail;
    rd_kafka_queue_t *q = rd_kafka_queue_get_consumer(c->rk);
    mr_bus_wake_on(&c->wake, q);
    rd_kafka_queue_destroy(q);
    return c;
fail:
    mr_consumer_free(c);
    return NULL;
}

/* ---- closing ---- */

/* Leaves the group and commits, but for CLOSE_MS at most: a broker that is away must not hold up a shutdown. */
static void close_client(mr_consumer *c) {
    int64_t deadline = mr_mono_us() + CLOSE_MS * 1000LL;
    rd_kafka_queue_t *q = rd_kafka_queue_new(c->rk);
    rd_kafka_error_t *e = rd_kafka_consumer_close_queue(c->rk, q);
    if (e) {
        mr_log(MR_WARN, "kafka consumer did not close", MR_S("error", rd_kafka_error_string(e)));
        rd_kafka_error_destroy(e);
    }
    while (!e && !rd_kafka_consumer_closed(c->rk) && mr_mono_us() < deadline) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(q, POLL_MS);
        if (!ev) continue;
        if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_REBALANCE) {
            on_rebalance(c->rk, rd_kafka_event_error(ev), rd_kafka_event_topic_partition_list(ev), c);
        }
        rd_kafka_event_destroy(ev);
    }
    rd_kafka_queue_destroy(q);
    rd_kafka_destroy_flags(c->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

void mr_consumer_free(mr_consumer *c) {
    mr_partition *p;
    if (!c) return;
    MR_FOR_ASSIGNED(&c->all, p) { /* these belong to the client and must go before it */
        drop_kept(p);
        drop_queue(p);
    }
    mr_offsets_close(&c->offsets);
    if (c->rk) close_client(c);
    mr_partitions_free(&c->all);
    mr_timer_free(c->timer);
    mr_bus_wake_done(&c->wake);
    free(c);
}

/* ---- questions ---- */

int mr_consumer_assigned(const mr_consumer *c) {
    return c->all.nassigned;
}

int mr_consumer_unfinished(const mr_consumer *c) {
    return c->unfinished;
}

int64_t mr_consumer_behind(const mr_consumer *c) {
    mr_partition *p;
    int64_t n = 0, low, high;
    MR_FOR_ASSIGNED(&c->all, p) {
        if (p->next >= 0 && rd_kafka_get_watermark_offsets(c->rk, p->topic, p->number, &low, &high) == 0 &&
            high > p->next) {
            n += high - p->next;
        }
    }
    return n;
}

bool mr_consumer_lost(const mr_consumer *c) {
    return rd_kafka_assignment_lost(c->rk);
}

bool mr_consumer_caught_up(const mr_consumer *c) {
    mr_partition *p;
    MR_FOR_ASSIGNED(&c->all, p) {
        if (!p->eof_seen || p->kept) return false;
    }
    return c->all.nassigned > 0;
}

int64_t mr_consumer_position(const mr_consumer *c, const char *topic, int32_t number) {
    const mr_partition *p = mr_partitions_find(&c->all, topic, number);
    return p ? p->next : -1;
}

int mr_consumer_partitions(const mr_consumer *c, const char *topic) {
    for (int i = 0; i < c->all.ntopics; i++) {
        if (strcmp(c->all.topics[i].name, topic) == 0) return c->all.topics[i].exist;
    }
    return 0;
}
