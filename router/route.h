/* Where a request goes: the decision alone, with no Kafka in it, and what is filled in before it goes. Loop thread, because
 * of the knowledge base. */
#ifndef MR_ROUTE_H
#define MR_ROUTE_H

#include "base/metrics.h"
#include "router/conf.h"
#include "router/kb.h"
#include "router/weights.h"
#include "schemas/messages.h"

typedef enum { MR_ROUTE_MODEL, MR_ROUTE_KB, MR_ROUTE_EXPIRED } mr_route_kind;

typedef struct mr_route {
    mr_route_kind kind;
    mr_str answer;              /* of the knowledge base; borrowed until its next search */
    char pool[MR_POOL_MAX + 1]; /* for the model */
    const char *color;
    mr_str key; /* session, or the id; borrowed from the request */
} mr_route;

typedef struct mr_routing {
    const mr_router_conf *conf;
    const mr_weights *weights;
    mr_kb *kb;                /* NULL: none */
    mr_histogram *kb_seconds; /* of a search */
} mr_routing;

/* Fills in what a worker relies on: creation time, deadline, attempt, purpose, and a random seed, so that
 * the record itself says how to generate the same answer again. */
int mr_route_complete(const mr_routing *r, mr_chat_request *q, int64_t record_ms, mr_error *err);

/* For a completed request. A knowledge base that fails is logged, and the model answers. */
void mr_route_choose(const mr_routing *r, const mr_chat_request *q, int64_t now_ms, mr_arena *a,
                     mr_route *out);

#endif
