/* The router: takes requests from chat.requests and gives each to the knowledge base, or to the workers of its model's pool
 * and of a color, or back to its user with an error; what cannot be decoded goes to chat.dead as well.
 *
 * One thread, the loop's. A request's offset is done only when everything that it led to has been delivered, so whatever
 * happens to the process, nothing accepted is lost.
 */
#ifndef MR_ROUTER_H
#define MR_ROUTER_H

#include "base/bus.h"
#include "base/loop.h"
#include "base/metrics.h"
#include "router/conf.h"

typedef struct mr_router mr_router;

/* Borrows the settings and the loop, and sets the loop's drain callback. */
mr_router *mr_router_new(const mr_router_conf *conf, const mr_kafka_conf *kafka, const mr_redis_conf *redis,
                         mr_loop *loop, mr_error *err);
void mr_router_free(mr_router *r);

/* What /readyz says. */
bool mr_router_ready(const mr_router *r, char *why, size_t why_size);
/* A record could not be served in any way; the process has to end with an error, and will be given it again. */
bool mr_router_failed(const mr_router *r);
mr_metrics *mr_router_metrics(mr_router *r);

#endif
