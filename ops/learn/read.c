/* See read.h. */
#include "ops/learn/read.h"

#include <stdio.h>
#include <stdlib.h>

enum { LOOKUP_MS = 10000, TICK_MS = 1000, SILENT_TICKS = 60 };

typedef struct part {
    int64_t end;
    bool open;
} part;

typedef struct reading {
    mr_loop *loop;
    mr_reader *reader;
    mr_topic_cb *cb;
    void *arg;
    char topic[250];
    part *parts;
    int nparts, open;
    int silent; /* ticks since the last record */
    mr_error *err;
    int rc;
} reading;

static void stop(reading *r, int rc) {
    r->rc = rc;
    mr_loop_stop(r->loop);
}

static void part_done(reading *r, int32_t p) {
    if (!r->parts[p].open) return;
    r->parts[p].open = false;
    mr_reader_stop(r->reader, r->topic, p);
    if (--r->open == 0) stop(r, 0);
}

static void on_record(void *arg, const mr_record *rec) {
    reading *r = arg;
    part *p = &r->parts[rec->partition];
    r->silent = 0;
    if (r->rc < 0 || !p->open) return;
    if (rec->offset < p->end && r->cb(r->arg, rec, r->err) < 0) {
        stop(r, -1);
    } else if (rec->offset + 1 >= p->end) {
        part_done(r, rec->partition);
    }
}

static void on_end(void *arg, const char *topic, int32_t partition, int64_t next) {
    (void)topic, (void)next;
    part_done(arg, partition);
}

static void on_gone(void *arg, const char *topic, int32_t partition, const char *why) {
    reading *r = arg;
    mr_fail(r->err, MR_EKAFKA, "partition %d of %s cannot be read: %s", partition, topic, why);
    stop(r, -1);
}

static void on_tick(void *arg) {
    reading *r = arg;
    if (++r->silent < SILENT_TICKS) return;
    mr_fail(r->err, MR_EKAFKA, "nothing came from topic %s for %d s: is Kafka up?", r->topic, SILENT_TICKS);
    stop(r, -1);
}

static void on_drain(void *arg) {
    reading *r = arg;
    mr_fail(r->err, MR_ESTATE, "told to end while reading %s: nothing was changed", r->topic);
    stop(r, -1);
}

static int open_part(reading *r, int32_t p, int64_t from_ms, mr_error *err) {
    int64_t low, begin;
    part *x = &r->parts[p];
    if (mr_reader_bounds(r->reader, r->topic, p, LOOKUP_MS, &low, &x->end, err) < 0) return -1;
    if (low >= x->end) return 0;
    if (mr_reader_at_time(r->reader, r->topic, p, from_ms, LOOKUP_MS, &begin, err) < 0) return -1;
    /* -1 may also mean that the broker cannot look it up, so everything is looked at. */
    x->open = true;
    r->open++;
    return mr_reader_start(r->reader, r->topic, p, begin < low ? MR_READ_OLDEST : begin, err);
}

static int open_parts(reading *r, int64_t from_ms, mr_error *err) {
    r->nparts = mr_reader_partitions(r->reader, r->topic, LOOKUP_MS, err);
    if (r->nparts < 0) return -1;
    r->parts = calloc((size_t)r->nparts + 1, sizeof *r->parts);
    if (!r->parts) return mr_fail(err, MR_ENOMEM, "no memory to read topic %s", r->topic);
    for (int32_t p = 0; p < r->nparts; p++) {
        if (open_part(r, p, from_ms, err) < 0) return -1;
    }
    return 0;
}

int mr_topic_read(const mr_kafka_conf *kafka, const char *topic, int64_t from_ms, mr_topic_cb *cb, void *arg,
                  mr_error *err) {
    reading r = {.cb = cb, .arg = arg, .err = err, .rc = -1};
    const mr_reader_options o = {on_record, on_end, on_gone, &r};
    mr_timer *timer = NULL;
    mr_metrics *m = mr_metrics_new(err);
    r.loop = m ? mr_loop_new(err) : NULL;
    mr_bus_topic(kafka, topic, r.topic);
    r.reader = r.loop ? mr_reader_new(kafka, &o, r.loop, m, "learn", err) : NULL;
    timer = r.reader ? mr_timer_new(r.loop, TICK_MS, on_tick, &r, err) : NULL;
    if (timer && open_parts(&r, from_ms, err) == 0) {
        r.rc = 0;
        mr_loop_on_drain(r.loop, TICK_MS, on_drain, &r);
        if (r.open > 0) mr_loop_run(r.loop);
    }
    mr_timer_free(timer);
    mr_reader_free(r.reader);
    mr_loop_free(r.loop);
    mr_metrics_free(m);
    free(r.parts);
    return r.rc;
}
