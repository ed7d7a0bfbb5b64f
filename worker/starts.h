/* How often a request was started and never ended: in Redis, so that the count outlives the worker.
 *
 * `started:<id>` holds the number of starts, or `end <partition>/<offset>` once the terminal record is in Kafka (so that the
 * same record, delivered again, is not answered again). While Redis is away nothing is known from before, and
 * the count lives with the request alone: a request that takes whole workers down is then not recognised, one
 * that takes engines down still is.
 *
 * Belongs to the loop's thread.
 */
#ifndef MR_STARTS_H
#define MR_STARTS_H

#include "base/store.h"

#define MR_STARTS_TTL_S 86400
#define MR_ENDED_TTL_S  3600

/* ended: this very record has been answered. Called exactly once, possibly before mr_starts_look returns. */
typedef void mr_starts_cb(void *owner, int64_t starts, bool ended);

void mr_starts_look(mr_store *s, mr_str id, int32_t partition, int64_t offset, mr_starts_cb *cb, void *owner);
void mr_starts_set(mr_store *s, mr_str id, int64_t starts); /* 0 forgets it */
void mr_starts_end(mr_store *s, mr_str id, int32_t partition, int64_t offset);

#endif
