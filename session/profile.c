/* Profiles in Redis (see profile.h). */
#include "session/profile.h"

#include <stdio.h>
#include <string.h>

#define PROFILE "profile/%.*s/%.*s"

void mr_profile_load(mr_store *s, mr_str tenant, mr_str user, mr_store_cb *cb, void *arg) {
    char key[MR_PROFILE_KEY_MAX];
    mr_str k = mr_store_key(s, key, sizeof(key), PROFILE, MR_FMT(tenant), MR_FMT(user));
    mr_store_command(s, cb, arg, 3, (mr_str[]){MR_STR("HGET"), k, MR_STR("style")});
}

/* One command on a connection of its own; NULL and err when Redis does not do it. */
static redisReply *ask(const mr_redis_conf *redis, int n, const char **argv, mr_error *err) {
    redisContext *c = mr_store_connect_sync(redis, err);
    if (!c) return NULL;
    redisReply *r = redisCommandArgv(c, n, argv, NULL);
    if (!r || r->type == REDIS_REPLY_ERROR) {
        mr_fail(err, MR_EREDIS, "Redis at %s: %s", redis->address, r ? r->str : c->errstr);
        freeReplyObject(r);
        r = NULL;
    }
    redisFree(c);
    return r;
}

static void key_of(const mr_redis_conf *redis, mr_str tenant, mr_str user, char key[MR_PROFILE_KEY_MAX]) {
    snprintf(key, MR_PROFILE_KEY_MAX, "%s" PROFILE, redis->prefix, MR_FMT(tenant), MR_FMT(user));
}

int mr_profile_set(const mr_redis_conf *redis, mr_str tenant, mr_str user, const char *style, mr_error *err) {
    char key[MR_PROFILE_KEY_MAX];
    const char *set[] = {"HSET", key, "style", style}, *drop[] = {"DEL", key};
    key_of(redis, tenant, user, key);
    redisReply *r = style ? ask(redis, 4, set, err) : ask(redis, 2, drop, err);
    freeReplyObject(r);
    return r ? 0 : -1;
}

int mr_profile_get(const mr_redis_conf *redis, mr_str tenant, mr_str user, char style[65], mr_error *err) {
    char key[MR_PROFILE_KEY_MAX];
    const char *get[] = {"HGET", key, "style"};
    key_of(redis, tenant, user, key);
    redisReply *r = ask(redis, 3, get, err);
    if (!r) return -1;
    snprintf(style, 65, "%s", r->type == REDIS_REPLY_STRING ? r->str : "");
    freeReplyObject(r);
    return 0;
}
