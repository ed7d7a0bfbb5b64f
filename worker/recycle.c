/* See recycle.h. */
#include "worker/recycle.h"

#include "base/log.h"
#include "worker/lease.h"
#include "worker/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEASE_MS   30000
#define RENEW_US   10000000
#define LOOK_US    1000000  /* between two looks at the host's memory */
#define PARKING_US 10000000 /* for an engine to stop what runs; past it, it is taken for hung */
#define HOUR_US    INT64_C(3600000000)
#define ROOM       1.2 /* of the old host's memory must be free for a new one beside it */

typedef enum { REST, ASKING, COMING, EMPTYING, PARTING, RETURNING, STATES } state;
static const char *const state_names[STATES] = {"rest",     "asking",  "coming",
                                                "emptying", "parting", "returning"};
static const char *const reason_names[MR_RECYCLE_REASONS] = {"age", "order", "memory", "canary"};

struct mr_recycle {
    mr_supervisor *s;
    mr_lease *lease;
    state state;
    mr_recycle_reason reason;
    bool held, beside, parked, failed;             /* failed: the new one did not come */
    int64_t order;                                 /* that waits for its report; 0: none */
    mr_engine *old;                                /* the one that goes */
    int64_t old_at_us;                             /* when the engine is old; 0: never */
    int64_t asked_us, began_us, until_us, look_us; /* until: of the grace, then of the parking */
    mr_counter *done[MR_RECYCLE_REASONS], *handed_over;
    mr_gauge *resident, *going_on;
};

static void set_state(mr_recycle *r, state to) {
    mr_log(MR_INFO, "recycling", MR_S("from", state_names[r->state]), MR_S("to", state_names[to]),
           MR_S("reason", reason_names[r->reason]));
    r->state = to;
    mr_gauge_set(r->going_on, mr_recycle_going_on(r));
}

/* ---- when ---- */

/* Workers that were started together do not grow old together. */
static void set_age_limit(mr_recycle *r) {
    const mr_worker_conf *w = r->s->opt.worker;
    double share = (double)random() / (double)RAND_MAX;
    double hours = w->recycle_hours * (1 - w->recycle_jitter * share);
    r->old_at_us = w->recycle_hours > 0 ? mr_mono_us() + (int64_t)(hours * (double)HOUR_US) : 0;
}

static bool is_fault(mr_recycle_reason why) {
    return why == MR_RECYCLE_MEMORY || why == MR_RECYCLE_CANARY;
}

static void want(mr_recycle *r, mr_recycle_reason why) {
    if (r->state != REST && !(r->state == ASKING && is_fault(why))) return;
    r->reason = why;
    r->asked_us = 0;
    if (r->state == REST) set_state(r, ASKING);
}

void mr_recycle_order(mr_recycle *r, int64_t order) {
    r->order = order;
    want(r, MR_RECYCLE_ORDER);
}

void mr_recycle_fault(mr_recycle *r, mr_recycle_reason why) {
    want(r, why);
}

void mr_recycle_hold(mr_recycle *r, bool hold) {
    r->held = hold;
}

/* ---- memory ---- */

static int64_t resident_bytes(int pid) {
    char path[64];
    long long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    if (!f) return 0;
    if (fscanf(f, "%*d %lld", &pages) != 1) pages = 0;
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static int64_t available_bytes(void) {
    char line[128];
    long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return 0;
    while (fgets(line, sizeof(line), f) && sscanf(line, "MemAvailable: %lld", &kb) != 1) continue;
    fclose(f);
    return kb * 1024;
}

static void look_at_memory(mr_recycle *r, int64_t now) {
    int64_t most = r->s->opt.worker->memory_max_mb << 20;
    if (now - r->look_us < LOOK_US) return;
    r->look_us = now;
    int64_t bytes = resident_bytes(mr_host_pid(r->s->engine->host));
    mr_gauge_set(r->resident, (double)bytes);
    if (most && bytes > most) want(r, MR_RECYCLE_MEMORY);
}

/* A wrong engine is not left at work while another one loads. */
static bool fits_beside(const mr_recycle *r) {
    const char *how = r->s->opt.worker->recycle;
    if (r->reason == MR_RECYCLE_CANARY || strcmp(how, "in-place") == 0) return false;
    if (strcmp(how, "side-by-side") == 0) return true;
    int64_t one = resident_bytes(mr_host_pid(r->s->engine->host));
    return one > 0 && (double)available_bytes() > ROOM * (double)one;
}

/* ---- the way ---- */

static mr_engine *other(mr_supervisor *s, const mr_engine *e) {
    return e == &s->engines[0] ? &s->engines[1] : &s->engines[0];
}

static void empty(mr_recycle *r, mr_engine *e) {
    int64_t grace_s = r->reason == MR_RECYCLE_CANARY ? 0 : r->s->opt.worker->recycle_grace_s;
    r->old = e;
    r->parked = false;
    r->until_us = mr_mono_us() + grace_s * 1000000;
    set_state(r, EMPTYING);
}

static void begin(mr_recycle *r) {
    mr_supervisor *s = r->s;
    mr_error err;
    r->began_us = mr_mono_us();
    r->failed = false;
    r->beside = fits_beside(r);
    mr_log(MR_INFO, "engine host is being replaced", MR_S("reason", reason_names[r->reason]),
           MR_S("how", r->beside ? "side by side" : "in place"), MR_I("running", s->engine->running));
    if (!r->beside) {
        empty(r, s->engine);
    } else if (mr_supervisor_start_engine(s, other(s, s->engine), &err) == 0) {
        set_state(r, COMING);
    } else {
        mr_log(MR_WARN, "no second engine host: in place then", MR_S("error", err.msg));
        r->beside = false;
        empty(r, s->engine);
    }
}

static void on_lease(void *arg, bool granted) {
    mr_recycle *r = arg;
    if (r->state != ASKING || !granted) return;
    if (r->held || !mr_host_ready(r->s->engine->host) || mr_loop_draining(r->s->loop)) {
        mr_lease_release(r->lease);
        return;
    }
    begin(r);
}

static void ask(mr_recycle *r, int64_t now) {
    if (!mr_host_ready(r->s->engine->host)) return; /* it is being replaced already, or has yet to come */
    if (is_fault(r->reason)) {
        begin(r);
    } else if (!r->held && now - r->asked_us > LOOK_US) {
        r->asked_us = now;
        mr_lease_ask(r->lease);
    }
}

/* Stops what still runs there, between two tokens. */
static void park_all(mr_recycle *r) {
    for (mr_job *j = r->old->jobs; j; j = j->in_next) {
        if (j->state != MR_JOB_RUNNING) continue;
        mr_dispatch_stop(j, MR_STOP_PARK);
        mr_counter_add(r->handed_over, 1);
    }
    r->parked = true;
    r->until_us = mr_mono_us() + PARKING_US;
}

static void part(mr_recycle *r) {
    if (!r->beside) mr_gauge_set(r->s->metrics.engine_up, 0);
    mr_host_end(r->old->host, !r->beside, "recycled");
    set_state(r, r->beside ? PARTING : RETURNING);
}

static void go_on_emptying(mr_recycle *r, int64_t now) {
    if (r->old->running == 0) {
        part(r);
    } else if (now >= r->until_us && !r->parked) {
        park_all(r);
    } else if (now >= r->until_us) {
        mr_host_fail(r->old->host,
                     "it did not stop what runs in it"); /* its jobs are lost, and go on elsewhere */
    }
}

static void finish(mr_recycle *r) {
    int64_t took_us = mr_mono_us() - r->began_us;
    mr_lease_release(r->lease);
    set_state(r, REST);
    set_age_limit(r);
    if (r->failed) return;
    mr_log(MR_INFO, "engine host was replaced", MR_S("reason", reason_names[r->reason]),
           MR_S("how", r->beside ? "side by side" : "in place"), MR_F("seconds", (double)took_us / 1e6));
    mr_counter_add(r->done[r->reason], 1);
    if (!r->order) return;
    mr_supervisor_report_recycled(r->s, r->order, r->beside, took_us);
    r->order = 0;
}

void mr_recycle_ready(mr_recycle *r, mr_engine *e) {
    mr_supervisor *s = r->s;
    if (r->state == COMING && e != s->engine) {
        mr_engine *old = s->engine;
        s->engine = e;
        empty(r, old);
    } else if (r->state == RETURNING && e == s->engine) {
        finish(r);
    } else if (r->state == REST) {
        set_age_limit(r);
    }
}

/* A host that died while it was being replaced: what is left to do is less. */
void mr_recycle_lost(mr_recycle *r, mr_engine *e) {
    if (r->state == EMPTYING && e == r->old && !r->beside) set_state(r, RETURNING);
    if (r->state == EMPTYING && e == r->old && r->beside) part(r);
}

static void renew(mr_recycle *r, int64_t now) {
    if (is_fault(r->reason) || now - r->asked_us < RENEW_US) return;
    r->asked_us = now;
    mr_lease_ask(r->lease);
}

/* The old one goes on working. */
static void give_up_new_one(mr_recycle *r) {
    r->failed = true;
    r->old = other(r->s, r->s->engine);
    mr_log(MR_ERROR, "the new engine host does not start: the old one stays",
           MR_S("reason", mr_host_why(r->old->host)));
    part(r);
}

static void rest(mr_recycle *r, int64_t now) {
    if (mr_loop_draining(r->s->loop)) return;
    look_at_memory(r, now);
    if (r->state == REST && r->old_at_us && now > r->old_at_us) want(r, MR_RECYCLE_AGE);
    if (r->state == ASKING) ask(r, now);
}

void mr_recycle_tick(mr_recycle *r) {
    int64_t now = mr_mono_us();
    if (r->state == REST || r->state == ASKING) {
        rest(r, now);
        return;
    }
    if (r->state == COMING && mr_host_looping(other(r->s, r->s->engine)->host)) give_up_new_one(r);
    if (r->state == EMPTYING) go_on_emptying(r, now);
    if (r->state == PARTING && mr_host_gone(r->old->host)) {
        r->s->engines_lost += (int64_t)mr_host_restarts(r->old->host);
        mr_host_free(r->old->host);
        r->old->host = NULL;
        finish(r);
    }
    renew(r, now);
}

bool mr_recycle_going_on(const mr_recycle *r) {
    return r->state != REST && r->state != ASKING;
}

bool mr_recycle_admits(const mr_recycle *r) {
    return r->state != EMPTYING || r->beside;
}

/* ---- life ---- */

static int take_lease(mr_recycle *r, mr_store *store, mr_error *err) {
    const mr_worker_conf *w = r->s->opt.worker;
    char name[160];
    snprintf(name, sizeof(name), "recycle:%.120s", w->pool);
    const mr_lease_options opt = {.name = name,
                                  .holder = r->s->id,
                                  .at_once = (int)w->recycle_at_once,
                                  .ttl_ms = LEASE_MS,
                                  .cb = on_lease,
                                  .arg = r};
    r->lease = mr_lease_new(store, &opt, err);
    return r->lease ? 0 : -1;
}

mr_recycle *mr_recycle_new(mr_supervisor *s, mr_store *store, mr_metrics *m, mr_error *err) {
    mr_recycle *r = calloc(1, sizeof(*r));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "out of memory for recycling");
        return NULL;
    }
    r->s = s;
    srandom((unsigned)(mr_now_ms() ^ getpid()));
    for (int i = 0; i < MR_RECYCLE_REASONS; i++) {
        char labels[64];
        snprintf(labels, sizeof(labels), "reason=\"%s\"", reason_names[i]);
        r->done[i] = mr_counter_new(m, "millrace_worker_recycled_total", labels,
                                    "Engine hosts that were replaced on purpose.");
    }
    r->handed_over = mr_counter_new(m, "millrace_worker_handed_over_total", NULL,
                                    "Answers that a replaced engine host left to the next one.");
    r->resident = mr_gauge_new(m, "millrace_worker_engine_resident_bytes", NULL,
                               "Memory of the engine host's process.");
    r->going_on =
        mr_gauge_new(m, "millrace_worker_recycling", NULL, "1 while an engine host is being replaced.");
    if (take_lease(r, store, err) == 0) return r;
    free(r);
    return NULL;
}

void mr_recycle_free(mr_recycle *r) {
    if (!r) return;
    mr_lease_free(r->lease);
    free(r);
}
