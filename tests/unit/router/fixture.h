/* A router in this process over the mock cluster, and all that it writes. Everything is on one loop, so that a test reads
 * as a sequence of steps. Failures are assertions. */
#ifndef ROUTER_FIXTURE_H
#define ROUTER_FIXTURE_H

#include "base/bus.h"
#include "router/router.h"
#include "schemas/messages.h"
#include "support/support.h"

#define WAIT_MS  30000
#define SEEN_MAX 1024

#define BLUE     "chat.generate.main.blue"
#define GREEN    "chat.generate.main.green"
#define BIG_BLUE "chat.generate.big.blue"

/* A record that the router wrote. */
typedef struct seen {
    char topic[250];
    int32_t partition;
    mr_str key, value, type, traceparent;
} seen;

typedef struct fixture {
    test_kafka *kafka;
    mr_kafka_conf kafka_conf;
    mr_router_conf conf; /* change it before fixture_start */
    mr_redis_conf redis_conf; /* likewise; no Redis as it is */
    mr_loop *loop;
    mr_router *router;
    mr_metrics *metrics;
    mr_producer *producer;
    mr_consumer *consumer;
    mr_arena *arena;
    char folder[64], kb[100];
    seen seen[SEEN_MAX];
    int nseen, unacknowledged;
} fixture;

/* Kafka, its topics, and the reader of what will be written. */
void fixture_init(fixture *f);
/* A knowledge base of these lines of TSV, for the router that is started next. */
void fixture_kb(fixture *f, const char *tsv);
void fixture_start(fixture *f);
/* The router goes, what it wrote stays. */
void fixture_stop(fixture *f);
void fixture_done(fixture *f);

/* ---- what goes in; each waits until Kafka has it ---- */

void send_record(fixture *f, const char *topic, mr_str key, mr_str value, const mr_header *headers,
                 int nheaders);
void send_json(fixture *f, const char *key, const char *json);
void send_weights(fixture *f, const char *pool, int blue, int green, int epoch);

/* ---- what comes out ---- */

/* The first record to `topic` with this key, or NULL after a wait. */
const seen *wait_record(fixture *f, const char *topic, const char *key);
/* The first end of this request; fails when none comes. */
mr_response_end wait_end(fixture *f, const char *id);
/* All its deltas joined, in the arena. */
mr_str answer_text(fixture *f, const char *id);
mr_chat_request read_request(fixture *f, const seen *s);
mr_dead wait_dead(fixture *f, const char *id);
mr_audit wait_audit(fixture *f, const char *id);
const seen *last_record(const fixture *f, const char *topic); /* or NULL */
int count_records(const fixture *f, const char *topic, const char *key);

/* The group's committed offset of a partition of chat.requests; -1 when there is none. */
int64_t committed(fixture *f, int partition);
double metric(fixture *f, const char *line);

#endif
