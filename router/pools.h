/* What the router knows and tells of its pools: lag and workers as metrics (millrace_lag_records is what autoscalers look at),
 * and a PoolStatus on chat.workers every router.status_s, from which gateways know how long a request would wait.
 *
 * Every router does so; their numbers are the same. Loop's thread, but for the lag reader's.
 */
#ifndef MR_POOLS_H
#define MR_POOLS_H

#include "router/conf.h"
#include "router/forwarder.h"
#include "router/weights.h"

typedef struct mr_pools mr_pools;

mr_pools *mr_pools_new(const mr_router_conf *conf, const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                       mr_error *err);
void mr_pools_free(mr_pools *p);

/* To be called often: when it is time it brings the metrics up to date, and sends every pool's status. */
void mr_pools_tick(mr_pools *p, const mr_weights *w, mr_forwarder *f);

#endif
