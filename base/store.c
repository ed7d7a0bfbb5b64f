/* The store (see store.h): an asynchronous hiredis client that comes back by itself.
 *
 * All of it runs on the loop's thread. Redis answers in order, so one queue of calls has the oldest unanswered one at
 * its head: when that is older than the timeout, the connection is given up and everything in it fails. */
#include "base/store.h"

#include "base/log.h"

#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define TICKS         10  /* times within redis.timeout_ms that the limits are looked at… */
#define TICK_MOST     100 /* …but no rarer than this many milliseconds */
#define BACKOFF_FIRST 100
#define BACKOFF_LAST  5000
#define MAX_CALLS     10000 /* unanswered commands; more fail at once */
#define MAX_ARGS      64

typedef enum { STORE_OFF, STORE_AWAY, STORE_CONNECTING, STORE_UP } store_state;
static const char *const state_names[] = {"off", "away", "connecting", "up"};

struct mr_script {
    struct mr_script *next;
    mr_store *store;
    char sha[41]; /* empty until Redis told it */
    size_t len;
    char text[];
};

struct mr_store {
    mr_loop *loop;
    mr_timer *timer;
    redisAsyncContext *ac;
    store_state state;
    char host[256];
    int port, timeout_ms, backoff_ms;
    const char *user, *password, *prefix; /* the mr_conf's */
    int64_t since_us, retry_us;           /* when the connection attempt began; when the next one is due */
    struct call *oldest, **newest;        /* unanswered, in the order sent */
    int ncalls;
    mr_script *scripts;
    mr_gauge *up;
    mr_counter *commands, *failed;
    mr_histogram *seconds;
};

/* A command on its way. It is in the store's queue until answered, and belongs to hiredis's reply callback. */
typedef struct call {
    struct call *next;
    mr_store *store;
    mr_store_cb *cb;
    void *arg;
    int64_t sent_us;
    mr_script *script; /* of a script's run: what to do on NOSCRIPT */
    int nkeys, n;
    mr_str argv[]; /* the run's keys and arguments; their bytes follow */
} call;

/* ---- state ---- */

static void set_state(mr_store *s, store_state state, const char *why) {
    if (state == s->state) return;
    /* going back and forth between away and connecting is not news */
    bool news = state == STORE_UP || s->state == STORE_UP || state == STORE_OFF;
    mr_log(!news               ? MR_DEBUG
           : state == STORE_UP ? MR_INFO
                               : MR_WARN,
           "redis", MR_S("state", state_names[state]), MR_S("address", s->host), MR_I("port", s->port),
           MR_S("reason", why));
    s->state = state;
    mr_gauge_set(s->up, state == STORE_UP ? 1 : 0);
}

/* Half to all of the current wait, so that many processes do not come back in step. */
static void schedule_retry(mr_store *s) {
    unsigned r = 0;
    if (getrandom(&r, sizeof(r), GRND_NONBLOCK) < 0) r = (unsigned)mr_mono_us();
    int half = s->backoff_ms / 2;
    s->retry_us = mr_mono_us() + (half + (int)(r % (unsigned)(half + 1))) * 1000LL;
    s->backoff_ms = s->backoff_ms * 2 > BACKOFF_LAST ? BACKOFF_LAST : s->backoff_ms * 2;
}

static void gone(mr_store *s, const char *why) {
    s->ac = NULL;
    set_state(s, STORE_AWAY, why);
    schedule_retry(s);
}

/* Gives the connection up: hiredis answers every outstanding command with NULL. */
static void drop(mr_store *s, const char *why) {
    redisAsyncContext *ac = s->ac;
    if (!ac) return;
    ac->data = NULL; /* its disconnect callback is not news any more */
    gone(s, why);
    redisAsyncFree(ac);
}

/* ---- commands ---- */

static void queue_remove_oldest(mr_store *s, call *c) {
    s->oldest = c->next;
    if (!s->oldest) s->newest = &s->oldest;
    s->ncalls--;
}

static int send_call(mr_store *s, call *c, redisCallbackFn *fn, int n, const mr_str *argv) {
    const char *p[MAX_ARGS];
    size_t len[MAX_ARGS];
    if (s->state != STORE_UP || s->ncalls >= MAX_CALLS || n > MAX_ARGS) return -1;
    for (int i = 0; i < n; i++) {
        p[i] = argv[i].p ? argv[i].p : "";
        len[i] = argv[i].n;
    }
    if (redisAsyncCommandArgv(s->ac, fn, c, n, p, len) != REDIS_OK) return -1;
    c->sent_us = mr_mono_us();
    c->next = NULL;
    *s->newest = c;
    s->newest = &c->next;
    s->ncalls++;
    mr_counter_add(s->commands, 1);
    return 0;
}

static void answer(mr_store *s, call *c, const redisReply *reply) {
    if (!reply) mr_counter_add(s->failed, 1);
    if (c->cb) c->cb(c->arg, reply);
    free(c);
}

static void on_reply(redisAsyncContext *ac, void *reply, void *privdata) {
    call *c = privdata;
    mr_store *s = c->store;
    (void)ac;
    queue_remove_oldest(s, c);
    mr_histogram_observe(s->seconds, (double)(mr_mono_us() - c->sent_us) / 1e6);
    answer(s, c, reply);
}

static call *call_new(mr_store *s, mr_store_cb *cb, void *arg) {
    call *c = calloc(1, sizeof(*c));
    if (c) *c = (call){.store = s, .cb = cb, .arg = arg};
    return c;
}

static void fail_now(mr_store *s, mr_store_cb *cb, void *arg) {
    mr_counter_add(s->failed, 1);
    if (cb) cb(arg, NULL);
}

void mr_store_command(mr_store *s, mr_store_cb *cb, void *arg, int n, const mr_str *argv) {
    call *c = s->state == STORE_UP ? call_new(s, cb, arg) : NULL;
    if (!c) {
        fail_now(s, cb, arg);
    } else if (send_call(s, c, on_reply, n, argv) != 0) {
        answer(s, c, NULL);
    }
}

mr_str mr_store_key(const mr_store *s, char *out, size_t cap, const char *fmt, ...) {
    va_list ap;
    int n = snprintf(out, cap, "%s", s->prefix);
    if (n < 0 || (size_t)n >= cap) return (mr_str){out, cap - 1};
    va_start(ap, fmt);
    int k = vsnprintf(out + n, cap - (size_t)n, fmt, ap);
    va_end(ap);
    size_t len = (size_t)n + (k > 0 ? (size_t)k : 0);
    return (mr_str){out, len < cap ? len : cap - 1};
}

/* ---- scripts: EVALSHA once Redis has told the hash, EVAL before that and after it forgot ---- */

static void on_script_loaded(void *arg, const redisReply *r) {
    mr_script *x = arg;
    if (r && r->type == REDIS_REPLY_STRING && (size_t)r->len == sizeof(x->sha) - 1) {
        memcpy(x->sha, r->str, sizeof(x->sha) - 1);
    } else if (r && r->type == REDIS_REPLY_ERROR) {
        mr_log(MR_ERROR, "redis refused a script", MR_S("error", r->str));
    }
}

static void load_script(mr_script *x) {
    mr_str argv[] = {MR_STR("SCRIPT"), MR_STR("LOAD"), {x->text, x->len}};
    mr_store_command(x->store, on_script_loaded, x, 3, argv);
}

mr_script *mr_script_new(mr_store *s, const char *lua, mr_error *err) {
    size_t n = strlen(lua);
    mr_script *x = calloc(1, sizeof(*x) + n + 1);
    if (!x) {
        mr_fail(err, MR_ENOMEM, "out of memory while preparing a Redis script");
        return NULL;
    }
    x->store = s;
    x->len = n;
    memcpy(x->text, lua, n);
    x->next = s->scripts;
    s->scripts = x;
    if (s->state == STORE_UP) load_script(x);
    return x;
}

static void on_script_reply(redisAsyncContext *ac, void *reply, void *privdata);

static int send_run(call *c, bool by_hash) {
    mr_script *x = c->script;
    mr_str argv[MAX_ARGS];
    char nkeys[16];
    if (c->n + 3 > MAX_ARGS) return -1;
    int n = snprintf(nkeys, sizeof(nkeys), "%d", c->nkeys);
    argv[0] = by_hash ? MR_STR("EVALSHA") : MR_STR("EVAL");
    argv[1] = by_hash ? mr_str_of(x->sha) : (mr_str){x->text, x->len};
    argv[2] = (mr_str){nkeys, (size_t)n};
    if (c->n > 0) memcpy(argv + 3, c->argv, (size_t)c->n * sizeof(mr_str));
    return send_call(c->store, c, on_script_reply, c->n + 3, argv);
}

static void on_script_reply(redisAsyncContext *ac, void *reply, void *privdata) {
    call *c = privdata;
    const redisReply *r = reply;
    mr_store *s = c->store;
    (void)ac;
    queue_remove_oldest(s, c);
    mr_histogram_observe(s->seconds, (double)(mr_mono_us() - c->sent_us) / 1e6);
    bool forgotten = r && r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) == 0;
    if (!forgotten) {
        answer(s, c, r);
    } else if (send_run(c, false) != 0) { /* EVAL also puts the script back */
        answer(s, c, NULL);
    }
}

/* A call that carries its own copy of the arguments, since NOSCRIPT needs them a second time. */
static call *run_new(mr_script *x, mr_store_cb *cb, void *arg, int nkeys, int n, const mr_str *argv) {
    size_t bytes = 0;
    for (int i = 0; i < n; i++) bytes += argv[i].n;
    call *c = calloc(1, sizeof(*c) + (size_t)n * sizeof(mr_str) + bytes);
    if (!c) return NULL;
    *c = (call){.store = x->store, .cb = cb, .arg = arg, .script = x, .nkeys = nkeys, .n = n};
    char *at = (char *)(c->argv + n);
    for (int i = 0; i < n; i++) {
        if (argv[i].n > 0) memcpy(at, argv[i].p, argv[i].n);
        c->argv[i] = (mr_str){at, argv[i].n};
        at += argv[i].n;
    }
    return c;
}

void mr_script_run(mr_script *x, mr_store_cb *cb, void *arg, int nkeys, int n, const mr_str *keys_and_args) {
    mr_store *s = x->store;
    call *c = s->state == STORE_UP ? run_new(x, cb, arg, nkeys, n, keys_and_args) : NULL;
    if (!c) {
        fail_now(s, cb, arg);
    } else if (send_run(c, x->sha[0] != '\0') != 0) {
        answer(s, c, NULL);
    }
}

/* ---- connecting ---- */

static void on_auth(void *arg, const redisReply *r) {
    mr_store *s = arg;
    if (!r || r->type != REDIS_REPLY_ERROR) return;
    mr_log(MR_ERROR, "redis refused the password (redis.password)", MR_S("error", r->str));
    drop(s, "password refused");
}

static void on_connect(const redisAsyncContext *ac, int status) {
    mr_store *s = ac->data;
    if (!s) return;
    if (status != REDIS_OK) { /* hiredis frees the context itself */
        gone(s, ac->errstr);
        return;
    }
    s->backoff_ms = BACKOFF_FIRST;
    set_state(s, STORE_UP, "connected");
    if (*s->password) {
        mr_str argv[] = {MR_STR("AUTH"), mr_str_of(s->user), mr_str_of(s->password)};
        if (!s->user) argv[1] = argv[2];
        mr_store_command(s, on_auth, s, s->user ? 3 : 2, argv);
    }
    for (mr_script *x = s->scripts; x; x = x->next) load_script(x);
}

static void on_disconnect(const redisAsyncContext *ac, int status) {
    mr_store *s = ac->data;
    if (s) gone(s, status == REDIS_OK ? "closed" : ac->errstr);
}

/* The name is looked up here, on the loop's thread: give an address, or a name that resolves at once. */
static void connect_now(mr_store *s) {
    s->since_us = mr_mono_us();
    redisAsyncContext *ac = redisAsyncConnect(s->host, s->port);
    if (!ac) {
        gone(s, "out of memory");
        return;
    }
    if (ac->err) {
        gone(s, ac->errstr);
        redisAsyncFree(ac);
        return;
    }
    if (redisLibeventAttach(ac, mr_loop_base(s->loop)) != REDIS_OK) {
        gone(s, "the event loop refused the connection");
        redisAsyncFree(ac);
        return;
    }
    ac->data = s;
    s->ac = ac;
    set_state(s, STORE_CONNECTING, "");
    redisAsyncSetDisconnectCallback(ac, on_disconnect);
    redisAsyncSetConnectCallback(ac, on_connect);
}

static void on_tick(void *arg) {
    mr_store *s = arg;
    int64_t now = mr_mono_us(), limit = s->timeout_ms * 1000LL;
    if (s->state == STORE_AWAY && now >= s->retry_us) {
        connect_now(s);
    } else if (s->state == STORE_CONNECTING && now - s->since_us > limit) {
        drop(s, "connecting took too long");
    } else if (s->state == STORE_UP && s->oldest && now - s->oldest->sent_us > limit) {
        drop(s, "a command took too long");
    }
}

static int tick_ms(const mr_store *s) {
    int ms = s->timeout_ms / TICKS;
    return ms < 1 ? 1 : ms > TICK_MOST ? TICK_MOST : ms;
}

/* "host:port"; an IPv6 address stands in brackets. */
static int parse_address(const char *address, char *host, size_t cap, int *port, mr_error *err) {
    const char *colon = strrchr(address, ':');
    char *end;
    long v = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!colon || colon == address || end == colon + 1 || *end != '\0' || v < 1 || v > 65535) {
        return mr_fail(err, MR_EINVAL, "redis.address is \"%.100s\", expected host:port", address);
    }
    size_t n = (size_t)(colon - address);
    if (address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    }
    if (n >= cap)
        return mr_fail(err, MR_EINVAL, "redis.address: the host name is longer than %zu bytes", cap - 1);
    memcpy(host, address, n);
    host[n] = '\0';
    *port = (int)v;
    return 0;
}

static void register_metrics(mr_store *s, mr_metrics *m, const char *part) {
    char name[128];
    snprintf(name, sizeof(name), "millrace_%s_redis_up", part);
    s->up = mr_gauge_new(m, name, NULL, "1 while Redis is connected.");
    snprintf(name, sizeof(name), "millrace_%s_redis_commands_total", part);
    s->commands = mr_counter_new(m, name, NULL, "Commands sent to Redis.");
    snprintf(name, sizeof(name), "millrace_%s_redis_failed_total", part);
    s->failed = mr_counter_new(m, name, NULL, "Commands that Redis did not answer: it was away or too slow.");
    snprintf(name, sizeof(name), "millrace_%s_redis_command_seconds", part);
    s->seconds = mr_histogram_new(m, name, NULL, "Time until Redis answered.");
}

mr_store *mr_store_new(const mr_redis_conf *conf, mr_loop *l, mr_metrics *m, const char *part,
                       mr_error *err) {
    mr_store *s = calloc(1, sizeof(*s));
    if (!s) {
        mr_fail(err, MR_ENOMEM, "out of memory while opening Redis");
        return NULL;
    }
    s->loop = l;
    s->newest = &s->oldest;
    s->timeout_ms = (int)conf->timeout_ms;
    s->user = conf->user && *conf->user ? conf->user : NULL;
    s->password = conf->password;
    s->prefix = conf->prefix;
    s->backoff_ms = BACKOFF_FIRST;
    register_metrics(s, m, part);
    if (!*conf->address) return s;
    if (parse_address(conf->address, s->host, sizeof(s->host), &s->port, err) != 0) goto fail;
    s->timer = mr_timer_new(l, tick_ms(s), on_tick, s, err);
    if (!s->timer) goto fail;
    s->state = STORE_AWAY;
    connect_now(s);
    return s;
fail:
    mr_store_free(s);
    return NULL;
}

void mr_store_free(mr_store *s) {
    mr_script *next;
    if (!s) return;
    mr_timer_free(s->timer);
    drop(s, "closing");
    for (mr_script *x = s->scripts; x; x = next) {
        next = x->next;
        free(x);
    }
    free(s);
}

bool mr_store_up(const mr_store *s) {
    return s->state == STORE_UP;
}

/* ---- synchronous ---- */

redisContext *mr_store_connect_sync(const mr_redis_conf *conf, mr_error *err) {
    char host[256];
    int port;
    struct timeval limit = {.tv_sec = conf->timeout_ms / 1000, .tv_usec = (conf->timeout_ms % 1000) * 1000};
    if (!*conf->address) {
        mr_fail(err, MR_ESTATE, "redis.address is empty: this needs Redis");
        return NULL;
    }
    if (parse_address(conf->address, host, sizeof(host), &port, err) != 0) return NULL;
    redisContext *c = redisConnectWithTimeout(host, port, limit);
    if (!c || c->err || redisSetTimeout(c, limit) != REDIS_OK) {
        mr_fail(err, MR_EREDIS, "Redis at %s cannot be reached: %s", conf->address,
                c ? c->errstr : "out of memory");
        goto fail;
    }
    if (*conf->password) {
        bool named = conf->user && *conf->user;
        redisReply *r = named ? redisCommand(c, "AUTH %s %s", conf->user, conf->password)
                              : redisCommand(c, "AUTH %s", conf->password);
        bool ok = r && r->type != REDIS_REPLY_ERROR;
        if (!ok) mr_fail(err, MR_EREDIS, "Redis at %s: %s", conf->address, r ? r->str : c->errstr);
        freeReplyObject(r);
        if (!ok) goto fail;
    }
    return c;
fail:
    if (c) redisFree(c);
    return NULL;
}
