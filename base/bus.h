/* The bus: Kafka through librdkafka, driven by the process's event loop.
 *
 * Everything here belongs to the loop's thread: librdkafka's queues wake the loop (rd_kafka_queue_io_event_enable), and
 * callbacks run on it. Nothing blocks, except _new and _free (which flush for at most their stated time).
 *
 * Offsets are committed by hand. A record that was delivered to the consumer's callback counts as unfinished
 * until mr_bus_done() is called for it; the committed offset never passes the lowest unfinished record of its partition, and
 * what is finished behind that is said with it, so that whoever has the partition next is not given it again.
 */
#ifndef MR_BUS_H
#define MR_BUS_H

#include "base/conf.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/metrics.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* The topics of the design; mr_bus_topic puts the configured prefix before them. */
#define MR_TOPIC_REQUESTS  "chat.requests"
#define MR_TOPIC_RESPONSES "chat.responses"
#define MR_TOPIC_CONTROL   "chat.control"
#define MR_TOPIC_FEEDBACK  "chat.feedback"
#define MR_TOPIC_DEAD      "chat.dead"
#define MR_TOPIC_AUDIT     "chat.audit"
#define MR_TOPIC_WORKERS   "chat.workers"
#define MR_TOPIC_GENERATE  "chat.generate" /* + .<pool>.<color> */

void mr_bus_topic(const mr_kafka_conf *conf, const char *name, char out[250]);
/* chat.generate.<pool>.<color> */
void mr_bus_generate_topic(const mr_kafka_conf *conf, const char *pool, const char *color, char out[250]);

typedef struct mr_header {
    const char *name;
    mr_str value;
} mr_header;

/* A record as it came: all of it is borrowed until the callback returns. */
typedef struct mr_record {
    const char *topic;
    int32_t partition;
    int64_t offset;
    int64_t timestamp_ms;
    mr_str key, value;
    const void *raw; /* for mr_record_header */
} mr_record;

/* Value of header `name`, or an empty string. */
mr_str mr_record_header(const mr_record *r, const char *name);

/* ---- producer: idempotent, acks=all ---- */
typedef struct mr_producer mr_producer;

/* Called once for each record that was given a `tag` (or that failed): err is NULL when the broker has it. */
typedef void mr_delivered_cb(void *arg, void *tag, const mr_error *err);

mr_producer *mr_producer_new(const mr_kafka_conf *conf, mr_loop *l, mr_metrics *m, const char *part,
                             mr_delivered_cb *cb, void *arg, mr_error *err);
/* Waits up to flush_ms for what is in the air; what was not delivered by then is reported to the callback. */
void mr_producer_free(mr_producer *p, int flush_ms);

typedef struct mr_produce {
    const char *topic; /* with prefix */
    int32_t partition; /* -1: by the key */
    mr_str key, value; /* copied */
    const mr_header *headers;
    int nheaders;
    void *tag; /* handed to the delivery callback */
} mr_produce;

/* Fails with MR_ESTATE when the local queue is full (try again when deliveries have come), MR_ETOOBIG when the record
 * is larger than kafka.message_max, MR_ENOTFOUND when the topic has no such partition (a delivery may fail with the last
 * two, as well). On failure the delivery callback is not called. */
int mr_producer_send(mr_producer *p, const mr_produce *rec, mr_error *err);
int mr_producer_in_flight(const mr_producer *p);
/* True while the brokers are reachable. */
bool mr_producer_connected(const mr_producer *p);

/* ---- consumer ---- */
#define MR_BUS_TAIL 4096

typedef struct mr_consumer mr_consumer;

/* `record` stays unfinished until mr_bus_done(c, partition-of-topic, offset). Returning false means "no room": the
 * record is handed over again after mr_consumer_resume, and its partition stands still until then. */
typedef bool mr_record_cb(void *arg, const mr_record *record);
/* Partitions were taken away (or lost): forget what is unfinished there, or finish it in the knowledge that it
 * may be done again elsewhere. done() for a revoked partition is ignored. */
typedef void mr_revoked_cb(void *arg, const char *topic, int32_t partition);

typedef enum {
    MR_FROM_COMMITTED, /* group member: subscribe, committed offsets, earliest where there are none */
    MR_FROM_BEGINNING, /* assigned by hand, no group, no commits */
    MR_FROM_END,
    MR_FROM_TAIL, /* the same, but the last MR_BUS_TAIL records of each partition come first */
} mr_consumer_start;

typedef struct mr_consumer_options {
    const char *group;     /* with MR_FROM_COMMITTED; else NULL */
    const char *topics[8]; /* with prefix; NULL-terminated */
    int32_t partition;     /* with assignment by hand: this partition of the topics, or -1 for all */
    mr_consumer_start start;
    const char *instance; /* group.instance.id for static membership, or NULL */
    mr_record_cb *on_record;
    mr_revoked_cb *on_revoked; /* may be NULL */
    void *arg;
} mr_consumer_options;

mr_consumer *mr_consumer_new(const mr_kafka_conf *conf, const mr_consumer_options *opt, mr_loop *l,
                             mr_metrics *m, const char *part, mr_error *err);
/* Commits what is done, leaves the group, closes. */
void mr_consumer_free(mr_consumer *c);

/* The record is finished: its answer is in Kafka (delivery reported). Any order. */
void mr_bus_done(mr_consumer *c, const char *topic, int32_t partition, int64_t offset);

/* Back-pressure: pause stops delivery of new records on all partitions (polling goes on), also of those
 * assigned later, until resume. */
void mr_consumer_pause(mr_consumer *c);
void mr_consumer_resume(mr_consumer *c);
bool mr_consumer_paused(const mr_consumer *c);

/* Partitions now assigned (0 while joining), and records handed out but unfinished. */
int mr_consumer_assigned(const mr_consumer *c);
int mr_consumer_unfinished(const mr_consumer *c);
/* Records of the assigned partitions that were not handed out yet, as far as the brokers have said. */
int64_t mr_consumer_behind(const mr_consumer *c);
/* Within on_revoked: they were lost. The group took this process for dead, and others have them already. */
bool mr_consumer_lost(const mr_consumer *c);
/* True once every assigned-by-hand partition has been read up to the end it had at start (for chat.control). */
bool mr_consumer_caught_up(const mr_consumer *c);
/* The offset of the partition's next record; -1 until it is known (it is once caught up). */
int64_t mr_consumer_position(const mr_consumer *c, const char *topic, int32_t partition);
/* How many partitions a topic has that is read by hand. */
int mr_consumer_partitions(const mr_consumer *c, const char *topic);

/* ---- reader: any places of any partitions, without a group, nobody's offsets move ---- */
typedef struct mr_reader mr_reader;

typedef struct mr_reader_options {
    void (*on_record)(void *arg, const mr_record *record);
    /* Everything in the partition was read; what comes from now on is read too. */
    void (*on_end)(void *arg, const char *topic, int32_t partition, int64_t next);
    /* The broker has no such offset (any more), or no such partition: it is not read. */
    void (*on_gone)(void *arg, const char *topic, int32_t partition, const char *why);
    void *arg;
} mr_reader_options;

mr_reader *mr_reader_new(const mr_kafka_conf *conf, const mr_reader_options *opt, mr_loop *l, mr_metrics *m,
                         const char *part, mr_error *err);
void mr_reader_free(mr_reader *r);

#define MR_READ_OLDEST (-2)

/* Reads the partition from this offset (or MR_READ_OLDEST) on; what was read of it before does not count. Callbacks may call these. */
int mr_reader_start(mr_reader *r, const char *topic, int32_t partition, int64_t offset, mr_error *err);
void mr_reader_stop(mr_reader *r, const char *topic, int32_t partition);
/* While it is held nothing is handed over; what is fetched ahead is bounded. */
void mr_reader_hold(mr_reader *r, bool held);

/* For tools: these block, for up to timeout_ms. The number of partitions, or -1. */
int mr_reader_partitions(mr_reader *r, const char *topic, int timeout_ms, mr_error *err);
int mr_reader_bounds(mr_reader *r, const char *topic, int32_t partition, int timeout_ms, int64_t *low,
                     int64_t *high, mr_error *err);
/* The first record at or after this unix time; -1 when there is none, or the broker can't look it up (the embedded one). */
int mr_reader_at_time(mr_reader *r, const char *topic, int32_t partition, int64_t ms, int timeout_ms,
                      int64_t *offset, mr_error *err);

/* ---- topics ---- */
typedef struct mr_topic_spec {
    const char *name; /* with prefix */
    int partitions;
    bool compacted;
    int64_t retention_ms; /* 0: the broker's default */
} mr_topic_spec;

/* Create what is missing (message size from conf), wait until all have a leader. Blocks up to timeout_ms. */
int mr_bus_create_topics(const mr_kafka_conf *conf, const mr_topic_spec *specs, int n, int timeout_ms,
                         mr_error *err);

#endif
