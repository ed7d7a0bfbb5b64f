/* A sorted set of holders by the time their leases end. See lease.h. */
#include "worker/lease.h"

#include <stdio.h>
#include <stdlib.h>

#define KEY_MAX 200

static const char take_lua[] = "local t = redis.call('TIME')\n"
                               "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
                               "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)\n"
                               "if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', "
                               "KEYS[1]) >= tonumber(ARGV[2]) then\n"
                               "  return 0\n"
                               "end\n"
                               "redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])\n"
                               "redis.call('PEXPIRE', KEYS[1], ARGV[3])\n"
                               "return 1\n";

/* What outlives the lease until Redis has answered. */
typedef struct question {
    mr_lease *l; /* NULL: freed meanwhile */
} question;

struct mr_lease {
    mr_store *store;
    mr_script *take;
    mr_lease_options opt;
    char key[KEY_MAX], at_once[16], ttl[16];
    question *asked; /* NULL: no answer is outstanding */
};

mr_lease *mr_lease_new(mr_store *store, const mr_lease_options *opt, mr_error *err) {
    mr_lease *l = calloc(1, sizeof(*l));
    if (!l) {
        mr_fail(err, MR_ENOMEM, "out of memory for a lease");
        return NULL;
    }
    l->store = store;
    l->opt = *opt;
    mr_store_key(store, l->key, sizeof(l->key), "%s", opt->name);
    snprintf(l->at_once, sizeof(l->at_once), "%d", opt->at_once);
    snprintf(l->ttl, sizeof(l->ttl), "%d", opt->ttl_ms);
    l->take = mr_script_new(store, take_lua, err);
    if (l->take) return l;
    free(l);
    return NULL;
}

static void on_reply(void *arg, const redisReply *reply) {
    question *q = arg;
    mr_lease *l = q->l;
    free(q);
    if (!l) return;
    l->asked = NULL;
    /* no answer, or an error: there is no Redis to ask */
    l->opt.cb(l->opt.arg, !reply || reply->type != REDIS_REPLY_INTEGER || reply->integer == 1);
}

void mr_lease_ask(mr_lease *l) {
    if (l->asked) return;
    question *q = malloc(sizeof(*q));
    if (!q) {
        l->opt.cb(l->opt.arg, false);
        return;
    }
    q->l = l;
    l->asked = q;
    mr_script_run(
        l->take, on_reply, q, 1, 4,
        (mr_str[]){mr_str_of(l->key), mr_str_of(l->opt.holder), mr_str_of(l->at_once), mr_str_of(l->ttl)});
}

void mr_lease_release(mr_lease *l) {
    mr_store_command(l->store, NULL, NULL, 3,
                     (mr_str[]){MR_STR("ZREM"), mr_str_of(l->key), mr_str_of(l->opt.holder)});
}

void mr_lease_free(mr_lease *l) {
    if (!l) return;
    if (l->asked) l->asked->l = NULL;
    mr_lease_release(l);
    free(l);
}
