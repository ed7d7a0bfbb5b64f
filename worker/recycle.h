/* Recycling: the engine host is replaced on purpose, and nobody who waits for an answer notices.
 *
 *     rest ──> asking ──> coming ──> emptying ──> parting ──> rest       side by side: the new one loads while the old one works
 *                  └──────────────> emptying ──> returning ──> rest      in place: the old one is emptied first
 *
 * asking:    there is a reason; the rollout's hold, and the pool's lease, may keep it waiting
 * emptying:  what runs in the old one may finish for a grace; the rest is stopped between two tokens and goes on in the new one,
 *            with the tokens it has as a forced prefix
 *
 * Partitions never move: the supervisor is not replaced. Reasons are age, an operator's order, the host's memory and a wrong canary; the
 * last two are faults, which wait for no lease. A host that dies or hangs is replaced by host.h itself.
 *
 * Belongs to the loop's thread.
 */
#ifndef MR_RECYCLE_H
#define MR_RECYCLE_H

#include "base/metrics.h"
#include "base/store.h"

struct mr_supervisor;
struct mr_engine;

typedef struct mr_recycle mr_recycle;

typedef enum {
    MR_RECYCLE_AGE,
    MR_RECYCLE_ORDER,
    MR_RECYCLE_MEMORY,
    MR_RECYCLE_CANARY,
    MR_RECYCLE_REASONS
} mr_recycle_reason;

mr_recycle *mr_recycle_new(struct mr_supervisor *s, mr_store *store, mr_metrics *m, mr_error *err);
void mr_recycle_free(mr_recycle *r); /* before the store */

void mr_recycle_tick(mr_recycle *r);
/* Within a rollout's step nothing is recycled for its age or by order. */
void mr_recycle_hold(mr_recycle *r, bool hold);
/* An operator's; order names it in the report of its end. */
void mr_recycle_order(mr_recycle *r, int64_t order);
void mr_recycle_fault(mr_recycle *r, mr_recycle_reason why);

/* A host is ready, or gone. */
void mr_recycle_ready(mr_recycle *r, struct mr_engine *e);
void mr_recycle_lost(mr_recycle *r, struct mr_engine *e);

bool mr_recycle_going_on(const mr_recycle *r);
/* False while the engine is being emptied to be replaced in place: nothing is started. */
bool mr_recycle_admits(const mr_recycle *r);

#endif
