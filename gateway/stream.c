/* The beginning of requests in flight, and time (see stream.h). What comes in between: stream_records.h. */
#include "gateway/stream.h"

#include "base/log.h"
#include "gateway/regenerate.h"
#include "gateway/resume.h"
#include "gateway/stream_records.h"
#include "gateway/stream_say.h"
#include "schemas/estimate.h"
#include "schemas/hash.h"

#include <stdio.h>

#define USAGE_WAIT_S   2 /* for that of an answer which a word has stopped */
#define DEADLINE_GRACE 2 /* seconds for the worker to end the answer itself, with its usage */

/* ---- admission ---- */

static void on_acked(void *arg, const mr_error *err) {
    mr_choice *c = arg;
    mr_api_error e;
    c->ticket = NULL;
    if (!err) {
        mr_choice_accept(c);
        return;
    }
    mr_log(MR_ERROR, "a request was not accepted by Kafka", MR_S("request", c->id), MR_S("reason", err->msg));
    mr_refuse(&e, 503, "not_accepted", NULL, "The request could not be queued; please try again.");
    c->state = CHOICE_ENDED; /* the others are cancelled */
    mr_stream_cancel_rest(c->of);
    mr_stream_end_with(c->of, &e);
}

static int refuse_send(mr_api_error *e, const mr_error *err) {
    if (err->code == MR_ETOOBIG) return mr_refuse(e, 413, "request_too_large", NULL, "%s.", err->msg);
    if (err->code == MR_EINVAL) return mr_refuse_field(e, err->msg);
    return mr_refuse(e, 503, "not_accepted", NULL, "The request could not be queued; please try again.");
}

/* What is asked for again must draw again what it drew. */
static void fix_seed(mr_chat_request *r) {
    if (MR_HAS(&r->sampling, MR_SAMPLING_SEED)) return;
    int64_t seed = (int64_t)(mr_text_hash_feed(mr_text_hash_init(), r->id) >> 11); /* exact in JavaScript */
    MR_SET(&r->sampling, MR_SAMPLING_SEED, seed, seed);
    MR_MARK(r, MR_CHAT_REQUEST_SAMPLING);
}

int mr_streams_start(mr_streams *s, mr_call *call, mr_openai_request *req, const mr_stream_origin *from,
                     mr_hold *hold, mr_api_error *e) {
    mr_chat_request *r = &req->chat;
    mr_error err;
    if (s->count >= s->conf->max_in_flight) {
        return mr_refuse(e, 429, "too_many_requests", NULL, "Too many requests at once; please try again.");
    }
    mr_stream *st = mr_stream_new(s, call, req, from);
    if (!st) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    MR_SET(r, MR_CHAT_REQUEST_CREATED_MS, created_ms, mr_now_ms());
    MR_SET(r, MR_CHAT_REQUEST_DEADLINE_MS, deadline_ms, r->created_ms + s->conf->request_timeout_s * 1000);
    MR_SET(r, MR_CHAT_REQUEST_REPLY_TO, reply_to, s->conf->partition);
    MR_SET(r, MR_CHAT_REQUEST_TRACE, trace, mr_str_of(st->from.trace));
    fix_seed(r);
    mr_outbox_record rec = {MR_TOPIC_REQUESTS, r->session, &mr_chat_request_def, r, st->from.trace};
    for (int i = 0; i < st->n; i++) {
        mr_choice *c = &st->choice[i];
        r->id = mr_str_of(c->id);
        if (i) MR_SET(r, MR_CHAT_REQUEST_CHOICE, choice, i);
        if (mr_outbox_send(s->out, &rec, on_acked, c, &c->ticket, &err) == 0) {
            mr_regenerate_keep(c, mr_outbox_packed(s->out));
            continue;
        }
        while (i < st->n) st->choice[i++].state = CHOICE_ENDED; /* never begun */
        mr_stream_cancel_rest(st);
        mr_stream_free(st);
        return refuse_send(e, &err);
    }
    st->hold = hold;
    if (hold || mr_protection_filters(s->protection)) st->prompt = mr_prompt_tokens(r);
    st->seen = st->prompt;
    mr_stream_watch(st);
    return 0;
}

/* The records of an answer of this text, as a worker would send them. */
static void play(mr_streams *s, mr_str request, mr_str text) {
    char hash[MR_TEXT_HASH_LEN + 1];
    mr_response_delta d = {0};
    mr_response_end end = {0};
    mr_text_hash_hex(mr_text_hash_feed(mr_text_hash_init(), text), hash);
    d.request = end.request = request;
    d.text = text;
    d.hash = end.hash = mr_str_of(hash);
    end.offset = (int64_t)text.n;
    end.finish_reason = MR_FINISH_CONTENT_FILTER;
    MR_SET(&d, MR_RESPONSE_DELTA_SOURCE, source, MR_SOURCE_GUARD);
    MR_SET(&end, MR_RESPONSE_END_SOURCE, source, MR_SOURCE_GUARD);
    mr_streams_delta(s, &d, NULL);
    mr_streams_end(s, &end, NULL);
}

int mr_streams_refuse(mr_streams *s, mr_call *call, mr_openai_request *req, const mr_stream_origin *from,
                      mr_hold *hold, mr_str text, mr_api_error *e) {
    char id[MR_CHOICE_ID_LEN + 1];
    mr_stream *st = mr_stream_new(s, call, req, from);
    if (!st) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    st->hold = hold;
    mr_stream_watch(st);
    for (int i = 0, n = req->n; i < n; i++) {
        if (i > 0 && !mr_streams_find(s, req->chat.id)) break; /* its client does not read */
        snprintf(id, sizeof(id), i ? "%.*s-%d" : "%.*s", MR_FMT(req->chat.id), i);
        play(s, mr_str_of(id), text);
    }
    return 0;
}

/* ---- time ---- */

static bool is_producing(const mr_stream *st) {
    for (int i = 0; i < st->n; i++) {
        if (st->choice[i].state == CHOICE_PRODUCING) return true;
    }
    return false;
}

/* Of a resumed answer it is counted from the request on, once all that is there was read. */
static int64_t age_s(const mr_stream *st, int64_t now_us) {
    return st->caught_up ? mr_now_ms() / 1000 - st->at.created_s : (now_us - st->started_us) / 1000000;
}

/* One whose usage has been waited for for too long. */
static mr_choice *find_overdue(mr_stream *st, int64_t now_us) {
    for (int i = 0; i < st->n; i++) {
        mr_choice *c = &st->choice[i];
        if (c->state == CHOICE_STOPPED && now_us - c->stopped_us >= USAGE_WAIT_S * 1000000) return c;
    }
    return NULL;
}

static void tick(mr_stream *st, int64_t now_us) {
    const mr_gateway_conf *conf = st->table->conf;
    int64_t age = age_s(st, now_us);
    mr_api_error e;
    mr_choice *overdue = find_overdue(st, now_us);
    if (overdue) {
        mr_choice_end_stopped(overdue);
        return;
    }
    if (st->resumed && !mr_resume_tick(st, now_us)) return;
    if (!mr_regenerate_tick(st, now_us)) return;
    if (!st->call && now_us - st->vanished_us >= st->from.grace_s * 1000000) {
        mr_stream_cancel(st, st->table->cancelled_closed);
        mr_stream_drop(st, "closed");
    } else if (!st->resumed && is_producing(st) && age >= conf->accept_timeout_s) {
        mr_refuse(&e, 503, "not_accepted", NULL,
                  "The request could not be queued in time; please try again.");
        mr_stream_fail(st, st->table->cancelled_late, &e);
    } else if (age >= conf->request_timeout_s + DEADLINE_GRACE) {
        mr_refuse(&e, 504, "deadline_exceeded", NULL, "The answer took longer than %lld seconds.",
                  (long long)conf->request_timeout_s);
        mr_stream_fail(st, st->table->cancelled_late, &e);
    } else if (st->streamed && st->accepted && !st->open &&
               now_us - st->accepted_us >= conf->headers_wait_ms * 1000) {
        (void)mr_stream_open(st);
    } else if (st->open && now_us - st->said_us >= conf->keep_alive_s * 1000000) {
        (void)mr_stream_say(st, MR_STR(MR_SSE_KEEP_ALIVE));
    }
}

void mr_streams_tick(mr_streams *s) {
    int64_t now_us = mr_mono_us();
    for (mr_stream *st = LIST_FIRST(&s->all), *next; st; st = next) {
        next = LIST_NEXT(st, in_table);
        tick(st, now_us);
    }
}

void mr_streams_let_go(mr_streams *s) {
    for (mr_stream *st = LIST_FIRST(&s->all), *next; st; st = next) {
        next = LIST_NEXT(st, in_table);
        if (!st->call) mr_stream_drop(st, "let_go");
    }
}

/* A client that said that it comes back is not given an error to show: its connection just ends. */
void mr_streams_fail_all(mr_streams *s, const mr_api_error *e) {
    for (mr_stream *st; (st = LIST_FIRST(&s->all));) {
        if (st->call && st->streamed && st->accepted && st->from.grace_s > 0) {
            if (!mr_stream_open(st)) continue;
            mr_call_abort(st->call, MR_STR(""));
            mr_stream_drop(st, "let_go");
        } else {
            mr_stream_end_with(st, e);
        }
    }
}
