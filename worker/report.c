/* See report.h. */
#include "worker/report.h"

#include "base/log.h"
#include "pool/hist.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHANGED_US   1000000
#define UNCHANGED_US 5000000

struct mr_report {
    mr_report_identity who;
    mr_publisher *publisher;
    char host[HOST_NAME_MAX + 1], metrics[300];
    int64_t started_ms, sent_us;
    int sent_state;
    bool changed; /* a count, since it was sent */
    mr_report_now sent;
    int64_t ok, errors, cancelled, tokens, served, service_us;
    mr_hist first_token, speed;
};

mr_report *mr_report_new(const mr_report_identity *who, mr_publisher *p, mr_error *err) {
    mr_report *r = calloc(1, sizeof(*r));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "out of memory for the worker's status");
        return NULL;
    }
    r->who = *who;
    r->publisher = p;
    r->started_ms = mr_now_ms();
    r->sent_state = -1;
    snprintf(r->host, sizeof(r->host), "unknown");
    gethostname(r->host, sizeof(r->host) - 1);
    /* an address that is good on this machine only, or for all of its addresses, is told by the machine's name */
    bool any = strcmp(who->metrics_host, "0.0.0.0") == 0 || strcmp(who->metrics_host, "::") == 0;
    if (who->metrics_port) {
        snprintf(r->metrics, sizeof(r->metrics), "%.190s:%d", any ? r->host : who->metrics_host,
                 who->metrics_port);
    }
    return r;
}

void mr_report_free(mr_report *r) {
    free(r);
}

/* ---- counting ---- */

void mr_report_tokens(mr_report *r, int64_t n) {
    r->tokens += n;
    r->changed = true;
}

void mr_report_first_token(mr_report *r, const mr_job *j) {
    mr_hist_add(&r->first_token, (double)(j->first_token_us - j->received_us) / 1e3);
}

void mr_report_end(mr_report *r, const mr_job *j, int finish, int64_t status) {
    int64_t now = mr_mono_us(), generating = now - j->first_token_us;
    bool well = finish != MR_FINISH_ERROR && finish != MR_FINISH_CANCELLED;
    r->changed = true;
    if (finish == MR_FINISH_CANCELLED) {
        r->cancelled++;
    } else if (status >= 500) {
        r->errors++;
    } else {
        r->ok++;
    }
    if (!well || !j->started_us) return;
    r->served++;
    r->service_us += now - j->started_us;
    if (j->ntokens - j->nforced > 1 && j->first_token_us && generating > 0) {
        mr_hist_add(&r->speed,
                    MR_HIST_SPEED_UNITS * (double)(j->ntokens - j->nforced - 1) * 1e6 / (double)generating);
    }
}

/* ---- sending ---- */

static void fill_who(const mr_report *r, mr_worker_status *s) {
    int color = 0;
    while (mr_color_names[color + 1] && strcmp(mr_color_names[color], r->who.color) != 0) color++;
    MR_SET(s, MR_WORKER_STATUS_V, v, MR_SCHEMA_VERSION);
    MR_SET(s, MR_WORKER_STATUS_WORKER, worker, mr_str_of(r->who.id));
    MR_SET(s, MR_WORKER_STATUS_HOST, host, mr_str_of(r->host));
    MR_SET(s, MR_WORKER_STATUS_POOL, pool, mr_str_of(r->who.pool));
    MR_SET(s, MR_WORKER_STATUS_COLOR, color, color);
    MR_SET(s, MR_WORKER_STATUS_MODEL, model, mr_str_of(r->who.model));
    MR_SET(s, MR_WORKER_STATUS_STARTED_MS, started_ms, r->started_ms);
    MR_SET(s, MR_WORKER_STATUS_SENT_MS, sent_ms, mr_now_ms());
    MR_SET(s, MR_WORKER_STATUS_METRICS, metrics, mr_str_of(r->metrics));
}

static void fill_now(const mr_report_now *now, mr_worker_status *s) {
    MR_SET(s, MR_WORKER_STATUS_STATE, state, now->state);
    MR_SET(s, MR_WORKER_STATUS_PARTITIONS, partitions, now->partitions);
    MR_SET(s, MR_WORKER_STATUS_SLOTS, slots, now->slots);
    MR_SET(s, MR_WORKER_STATUS_RUNNING, running, now->running);
    MR_SET(s, MR_WORKER_STATUS_WAITING, waiting, now->waiting);
    MR_SET(s, MR_WORKER_STATUS_BEHIND, behind, now->behind);
    MR_SET(s, MR_WORKER_STATUS_KV_USED, kv_used, now->kv_used);
    MR_SET(s, MR_WORKER_STATUS_ENGINES_LOST, engines_lost, now->engines_lost);
}

static void fill_counts(mr_report *r, mr_worker_status *s) {
    MR_SET(s, MR_WORKER_STATUS_OK, ok, r->ok);
    MR_SET(s, MR_WORKER_STATUS_ERRORS, errors, r->errors);
    MR_SET(s, MR_WORKER_STATUS_CANCELLED, cancelled, r->cancelled);
    MR_SET(s, MR_WORKER_STATUS_TOKENS, tokens, r->tokens);
    MR_SET(s, MR_WORKER_STATUS_SERVED, served, r->served);
    MR_SET(s, MR_WORKER_STATUS_SERVICE_MS, service_ms, r->service_us / 1000);
    MR_SET(s, MR_WORKER_STATUS_FIRST_TOKEN, first_token, mr_hist_list(&r->first_token));
    MR_SET(s, MR_WORKER_STATUS_SPEED, speed, mr_hist_list(&r->speed));
}

static bool same(const mr_report_now *a, const mr_report_now *b) {
    return a->partitions == b->partitions && a->slots == b->slots && a->running == b->running &&
           a->waiting == b->waiting && a->behind == b->behind && a->engines_lost == b->engines_lost &&
           a->kv_used == b->kv_used;
}

static bool due(const mr_report *r, const mr_report_now *now) {
    int64_t silent = mr_mono_us() - r->sent_us;
    if (now->state != r->sent_state || silent >= UNCHANGED_US) return true;
    return silent >= CHANGED_US && (r->changed || !same(&r->sent, now));
}

void mr_report_send(mr_report *r, const mr_report_now *now) {
    mr_worker_status s = {0};
    mr_error err;
    if (!due(r, now)) return;
    fill_who(r, &s);
    fill_now(now, &s);
    fill_counts(r, &s);
    r->sent_us = mr_mono_us();
    if (mr_publisher_status(r->publisher, &s, &err) != 0) {
        if (err.code != MR_ESTATE) mr_log(MR_WARN, "worker status not sent", MR_S("error", err.msg));
        return;
    }
    r->sent_state = now->state;
    r->sent = *now;
    r->changed = false;
}
