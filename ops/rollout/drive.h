/* A rollout from here to its end: the one who drives it while this process lives. Every state is in chat.control before it is
 * acted on (register.h), so another process can go on from wherever this one stops.
 *
 *     waiting ──> shifting ──> draining ──> stopping ──> done
 *        └────────────┴──> returning ──> rolled_back
 *
 * Loop's thread. Progress is told in sentences.
 */
#ifndef MR_DRIVE_H
#define MR_DRIVE_H

#include "base/loop.h"
#include "ops/rollout/register.h"

typedef enum {
    MR_VERB_START,
    MR_VERB_RESUME,
    MR_VERB_PROMOTE,
    MR_VERB_ROLLBACK,
    MR_VERB_ABORT
} mr_rollout_verb;

/* How it ends: exit statuses of `millrace rollout`. */
typedef enum {
    MR_ROLLOUT_EXIT_OK = 0,
    MR_ROLLOUT_EXIT_FAILED = 1,      /* Kafka; said on stderr */
    MR_ROLLOUT_EXIT_ROLLED_BACK = 3, /* the new color was worse than allowed, or never ready */
    MR_ROLLOUT_EXIT_REFUSED = 4,     /* a rollout runs already, or none */
    MR_ROLLOUT_EXIT_REPLACED = 5,    /* another process has taken it over */
    MR_ROLLOUT_EXIT_LEFT = 6,        /* told to end; the rollout stands where it is */
} mr_rollout_exit;

typedef struct mr_drive_options {
    mr_rollout_verb verb;
    const char *pool;
    int to;                      /* start */
    int64_t steps[MR_STEPS_MAX]; /* start; percent */
    int nsteps;
    int64_t hold_ms, patience_ms; /* start; patience: for a step's requests, past its hold */
    int64_t ready_ms, settle_ms,
        stop_ms;          /* limits: for workers, for silence before the stop, for their end */
    mr_limits limits;     /* start */
    bool stop_old, force; /* resume: although its tool seems alive */
} mr_drive_options;

typedef struct mr_drive mr_drive;

/* Calls `say` with each sentence of progress, and `over` once, from the loop. */
mr_drive *mr_drive_new(const mr_kafka_conf *kafka, const mr_drive_options *o, mr_loop *l, mr_metrics *m,
                       void (*say)(void *arg, const char *text), void (*over)(void *arg, mr_rollout_exit e),
                       void *arg, mr_error *err);
void mr_drive_free(mr_drive *d);

#endif
