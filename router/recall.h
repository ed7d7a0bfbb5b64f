/* What Redis knows of a request before it is routed: the turns of its session, and the style of its user. Redis is asked once for
 * both; away or slow (redis.timeout_ms), the request goes on without. Loop's thread. */
#ifndef MR_RECALL_H
#define MR_RECALL_H

#include "base/metrics.h"
#include "base/store.h"
#include "router/conf.h"
#include "router/style.h"

typedef struct mr_recall mr_recall;

/* The configurations are borrowed. Where sessions and profiles are off, Redis is not connected. */
mr_recall *mr_recall_new(const mr_router_conf *conf, const mr_redis_conf *redis, mr_loop *l, mr_metrics *m,
                         mr_error *err);
/* Who waits is called back first. */
void mr_recall_free(mr_recall *r);

/* Fills in what the request's own fields decide: whether its turn is kept. True when Redis is to be asked first. */
bool mr_recall_wanted(mr_recall *r, mr_chat_request *q);

/* What Redis said; good until the callback returns. */
typedef struct mr_recollection {
    const redisReply *turns; /* NULL: none, or Redis is away */
    char style[65];          /* of the user's profile; may be empty */
} mr_recollection;
typedef void mr_recall_cb(void *arg, const mr_recollection *found);

/* Called back once, never from inside of this call; `waits` of them are open. -1: not asked. */
int mr_recall_ask(mr_recall *r, const mr_chat_request *q, mr_recall_cb *cb, void *arg);
int mr_recall_waits(const mr_recall *r);

/* Puts what was found into the request, decoded again by then: the turns, and the style of the user or of its key. found may be
 * NULL: nothing. -1: the arena is full. */
int mr_recall_apply(mr_recall *r, const mr_recollection *found, mr_chat_request *q, mr_arena *a,
                    mr_error *err);

/* The knowledge base has answered. */
void mr_recall_keep(mr_recall *r, const mr_chat_request *q, mr_str answer);

#endif
