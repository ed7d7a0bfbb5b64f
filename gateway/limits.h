/* Limits: how many requests and tokens a minute a key, a tenant, and all together may have, and how many requests at
 * once.
 *
 * A request takes its place in all of them or in none: one request, the tokens that it is guessed to cost, and a place among
 * those being answered. When it has ended, the guess is put right by what it cost, and the place is free. The buckets are
 * in Redis, changed by one script at Redis's own time, so all gateways share them; places of a gateway that died come free
 * by themselves. Where Redis is away, gateway.limits_without_redis says what counts: buckets of this gateway's own, or
 * nothing, or nobody is let in.
 *
 * Everything belongs to the loop's thread. A hold is its owner's from the verdict on until mr_hold_settle.
 */
#ifndef MR_LIMITS_H
#define MR_LIMITS_H

#include "base/loop.h"
#include "base/metrics.h"
#include "gateway/auth.h"
#include "gateway/conf.h"

typedef struct mr_limiter mr_limiter;
typedef struct mr_hold mr_hold; /* what a request has taken */

typedef enum {
    MR_LIMIT_NONE,
    MR_LIMIT_REQUESTS,
    MR_LIMIT_TOKENS,
    MR_LIMIT_CONCURRENT,
    MR_LIMIT_UNAVAILABLE, /* Redis is away, and without it nobody is let in */
} mr_limit_kind;

/* Of the limit that is nearest to its end. */
typedef struct mr_limit_left {
    int64_t limit;         /* a minute; 0: there is none */
    int64_t left, full_ms; /* how long until all of it is there again */
} mr_limit_left;

typedef struct mr_limit_verdict {
    mr_limit_kind refused; /* NONE: the request may go on */
    const char *scope;     /* whose limit that is: "key", "tenant" or "global" */
    int64_t retry_ms;
    mr_limit_left requests, tokens;
} mr_limit_verdict;

/* When something is refused, the hold is gone already. */
typedef void mr_limit_cb(void *arg, const mr_limit_verdict *v);

/* Without any limit it does nothing, and opens no Redis. The configurations are borrowed. */
mr_limiter *mr_limiter_new(const mr_gateway_conf *conf, const mr_redis_conf *redis, mr_loop *l, mr_metrics *m,
                           mr_error *err);
/* Holds that wait are refused first; the others must have been settled. */
void mr_limiter_free(mr_limiter *l);

bool mr_limiter_applies(const mr_limiter *l, const mr_grant *who);

/* Takes a place for request `id` (unique). True: *v is the verdict already. False: cb will bring it, never from inside of this
 * call. *hold is NULL when refused, or out of memory, which counts as MR_LIMIT_UNAVAILABLE. */
bool mr_limiter_take(mr_limiter *l, const mr_grant *who, const char *id, int64_t tokens, mr_hold **hold,
                     mr_limit_verdict *v, mr_limit_cb *cb, void *arg);
/* Before the verdict: its owner goes away, cb is not called any more. */
void mr_hold_abandon(mr_hold *h);
/* It has ended (NULL is nothing). tokens: what it cost. A request that was never begun gives back all. */
void mr_hold_settle(mr_hold *h, int64_t tokens);
void mr_hold_return(mr_hold *h);

/* OpenAI's form of a duration: "1s", "6m0s", "250ms". */
#define MR_LIMIT_TIME_MAX 32
void mr_limit_time(int64_t ms, char out[MR_LIMIT_TIME_MAX]);

#endif
