/* `millrace status`: each pool and color with its workers, its lag and what they do about it, from the workers' own statuses
 * and the brokers' offsets. All on the loop's thread, but for the lag reader's. */
#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"
#include "pool/lag.h"
#include "pool/view.h"
#include "router/conf.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOLS_MAX 64
#define TICK_MS   50
#define WAIT_US   15000000 /* for a first answer */

typedef struct status_conf {
    bool json, watch, workers;
    double every;
} status_conf;

#define AT(member) offsetof(status_conf, member)
static const mr_conf_key status_keys[] = {
    {"json", MR_CONF_BOOL, AT(json), "false", 0, 0, NULL, "One line of JSON, with every worker."},
    {"workers", MR_CONF_BOOL, AT(workers), "false", 0, 0, NULL, "Every worker, too."},
    {"watch", MR_CONF_BOOL, AT(watch), "false", 0, 0, NULL, "Again and again until Ctrl-C…"},
    {"every", MR_CONF_NUM, AT(every), "2", 0.5, 3600, NULL, "…so many seconds apart."},
    {0},
};

static status_conf conf;
static mr_kafka_conf kafka;
static mr_router_conf router;
static mr_log_conf logging;

static const mr_conf_group groups[] = {{"status", status_keys, &conf},
                                       {"kafka", mr_kafka_keys, &kafka},
                                       {"router", mr_router_keys, &router},
                                       {"log", mr_log_keys, &logging},
                                       {0}};

typedef struct status {
    mr_loop *loop;
    mr_view *view;
    mr_lag_reader *lag;
    const char *pools[POOLS_MAX];
    int npools;
    int64_t began_us, shown_us, shown_lag_us;
    bool shown;
} status;

/* ---- what is shown ---- */

static json_t *wait_json(const mr_color_view *c) {
    int64_t ms = mr_view_wait_ms(c);
    return ms < 0 ? json_null() : json_real((double)ms / 1000);
}

static json_t *color_json(const char *pool, int color, const mr_color_view *c, const mr_lag *lag) {
    double age = lag->oldest_ms ? (double)(mr_now_ms() - lag->oldest_ms) / 1000 : 0;
    return json_pack("{s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:f, s:o}", "pool", pool,
                     "color", mr_color_names[color], "workers", c->workers, "ready", c->ready, "standby",
                     c->standby, "slots", (json_int_t)c->slots, "running", (json_int_t)c->running, "waiting",
                     (json_int_t)(c->waiting + c->behind), "lag", (json_int_t)lag->records, "requests_per_s",
                     c->requests_s, "tokens_per_s", c->tokens_s, "errors", (json_int_t)c->totals.errors,
                     "oldest_s", age > 0 ? age : 0, "wait_s", wait_json(c));
}

static json_t *worker_json(const mr_worker *w, int64_t now) {
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:f, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:s}",
        "worker", w->id, "host", w->host, "pool", w->pool, "color", mr_color_names[w->color], "model",
        w->model, "state", mr_worker_state_names[w->state], "live", mr_view_live(w, now), "silent_s",
        (double)(now - w->seen_ms) / 1000, "partitions", (json_int_t)w->partitions, "slots",
        (json_int_t)w->slots, "running", (json_int_t)w->running, "waiting",
        (json_int_t)(w->waiting + w->behind), "kv_used", w->kv_used, "ok", (json_int_t)w->totals.ok, "errors",
        (json_int_t)w->totals.errors, "tokens", (json_int_t)w->totals.tokens, "engines_lost",
        (json_int_t)w->engines_lost, "metrics", w->metrics);
}

static void show_json(status *s) {
    mr_color_view c;
    int64_t now = mr_now_ms();
    json_t *colors = json_array(), *workers = json_array();
    for (int i = 0; i < s->npools * MR_COLORS; i++) {
        mr_lag lag = mr_lag_get(s->lag, i);
        mr_view_color(s->view, s->pools[i / MR_COLORS], i % MR_COLORS, now, &c);
        json_array_append_new(colors, color_json(s->pools[i / MR_COLORS], i % MR_COLORS, &c, &lag));
    }
    for (int i = 0; i < mr_view_count(s->view); i++) {
        json_array_append_new(workers, worker_json(mr_view_worker(s->view, i), now));
    }
    json_t *all =
        json_pack("{s:I, s:o, s:o}", "at_ms", (json_int_t)now, "colors", colors, "workers", workers);
    json_dumpf(all, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(all);
}

static void show_color(const char *pool, int color, const mr_color_view *c, const mr_lag *lag) {
    char wait[24] = "-", age[24] = "-";
    int64_t ms = mr_view_wait_ms(c);
    if (ms >= 0) snprintf(wait, sizeof(wait), "%.1f s", (double)ms / 1000);
    if (lag->oldest_ms) snprintf(age, sizeof(age), "%.1f s", (double)(mr_now_ms() - lag->oldest_ms) / 1000);
    printf("%-12s %-6s %7d %6d %7lld/%-6lld %8lld %8lld %9s %9.1f %9.0f %9s\n", pool, mr_color_names[color],
           c->workers, c->ready, (long long)c->running, (long long)c->slots,
           (long long)(c->waiting + c->behind), (long long)lag->records, age, c->requests_s, c->tokens_s,
           wait);
}

static void show_worker(const mr_worker *w, int64_t now) {
    printf("  %-24.24s %-12s %-6s %-10s %5lld/%-5lld kv %3.0f %%  ok %lld, failed %lld  heard %.0f s ago%s\n",
           w->id, w->pool, mr_color_names[w->color], mr_worker_state_names[w->state], (long long)w->running,
           (long long)w->slots, 100 * w->kv_used, (long long)w->totals.ok, (long long)w->totals.errors,
           (double)(now - w->seen_ms) / 1000, mr_view_live(w, now) ? "" : ": gone");
}

static void show_text(status *s) {
    mr_color_view c;
    int64_t now = mr_now_ms();
    printf("%-12s %-6s %7s %6s %14s %8s %8s %9s %9s %9s %9s\n", "POOL", "COLOR", "WORKERS", "READY",
           "RUNNING/SLOTS", "WAITING", "LAG", "OLDEST", "REQ/S", "TOKENS/S", "WAIT");
    for (int i = 0; i < s->npools * MR_COLORS; i++) {
        mr_lag lag = mr_lag_get(s->lag, i);
        mr_view_color(s->view, s->pools[i / MR_COLORS], i % MR_COLORS, now, &c);
        show_color(s->pools[i / MR_COLORS], i % MR_COLORS, &c, &lag);
    }
    for (int i = 0; conf.workers && i < mr_view_count(s->view); i++)
        show_worker(mr_view_worker(s->view, i), now);
}

/* ---- when ---- */

static bool is_known(status *s) {
    if (!mr_view_caught_up(s->view)) return false;
    for (int i = 0; i < s->npools * MR_COLORS; i++) {
        if (mr_lag_get(s->lag, i).at_us <= s->shown_lag_us) return false;
    }
    return true;
}

static void on_tick(void *arg) {
    status *s = arg;
    int64_t now = mr_mono_us();
    if (s->shown && !conf.watch) return;
    if (!is_known(s)) {
        if (!s->shown && now - s->began_us > WAIT_US) mr_loop_stop(s->loop);
        return;
    }
    if (s->shown && now - s->shown_us < (int64_t)(conf.every * 1e6)) return;
    if (conf.json) {
        show_json(s);
    } else {
        show_text(s);
    }
    s->shown = true;
    s->shown_us = now;
    s->shown_lag_us = mr_lag_get(s->lag, 0).at_us;
    if (fflush(stdout) != 0 || !conf.watch) mr_loop_stop(s->loop);
}

static void on_drain(void *arg) {
    mr_loop_stop(arg);
}

static void list_pools(status *s) {
    s->pools[s->npools++] = MR_POOL_DEFAULT;
    for (int i = 0; i < router.pools.n && s->npools < POOLS_MAX; i++) {
        const char *name = strrchr(router.pools.v[i], '=') + 1;
        int k = 0;
        while (k < s->npools && strcmp(s->pools[k], name) != 0) k++;
        if (k == s->npools) s->pools[s->npools++] = name;
    }
}

static int serve(mr_loop *loop, mr_error *err) {
    int rc = -1;
    status s = {.loop = loop, .began_us = mr_mono_us()};
    mr_lag_source sources[POOLS_MAX * MR_COLORS];
    mr_timer *timer = NULL;
    mr_metrics *m = mr_metrics_new(err);
    if (!m || mr_router_conf_check(&router, err) != 0) goto out;
    list_pools(&s);
    for (int i = 0; i < s.npools * MR_COLORS; i++) {
        mr_lag_of_workers(&kafka, s.pools[i / MR_COLORS], mr_color_names[i % MR_COLORS], &sources[i]);
    }
    s.view = mr_view_new(&kafka, loop, m, "status", err);
    if (s.view)
        s.lag = mr_lag_reader_new(&kafka, sources, s.npools * MR_COLORS, (int)(conf.every * 500), err);
    if (s.lag) timer = mr_timer_new(loop, TICK_MS, on_tick, &s, err);
    if (!timer) goto out;
    mr_loop_on_drain(loop, 1000, on_drain, loop);
    rc = mr_loop_run(loop);
    if (!s.shown) rc = mr_fail(err, MR_EKAFKA, "no answer from Kafka at %s", kafka.brokers);
out:
    mr_timer_free(timer);
    mr_lag_reader_free(s.lag);
    mr_view_free(s.view);
    mr_metrics_free(m);
    return rc;
}

int cmd_status(int argc, char **argv) {
    static const char *const bare[] = {"json", "watch", "workers", NULL};
    const mr_main_options options = {
        .name = "millrace status",
        .part = "status",
        .about = "Shows each pool and color: its workers, what waits and for how long. The pools are main "
                 "and those of "
                 "router.pools.",
        .groups = groups,
        .log = &logging,
    };
    mr_flags_bare(argc, argv, bare);
    return mr_main_serve(argc, argv, &options, serve);
}
