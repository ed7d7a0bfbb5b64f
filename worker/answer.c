/* What the engine says, and how a request ends. See parts.h. */
#include "base/log.h"
#include "session/session.h"
#include "worker/parts.h"

#include <stdio.h>
#include <string.h>

#define MAX_BREAKS 3 /* streams of one request that Kafka refused; then it is given up */

/* ---- terminal records ---- */

static double since_ms(const mr_job *j, int64_t us) {
    /* created_ms is another machine's clock: what lies before the receipt is only an estimate */
    double before = (double)(mr_now_ms() - j->created_ms) - (double)(mr_mono_us() - j->received_us) / 1e3;
    double after = (double)(us - j->received_us) / 1e3;
    return (before > 0 ? before : 0) + (after > 0 ? after : 0);
}

static void fill_timings(const mr_job *j, mr_timings *t) {
    if (j->started_us) MR_SET(t, MR_TIMINGS_QUEUED_MS, queued_ms, since_ms(j, j->started_us));
    if (j->first_token_us)
        MR_SET(t, MR_TIMINGS_FIRST_TOKEN_MS, first_token_ms, since_ms(j, j->first_token_us));
    MR_SET(t, MR_TIMINGS_TOTAL_MS, total_ms, since_ms(j, mr_mono_us()));
}

static void finish(mr_supervisor *s, mr_job *j, mr_response_end *end) {
    j->keeps = j->keeps && (end->finish_reason == MR_FINISH_STOP || end->finish_reason == MR_FINISH_LENGTH);
    int64_t now = mr_mono_us();
    mr_job_set_state(j, MR_JOB_ENDING, mr_finish_names[end->finish_reason]);
    fill_timings(j, &end->timings);
    MR_MARK(end, MR_RESPONSE_END_TIMINGS);
    mr_counter_add(s->metrics.finished[end->finish_reason], 1);
    mr_histogram_observe(s->metrics.total, (double)(now - j->received_us) / 1e6);
    mr_report_end(s->report, j, end->finish_reason, end->error.status);
    mr_log(MR_INFO, "request finished", MR_S("request", j->id), MR_S("traceparent", j->trace),
           MR_S("finish", mr_finish_names[end->finish_reason]), MR_I("tokens", j->stream.tokens),
           MR_I("starts", j->starts), MR_F("seconds", (double)(now - j->received_us) / 1e6));
    mr_stream_end(&j->stream, end);
}

void mr_answer_end(mr_supervisor *s, mr_job *j, int reason, const mr_usage *usage) {
    mr_response_end end = {.set = 0};
    MR_SET(&end, MR_RESPONSE_END_FINISH_REASON, finish_reason, reason);
    if (usage) MR_SET(&end, MR_RESPONSE_END_USAGE, usage, *usage);
    finish(s, j, &end);
}

static void fail_with(mr_supervisor *s, mr_job *j, int status, const char *code, const char *message,
                      const mr_usage *usage) {
    mr_response_end end = {.set = 0};
    mr_response_error *e = &end.error;
    MR_SET(e, MR_RESPONSE_ERROR_STATUS, status, status);
    MR_SET(e, MR_RESPONSE_ERROR_TYPE, type,
           status < 500 ? MR_STR("invalid_request_error") : MR_STR("server_error"));
    if (*code) MR_SET(e, MR_RESPONSE_ERROR_CODE, code, mr_str_of(code));
    MR_SET(e, MR_RESPONSE_ERROR_MESSAGE, message, mr_str_of(*message ? message : "the request failed"));
    MR_MARK(&end, MR_RESPONSE_END_ERROR);
    MR_SET(&end, MR_RESPONSE_END_FINISH_REASON, finish_reason, MR_FINISH_ERROR);
    if (usage) MR_SET(&end, MR_RESPONSE_END_USAGE, usage, *usage);
    finish(s, j, &end);
}

void mr_answer_error(mr_supervisor *s, mr_job *j, int status, const char *code, const char *message) {
    fail_with(s, j, status, code, message, NULL);
}

/* ---- stopped before the end ---- */

static void restart_stream(mr_supervisor *s, mr_job *j) {
    mr_stream_restart(&j->stream);
    mr_buf_clear(&j->answer);
    j->ntokens = j->nforced;
    mr_dispatch_wait(s, j, "its stream broke");
}

void mr_answer_stopped(mr_supervisor *s, mr_job *j, const mr_usage *usage) {
    switch (j->stop) {
    case MR_STOP_CANCEL: mr_answer_end(s, j, MR_FINISH_CANCELLED, usage); break;
    case MR_STOP_DEADLINE:
        fail_with(s, j, 504, "deadline_exceeded", "the answer was not complete before the request's deadline",
                  usage);
        break;
    case MR_STOP_ASIDE: j->ticket.aside = true; /* fall through */
    case MR_STOP_PARK:
        j->parked = true;
        mr_dispatch_wait(s, j, "steps aside");
        break;
    case MR_STOP_BROKEN: restart_stream(s, j); break;
    case MR_STOP_LOST: break; /* mr_dispatch_drop sees to it */
    case MR_STOP_NONE: fail_with(s, j, 500, "engine_error", "the engine stopped this answer", usage); break;
    }
}

void mr_answer_stop(mr_supervisor *s, mr_job *j, mr_stop why) {
    if (j->state == MR_JOB_ENDING || j->stop == MR_STOP_BROKEN || j->stop == MR_STOP_LOST) return;
    if (j->state == MR_JOB_RUNNING || j->state == MR_JOB_STOPPING) {
        mr_dispatch_stop(j, why);
        return;
    }
    j->stop = why;
    if (j->state == MR_JOB_LOOKING) return; /* seen when Redis has answered */
    mr_admit_remove(&j->ticket);
    mr_answer_stopped(s, j, NULL);
}

/* ---- given up ---- */

static void bury(mr_supervisor *s, mr_job *j, const char *why, bool last) {
    mr_error err;
    const mr_burial b = {.partition = j->partition,
                         .offset = j->offset,
                         .record = mr_buf_str(&j->request),
                         .request = mr_str_of(j->id),
                         .trace = mr_str_of(j->trace),
                         .why = why,
                         .attempts = j->starts,
                         .last = last};
    if (mr_receive_bury(s, &b, &err)) mr_log(MR_ERROR, "dead letter not written", MR_S("error", err.msg));
}

void mr_answer_condemn(mr_supervisor *s, mr_job *j) {
    char why[700];
    snprintf(why, sizeof(why), "started %lld times and never ended; last: %s", (long long)j->starts,
             *s->last_death ? s->last_death : "its worker died");
    bury(s, j, why, false);
    mr_answer_error(s, j, 500, "request_failed_repeatedly",
                    "this request stopped the engine several times and was given up");
}

/* Not even its terminal record can be written: what is left is the dead letter. */
static void abandon(mr_supervisor *s, mr_job *j, const char *why) {
    if (j->state == MR_JOB_RUNNING) mr_dispatch_stop(j, MR_STOP_CANCEL);
    if (j->engine_id) mr_dispatch_left(s, j);
    mr_admit_remove(&j->ticket);
    bury(s, j, why, true);
    mr_jobs_remove(s->jobs, j);
    mr_dispatch(s);
}

/* ---- what the stream says ---- */

static void on_ended(void *owner) {
    mr_job *j = owner;
    mr_supervisor *s = j->of;
    mr_job_finished(s, j);
    mr_supervisor_check_drained(s);
}

static void on_broken(void *owner, const char *why) {
    mr_job *j = owner;
    mr_supervisor *s = j->of;
    if (s->closing) return;
    if (j->stop == MR_STOP_LOST) {
        mr_jobs_remove(s->jobs, j);
        mr_supervisor_check_drained(s);
        return;
    }
    mr_log(MR_WARN, "answer could not be published", MR_S("request", j->id), MR_S("error", why));
    if (++j->breaks >= MAX_BREAKS) {
        abandon(s, j, why);
    } else if (j->state == MR_JOB_RUNNING) {
        mr_dispatch_stop(j, MR_STOP_BROKEN);
    } else {
        mr_admit_remove(&j->ticket);
        restart_stream(s, j);
        mr_dispatch(s);
    }
}

int mr_answer_open(mr_supervisor *s, mr_job *j, int32_t reply_to, const mr_stream_base *base, mr_error *err) {
    const mr_stream_options opt = {.publisher = s->publisher,
                                   .loop = s->loop,
                                   .request = mr_str_of(j->id),
                                   .trace = mr_str_of(j->trace),
                                   .partition = reply_to,
                                   .base = base,
                                   .ended = on_ended,
                                   .broken = on_broken,
                                   .owner = j};
    return mr_stream_open(&j->stream, &opt, err);
}

/* ---- what the engine says ---- */

static void out_of_step(mr_supervisor *s, mr_job *j, const char *why) {
    mr_log(MR_ERROR, "engine host is out of step", MR_S("request", j->id), MR_S("reason", why));
    mr_dispatch_stop(j, MR_STOP_CANCEL);
    mr_dispatch_left(s, j);
    mr_answer_error(s, j, 500, "engine_error", why);
    mr_dispatch(s);
}

/* What its session keeps of the answer: the content, up to a limit. */
static void collect(mr_job *j, int channel, mr_str text) {
    if (!j->keeps || channel != MR_CHANNEL_CONTENT) return;
    size_t room =
        MR_TURN_TEXT_MAX + 1 - (j->answer.n < MR_TURN_TEXT_MAX ? j->answer.n : MR_TURN_TEXT_MAX + 1);
    mr_buf_put(&j->answer, text.p, text.n < room ? text.n : room);
}

void mr_answer_keep(mr_supervisor *s, const mr_job *j) {
    mr_chat_request q;
    mr_error err;
    mr_arena *a = mr_arena_new(64u << 20);
    if (a && !j->answer.failed &&
        mr_unpack(&mr_chat_request_def, mr_buf_str(&j->request), a, &q, &err) == 0) {
        mr_session_keep(s->store, &q, mr_buf_str(&j->answer));
    }
    mr_arena_free(a);
}

static void on_tokens(mr_supervisor *s, const mr_frame_tokens *f) {
    mr_job *j = mr_dispatch_find(s, f->id);
    if (!j) return;
    if (f->index != j->ntokens || (f->logprobs.n && f->logprobs.n != f->tokens.n)) {
        out_of_step(s, j, "the engine skipped or repeated a token");
        return;
    }
    if (!mr_job_add_tokens(j, f->tokens.v, f->tokens.n)) {
        out_of_step(s, j, "out of memory");
        return;
    }
    bool begins = j->computing > 0;
    mr_dispatch_computed(s, j);
    mr_counter_add(s->metrics.tokens, f->tokens.n);
    mr_report_tokens(s->report, f->tokens.n);
    mr_admit_spend(s->line, mr_str_of(j->tenant), f->tokens.n);
    if (!j->first_token_us) {
        j->first_token_us = mr_mono_us();
        mr_histogram_observe(s->metrics.first_token, (double)(j->first_token_us - j->received_us) / 1e6);
        mr_report_first_token(s->report, j);
    }
    collect(j, f->channel, f->text);
    mr_stream_text(&j->stream, &(mr_stream_piece){f->channel, f->call, f->name, f->text, f->tokens,
                                                  f->logprobs.v, f->logprobs.n});
    mr_dispatch_progress(s, j);
    if (begins) mr_dispatch(s);
}

static mr_usage usage_of(const mr_frame_end *f) {
    mr_usage u = {.set = 0};
    MR_SET(&u, MR_USAGE_PROMPT_TOKENS, prompt_tokens, f->prompt_tokens);
    MR_SET(&u, MR_USAGE_COMPLETION_TOKENS, completion_tokens, f->completion_tokens);
    MR_SET(&u, MR_USAGE_REASONING_TOKENS, reasoning_tokens, f->reasoning_tokens);
    MR_SET(&u, MR_USAGE_PROMPT_CACHE_HIT_TOKENS, prompt_cache_hit_tokens, f->cached_tokens);
    return u;
}

static void on_end(mr_supervisor *s, const mr_frame_end *f) {
    mr_job *j = mr_dispatch_find(s, f->id);
    if (!j) return;
    char code[65], message[2001];
    mr_usage usage = usage_of(f);
    if (f->finish == MR_FINISH_STOP || f->finish == MR_FINISH_LENGTH) mr_host_proved(j->in->host);
    mr_dispatch_left(s, j);
    if (j->stop != MR_STOP_PARK && j->stop != MR_STOP_ASIDE) {
        mr_admit_spend(s->line, mr_str_of(j->tenant), f->prompt_tokens / MR_PROMPT_WEIGHT - j->ticket.cost);
    }
    mr_counter_add(s->metrics.prompt_tokens, (uint64_t)f->prompt_tokens);
    collect(j, f->channel, f->text);
    mr_stream_text(&j->stream, &(mr_stream_piece){
                                   .channel = f->channel, .call = f->call, .name = f->name, .text = f->text});
    if (j->stop == MR_STOP_BROKEN || f->finish == MR_FINISH_CANCELLED) {
        mr_answer_stopped(s, j, &usage);
    } else if (f->finish == MR_FINISH_ERROR) {
        mr_str_copy(f->code, code, sizeof(code));
        mr_str_copy(f->message, message, sizeof(message));
        fail_with(s, j, f->status >= 400 ? (int)f->status : 500, code, message, &usage);
    } else {
        mr_answer_end(s, j, f->finish, &usage);
    }
    mr_dispatch(s);
}

/* An engine counts from its start: less than before is a new engine's count. */
static void count_load(mr_worker_metrics *m, const mr_frame_load *f) {
    const int64_t now[MR_LOAD_COUNTERS] = {
        [MR_LOAD_STEPS] = f->steps,
        [MR_LOAD_PREFILLED] = f->prompt_tokens,
        [MR_LOAD_PREEMPTIONS] = f->preemptions,
        [MR_LOAD_WANTED] = f->wanted_tokens,
        [MR_LOAD_CACHED] = f->cached_tokens,
        [MR_LOAD_GUESSED] = f->guessed_tokens,
        [MR_LOAD_RIGHT] = f->right_guesses,
    };
    bool fresh = now[MR_LOAD_STEPS] < m->load_last[MR_LOAD_STEPS];
    for (int i = 0; i < MR_LOAD_COUNTERS; i++) {
        int64_t before = fresh ? 0 : m->load_last[i];
        if (now[i] > before) mr_counter_add(m->load[i], (uint64_t)(now[i] - before));
        m->load_last[i] = now[i];
    }
}

static void on_load(mr_supervisor *s, const mr_frame_load *f) {
    count_load(&s->metrics, f);
    /* what has just been submitted waits for the next step, and not for memory */
    s->engine_waits = f->waiting < s->engine_waited ? f->waiting : s->engine_waited;
    s->engine_waited = f->waiting;
    mr_gauge_set(s->metrics.engine_waiting, (double)f->waiting);
    mr_gauge_set(s->metrics.batch, (double)f->running);
    s->kv_used = f->kv_blocks ? (double)f->kv_blocks_used / (double)f->kv_blocks : 0;
    mr_gauge_set(s->metrics.kv_usage, s->kv_used);
}

/* ---- the canary ---- */

static void on_canary_end(mr_supervisor *s, const mr_frame_end *f) {
    bool right = mr_canary_end(s->canary, f);
    mr_dispatch_canary_left(s);
    mr_counter_add(s->metrics.canaries, 1);
    s->canary_wrong = !right;
    if (!right) {
        mr_counter_add(s->metrics.wrong_canaries, 1);
        mr_recycle_fault(s->recycle, MR_RECYCLE_CANARY);
    }
    mr_dispatch(s);
}

/* An engine that is told to part with everything may still have said something. */
static bool is_canary(const mr_engine *e, int64_t id) {
    return id == MR_CANARY_ID && e->of->canary_in == e;
}

void mr_answer_frame(void *engine, const mr_frame *f) {
    mr_engine *e = engine;
    mr_supervisor *s = e->of;
    switch (f->type) {
    case MR_FRAME_TOKENS:
        if (is_canary(e, f->tokens.id)) {
            mr_canary_tokens(s->canary, &f->tokens);
        } else {
            on_tokens(s, &f->tokens);
        }
        break;
    case MR_FRAME_END:
        if (is_canary(e, f->end.id)) {
            on_canary_end(s, &f->end);
        } else {
            on_end(s, &f->end);
        }
        break;
    case MR_FRAME_LOAD:
        if (e == s->engine) on_load(s, &f->load);
        break;
    default: break; /* what newer hosts say */
    }
}
