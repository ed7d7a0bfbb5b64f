/* Who runs next, and what to do when the engine dies. See parts.h.
 *
 * When an engine dies, every request in it is a suspect, and mostly all but one are innocent. A first time all of them go on
 * together: most deaths have nothing to do with a request. What was there twice is tried, with nothing else in the engine. Of few
 * suspects each is tried alone, so that the next death names the guilty one, and that one is given up. Many are tried in groups, in
 * smaller ones after a further death, then alone: each by itself would make all who wait wait for all of them. Whoever
 * gets past the place where the engine died is cleared, and steps aside for the next trial. A request that other workers died
 * of (Redis knows) is tried for a while, and its failed starts stay counted, because nobody knows the place. Whatever runs when
 * suspects come steps aside for them: a long answer would make all who wait wait for its end.
 *
 * Who is next is admit.h's to say, as long as requests wait there and not in the engine, which serves them as they come. So the engine
 * gets no more prompts than it computes in a moment, and nothing while it has no memory. And when it is full, one request of the
 * tenant that has the most in it steps aside for a tenant that has at least two fewer, and goes on when it is that tenant's turn again.
 */
#include "base/log.h"
#include "worker/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIAL_STARTS 2     /* failed starts that make a suspect */
#define ASIDE_US     20000 /* at least, between two requests that step aside */
#define TRIAL_TOKENS 8 /* past the place where the engine died; four times as many at each further trial */
#define TRIAL_GROUP                                                                                          \
    16 /* suspects at most that are tried together; a quarter of it after a further failed start */
#define TRIALS       4   /* of so many groups, where that makes them smaller */
#define BLIND_TOKENS 128 /* of one whose place is not known */

/* ---- slots: what is in the engine ---- */

static void take_slot(mr_supervisor *s, mr_job *j) {
    /* ids count up, and skip those whose slot is taken: an id is never used twice, and finds its slot at once */
    do s->last_engine_id++;
    while (s->slots[s->last_engine_id % MR_SLOTS]);
    j->engine_id = s->last_engine_id;
    j->in = s->engine;
    j->in_prev = NULL;
    j->in_next = j->in->jobs;
    if (j->in_next) j->in_next->in_prev = j;
    j->in->jobs = j;
    s->slots[j->engine_id % MR_SLOTS] = j;
    j->in->running++;
    s->running++;
    mr_admit_runs(s->line, mr_str_of(j->tenant));
}

mr_job *mr_dispatch_find(const mr_supervisor *s, int64_t engine_id) {
    mr_job *j = s->slots[engine_id % MR_SLOTS];
    return j && j->engine_id == engine_id ? j : NULL;
}

static void end_trial(mr_supervisor *s, mr_job *j) {
    s->trials -= j->tried;
    j->tried = false;
}

void mr_dispatch_left(mr_supervisor *s, mr_job *j) {
    s->slots[j->engine_id % MR_SLOTS] = NULL;
    s->running--;
    j->in->running--;
    *(j->in_prev ? &j->in_prev->in_next : &j->in->jobs) = j->in_next;
    if (j->in_next) j->in_next->in_prev = j->in_prev;
    j->in = NULL;
    j->engine_id = 0;
    mr_dispatch_computed(s, j);
    mr_admit_left(s->line, mr_str_of(j->tenant));
    end_trial(s, j);
}

void mr_dispatch_computed(mr_supervisor *s, mr_job *j) {
    s->computing -= j->computing;
    j->computing = 0;
}

/* ---- lines ---- */

void mr_dispatch_wait(mr_supervisor *s, mr_job *j, const char *why) {
    mr_error err;
    mr_job_set_state(j, MR_JOB_WAITING, why);
    j->stop = MR_STOP_NONE;
    bool returns = j->started_us && !j->ticket.aside;
    if (j->starts >= TRIAL_STARTS && !j->parked) {
        mr_admit_return(s->suspects, &j->ticket);
    } else if (returns || mr_admit_push(s->line, &j->ticket, mr_str_of(j->tenant), &err) != 0) {
        mr_admit_return(s->line, &j->ticket); /* it had its turn; or there is no memory to be fair with */
    }
}

static bool has_place(const mr_supervisor *s) {
    return s->engine->running < s->places && s->computing < s->opt.worker->prefill_ahead && !s->engine_waits;
}

/* A trial begins: so many may be in it. Of few suspects each is tried alone, which names the guilty one at once. */
static int group_size(const mr_supervisor *s) {
    int n = (mr_admit_waiting(s->suspects) + TRIALS - 1) / TRIALS;
    return n < TRIAL_GROUP ? n : TRIAL_GROUP;
}

/* So many may run in a trial with one that failed so often. */
static int group_of(const mr_job *j) {
    int64_t more = j->starts - TRIAL_STARTS;
    return more >= 2 ? 1 : more == 1 ? TRIAL_GROUP / 4 : TRIAL_GROUP;
}

static mr_job *next_suspect(mr_supervisor *s) {
    int most = group_of((const mr_job *)mr_admit_next(s->suspects));
    if (!s->trials) s->trial_most = group_size(s);
    if (s->trial_most < most) most = s->trial_most;
    if (s->running > s->trials || s->trials >= most) return NULL;
    s->trial_most = most;
    return (mr_job *)mr_admit_pop_returned(s->suspects);
}

static mr_job *next_job(mr_supervisor *s) {
    if (!has_place(s) || !mr_recycle_admits(s->recycle)) return NULL;
    if (mr_admit_waiting(s->suspects)) return next_suspect(s);
    if (s->trials) return NULL;
    return (mr_job *)(mr_loop_draining(s->loop) ? mr_admit_pop_returned(s->line) : mr_admit_pop(s->line));
}

/* ---- starting ---- */

static int submit(const mr_job *j, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_SUBMIT};
    f.submit.id = j->engine_id;
    f.submit.request = mr_buf_str(&j->request);
    f.submit.forced.v = j->tokens;
    f.submit.forced.n = j->ntokens;
    return mr_host_send(j->in->host, &f, err);
}

/* Redis counts it before it can do harm, so that the next worker knows. */
static void count(mr_supervisor *s, mr_job *j, int64_t more) {
    if (j->ours) mr_starts_add(s->starts, mr_str_of(j->id), more);
    if (!j->ours) j->uncounted += more;
    j->counted += more;
}

static void try_alone_or_together(mr_supervisor *s, mr_job *j) {
    j->tried = true;
    s->trials++;
    if (s->trial_most == 1) count(s, j, MR_STARTS_ALONE);
    mr_counter_add(s->metrics.trials, 1);
    mr_log(MR_WARN, "request runs on trial: engines died while it ran", MR_S("request", j->id),
           MR_I("starts", j->starts), MR_I("together", s->trial_most));
}

static void count_start(mr_supervisor *s, mr_job *j) {
    if (j->parked) {
        if (j->counted > 1) count(s, j, 1 - j->counted); /* it was alone, and no more is */
        j->parked = false;
        return;
    }
    j->starts++;
    j->counted = 0;
    count(s, j, 1);
    if (j->starts > TRIAL_STARTS) try_alone_or_together(s, j);
}

static void start(mr_supervisor *s, mr_job *j) {
    mr_error err;
    if ((j->named || j->starts >= MR_MAX_STARTS) && !j->parked) {
        mr_answer_condemn(s, j);
        return;
    }
    if (j->ticket.deadline_ms && mr_now_ms() >= j->ticket.deadline_ms) {
        mr_answer_stop(s, j, MR_STOP_DEADLINE);
        return;
    }
    count_start(s, j);
    take_slot(s, j);
    j->ticket.aside = false;
    j->computing = (int64_t)(j->request.n / MR_BYTES_PER_TOKEN) + j->ntokens + 1;
    s->computing += j->computing;
    j->resumed_at = j->ntokens;
    if (!j->started_us) {
        j->started_us = mr_mono_us();
        mr_histogram_observe(s->metrics.queued, (double)(j->started_us - j->received_us) / 1e6);
    }
    mr_job_set_state(j, MR_JOB_RUNNING, j->ntokens ? "goes on" : "starts");
    if (submit(j, &err) == 0) return;
    mr_dispatch_left(s, j);
    mr_answer_error(s, j, 400, "request_too_large", err.msg);
}

/* ---- making room ---- */

static int running_of(const mr_engine *e, const char *tenant) {
    int n = 0;
    for (const mr_job *j = e->jobs; j; j = j->in_next) n += strcmp(j->tenant, tenant) == 0;
    return n;
}

/* Of two requests that might step aside: the one that has less to be computed again, then the one that did so less often. */
static bool rather(const mr_job *a, const mr_job *b) {
    if (!b) return true;
    return a->ntokens != b->ntokens ? a->ntokens < b->ntokens : a->asides < b->asides;
}

/* A request of the tenant with the most in the engine, if those are at least two more than `next`'s tenant has. */
static mr_job *find_aside(const mr_engine *e, const mr_job *next) {
    const char *most = NULL;
    int n = running_of(e, next->tenant) + 1;
    for (const mr_job *j = e->jobs; j; j = j->in_next) {
        if (most && strcmp(j->tenant, most) == 0) continue;
        int of = running_of(e, j->tenant);
        if (of > n) {
            n = of;
            most = j->tenant;
        }
    }
    mr_job *best = NULL;
    for (mr_job *j = e->jobs; most && j; j = j->in_next) {
        bool may = j->state == MR_JOB_RUNNING && strcmp(j->tenant, most) == 0;
        if (may && rather(j, best)) best = j;
    }
    return best;
}

/* One at a time, so that the tenants are counted again when it has left. */
static void make_room(mr_supervisor *s) {
    int64_t now = mr_mono_us();
    const mr_job *next = (const mr_job *)mr_admit_next(s->line);
    bool full = s->engine->running >= s->places && !s->trials && !mr_admit_waiting(s->suspects);
    if (!full || !next || next->started_us || now - s->made_room_us < ASIDE_US || mr_loop_draining(s->loop))
        return;
    s->made_room_us = now;
    mr_job *j = find_aside(s->engine, next);
    if (!j) return;
    j->asides++;
    mr_counter_add(s->metrics.asides, 1);
    mr_dispatch_stop(j, MR_STOP_ASIDE);
}

static void make_room_for_trials(mr_supervisor *s) {
    if (s->trials || !mr_admit_waiting(s->suspects) || !mr_recycle_admits(s->recycle)) return;
    for (mr_job *j = s->engine->jobs; j; j = j->in_next) {
        if (j->state == MR_JOB_RUNNING) mr_dispatch_stop(j, MR_STOP_PARK);
    }
}

void mr_dispatch(mr_supervisor *s) {
    mr_job *j;
    make_room_for_trials(s);
    while (mr_host_ready(s->engine->host) && (j = next_job(s)) != NULL) start(s, j);
    make_room(s);
    mr_receive_resume(s);
    mr_gauge_set(s->metrics.running, s->running);
    mr_gauge_set(s->metrics.waiting, mr_admit_waiting(s->line) + mr_admit_waiting(s->suspects));
}

/* ---- stopping ---- */

bool mr_dispatch_counts(const mr_job *j) {
    return j->starts > 0 && (j->parked || j->state == MR_JOB_RUNNING || j->state == MR_JOB_STOPPING);
}

void mr_dispatch_stop(mr_job *j, mr_stop why) {
    mr_error err;
    mr_frame f = {.type = MR_FRAME_CANCEL};
    f.cancel.id = j->engine_id;
    if (j->state == MR_JOB_RUNNING) {
        mr_job_set_state(j, MR_JOB_STOPPING, "told to stop");
        if (mr_host_send(j->in->host, &f, &err)) mr_log(MR_WARN, "cancel not sent", MR_S("error", err.msg));
    }
    j->stop = why; /* a cancel weighs more than a park that is under way */
}

/* Nobody hears of it any more: the engine stops it, and it is forgotten when nothing of it is in the air. */
void mr_dispatch_drop(mr_supervisor *s, mr_job *j, const char *why) {
    if (j->state == MR_JOB_RUNNING) mr_dispatch_stop(j, MR_STOP_LOST);
    if (j->engine_id) mr_dispatch_left(s, j);
    mr_admit_remove(&j->ticket);
    j->stop = MR_STOP_LOST;
    mr_job_set_state(j, MR_JOB_ENDING, why);
    mr_stream_abandon(&j->stream, why);
}

/* ---- trials ---- */

static void clear(mr_supervisor *s, mr_job *j) {
    j->trials++;
    j->starts = 1;
    j->uncounted = 0;
    j->counted = 1;
    mr_starts_set(s->starts, mr_str_of(j->id), j->starts);
}

/* It steps aside when others wait for their trial, and counts as started once if it is cleared. */
void mr_dispatch_progress(mr_supervisor *s, mr_job *j) {
    if (!j->tried || j->state != MR_JOB_RUNNING) return;
    int doublings = j->trials < 8 ? 2 * j->trials : 16;
    uint32_t enough = j->known_place ? (uint32_t)TRIAL_TOKENS << doublings : BLIND_TOKENS;
    if (j->ntokens - j->resumed_at < enough) return;
    end_trial(s, j);
    if (j->known_place) {
        clear(s, j);
    } else {
        count(s, j, 1 - j->counted); /* what it dies of from now on may be another's fault */
    }
    if (mr_admit_waiting(s->suspects)) {
        mr_dispatch_stop(j, MR_STOP_PARK);
    } else {
        mr_dispatch(s);
    }
}

/* ---- the engine comes and goes ---- */

void mr_dispatch_ready(void *engine, const mr_frame_ready *f) {
    mr_engine *e = engine;
    mr_supervisor *s = e->of;
    mr_log(MR_INFO, "engine ready", MR_SS("model", f->model), MR_SS("architecture", f->architecture),
           MR_SS("isa", f->isa), MR_I("max_seqs", f->max_seqs), MR_I("max_context", f->max_context),
           MR_F("load_seconds", f->load_seconds), MR_F("first_token_seconds", f->first_token_seconds));
    /* a quarter, so that two engines leave room for ids to differ */
    s->places = (int)(f->max_seqs < MR_SLOTS / 4 ? f->max_seqs : MR_SLOTS / 4);
    s->engine_waits = s->engine_waited = 0;
    mr_gauge_set(s->metrics.engine_up, 1);
    mr_recycle_ready(s->recycle, e);
    mr_canary_hurry(s->canary);
    mr_dispatch(s);
}

void mr_dispatch_canary_left(mr_supervisor *s) {
    for (int i = 0; i < 2; i++) {
        if (s->canary_in == &s->engines[i]) s->engines[i].running--;
    }
    s->canary_in = NULL;
}

static void lost(mr_supervisor *s, mr_job *j) {
    mr_stop stop = j->stop;
    j->named = j->counted > 1;
    mr_dispatch_left(s, j);
    j->known_place = true;
    if (stop == MR_STOP_NONE || stop == MR_STOP_PARK || stop == MR_STOP_ASIDE) {
        mr_dispatch_wait(s, j, "its engine died");
    } else {
        mr_answer_stopped(s, j, NULL);
    }
}

void mr_dispatch_lost(void *engine, const char *why) {
    mr_engine *e = engine;
    mr_supervisor *s = e->of;
    mr_log(MR_WARN, "engine lost", MR_S("reason", why), MR_I("running", e->running));
    snprintf(s->last_death, sizeof(s->last_death), "%s", why);
    mr_counter_add(s->metrics.host_restarts, 1);
    s->engine_waits = s->engine_waited = 0;
    mr_gauge_set(s->metrics.engine_up, mr_host_ready(s->engine->host));
    if (s->canary_in == e) {
        mr_canary_forget(s->canary);
        mr_dispatch_canary_left(s);
    }
    /* in the order they came, which is that in which they go on */
    for (mr_job *j = mr_jobs_first(s->jobs), *next; j; j = next) {
        next = j->next;
        if (j->in == e) lost(s, j);
    }
    mr_recycle_lost(s->recycle, e);
    mr_dispatch(s);
}
