/* The supervisor: a worker's first process. It consumes its pool's topic, keeps what waits and what runs, publishes answers,
 * and owns the engine host. parts.h says which file does what, job.h how a request moves.
 *
 * Belongs to the loop's thread; settings are borrowed until mr_supervisor_free.
 */
#ifndef MR_SUPERVISOR_H
#define MR_SUPERVISOR_H

#include "base/bus.h"
#include "base/store.h"
#include "worker/settings.h"

typedef struct mr_supervisor mr_supervisor;

typedef struct mr_supervisor_options {
    const mr_worker_conf *worker;
    const mr_kafka_conf *kafka;
    const mr_redis_conf *redis;
} mr_supervisor_options;

/* Starts the engine host, joins the group, serves the health pages; drains when the loop says so. */
mr_supervisor *mr_supervisor_new(const mr_supervisor_options *opt, mr_loop *l, mr_metrics *m, mr_error *err);
void mr_supervisor_free(mr_supervisor *s);

#endif
