/* Limits (see limits.h): the script, its local twin, and what a request holds of either. */
#include "gateway/limits.h"

#include "base/log.h"
#include "base/store.h"
#include "schemas/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPES         3
#define SCOPE_NAME_MAX (MR_TENANT_MAX + 16)
#define ARG_MAX        24
#define MINUTE_MS      60000.0
#define BUSY_WAIT_MS                                                                                         \
    1000 /* when to try again while too many are being answered: nobody knows when one ends */
#define PLACE_SPARE 60000 /* ms that a place outlives the longest answer: its gateway died */
#define NBUCKETS    4096  /* of the table, a power of two */

static const char *const scope_names[SCOPES] = {"key", "tenant", "global"};
static const char *const kind_names[] = {"", "requests", "tokens", "concurrent"};

/* What both scripts begin with. A bucket is a hash: `r` and `t`, the requests and tokens in it (tokens may be owed) at the time
 * `at`; a missing one is full. It is forgotten once it must be full again. */
#define LUA_BUCKETS                                                                                          \
    "local time = redis.call('TIME')\n"                                                                      \
    "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"                                              \
    "local function fill(limit, had, at)\n"                                                                  \
    "  return math.min(limit, (tonumber(had) or limit) + math.max(0, now - at) * limit / 60000)\n"           \
    "end\n"                                                                                                  \
    "local function wait(limit, has, wants)\n"                                                               \
    "  if limit == 0 or has >= wants then return 0 end\n"                                                    \
    "  return math.ceil((wants - has) * 60000 / limit)\n"                                                    \
    "end\n"                                                                                                  \
    "local function read(i, first)\n"                                                                        \
    "  local b = redis.call('HMGET', KEYS[2 * i - 1], 'r', 't', 'at')\n"                                     \
    "  local at, s = tonumber(b[3]) or now, {}\n"                                                            \
    "  s.rl, s.tl, s.cl = tonumber(ARGV[first]), tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])\n"     \
    "  s.r, s.t = fill(s.rl, b[1], at), fill(s.tl, b[2], at)\n"                                              \
    "  return s\n"                                                                                           \
    "end\n"                                                                                                  \
    "local function write(i, s)\n"                                                                           \
    "  local full = math.max(wait(s.rl, s.r, s.rl), wait(s.tl, s.t, s.tl))\n"                                \
    "  redis.call('HSET', KEYS[2 * i - 1], 'r', s.r, 't', s.t, 'at', now)\n"                                 \
    "  redis.call('PEXPIRE', KEYS[2 * i - 1], full + 60000)\n"                                               \
    "end\n"

/* ARGV: id, tokens, how long a place lasts, then three limits a scope. KEYS: a bucket and the places taken, a scope. */
static const char take_lua[] =
    LUA_BUCKETS "local want, n = tonumber(ARGV[2]), #KEYS / 2\n"
                "local all, kind, scope, longest = {}, 0, 0, 0\n"
                "local function refuse(k, i, ms)\n"
                "  if ms > longest then kind, scope, longest = k, i, ms end\n"
                "end\n"
                "for i = 1, n do\n"
                "  local s = read(i, 3 * i + 1)\n"
                "  all[i] = s\n"
                "  refuse(1, i, wait(s.rl, s.r, 1))\n"
                "  refuse(2, i, wait(s.tl, s.t, math.min(want, s.tl)))\n"
                "  if s.cl > 0 then\n"
                "    redis.call('ZREMRANGEBYSCORE', KEYS[2 * i], '-inf', now)\n"
                "    if redis.call('ZCARD', KEYS[2 * i]) >= s.cl then refuse(3, i, 1000) end\n"
                "  end\n"
                "end\n"
                "local r, t = nil, nil\n"
                "for i, s in ipairs(all) do\n"
                "  if kind == 0 then\n"
                "    if s.rl > 0 then s.r = s.r - 1 end\n"
                "    if s.tl > 0 then s.t = s.t - want end\n"
                "    write(i, s)\n"
                "    if s.cl > 0 then\n"
                "      redis.call('ZADD', KEYS[2 * i], now + ARGV[3], ARGV[1])\n"
                "      redis.call('PEXPIRE', KEYS[2 * i], ARGV[3])\n"
                "    end\n"
                "  end\n"
                "  if s.rl > 0 and (not r or s.r < r.r) then r = s end\n"
                "  if s.tl > 0 and (not t or s.t < t.t) then t = s end\n"
                "end\n"
                "r, t = r or {rl = 0, r = 0}, t or {tl = 0, t = 0}\n"
                "return {kind, scope, longest, r.rl, math.floor(math.max(0, r.r)), wait(r.rl, r.r, r.rl),\n"
                "        t.tl, math.floor(math.max(0, t.t)), wait(t.tl, t.t, t.tl)}\n";

/* ARGV: id, requests and tokens to give back (tokens may be taken further), then as above. */
static const char settle_lua[] =
    LUA_BUCKETS "for i = 1, #KEYS / 2 do\n"
                "  local s = read(i, 3 * i + 1)\n"
                "  s.r, s.t = math.min(s.rl, s.r + ARGV[2]), math.min(s.tl, s.t + ARGV[3])\n"
                "  write(i, s)\n"
                "  redis.call('ZREM', KEYS[2 * i], ARGV[1])\n"
                "end\n"
                "return 0\n";

typedef struct scope {
    int which; /* of scope_names */
    mr_limits limits;
    char name[SCOPE_NAME_MAX];
} scope;

/* A bucket of this process alone: as many as there are keys and tenants. */
typedef struct bucket {
    struct bucket *next;
    double requests, tokens;
    int64_t at_us, running;
    char name[SCOPE_NAME_MAX];
} bucket;

struct mr_limiter {
    const mr_gateway_conf *conf;
    mr_limits limits[SCOPES];
    mr_store *store; /* NULL: no limit can apply */
    mr_script *take, *settle;
    bucket *buckets[NBUCKETS];
    bool closing, broken; /* broken: Redis does not run the script, which was said */
    mr_counter *refused[SCOPES][MR_LIMIT_UNAVAILABLE], *unavailable, *without;
};

struct mr_hold {
    mr_limiter *of;
    char id[MR_KEY_ID_LEN + 64];
    int64_t tokens;
    int n;
    scope scopes[SCOPES];
    bool in_redis, in_call, abandoned;
    mr_limit_cb *cb;
    void *arg;
    mr_limit_verdict verdict; /* in_call: what came before mr_limiter_take returned */
    bool decided;
};

/* ---- who is limited by what ---- */

static bool is_limited(const mr_limits *l) {
    return l->requests > 0 || l->tokens > 0 || l->concurrent > 0;
}

static int fill_scopes(const mr_limiter *l, const mr_grant *who, scope out[SCOPES]) {
    const mr_limits *limits[SCOPES] = {who->limited ? &who->limits : &l->limits[0], &l->limits[1],
                                       &l->limits[2]};
    const char *names[SCOPES] = {who->key, who->tenant, ""};
    int n = 0;
    for (int i = 0; i < SCOPES; i++) {
        if (!is_limited(limits[i])) continue;
        out[n] = (scope){.which = i, .limits = *limits[i]};
        snprintf(out[n++].name, SCOPE_NAME_MAX, "%s/%s", scope_names[i], names[i]);
    }
    return n;
}

bool mr_limiter_applies(const mr_limiter *l, const mr_grant *who) {
    scope scopes[SCOPES];
    return l->store && fill_scopes(l, who, scopes) > 0;
}

/* ---- buckets of our own ---- */

static double least(double a, double b) {
    return a < b ? a : b;
}

/* Filled up to now; NULL when out of memory. */
static bucket *bucket_of(mr_limiter *l, const scope *s) {
    uint64_t hash = mr_text_hash_feed(mr_text_hash_init(), mr_str_of(s->name));
    bucket **at = &l->buckets[hash & (NBUCKETS - 1)], *b = *at;
    int64_t now = mr_mono_us();
    while (b && strcmp(b->name, s->name) != 0) b = b->next;
    if (!b) {
        b = calloc(1, sizeof(*b));
        if (!b) return NULL;
        *b = (bucket){*at, (double)s->limits.requests, (double)s->limits.tokens, now, 0, ""};
        memcpy(b->name, s->name, sizeof(b->name));
        *at = b;
    }
    double minutes = (double)(now - b->at_us) / 60e6;
    double requests = (double)s->limits.requests, tokens = (double)s->limits.tokens;
    b->requests = least(requests, b->requests + minutes * requests);
    b->tokens = least(tokens, b->tokens + minutes * tokens);
    b->at_us = now;
    return b;
}

static int64_t wait_ms(int64_t limit, double has, double wants) {
    if (limit == 0 || has >= wants) return 0;
    return (int64_t)ceil((wants - has) * MINUTE_MS / (double)limit);
}

static void refuse(mr_limit_verdict *v, mr_limit_kind kind, const scope *s, int64_t ms) {
    if (ms <= v->retry_ms) return;
    v->refused = kind;
    v->scope = scope_names[s->which];
    v->retry_ms = ms;
}

static void lessen(mr_limit_left *left, int64_t limit, double has) {
    int64_t whole = has > 0 ? (int64_t)has : 0;
    if (limit == 0 || (left->limit && whole >= left->left)) return;
    *left = (mr_limit_left){limit, whole, wait_ms(limit, has, (double)limit)};
}

static void take_here(mr_hold *h, mr_limit_verdict *v) {
    bucket *b[SCOPES];
    *v = (mr_limit_verdict){0};
    for (int i = 0; i < h->n; i++) {
        const scope *s = &h->scopes[i];
        b[i] = bucket_of(h->of, s);
        if (!b[i]) {
            v->refused = MR_LIMIT_UNAVAILABLE;
            return;
        }
        refuse(v, MR_LIMIT_REQUESTS, s, wait_ms(s->limits.requests, b[i]->requests, 1));
        double wants = least((double)h->tokens, (double)s->limits.tokens);
        refuse(v, MR_LIMIT_TOKENS, s, wait_ms(s->limits.tokens, b[i]->tokens, wants));
        bool busy = s->limits.concurrent > 0 && b[i]->running >= s->limits.concurrent;
        if (busy) refuse(v, MR_LIMIT_CONCURRENT, s, BUSY_WAIT_MS);
    }
    for (int i = 0; i < h->n; i++) {
        if (v->refused == MR_LIMIT_NONE) {
            if (h->scopes[i].limits.requests > 0) b[i]->requests -= 1;
            if (h->scopes[i].limits.tokens > 0) b[i]->tokens -= (double)h->tokens;
            b[i]->running++;
        }
        lessen(&v->requests, h->scopes[i].limits.requests, b[i]->requests);
        lessen(&v->tokens, h->scopes[i].limits.tokens, b[i]->tokens);
    }
}

static void settle_here(const mr_hold *h, int64_t requests, int64_t tokens) {
    for (int i = 0; i < h->n; i++) {
        bucket *b = bucket_of(h->of, &h->scopes[i]);
        if (!b) continue;
        b->requests = least((double)h->scopes[i].limits.requests, b->requests + (double)requests);
        b->tokens = least((double)h->scopes[i].limits.tokens, b->tokens + (double)tokens);
        b->running--;
    }
}

/* ---- Redis ---- */

/* The keys and arguments of both scripts: what is the same in them. */
typedef struct script_args {
    char keys[2 * SCOPES][SCOPE_NAME_MAX + 150], numbers[3 * SCOPES + 2][ARG_MAX];
    mr_str v[2 * SCOPES + 3 + 3 * SCOPES];
    int nkeys, n;
} script_args;

static mr_str number(char out[ARG_MAX], int64_t value) {
    int n = snprintf(out, ARG_MAX, "%lld", (long long)value);
    return (mr_str){out, (size_t)n};
}

static void fill_args(const mr_hold *h, int64_t second, int64_t third, script_args *a) {
    const mr_store *store = h->of->store;
    a->n = 0;
    for (int i = 0; i < h->n; i++) {
        const char *name = h->scopes[i].name;
        char *level = a->keys[2 * i], *places = a->keys[2 * i + 1];
        a->v[a->n++] = mr_store_key(store, level, sizeof(a->keys[0]), "limit/%s", name);
        a->v[a->n++] = mr_store_key(store, places, sizeof(a->keys[0]), "running/%s", name);
    }
    a->nkeys = a->n;
    a->v[a->n++] = mr_str_of(h->id);
    a->v[a->n++] = number(a->numbers[0], second);
    a->v[a->n++] = number(a->numbers[1], third);
    for (int i = 0; i < h->n; i++) {
        const mr_limits *l = &h->scopes[i].limits;
        const int64_t limits[3] = {l->requests, l->tokens, l->concurrent};
        for (int k = 0; k < 3; k++) a->v[a->n++] = number(a->numbers[2 + 3 * i + k], limits[k]);
    }
}

static void without_redis(mr_hold *h, mr_limit_verdict *v) {
    mr_limiter *l = h->of;
    bool closed = strcmp(l->conf->limits_without_redis, "closed") == 0 || l->closing;
    mr_counter_add(l->without, 1);
    *v = (mr_limit_verdict){.refused = closed ? MR_LIMIT_UNAVAILABLE : MR_LIMIT_NONE};
    if (closed) return;
    if (strcmp(l->conf->limits_without_redis, "open") == 0) {
        h->n = 0;
    } else {
        take_here(h, v);
    }
}

static bool read_reply(mr_hold *h, const redisReply *r, mr_limit_verdict *v) {
    int64_t x[9];
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 9) return false;
    for (int i = 0; i < 9; i++) x[i] = r->element[i]->integer;
    if (x[0] < 0 || x[0] > MR_LIMIT_CONCURRENT || x[1] < 0 || x[1] > h->n) return false;
    *v = (mr_limit_verdict){.refused = (mr_limit_kind)x[0],
                            .retry_ms = x[2],
                            .requests = {x[3], x[4], x[5]},
                            .tokens = {x[6], x[7], x[8]}};
    if (x[1] > 0) v->scope = scope_names[h->scopes[x[1] - 1].which];
    return true;
}

static void say_broken(mr_limiter *l, const redisReply *r) {
    if (!l->broken) {
        mr_log(MR_ERROR, "redis does not count the limits",
               MR_S("error", r->type == REDIS_REPLY_ERROR ? r->str : "an unexpected reply"));
    }
    l->broken = true;
}

/* ---- verdicts ---- */

static void count(mr_limiter *l, const mr_limit_verdict *v) {
    if (v->refused == MR_LIMIT_UNAVAILABLE) mr_counter_add(l->unavailable, 1);
    for (int i = 0; v->scope && i < SCOPES; i++) {
        if (strcmp(v->scope, scope_names[i]) == 0) mr_counter_add(l->refused[i][v->refused], 1);
    }
}

static void give_back(mr_hold *h, int64_t requests, int64_t tokens) {
    script_args a;
    if (h->in_redis) {
        fill_args(h, requests, tokens, &a);
        /* Should Redis be away now, the place comes free by its time, and the guess stands. */
        mr_script_run(h->of->settle, NULL, NULL, a.nkeys, a.n, a.v);
    } else {
        settle_here(h, requests, tokens);
    }
    free(h);
}

static void decide(mr_hold *h, const mr_limit_verdict *v) {
    if (h->abandoned) {
        if (v->refused == MR_LIMIT_NONE) {
            give_back(h, 1, h->tokens);
        } else {
            free(h);
        }
        return;
    }
    count(h->of, v);
    h->verdict = *v;
    h->decided = true;
    if (h->in_call) return;
    mr_limit_cb *cb = h->cb;
    void *arg = h->arg;
    if (v->refused != MR_LIMIT_NONE) free(h);
    cb(arg, v);
}

static void on_taken(void *arg, const redisReply *reply) {
    mr_hold *h = arg;
    mr_limit_verdict v;
    if (reply && read_reply(h, reply, &v)) {
        h->in_redis = true;
        h->of->broken = false;
    } else {
        if (reply) say_broken(h->of, reply);
        without_redis(h, &v);
    }
    decide(h, &v);
}

bool mr_limiter_take(mr_limiter *l, const mr_grant *who, const char *id, int64_t tokens, mr_hold **hold,
                     mr_limit_verdict *v, mr_limit_cb *cb, void *arg) {
    script_args a;
    mr_hold *h = *hold = calloc(1, sizeof(*h));
    if (!h) {
        *v = (mr_limit_verdict){.refused = MR_LIMIT_UNAVAILABLE};
        return true;
    }
    *h = (mr_hold){.of = l, .tokens = tokens, .cb = cb, .arg = arg, .in_call = true};
    snprintf(h->id, sizeof(h->id), "%s", id);
    h->n = fill_scopes(l, who, h->scopes);
    if (mr_store_up(l->store)) {
        int64_t place = l->conf->request_timeout_s * 1000 + PLACE_SPARE;
        fill_args(h, tokens, place, &a);
        mr_script_run(l->take, on_taken, h, a.nkeys, a.n, a.v);
    } else {
        on_taken(h, NULL);
    }
    h->in_call = false;
    if (!h->decided) return false;
    *v = h->verdict;
    if (v->refused != MR_LIMIT_NONE) {
        free(h);
        *hold = NULL;
    }
    return true;
}

void mr_hold_abandon(mr_hold *h) {
    h->abandoned = true;
}

void mr_hold_settle(mr_hold *h, int64_t tokens) {
    if (h) give_back(h, 0, h->tokens - tokens);
}

void mr_hold_return(mr_hold *h) {
    if (h) give_back(h, 1, h->tokens);
}

/* ---- the whole ---- */

static void register_metrics(mr_limiter *l, mr_metrics *m) {
    char labels[60];
    for (int i = 0; i < SCOPES; i++) {
        for (int k = MR_LIMIT_REQUESTS; k <= MR_LIMIT_CONCURRENT; k++) {
            snprintf(labels, sizeof(labels), "scope=\"%s\",limit=\"%s\"", scope_names[i], kind_names[k]);
            l->refused[i][k] = mr_counter_new(m, "millrace_gateway_limited_requests_total", labels,
                                              "Requests refused by a limit (429).");
        }
    }
    l->unavailable = mr_counter_new(m, "millrace_gateway_limits_unavailable_requests_total", NULL,
                                    "Requests refused because the limits could not be counted (503).");
    l->without = mr_counter_new(m, "millrace_gateway_limits_without_redis_total", NULL,
                                "Requests whose limits were counted without Redis, or not at all.");
}

static int open_store(mr_limiter *l, const mr_redis_conf *redis, mr_loop *loop, mr_metrics *m,
                      mr_error *err) {
    register_metrics(l, m);
    l->store = mr_store_new(redis, loop, m, "gateway", err);
    if (l->store) l->take = mr_script_new(l->store, take_lua, err);
    if (l->take) l->settle = mr_script_new(l->store, settle_lua, err);
    return l->settle ? 0 : -1;
}

static int read_limits(mr_limiter *l, bool *any, mr_error *err) {
    const char *text[SCOPES] = {l->conf->limits_key, l->conf->limits_tenant, l->conf->limits_global};
    *any = l->conf->keys_file && *l->conf->keys_file; /* its keys may have limits of their own */
    for (int i = 0; i < SCOPES; i++) {
        if (mr_limits_parse(mr_str_of(text[i]), &l->limits[i], err) < 0) {
            return mr_fail_in(err, "gateway.limits_%s", scope_names[i]);
        }
        *any = *any || is_limited(&l->limits[i]);
    }
    return 0;
}

mr_limiter *mr_limiter_new(const mr_gateway_conf *conf, const mr_redis_conf *redis, mr_loop *loop,
                           mr_metrics *m, mr_error *err) {
    bool any;
    mr_limiter *l = calloc(1, sizeof(*l));
    if (!l) {
        mr_fail(err, MR_ENOMEM, "out of memory for limits");
        return NULL;
    }
    l->conf = conf;
    if (read_limits(l, &any, err) == 0 && (!any || open_store(l, redis, loop, m, err) == 0)) return l;
    mr_limiter_free(l);
    return NULL;
}

void mr_limiter_free(mr_limiter *l) {
    if (!l) return;
    l->closing = true;
    mr_store_free(l->store);
    for (int i = 0; i < NBUCKETS; i++) {
        for (bucket *b = l->buckets[i], *next; b; b = next) {
            next = b->next;
            free(b);
        }
    }
    free(l);
}

void mr_limit_time(int64_t ms, char out[MR_LIMIT_TIME_MAX]) {
    long long s = ms / 1000;
    if (ms < 1000) {
        snprintf(out, MR_LIMIT_TIME_MAX, "%lldms", (long long)ms);
    } else if (s < 60) {
        snprintf(out, MR_LIMIT_TIME_MAX, "%llds", s + (ms % 1000 > 0));
    } else {
        s += ms % 1000 > 0;
        snprintf(out, MR_LIMIT_TIME_MAX, "%lldm%llds", s / 60, s % 60);
    }
}
