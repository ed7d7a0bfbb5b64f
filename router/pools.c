/* See pools.h. */
#include "router/pools.h"

#include "base/log.h"
#include "pool/lag.h"
#include "pool/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAG_MS     2000
#define SHOW_US    1000000
#define MODELS_MAX 256

typedef struct color_metrics {
    mr_gauge *lag, *oldest, *ready, *waiting, *slots;
} color_metrics;

typedef struct pool {
    const char *name; /* the configuration's */
    mr_str models[MODELS_MAX];
    uint32_t nmodels;
    color_metrics colors[MR_COLORS];
    mr_gauge *wait;
} pool;

struct mr_pools {
    const mr_router_conf *conf;
    int64_t shown_us, told_us;
    pool *v;
    int n;
    mr_view *view;
    mr_lag_reader *lag;
    char topic[250];
};

/* ---- making ---- */

static pool *get_pool(mr_pools *p, const char *name) {
    for (int i = 0; i < p->n; i++) {
        if (strcmp(p->v[i].name, name) == 0) return &p->v[i];
    }
    p->v[p->n].name = name;
    return &p->v[p->n++];
}

static void list_pools(mr_pools *p, const mr_router_conf *conf) {
    get_pool(p, MR_POOL_DEFAULT);
    for (int i = 0; i < conf->pools.n; i++) {
        const char *entry = conf->pools.v[i], *equals = strrchr(entry, '=');
        pool *of = get_pool(p, equals + 1);
        size_t n = (size_t)(equals - entry);
        if (of->nmodels < MODELS_MAX && n <= MR_NAME_MAX) of->models[of->nmodels++] = (mr_str){entry, n};
    }
}

static mr_gauge *gauge(mr_metrics *m, const char *name, const char *pool_name, const char *color,
                       const char *help) {
    char labels[200];
    if (color) {
        snprintf(labels, sizeof(labels), "pool=\"%s\",color=\"%s\"", pool_name, color);
    } else {
        snprintf(labels, sizeof(labels), "pool=\"%s\"", pool_name);
    }
    return mr_gauge_new(m, name, labels, help);
}

static void add_metrics(pool *p, mr_metrics *m) {
    for (int i = 0; i < MR_COLORS; i++) {
        const char *color = mr_color_names[i];
        p->colors[i] = (color_metrics){
            .lag = gauge(m, "millrace_lag_records", p->name, color,
                         "Requests of a pool's color that are not finished: the end of its topic less what "
                         "its workers have committed."),
            .oldest =
                gauge(m, "millrace_oldest_record_age_seconds", p->name, color, "Age of the oldest of them."),
            .ready =
                gauge(m, "millrace_pool_ready_workers", p->name, color, "Live workers that take requests."),
            .waiting = gauge(m, "millrace_pool_waiting_requests", p->name, color,
                             "Requests that wait for a slot, with the workers and in Kafka."),
            .slots = gauge(m, "millrace_pool_slots", p->name, color, "Requests that can run at once.")};
    }
    p->wait = gauge(m, "millrace_pool_wait_seconds", p->name, NULL,
                    "Estimated wait of a new request; -1 when it is not known.");
}

static int open_parts(mr_pools *p, const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, mr_error *err) {
    mr_lag_source *sources = calloc((size_t)p->n * MR_COLORS, sizeof(*sources));
    if (!sources) return mr_fail(err, MR_ENOMEM, "no memory for the pools");
    for (int i = 0; i < p->n * MR_COLORS; i++) {
        mr_lag_of_workers(kafka, p->v[i / MR_COLORS].name, mr_color_names[i % MR_COLORS], &sources[i]);
    }
    p->view = mr_view_new(kafka, l, m, "router_workers", err);
    if (p->view) p->lag = mr_lag_reader_new(kafka, sources, p->n * MR_COLORS, LAG_MS, err);
    free(sources);
    return p->lag ? 0 : -1;
}

mr_pools *mr_pools_new(const mr_router_conf *conf, const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                       mr_error *err) {
    mr_pools *p = calloc(1, sizeof(*p));
    if (p) p->v = calloc((size_t)conf->pools.n + 1, sizeof(*p->v));
    if (!p || !p->v) {
        free(p);
        mr_fail(err, MR_ENOMEM, "no memory for the pools");
        return NULL;
    }
    p->conf = conf;
    mr_bus_topic(kafka, MR_TOPIC_WORKERS, p->topic);
    list_pools(p, conf);
    for (int i = 0; i < p->n; i++) add_metrics(&p->v[i], m);
    if (open_parts(p, kafka, l, m, err) == 0) return p;
    mr_pools_free(p);
    return NULL;
}

void mr_pools_free(mr_pools *p) {
    if (!p) return;
    mr_lag_reader_free(p->lag);
    mr_view_free(p->view);
    free(p->v);
    free(p);
}

/* ---- telling ---- */

static void send_status(mr_pools *p, const pool *of, int64_t wait_ms, mr_forwarder *f) {
    mr_pool_status s = {0};
    mr_error err;
    char key[MR_POOL_MAX + 8], trace[MR_TRACEPARENT_LEN + 1];
    snprintf(key, sizeof(key), "pool/%s", of->name);
    mr_trace_new(trace);
    MR_SET(&s, MR_POOL_STATUS_V, v, MR_SCHEMA_VERSION);
    MR_SET(&s, MR_POOL_STATUS_POOL, pool, mr_str_of(of->name));
    s.models.v = (mr_str *)of->models;
    s.models.n = of->nmodels;
    MR_MARK(&s, MR_POOL_STATUS_MODELS);
    if (wait_ms >= 0) MR_SET(&s, MR_POOL_STATUS_WAIT_MS, wait_ms, wait_ms);
    MR_SET(&s, MR_POOL_STATUS_SENT_MS, sent_ms, mr_now_ms());
    const mr_address to = {.topic = p->topic, .partition = -1, .key = mr_str_of(key), .traceparent = trace};
    mr_parcel *parcel = mr_parcel_new(f, NULL, &err);
    if (!parcel) return; /* another one follows */
    if (mr_parcel_add(parcel, &to, &mr_pool_status_def, &s, &err) == 0) {
        mr_parcel_send(parcel);
        return;
    }
    mr_log(MR_WARN, "pool status not sent", MR_S("error", err.msg));
    mr_parcel_free(parcel);
}

/* The color that most new requests go to. */
static int main_color(const mr_weights *w, const char *name) {
    return mr_weights_share(w, mr_str_of(name), MR_BLUE) >= 0.5 ? MR_BLUE : MR_GREEN;
}

static void show_color(mr_pools *p, int i, int color, const mr_color_view *c, int64_t now) {
    const color_metrics *g = &p->v[i].colors[color];
    mr_lag lag = mr_lag_get(p->lag, i * MR_COLORS + color);
    mr_gauge_set(g->lag, (double)lag.records);
    mr_gauge_set(g->oldest, lag.oldest_ms && now > lag.oldest_ms ? (double)(now - lag.oldest_ms) / 1000 : 0);
    mr_gauge_set(g->ready, c->ready);
    mr_gauge_set(g->waiting, (double)(c->waiting + c->behind));
    mr_gauge_set(g->slots, (double)c->slots);
}

/* The estimated wait. */
static int64_t show_pool(mr_pools *p, int i, const mr_weights *w) {
    mr_color_view c;
    int64_t now = mr_now_ms(), wait_ms = -1;
    for (int color = 0; color < MR_COLORS; color++) {
        mr_view_color(p->view, p->v[i].name, color, now, &c);
        show_color(p, i, color, &c, now);
        if (color == main_color(w, p->v[i].name)) wait_ms = mr_view_wait_ms(&c);
    }
    mr_gauge_set(p->v[i].wait, wait_ms < 0 ? -1 : (double)wait_ms / 1000);
    return wait_ms;
}

void mr_pools_tick(mr_pools *p, const mr_weights *w, mr_forwarder *f) {
    int64_t now = mr_mono_us(), every = (int64_t)(p->conf->status_s * 1e6);
    bool tell = every > 0 && now - p->told_us >= every;
    if (!tell && now - p->shown_us < SHOW_US) return;
    p->shown_us = now;
    if (tell) p->told_us = now;
    for (int i = 0; i < p->n; i++) {
        int64_t wait_ms = show_pool(p, i, w);
        if (tell) send_status(p, &p->v[i], wait_ms, f);
    }
}
