/* How often a request was started and never ended, and by whom. See starts.h. */
#include "worker/starts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX     200
#define ATTEMPT_MAX 1000000 /* as the schema has it */

static const char claim_lua[] = "local v = redis.call('HMGET', KEYS[1], 'n', 'a', 'end')\n"
                                "local a = math.max((tonumber(v[2]) or 0) + 1, tonumber(ARGV[1]))\n"
                                "redis.call('HSET', KEYS[1], 'a', a)\n"
                                "redis.call('EXPIRE', KEYS[1], ARGV[2])\n"
                                "return {tonumber(v[1]) or 0, a, v[3] or ''}\n";

/* Of a request that nobody claimed here nothing is kept: there would be nothing to end its life. */
static const char change_lua[] = "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end\n"
                                 "return redis.call(ARGV[1], KEYS[1], 'n', ARGV[2])\n";

static const char end_lua[] = "redis.call('HSET', KEYS[1], 'n', 0, 'end', ARGV[1])\n"
                              "return redis.call('EXPIRE', KEYS[1], ARGV[2])\n";

struct mr_starts {
    mr_store *store;
    mr_script *claim, *change, *end;
};

typedef struct look {
    mr_starts_cb *cb;
    void *owner;
    int64_t least; /* the attempt without Redis */
    char place[48];
} look;

mr_starts *mr_starts_new(mr_store *store, mr_error *err) {
    mr_starts *t = calloc(1, sizeof(*t));
    if (!t) {
        mr_fail(err, MR_ENOMEM, "out of memory for the count of starts");
        return NULL;
    }
    t->store = store;
    t->claim = mr_script_new(store, claim_lua, err);
    if (t->claim) t->change = mr_script_new(store, change_lua, err);
    if (t->change) t->end = mr_script_new(store, end_lua, err);
    if (t->end) return t;
    free(t);
    return NULL;
}

void mr_starts_free(mr_starts *t) {
    free(t);
}

static mr_str key_of(const mr_starts *t, mr_str id, char out[KEY_MAX]) {
    return mr_store_key(t->store, out, KEY_MAX, "request:%.*s", MR_FMT(id));
}

static void put_place(char out[48], const mr_starts_record *r) {
    snprintf(out, 48, "%" PRId32 "/%" PRId64, r->partition, r->offset);
}

static int64_t least_attempt(const mr_starts_record *r) {
    int64_t age_s = r->timestamp_ms > 0 ? (mr_now_ms() - r->timestamp_ms) / 1000 : 0;
    if (age_s < 0) age_s = 0;
    return age_s < ATTEMPT_MAX ? age_s + 1 : ATTEMPT_MAX;
}

static bool is_claim(const redisReply *r) {
    return r && r->type == REDIS_REPLY_ARRAY && r->elements == 3 &&
           r->element[0]->type == REDIS_REPLY_INTEGER && r->element[1]->type == REDIS_REPLY_INTEGER &&
           r->element[2]->type == REDIS_REPLY_STRING;
}

static void on_claim(void *arg, const redisReply *reply) {
    look *l = arg;
    if (is_claim(reply)) {
        int64_t starts = reply->element[0]->integer, attempt = reply->element[1]->integer;
        l->cb(l->owner, starts > 0 ? starts : 0, attempt < ATTEMPT_MAX ? attempt : ATTEMPT_MAX,
              strcmp(reply->element[2]->str, l->place) == 0);
    } else {
        l->cb(l->owner, 0, l->least, false);
    }
    free(l);
}

void mr_starts_claim(mr_starts *t, const mr_starts_record *r, mr_starts_cb *cb, void *owner) {
    char key[KEY_MAX], least[24], ttl[16];
    look *l = malloc(sizeof(*l));
    if (!l) {
        cb(owner, 0, least_attempt(r), false);
        return;
    }
    *l = (look){.cb = cb, .owner = owner, .least = least_attempt(r)};
    put_place(l->place, r);
    snprintf(least, sizeof(least), "%" PRId64, l->least);
    snprintf(ttl, sizeof(ttl), "%d", MR_STARTS_TTL_S);
    mr_script_run(t->claim, on_claim, l, 1, 3,
                  (mr_str[]){key_of(t, r->id, key), mr_str_of(least), mr_str_of(ttl)});
}

static void change(mr_starts *t, mr_str id, mr_str command, int64_t starts) {
    char key[KEY_MAX], value[24];
    snprintf(value, sizeof(value), "%" PRId64, starts);
    mr_script_run(t->change, NULL, NULL, 1, 3, (mr_str[]){key_of(t, id, key), command, mr_str_of(value)});
}

void mr_starts_add(mr_starts *t, mr_str id, int64_t starts) {
    change(t, id, MR_STR("HINCRBY"), starts);
}

void mr_starts_set(mr_starts *t, mr_str id, int64_t starts) {
    change(t, id, MR_STR("HSET"), starts);
}

void mr_starts_end(mr_starts *t, const mr_starts_record *r) {
    char key[KEY_MAX], place[48], ttl[16];
    put_place(place, r);
    snprintf(ttl, sizeof(ttl), "%d", MR_ENDED_TTL_S);
    mr_script_run(t->end, NULL, NULL, 1, 3,
                  (mr_str[]){key_of(t, r->id, key), mr_str_of(place), mr_str_of(ttl)});
}
