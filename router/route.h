/* Where a request goes: the decision alone, with no Kafka in it, and what is filled in before it goes. Loop
 * thread, because of the knowledge base. */
#ifndef MR_ROUTE_H
#define MR_ROUTE_H

#include "base/metrics.h"
#include "router/conf.h"
#include "router/intent.h"
#include "router/kb.h"
#include "router/weights.h"
#include "schemas/messages.h"

typedef enum { MR_ROUTE_MODEL, MR_ROUTE_KB, MR_ROUTE_EXPIRED } mr_route_kind;

typedef struct mr_route {
    mr_route_kind kind;
    mr_str intent; /* the likeliest routine label, empty without one; borrowed until the model's refresh */
    double confidence;  /* that the message is routine */
    double probability; /* that it is, and that the label is right */
    mr_str answer;      /* of the knowledge base; in the arena */
    mr_str context;     /* for the model: what the knowledge base knows of it; in the arena; empty: nothing */
    char pool[MR_POOL_MAX + 1]; /* for the model */
    const char *color;
    mr_str key; /* session, or the id; borrowed from the request */
} mr_route;

typedef struct mr_routing {
    const mr_router_conf *conf;
    const mr_weights *weights;
    mr_kb *kb;                                 /* NULL: none */
    mr_intent *intent;                         /* NULL: none, every chat may be routine */
    mr_histogram *kb_seconds, *intent_seconds; /* of a search, of a guess */
    mr_counter *routine, *unsure;              /* guesses */
    mr_counter *context;                       /* chats that went to the model with entries of the base */
} mr_routing;

/* Fills in what a worker relies on: creation time, deadline, attempt, purpose, and a random seed, so that
 * the record itself says how to generate the same answer again. */
int mr_route_complete(const mr_routing *r, mr_chat_request *q, int64_t record_ms, mr_error *err);

/* For a completed request: what is no ordinary chat goes to the model; a chat that the intents call routine is
 * answered by the knowledge base if it can; one that they are unsure of only if the base has the very words; and a number
 * alone is one of the list at the end of the answer before it. What the base is not sure enough of goes to the model
 * with its best entries. What fails is logged, and the model answers. */
void mr_route_choose(const mr_routing *r, const mr_chat_request *q, int64_t now_ms, mr_arena *a,
                     mr_route *out);

#endif
