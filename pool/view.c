/* See view.h. */
#include "pool/view.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define WORKERS_MAX  4096
#define POOLS_MAX    256
#define FORGET_MS    600000 /* a silent worker is still shown so long */
#define RATE_S       30
#define RING         64 /* seconds, a power of two over RATE_S */
#define ARENA_MAX    (1 << 20)
#define DEFAULT_POOL "main"

/* What a color did in one second. */
typedef struct second {
    int64_t at; /* unix seconds */
    int64_t requests, tokens;
} second;

typedef struct color {
    mr_totals totals;
    second ring[RING];
} color;

typedef struct pool {
    char name[MR_POOL_NAME];
    color colors[MR_COLORS];
    int64_t wait_ms, wait_seen_ms; /* of the routers */
    char *models;                  /* names, each with its NUL, one empty at the end */
} pool;

struct mr_view {
    mr_consumer *consumer;
    mr_arena *arena;
    mr_worker **workers;
    int nworkers;
    pool **pools;
    int npools;
    char topic[250];
};

/* ---- totals ---- */

int64_t mr_totals_requests(const mr_totals *t) {
    return t->ok + t->errors;
}

/* h += a - b, in every count */
static void add_difference(mr_totals *t, const mr_totals *a, const mr_totals *b) {
    t->ok += a->ok - b->ok;
    t->errors += a->errors - b->errors;
    t->cancelled += a->cancelled - b->cancelled;
    t->tokens += a->tokens - b->tokens;
    t->served += a->served - b->served;
    t->service_ms += a->service_ms - b->service_ms;
    mr_hist_add_difference(&t->first_token, &a->first_token, &b->first_token);
    mr_hist_add_difference(&t->speed, &a->speed, &b->speed);
}

void mr_totals_since(mr_totals *out, const mr_totals *a, const mr_totals *b) {
    *out = (mr_totals){0};
    add_difference(out, a, b);
}

/* ---- tables ---- */

static pool *find_pool(const mr_view *v, mr_str name) {
    for (int i = 0; i < v->npools; i++) {
        if (mr_str_eqz(name, v->pools[i]->name)) return v->pools[i];
    }
    return NULL;
}

static pool *get_pool(mr_view *v, mr_str name) {
    pool *p = find_pool(v, name);
    if (p || v->npools == POOLS_MAX) return p;
    pool **all = realloc(v->pools, (size_t)(v->npools + 1) * sizeof(*all));
    if (!all) return NULL;
    v->pools = all;
    p = calloc(1, sizeof(*p));
    if (!p) return NULL;
    mr_str_copy(name, p->name, sizeof(p->name));
    p->wait_ms = -1;
    return all[v->npools++] = p;
}

static int find_worker(const mr_view *v, mr_str id) {
    for (int i = 0; i < v->nworkers; i++) {
        if (mr_str_eqz(id, v->workers[i]->id)) return i;
    }
    return -1;
}

static void remove_worker(mr_view *v, int i) {
    free(v->workers[i]);
    v->workers[i] = v->workers[--v->nworkers];
}

static void forget_silent(mr_view *v, int64_t now_ms) {
    for (int i = v->nworkers; i-- > 0;) {
        if (now_ms - v->workers[i]->seen_ms > FORGET_MS) remove_worker(v, i);
    }
}

static mr_worker *add_worker(mr_view *v, int64_t now_ms) {
    if (v->nworkers == WORKERS_MAX) forget_silent(v, now_ms);
    if (v->nworkers == WORKERS_MAX) return NULL;
    mr_worker **all = realloc(v->workers, (size_t)(v->nworkers + 1) * sizeof(*all));
    if (!all) return NULL;
    v->workers = all;
    mr_worker *w = calloc(1, sizeof(*w));
    if (w) all[v->nworkers++] = w;
    return w;
}

/* ---- a worker's status ---- */

static void put(char *out, size_t cap, mr_str s) {
    mr_str_copy(s, out, cap);
}

static void read_status(mr_worker *w, const mr_worker_status *s) {
    mr_totals *t = &w->totals;
    put(w->id, sizeof(w->id), s->worker);
    put(w->host, sizeof(w->host), s->host);
    put(w->model, sizeof(w->model), s->model);
    put(w->metrics, sizeof(w->metrics), s->metrics);
    put(w->pool, sizeof(w->pool), s->pool);
    w->color = s->color;
    w->state = s->state;
    w->started_ms = s->started_ms;
    w->partitions = s->partitions;
    w->slots = s->slots;
    w->running = s->running;
    w->waiting = s->waiting;
    w->behind = s->behind;
    w->engines_lost = s->engines_lost;
    w->kv_used = s->kv_used;
    *t = (mr_totals){.ok = s->ok,
                     .errors = s->errors,
                     .cancelled = s->cancelled,
                     .tokens = s->tokens,
                     .served = s->served,
                     .service_ms = s->service_ms};
    mr_hist_read(&t->first_token, s->first_token);
    mr_hist_read(&t->speed, s->speed);
}

/* What the worker did since its last word goes to its color, in the second of this one. */
static void count(pool *p, const mr_worker *before, const mr_worker *now, int64_t at) {
    static const mr_totals none;
    bool same = before->started_ms == now->started_ms;
    const mr_totals *base = same ? &before->totals : &none;
    color *c = &p->colors[now->color];
    second *s = &c->ring[at & (RING - 1)];
    add_difference(&c->totals, &now->totals, base);
    if (s->at != at) *s = (second){.at = at};
    s->requests += mr_totals_requests(&now->totals) - mr_totals_requests(base);
    s->tokens += now->totals.tokens - base->tokens;
}

void mr_view_feed(mr_view *v, const mr_worker_status *s, int64_t now_ms, bool old) {
    mr_worker now = {.seen_ms = old && s->sent_ms < now_ms ? s->sent_ms : now_ms};
    int i = find_worker(v, s->worker);
    pool *p = get_pool(v, s->pool);
    if (!p) return;
    read_status(&now, s);
    if (i >= 0) {
        if (now.started_ms < v->workers[i]->started_ms) return; /* of the one before, late */
        count(p, v->workers[i], &now, s->sent_ms / 1000);
        *v->workers[i] = now;
    } else {
        mr_worker *w = s->state == MR_WORKER_GONE ? NULL : add_worker(v, now_ms);
        if (w) *w = now;
    }
    if (s->state == MR_WORKER_GONE && i >= 0) remove_worker(v, i);
}

/* ---- the routers' word on a pool ---- */

static char *copy_models(mr_strs models) {
    size_t n = 1;
    for (uint32_t i = 0; i < models.n; i++) n += models.v[i].n + 1;
    char *all = calloc(1, n), *at = all;
    for (uint32_t i = 0; all && i < models.n; i++) {
        memcpy(at, models.v[i].p, models.v[i].n);
        at += models.v[i].n + 1;
    }
    return all;
}

static void feed_pool(mr_view *v, const mr_pool_status *s, int64_t now_ms, bool old) {
    pool *p = get_pool(v, s->pool);
    if (!p) return;
    free(p->models);
    p->models = copy_models(s->models);
    p->wait_ms = MR_HAS(s, MR_POOL_STATUS_WAIT_MS) ? s->wait_ms : -1;
    p->wait_seen_ms = old ? s->sent_ms : now_ms;
}

static bool serves(const pool *p, mr_str model) {
    for (const char *name = p->models; name && *name; name += strlen(name) + 1) {
        if (mr_str_eqz(model, name)) return true;
    }
    return false;
}

int64_t mr_view_model_wait_ms(const mr_view *v, mr_str model, int64_t now_ms) {
    const pool *of = find_pool(v, MR_STR(DEFAULT_POOL));
    for (int i = 0; i < v->npools; i++) {
        if (serves(v->pools[i], model)) of = v->pools[i];
    }
    bool fresh = of && now_ms - of->wait_seen_ms <= MR_VIEW_LIVE_MS;
    return fresh ? of->wait_ms : -1;
}

/* ---- records ---- */

static bool on_record(void *arg, const mr_record *r) {
    mr_view *v = arg;
    mr_error err;
    union {
        mr_worker_status worker;
        mr_pool_status pool;
    } msg;
    mr_str type = mr_record_header(r, "type"), content = mr_record_header(r, "content-type");
    bool of_pool = mr_str_eqz(type, mr_pool_status_def.name), old = !mr_consumer_caught_up(v->consumer);
    const mr_message_def *def = of_pool ? &mr_pool_status_def : &mr_worker_status_def;
    mr_arena_reset(v->arena);
    if (r->value.n == 0) return true;
    if (mr_decode(def, r->value, content, v->arena, &msg, &err) < 0) {
        mr_log(MR_WARN, "a record of chat.workers is ignored", MR_I("offset", r->offset),
               MR_S("reason", err.msg));
    } else if (of_pool) {
        feed_pool(v, &msg.pool, mr_now_ms(), old);
    } else {
        mr_view_feed(v, &msg.worker, mr_now_ms(), old);
    }
    return true;
}

/* ---- life ---- */

mr_view *mr_view_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, const char *part, mr_error *err) {
    mr_view *v = calloc(1, sizeof(*v));
    if (v) v->arena = mr_arena_new(ARENA_MAX);
    if (!v || !v->arena) {
        mr_fail(err, MR_ENOMEM, "out of memory for the view of the workers");
        mr_view_free(v);
        return NULL;
    }
    if (!kafka) return v;
    mr_bus_topic(kafka, MR_TOPIC_WORKERS, v->topic);
    const mr_consumer_options opt = {
        .topics = {v->topic}, .partition = -1, .start = MR_FROM_TAIL, .on_record = on_record, .arg = v};
    v->consumer = mr_consumer_new(kafka, &opt, l, m, part, err);
    if (v->consumer) return v;
    mr_view_free(v);
    return NULL;
}

void mr_view_free(mr_view *v) {
    if (!v) return;
    mr_consumer_free(v->consumer);
    for (int i = 0; i < v->nworkers; i++) free(v->workers[i]);
    for (int i = 0; i < v->npools; i++) {
        free(v->pools[i]->models);
        free(v->pools[i]);
    }
    free(v->workers);
    free(v->pools);
    mr_arena_free(v->arena);
    free(v);
}

bool mr_view_caught_up(const mr_view *v) {
    return mr_consumer_caught_up(v->consumer);
}

/* ---- questions ---- */

int mr_view_count(const mr_view *v) {
    return v->nworkers;
}

const mr_worker *mr_view_worker(const mr_view *v, int i) {
    return v->workers[i];
}

bool mr_view_live(const mr_worker *w, int64_t now_ms) {
    return now_ms - w->seen_ms <= MR_VIEW_LIVE_MS;
}

static void add_to_color(mr_color_view *out, const mr_worker *w) {
    out->workers++;
    out->running += w->running;
    out->waiting += w->waiting;
    out->behind += w->behind;
    out->standby += w->state == MR_WORKER_STANDBY;
    if (w->state != MR_WORKER_READY) return;
    out->ready++;
    out->partitions += w->partitions;
    out->slots += w->slots;
    out->busy += w->running;
    out->served += w->totals.served;
    out->service_ms += w->totals.service_ms;
}

void mr_view_color(const mr_view *v, const char *name, int color_index, int64_t now_ms, mr_color_view *out) {
    *out = (mr_color_view){0};
    for (int i = 0; i < v->nworkers; i++) {
        const mr_worker *w = v->workers[i];
        if (w->color != color_index || strcmp(w->pool, name) != 0 || !mr_view_live(w, now_ms)) continue;
        add_to_color(out, w);
    }
    const pool *p = find_pool(v, mr_str_of(name));
    if (!p) return;
    const color *c = &p->colors[color_index];
    out->totals = c->totals;
    int64_t requests = 0, tokens = 0;
    for (int i = 0; i < RING; i++) {
        if (c->ring[i].at <= now_ms / 1000 - RATE_S) continue;
        requests += c->ring[i].requests;
        tokens += c->ring[i].tokens;
    }
    out->requests_s = (double)requests / RATE_S;
    out->tokens_s = (double)tokens / RATE_S;
}

int64_t mr_view_wait_ms(const mr_color_view *c) {
    if (c->ready == 0) return -1;
    if (c->busy < c->slots) return 0;
    double could = c->served > 0 && c->service_ms > 0
                       ? (double)c->slots * (double)c->served * 1000 / (double)c->service_ms
                       : 0; /* requests a second, by Little's law */
    double rate = could > c->requests_s ? could : c->requests_s;
    if (rate <= 0) return -1;
    return (int64_t)((double)(c->waiting + c->behind) * 1000 / rate);
}
