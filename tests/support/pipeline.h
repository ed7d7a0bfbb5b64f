/* A whole pipeline for a test: broker, redis-server, gateway, router and workers as processes of their own, each of
 * which can be killed, stopped and started alone. All of them end with the test program, also when it crashes.
 *
 * Belongs to the loop's thread; a failure in here fails the test.
 */
#ifndef MR_TEST_PIPELINE_H
#define MR_TEST_PIPELINE_H

#include "base/conf.h"
#include "base/loop.h"

#include <stdbool.h>

typedef enum {
    PART_BROKER,
    PART_REDIS,
    PART_GATEWAY,
    PART_ROUTER,
    PART_WORKER,
    PART_WORKER2,
    PART_GATEWAY2,
    PARTS
} pipeline_part;

typedef struct pipeline_options {
    const char *broker;  /* "embedded", or "kafka": a real one */
    const char *profile; /* of a simulated engine; NULL: the real engine */
    const char *model;   /* its checkpoint folder; NULL: the demo model */
    const char *kb;      /* TSV file for the knowledge base, or NULL */
    const char *worker;  /* more settings of the worker, as libconfig; or NULL */
    const char *kafka;   /* the same for group kafka */
    const char
        *sasl; /* mechanism by which clients say who they are to a real broker, over TLS; NULL: neither */
    bool servers_only; /* broker and redis; whoever asked for it starts the rest */
} pipeline_options;

/* Of the user that such a broker knows. */
#define PIPELINE_USER     "millrace"
#define PIPELINE_PASSWORD "river"

typedef struct pipeline pipeline;

/* The broker that a test's one argument names, with logging begun (all of it with VERBOSE set); NULL, and the usage was said. */
const char *pipeline_test_broker(int argc, char **argv);

/* All parts but the second worker and the second gateway, ready to answer. NULL when this machine lacks what it needs (said on stderr). */
pipeline *pipeline_start(mr_loop *l, const pipeline_options *opt);
/* With `failed` the logs are kept, and their place is said. */
void pipeline_stop(pipeline *p, bool failed);

int pipeline_port(const pipeline *p);  /* of the gateway */
int pipeline_port2(const pipeline *p); /* of the second one */
int pipeline_redis_port(const pipeline *p);
const mr_kafka_conf *pipeline_kafka(const pipeline *p);
/* One sample of a part's metrics, by its name with labels; -1 when there is none. */
double pipeline_metric(pipeline *p, pipeline_part part, const char *name);
bool pipeline_wait_metric(pipeline *p, pipeline_part part, const char *name, double value);

/* The file that all its processes read. */
const char *pipeline_conf(const pipeline *p);
/* One more program of it, with its output in NAME.log of its folder; the caller waits for it. It ends with the test
 * program. */
pid_t pipeline_spawn(const pipeline *p, const char *name, char *const argv[]);

pid_t pipeline_pid(const pipeline *p, pipeline_part part);
pid_t pipeline_engine_pid(const pipeline *p, pipeline_part worker); /* 0: none at the moment */

void pipeline_kill(pipeline *p, pipeline_part part); /* kill -9, and wait until it is gone */
int pipeline_end(pipeline *p,
                 pipeline_part part); /* SIGTERM, wait; its exit status, -1: it died of a signal */
void pipeline_run(pipeline *p, pipeline_part part); /* starts it again */
void pipeline_wait_ready(pipeline *p, pipeline_part part);

#endif
