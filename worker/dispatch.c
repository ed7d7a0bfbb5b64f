/* Who runs next, and what to do when the engine dies. See parts.h.
 *
 * When an engine dies, every request in it is a suspect, and mostly all but one are innocent. A first time all of them go on
 * together: most deaths have nothing to do with a request. What was there twice is tried: it runs alone, so that
 * the next death names the guilty one, and that one is given up (its third start failed). Whoever gets past the
 * place where the engine died is cleared and steps aside for the next trial. A request that other workers died of
 * (Redis knows) is tried the same way, but until its end, because nobody knows the place.
 */
#include "base/log.h"
#include "worker/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIAL_STARTS 2 /* failed starts that make a suspect */
#define TRIAL_TOKENS 8 /* past the place where the engine died; four times as many at each further trial */
#define MAX_SLOTS    65536

/* ---- slots: what is in the engine ---- */

static void take_slot(mr_supervisor *s, mr_job *j) {
    /* ids count up, and skip those whose slot is taken: an id is never used twice, and finds its slot at once */
    do s->last_engine_id++;
    while (s->slots[s->last_engine_id % s->nslots]);
    j->engine_id = s->last_engine_id;
    s->slots[j->engine_id % s->nslots] = j;
    s->running++;
}

mr_job *mr_dispatch_find(const mr_supervisor *s, int64_t engine_id) {
    mr_job *j = s->nslots ? s->slots[engine_id % s->nslots] : NULL;
    return j && j->engine_id == engine_id ? j : NULL;
}

void mr_dispatch_left(mr_supervisor *s, mr_job *j) {
    s->slots[j->engine_id % s->nslots] = NULL;
    s->running--;
    j->engine_id = 0;
    if (s->trial == j) s->trial = NULL;
}

/* ---- lines ---- */

void mr_dispatch_wait(mr_supervisor *s, mr_job *j, const char *why) {
    mr_error err;
    mr_job_set_state(j, MR_JOB_WAITING, why);
    j->stop = MR_STOP_NONE;
    if (j->starts >= TRIAL_STARTS && !j->parked) {
        mr_admit_return(s->suspects, &j->ticket);
    } else if (j->started_us || mr_admit_push(s->line, &j->ticket, mr_str_of(j->tenant), &err) != 0) {
        mr_admit_return(s->line, &j->ticket); /* it had its turn; or there is no memory to be fair with */
    }
}

static mr_job *next_job(mr_supervisor *s) {
    if (s->trial || s->running >= s->nslots) return NULL;
    if (mr_admit_waiting(s->suspects)) {
        return s->running ? NULL : (mr_job *)mr_admit_pop_returned(s->suspects);
    }
    return (mr_job *)(mr_loop_draining(s->loop) ? mr_admit_pop_returned(s->line) : mr_admit_pop(s->line));
}

/* ---- starting ---- */

static int submit(mr_supervisor *s, const mr_job *j, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_SUBMIT};
    f.submit.id = j->engine_id;
    f.submit.request = mr_buf_str(&j->request);
    f.submit.forced.v = j->tokens;
    f.submit.forced.n = j->ntokens;
    return mr_host_send(s->host, &f, err);
}

static void count_start(mr_supervisor *s, mr_job *j) {
    if (!j->parked) {
        j->starts++;
        j->stream.attempt = j->starts > j->stream.attempt ? j->starts : j->stream.attempt + 1;
        if (j->ours) mr_starts_set(s->store, mr_str_of(j->id), j->starts);
    }
    if (j->starts > TRIAL_STARTS && !j->parked) {
        s->trial = j;
        mr_counter_add(s->metrics.trials, 1);
        mr_log(MR_WARN, "request runs alone: engines died while it ran", MR_S("request", j->id),
               MR_I("starts", j->starts));
    }
    j->parked = false;
}

static void start(mr_supervisor *s, mr_job *j) {
    mr_error err;
    if (j->starts >= MR_MAX_STARTS && !j->parked) {
        mr_answer_condemn(s, j);
        return;
    }
    if (j->ticket.deadline_ms && mr_now_ms() >= j->ticket.deadline_ms) {
        mr_answer_stop(s, j, MR_STOP_DEADLINE);
        return;
    }
    count_start(s, j);
    take_slot(s, j);
    j->resumed_at = j->ntokens;
    if (!j->started_us) {
        j->started_us = mr_mono_us();
        mr_histogram_observe(s->metrics.queued, (double)(j->started_us - j->received_us) / 1e6);
    }
    mr_job_set_state(j, MR_JOB_RUNNING, j->ntokens ? "goes on" : "starts");
    if (submit(s, j, &err) == 0) return;
    mr_dispatch_left(s, j);
    mr_answer_error(s, j, 400, "request_too_large", err.msg);
}

void mr_dispatch(mr_supervisor *s) {
    mr_job *j;
    while (mr_host_ready(s->host) && (j = next_job(s)) != NULL) start(s, j);
    mr_receive_resume(s);
    mr_gauge_set(s->metrics.running, s->running);
    mr_gauge_set(s->metrics.waiting, mr_admit_waiting(s->line) + mr_admit_waiting(s->suspects));
}

/* ---- stopping ---- */

void mr_dispatch_stop(mr_supervisor *s, mr_job *j, mr_stop why) {
    mr_error err;
    mr_frame f = {.type = MR_FRAME_CANCEL};
    f.cancel.id = j->engine_id;
    if (j->state == MR_JOB_RUNNING) {
        mr_job_set_state(j, MR_JOB_STOPPING, "told to stop");
        if (mr_host_send(s->host, &f, &err)) mr_log(MR_WARN, "cancel not sent", MR_S("error", err.msg));
    }
    j->stop = why; /* a cancel weighs more than a park that is under way */
}

/* ---- trials ---- */

/* Cleared: it counts as started once, and steps aside when others wait for their trial. */
void mr_dispatch_progress(mr_supervisor *s, mr_job *j) {
    if (s->trial != j || !j->known_place || j->state != MR_JOB_RUNNING) return;
    int doublings = j->trials < 8 ? 2 * j->trials : 16;
    if (j->ntokens - j->resumed_at < (uint32_t)TRIAL_TOKENS << doublings) return;
    s->trial = NULL;
    j->trials++;
    j->starts = 1;
    mr_starts_set(s->store, mr_str_of(j->id), j->starts);
    if (mr_admit_waiting(s->suspects)) {
        mr_dispatch_stop(s, j, MR_STOP_PARK);
    } else {
        mr_dispatch(s);
    }
}

/* ---- the engine comes and goes ---- */

void mr_dispatch_ready(void *supervisor, const mr_frame_ready *f) {
    mr_supervisor *s = supervisor;
    int n = (int)(f->max_seqs < MAX_SLOTS ? f->max_seqs : MAX_SLOTS);
    if (n != s->nslots) {
        mr_job **slots = calloc((size_t)n, sizeof(mr_job *));
        if (!slots && !s->slots) {
            mr_log(MR_ERROR, "out of memory for the running requests");
            mr_loop_drain(s->loop);
            return;
        }
        if (slots) { /* else the old number does */
            free(s->slots);
            s->slots = slots;
            s->nslots = n;
        }
    }
    mr_log(MR_INFO, "engine ready", MR_SS("model", f->model), MR_SS("architecture", f->architecture),
           MR_SS("isa", f->isa), MR_I("max_seqs", f->max_seqs), MR_I("max_context", f->max_context),
           MR_F("load_seconds", f->load_seconds), MR_F("first_token_seconds", f->first_token_seconds));
    mr_gauge_set(s->metrics.engine_up, 1);
    mr_dispatch(s);
}

static void lost(mr_supervisor *s, mr_job *j) {
    mr_stop stop = j->stop;
    mr_dispatch_left(s, j);
    j->known_place = true;
    if (stop == MR_STOP_NONE || stop == MR_STOP_PARK) {
        mr_dispatch_wait(s, j, "its engine died");
    } else {
        mr_answer_stopped(s, j, NULL);
    }
}

void mr_dispatch_lost(void *supervisor, const char *why) {
    mr_supervisor *s = supervisor;
    mr_log(MR_WARN, "engine lost", MR_S("reason", why), MR_I("running", s->running));
    snprintf(s->last_death, sizeof(s->last_death), "%s", why);
    mr_counter_add(s->metrics.host_restarts, 1);
    mr_gauge_set(s->metrics.engine_up, 0);
    for (mr_job *j = mr_jobs_first(s->jobs), *next; j; j = next) {
        next = j->next;
        if (j->engine_id) lost(s, j);
    }
    mr_dispatch(s);
}
