/* The store: Redis through hiredis.
 *
 * Redis is an aid, never a dependency: every caller says what it does when Redis is away. The asynchronous client
 * reconnects by itself with backoff (100 ms doubling to 5 s, jittered) and fails commands at once while it is away. It
 * belongs to the loop's thread. The synchronous form is for command-line tools.
 */
#ifndef MR_STORE_H
#define MR_STORE_H

#include "base/conf.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/metrics.h"

#include <hiredis/hiredis.h>

typedef struct mr_store mr_store;

/* reply is NULL when Redis is away, the command timed out, or the store is being freed; it may be an error reply.
 * Borrowed until the callback returns. */
typedef void mr_store_cb(void *arg, const redisReply *reply);

/* With an empty address the store exists but is always away. Does not wait for the connection. */
mr_store *mr_store_new(const mr_redis_conf *conf, mr_loop *l, mr_metrics *m, const char *part, mr_error *err);
void mr_store_free(mr_store *s); /* outstanding callbacks are called with NULL */
bool mr_store_up(const mr_store *s);

/* argv of n strings; the key prefix is the caller's to add with mr_store_key. cb is called exactly once, possibly
 * before mr_store_command returns (when Redis is away). cb may be NULL. */
void mr_store_command(mr_store *s, mr_store_cb *cb, void *arg, int n, const mr_str *argv);
/* prefix + name, into out (truncation is an error of the caller: keys are <= 200 bytes). */
mr_str mr_store_key(const mr_store *s, char *out, size_t cap, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A Lua script by EVALSHA, loaded on first use and after NOSCRIPT. Same callback rules; keys come before args. */
typedef struct mr_script mr_script;
mr_script *mr_script_new(mr_store *s, const char *lua, mr_error *err); /* freed with the store */
void mr_script_run(mr_script *x, mr_store_cb *cb, void *arg, int nkeys, int n, const mr_str *keys_and_args);

/* Synchronous: connect with the configured timeout; the caller frees with redisFree. */
redisContext *mr_store_connect_sync(const mr_redis_conf *conf, mr_error *err);

#endif
