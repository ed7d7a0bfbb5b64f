/* Who has had a request before: how often it was started and never ended, and the number of the attempt at it, in Redis, so that
 * both outlive the worker.
 *
 * A supervisor claims each request that it is given: it gets an attempt number above all before it, by which readers know a worker that
 * was taken for dead from its successor. Numbers grow without Redis too, because none is below the record's age in seconds,
 * and a partition does not change hands for a dead worker in less than kafka.session_timeout_ms; only workers that
 * pass a partition on in good health may then have the same number.
 *
 * The hash `request:<id>` holds the starts (n; MR_STARTS_ALONE more when one was alone on trial), the attempt (a), and where the
 * record was that has been answered (end), so that the same record, delivered again, is not answered again. While Redis is away nothing is known from before, and the count lives
 * with the request alone: a request that takes whole workers down is then not recognised, one that takes engines down
 * still is. Counts are changed by differences, so that two workers that have the same request do not undo each other's.
 *
 * Belongs to the loop's thread.
 */
#ifndef MR_STARTS_H
#define MR_STARTS_H

#include "base/store.h"

#define MR_STARTS_TTL_S 86400
#define MR_ENDED_TTL_S  3600
#define MR_STARTS_ALONE 1000

typedef struct mr_starts mr_starts;

/* The store must outlive it. */
mr_starts *mr_starts_new(mr_store *store, mr_error *err);
void mr_starts_free(mr_starts *t);

/* The place of a record. */
typedef struct mr_starts_record {
    mr_str id;
    int32_t partition;
    int64_t offset, timestamp_ms; /* 0: not known */
} mr_starts_record;

/* ended: this very record has been answered. Called exactly once, possibly before mr_starts_claim returns. */
typedef void mr_starts_cb(void *owner, int64_t starts, int64_t attempt, bool ended);

void mr_starts_claim(mr_starts *t, const mr_starts_record *r, mr_starts_cb *cb, void *owner);
void mr_starts_add(mr_starts *t, mr_str id, int64_t starts); /* may be negative */
void mr_starts_set(mr_starts *t, mr_str id, int64_t starts);
void mr_starts_end(mr_starts *t, const mr_starts_record *r);

#endif
