/* See stream_records.h. */
#include "gateway/stream_records.h"

#include "base/log.h"
#include "gateway/regenerate.h"
#include "gateway/resume.h"
#include "gateway/stream_reply.h"
#include "gateway/stream_say.h"

#include <stdio.h>

/* The choice of an own request that a record belongs to. */
static mr_choice *find_own(mr_streams *s, mr_str request) {
    (void)mr_split_generation(&request);
    mr_choice *c = mr_streams_find(s, request);
    if (!c) mr_counter_add(s->strays, 1);
    return c;
}

/* Another gateway asked for the rest again. */
static void follow(mr_choice *c, int generation) {
    c->generation = generation;
    c->attempt = 0;
    c->waiting_us = 0;
}

/* May the record go on? A choice whose delivery report is still to come is accepted by its answer. */
static bool receive(mr_choice *c, mr_str request, int64_t attempt) {
    mr_streams *s = c->of->table;
    int generation = mr_split_generation(&request);
    if (c->state == CHOICE_ENDED) {
        mr_counter_add(s->strays, 1);
        return false;
    }
    if (c->of->resumed && generation > c->generation) follow(c, generation);
    if (generation != c->generation || c->waiting_us) {
        mr_counter_add(s->late, 1);
        return false;
    }
    if (attempt > c->attempt) c->attempt = attempt;
    if (attempt > c->of->attempt) c->of->attempt = attempt;
    if (c->state == CHOICE_PRODUCING) mr_choice_accept(c);
    return true;
}

static void end_broken(mr_choice *c, bool gap) {
    mr_streams *s = c->of->table;
    mr_api_error e;
    mr_counter_add(gap ? s->gaps : s->mismatches, 1);
    if (gap) {
        mr_refuse(&e, 500, "answer_gap", NULL, "A part of the answer was lost. Please try again.");
    } else {
        mr_refuse(&e, 500, "answer_mismatch", NULL,
                  "The answer was interrupted and could not be continued. Please try again.");
    }
    mr_stream_fail(c->of, s->cancelled_broken, &e);
}

/* The records contradict each other. A worker that was taken for dead (frozen, cut off) may still send what it had: the
 * latest attempt counts, and nobody else can break its answer. Another text by the latest one is never spliced to what was
 * sent: the rest is generated again from there, or the answer ends as an error. */
static void contradict(mr_choice *c, mr_answer_verdict verdict, int64_t attempt) {
    mr_streams *s = c->of->table;
    bool gap = verdict == MR_ANSWER_GAP;
    if (attempt < c->attempt) {
        mr_counter_add(s->late, 1);
        return;
    }
    if (c->of->resumed && gap && c->answer.bytes == 0) {
        mr_resume_gone(c->of);
        return;
    }
    if (c->of->resumed) { /* the first gateway saw the same, and asks again */
        c->waiting_us = mr_mono_us();
        return;
    }
    mr_counter_add(s->differing, 1);
    mr_log(MR_ERROR,
           gap ? "a part of an answer is missing" : "an answer was generated again with another text",
           MR_S("request", c->id), MR_I("attempt", attempt), MR_I("generation", c->generation),
           MR_I("bytes", c->answer.bytes), MR_I("tokens_sent", c->sent.n));
    if (!mr_regenerate(c)) end_broken(c, gap);
}

static void take_delta(mr_choice *c, const mr_response_delta *d) {
    mr_stream *st = c->of;
    mr_streams *s = st->table;
    mr_str fresh;
    if (!receive(c, d->request, d->attempt) || c->state == CHOICE_STOPPED) return;
    mr_answer_verdict verdict = mr_answer_delta(&c->answer, d->offset, d->text, d->hash, &fresh);
    if (verdict == MR_ANSWER_DUPLICATE) return;
    if (verdict != MR_ANSWER_NEW) {
        contradict(c, verdict, MR_HAS(d, MR_RESPONSE_DELTA_ATTEMPT) ? d->attempt : c->attempt);
        return;
    }
    if (MR_HAS(d, MR_RESPONSE_DELTA_SOURCE)) st->source = d->source;
    st->seen += d->tokens;
    c->tokens += d->tokens;
    mr_prefix_add(&c->sent, d, &c->answer);
    if (fresh.n == 0 && d->logprobs.n == 0) return;
    mr_calls_verdict call =
        d->channel == MR_CHANNEL_TOOL_CALL ? mr_calls_see(&c->calls, &d->call) : MR_CALLS_GOES_ON;
    if (call == MR_CALLS_NO_MEMORY) {
        mr_stream_fail_memory(st);
        return;
    }
    if (call == MR_CALLS_MISMATCH) { /* the same bytes, but not of the same calls */
        mr_counter_add(s->differing, 1);
        end_broken(c, false);
        return;
    }
    if (st->first_us == 0) {
        st->first_us = mr_mono_us();
        if (!st->resumed) mr_histogram_observe(s->first_token, (double)(st->first_us - st->started_us) / 1e6);
    }
    mr_choice_text(c, d, fresh, call == MR_CALLS_BEGINS);
}

void mr_streams_delta(mr_streams *s, const mr_response_delta *d, const mr_log_place *from) {
    mr_choice *c;
    if (from) {
        while ((c = mr_resume_next(s, d->request, from)) != NULL) take_delta(c, d);
    } else if ((c = find_own(s, d->request)) != NULL) {
        take_delta(c, d);
    }
}

/* The prompt counts once. What the cache knew of it is what the choice that computed it found there. */
static void add_usage(mr_stream *st, const mr_usage *u) {
    mr_usage *sum = &st->usage;
    int64_t hit = u->prompt_cache_hit_tokens;
    bool first = st->ended == 0;
    if (first || u->prompt_tokens > sum->prompt_tokens) sum->prompt_tokens = u->prompt_tokens;
    if (first || hit < sum->prompt_cache_hit_tokens) sum->prompt_cache_hit_tokens = hit;
    sum->completion_tokens += u->completion_tokens;
    sum->reasoning_tokens += u->reasoning_tokens;
}

static void end_well(mr_choice *c, const mr_response_end *end) {
    mr_stream *st = c->of;
    mr_response_end whole = *end;
    add_usage(st, &end->usage);
    c->state = CHOICE_ENDED;
    st->ended++;
    whole.usage = st->usage;
    mr_choice_finish(c, &whole);
}

static void end_stopped(mr_choice *c, const mr_response_end *end) {
    mr_response_end stopped = mr_choice_stopped_end(c, end);
    end_well(c, &stopped);
}

void mr_choice_end_stopped(mr_choice *c) {
    end_stopped(c, NULL);
}

/* The answer ended badly where it was made. */
static void fail_by_record(mr_choice *c, const mr_response_end *end) {
    const mr_response_error *r = &end->error;
    mr_api_error e;
    if (end->finish_reason == MR_FINISH_CANCELLED) {
        mr_refuse(&e, 500, "cancelled", NULL, "The answer was cancelled.");
    } else {
        mr_refuse(&e, (int)r->status, MR_HAS(r, MR_RESPONSE_ERROR_CODE) ? r->code.p : NULL, NULL, "%s",
                  r->message.p);
        snprintf(e.type, sizeof(e.type), "%s", r->type.p);
    }
    c->state = CHOICE_ENDED;
    mr_stream_cancel_rest(c->of);
    mr_stream_end_with(c->of, &e);
}

static void take_end(mr_choice *c, const mr_response_end *end) {
    mr_stream *st = c->of;
    mr_streams *s = st->table;
    if (!receive(c, end->request, end->attempt)) return;
    if (c->state == CHOICE_STOPPED) {
        end_stopped(c, end);
        return;
    }
    bool failed = end->finish_reason == MR_FINISH_ERROR || end->finish_reason == MR_FINISH_CANCELLED;
    if (failed && MR_HAS(end, MR_RESPONSE_END_ATTEMPT) && end->attempt < c->attempt) {
        mr_counter_add(s->late, 1); /* of a worker that was taken for dead: another one has the request */
        return;
    }
    if (MR_HAS(end, MR_RESPONSE_END_SOURCE)) st->source = end->source;
    if (failed) {
        fail_by_record(c, end);
        return;
    }
    mr_answer_verdict verdict = mr_answer_end(&c->answer, end->offset, end->hash);
    if (verdict != MR_ANSWER_NEW) {
        contradict(c, verdict, MR_HAS(end, MR_RESPONSE_END_ATTEMPT) ? end->attempt : c->attempt);
        return;
    }
    if (!mr_choice_flush(c)) return;
    if (c->state == CHOICE_STOPPED) {
        end_stopped(c, end);
    } else {
        end_well(c, end);
    }
}

void mr_streams_end(mr_streams *s, const mr_response_end *end, const mr_log_place *from) {
    mr_choice *c;
    if (from) {
        while ((c = mr_resume_next(s, end->request, from)) != NULL) take_end(c, end);
    } else if ((c = find_own(s, end->request)) != NULL) {
        take_end(c, end);
    }
}
