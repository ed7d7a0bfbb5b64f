/* Routes, readiness, counting and draining; who has what (see gateway.h). */
#include "gateway/gateway.h"

#include "base/log.h"
#include "base/metrics.h"
#include "gateway/catalog.h"
#include "gateway/chats.h"
#include "gateway/feedback.h"
#include "gateway/pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS        250
#define FLUSH_MS       3000
#define DRAIN_GRACE_MS 5000 /* after drain_s, for error texts to reach their clients */
#define STATUS_KINDS   64

/* One line of millrace_gateway_requests_total. */
typedef struct status_count {
    const char *route;
    int status;
    mr_counter *count;
} status_count;

struct mr_gateway {
    const mr_gateway_conf *conf;
    const mr_kafka_conf *kafka;
    const mr_redis_conf *redis;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_auth *auth;
    mr_limiter *limiter;
    mr_outbox *outbox;
    mr_protection *protection;
    mr_streams *streams;
    mr_records *records;
    mr_view *workers;
    mr_access access;
    mr_ready ready;
    mr_chats *chats;
    mr_pages pages;
    mr_feedback_desk feedback;
    mr_arena *feedback_arena;
    mr_tls *tls; /* NULL: plain HTTP */
    mr_http *http;
    mr_timer *timer;
    int64_t drain_until_us;
    status_count statuses[STATUS_KINDS];
    int nstatuses;
};

/* ---- health ---- */

bool mr_gateway_ready(const mr_gateway *g, char *why, size_t why_size) {
    return mr_ready_now(&g->ready, why, why_size);
}

static bool on_ready(void *arg, char *why, size_t why_size) {
    return mr_gateway_ready(arg, why, why_size);
}

static void on_livez(void *arg, mr_call *call) {
    (void)arg;
    mr_call_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

static void on_readyz(void *arg, mr_call *call) {
    char why[100];
    if (mr_gateway_ready(arg, why, sizeof(why))) {
        mr_call_json(call, 200, json_pack("{s:s}", "status", "ready"));
    } else {
        mr_call_json(call, 503, json_pack("{s:s, s:s}", "status", "not ready", "reason", why));
    }
}

/* ---- routes ---- */

static void on_chat(void *arg, mr_call *call) {
    mr_chats_begin(((mr_gateway *)arg)->chats, call);
}

static void on_resume(void *arg, mr_call *call) {
    mr_chats_resume(((mr_gateway *)arg)->chats, call);
}

static void on_feedback(void *arg, mr_call *call) {
    mr_feedback_take(&((mr_gateway *)arg)->feedback, call);
}

static void on_models(void *arg, mr_call *call) {
    mr_pages_models(&((mr_gateway *)arg)->pages, call);
}

static void on_model(void *arg, mr_call *call) {
    mr_pages_model(&((mr_gateway *)arg)->pages, call);
}

static void on_usage(void *arg, mr_call *call) {
    mr_pages_usage(&((mr_gateway *)arg)->pages, call);
}

static void on_subscription(void *arg, mr_call *call) {
    mr_pages_subscription(&((mr_gateway *)arg)->pages, call);
}

static const mr_route routes[] = {
    {"POST", "/v1/chat/completions", "chat", on_chat},
    {"POST", "/chat/completions", "chat", on_chat}, /* DeepSeek's form of the path */
    {"GET", "/v1/chat/completions/*", "resume", on_resume},
    {"GET", "/chat/completions/*", "resume", on_resume},
    {"POST", "/v1/feedback", "feedback", on_feedback},
    {"GET", "/v1/models", "models", on_models},
    {"GET", "/models", "models", on_models},
    {"GET", "/v1/models/*", "models", on_model},
    {"GET", "/models/*", "models", on_model},
    {"GET", "/dashboard/billing/usage", "billing", on_usage},
    {"GET", "/dashboard/billing/subscription", "billing", on_subscription},
    {"GET", "/v1/dashboard/billing/usage", "billing", on_usage},
    {"GET", "/v1/dashboard/billing/subscription", "billing", on_subscription},
    {"GET", "/livez", "health", on_livez},
    {"GET", "/readyz", "health", on_readyz},
    {0},
};

/* ---- requests that are over ---- */

static void count_status(mr_gateway *g, const mr_call_done *done) {
    char labels[64];
    int i = 0;
    while (i < g->nstatuses && (g->statuses[i].status != done->status || g->statuses[i].route != done->route))
        i++;
    if (i == STATUS_KINDS) return;
    if (i == g->nstatuses) {
        snprintf(labels, sizeof(labels), "route=\"%s\",status=\"%d\"", done->route, done->status);
        g->statuses[g->nstatuses++] = (status_count){
            done->route, done->status,
            mr_counter_new(g->metrics, "millrace_gateway_requests_total", labels,
                           "HTTP requests by route and status; 499 is a client that went away.")};
    }
    mr_counter_add(g->statuses[i].count, 1);
}

static void on_done(void *arg, const mr_call_done *done) {
    count_status(arg, done);
    if (done->logged) return;
    mr_log(strcmp(done->route, "health") == 0 ? MR_DEBUG : MR_INFO, "request answered",
           MR_S("route", done->route), MR_I("status", done->status), MR_F("seconds", done->seconds));
}

/* ---- time and end ---- */

static void drain_step(mr_gateway *g) {
    mr_api_error e;
    if (mr_streams_count(g->streams) > 0 && mr_mono_us() > g->drain_until_us) {
        mr_refuse(&e, 503, "shutting_down", NULL, "The server is being restarted; please ask again.");
        mr_streams_fail_all(g->streams, &e);
    }
    if (mr_streams_count(g->streams) == 0 && mr_http_calls(g->http) == 0) mr_loop_stop(g->loop);
}

static void on_tick(void *arg) {
    mr_gateway *g = arg;
    mr_auth_refresh(g->auth);
    mr_streams_tick(g->streams);
    mr_protection_tick(g->protection);
    if (g->tls) mr_tls_refresh(g->tls);
    if (g->ready.ending) drain_step(g);
}

static void on_drain(void *arg) {
    mr_gateway *g = arg;
    mr_http_stop_accepting(g->http);
    mr_streams_let_go(g->streams);
    g->ready.ending = true;
    g->drain_until_us = mr_mono_us() + g->conf->drain_s * 1000000;
    drain_step(g);
}

/* ---- the whole ---- */

static int open_bus(mr_gateway *g, mr_error *err) {
    g->outbox = mr_outbox_new(g->kafka, g->loop, g->metrics, err);
    if (!g->outbox) return -1;
    g->protection = mr_protection_new(g->conf, g->outbox, g->metrics, err);
    if (!g->protection) return -1;
    g->streams = mr_streams_new(g->conf, g->outbox, g->protection, g->metrics, err);
    if (!g->streams) return -1;
    g->workers = mr_view_new(g->kafka, g->loop, g->metrics, "gateway_workers", err);
    if (!g->workers) return -1;
    g->records = mr_records_new(g->conf, g->kafka, g->loop, g->metrics, g->streams, err);
    return g->records ? 0 : -1;
}

static int open_desks(mr_gateway *g, mr_error *err) {
    g->access = (mr_access){g->auth, g->protection};
    g->ready = (mr_ready){.outbox = g->outbox, .records = g->records};
    g->pages = (mr_pages){g->conf, &g->access, mr_now_ms()};
    g->feedback_arena = mr_openai_arena(g->conf);
    if (!g->feedback_arena) return mr_fail(err, MR_ENOMEM, "out of memory");
    g->feedback = (mr_feedback_desk){&g->access, &g->ready, g->outbox, g->feedback_arena};
    const mr_chats_parts parts = {.conf = g->conf,
                                  .access = &g->access,
                                  .ready = &g->ready,
                                  .records = g->records,
                                  .limiter = g->limiter,
                                  .streams = g->streams,
                                  .workers = g->workers};
    g->chats = mr_chats_new(&parts, g->metrics, err);
    return g->chats ? 0 : -1;
}

static int open_tls(mr_gateway *g, mr_error *err) {
    const mr_gateway_conf *c = g->conf;
    if (!*c->tls_cert && !*c->tls_key) return 0;
    if (!*c->tls_cert || !*c->tls_key) {
        return mr_fail(err, MR_EINVAL, "gateway.%s is set but gateway.%s is empty: TLS needs both",
                       *c->tls_cert ? "tls_cert" : "tls_key", *c->tls_cert ? "tls_key" : "tls_cert");
    }
    g->tls = mr_tls_new(c->tls_cert, c->tls_key, err);
    return g->tls ? 0 : -1;
}

static int open_http(mr_gateway *g, mr_error *err) {
    mr_http_options o = {.host = g->conf->host,
                         .port = (int)g->conf->port,
                         .body_max = (size_t)g->conf->body_max,
                         .idle_timeout_s = (int)g->conf->idle_timeout_s,
                         .routes = routes,
                         .on_done = on_done,
                         .arg = g};
    if (open_tls(g, err) < 0) return -1;
    o.tls = g->tls;
    g->http = mr_http_new(g->loop, &o, err);
    if (!g->http) return -1;
    return mr_metrics_serve(g->metrics, g->loop, g->conf->metrics_host, (int)g->conf->metrics_port, on_ready,
                            g, err);
}

static int check_conf(const mr_gateway_conf *conf, const mr_kafka_conf *kafka, mr_error *err) {
    if (conf->body_max > kafka->message_max) {
        return mr_fail(err, MR_EINVAL, "gateway.body_max (%lld) is over kafka.message_max (%lld)",
                       (long long)conf->body_max, (long long)kafka->message_max);
    }
    return mr_catalog_check(conf, err);
}

static int start(mr_gateway *g, mr_error *err) {
    if (check_conf(g->conf, g->kafka, err) < 0) return -1;
    g->auth = mr_auth_new(g->conf, err);
    if (!g->auth) return -1;
    g->metrics = mr_metrics_new(err);
    if (g->metrics) g->limiter = mr_limiter_new(g->conf, g->redis, g->loop, g->metrics, err);
    if (!g->limiter || open_bus(g, err) < 0 || open_desks(g, err) < 0 || open_http(g, err) < 0) return -1;
    g->timer = mr_timer_new(g->loop, TICK_MS, on_tick, g, err);
    if (!g->timer) return -1;
    mr_loop_on_drain(g->loop, (int)g->conf->drain_s * 1000 + DRAIN_GRACE_MS, on_drain, g);
    return 0;
}

mr_gateway *mr_gateway_new(const mr_gateway_conf *conf, const mr_kafka_conf *kafka,
                           const mr_redis_conf *redis, mr_loop *l, mr_error *err) {
    mr_gateway *g = calloc(1, sizeof(*g));
    if (!g) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    g->conf = conf;
    g->kafka = kafka;
    g->redis = redis;
    g->loop = l;
    if (start(g, err) == 0) return g;
    mr_gateway_free(g);
    return NULL;
}

void mr_gateway_free(mr_gateway *g) {
    if (!g) return;
    mr_timer_free(g->timer);
    mr_view_free(g->workers);
    mr_streams_free(
        g->streams); /* settles its holds, takes back its tickets, before the outbox' last reports */
    mr_records_free(g->records);
    mr_limiter_free(g->limiter);         /* refuses chats that wait for it, which goes on record */
    mr_protection_free(g->protection);   /* sends its last records */
    mr_outbox_free(g->outbox, FLUSH_MS); /* those may answer calls that wait for them */
    mr_chats_free(g->chats);
    mr_http_free(g->http);
    mr_tls_free(g->tls);
    mr_metrics_free(g->metrics);
    mr_arena_free(g->feedback_arena);
    mr_auth_free(g->auth);
    free(g);
}

int mr_gateway_port(const mr_gateway *g) {
    return mr_http_port(g->http);
}

void mr_gateway_metrics(mr_gateway *g, mr_buf *out) {
    mr_metrics_text(g->metrics, out);
}
