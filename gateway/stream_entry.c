/* See stream_entry.h. */
#include "gateway/stream_entry.h"

#include "schemas/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX (16u << 20) /* bytes of an answer that is collected to be sent at once */
#define EVENT_MAX  (16u << 20)

/* ---- table ---- */

static void register_metrics(mr_streams *s, mr_metrics *m) {
    static const char cancels[] = "millrace_gateway_cancels_total";
    static const char why[] = "Answers that were cancelled, by reason.";
    static const char broken[] = "millrace_gateway_broken_answers_total";
    static const char what[] =
        "Answers ended because their records contradicted each other, or one was missing.";
    static const char tokens[] = "millrace_gateway_tokens_total";
    s->in_flight = mr_gauge_new(m, "millrace_gateway_in_flight", NULL, "Requests being answered.");
    s->first_token = mr_histogram_new(m, "millrace_gateway_first_token_seconds", NULL,
                                      "From the request to the first text of its answer.");
    s->duration = mr_histogram_new(m, "millrace_gateway_answer_seconds", NULL,
                                   "From the request to the end of its answer.");
    s->duplicates = mr_counter_new(m, "millrace_gateway_duplicate_bytes_total", NULL,
                                   "Bytes of answers that came again and were dropped.");
    s->strays = mr_counter_new(m, "millrace_gateway_stray_records_total", NULL,
                               "Records for requests that are not in flight here.");
    s->late =
        mr_counter_new(m, "millrace_gateway_late_records_total", NULL,
                       "Records that contradict an answer, from an attempt before its latest: dropped.");
    s->gaps = mr_counter_new(m, broken, "kind=\"gap\"", what);
    s->mismatches = mr_counter_new(m, broken, "kind=\"mismatch\"", what);
    s->differing = mr_counter_new(m, "millrace_gateway_differing_attempts_total", NULL,
                                  "Attempts at an answer that contradicted what was sent of it already.");
    s->regenerated = mr_counter_new(m, "millrace_gateway_regenerations_total", NULL,
                                    "Answers asked for again, from what was sent of them on.");
    s->resumes = mr_counter_new(m, "millrace_gateway_resumes_total", NULL,
                                "Connections that went on with an answer from the log.");
    s->prompt_tokens = mr_counter_new(m, tokens, "kind=\"prompt\"", "Tokens of finished requests.");
    s->completion_tokens = mr_counter_new(m, tokens, "kind=\"completion\"", "Tokens of finished requests.");
    s->cancelled_closed = mr_counter_new(m, cancels, "reason=\"closed\"", why);
    s->cancelled_slow = mr_counter_new(m, cancels, "reason=\"slow_client\"", why);
    s->cancelled_late = mr_counter_new(m, cancels, "reason=\"timeout\"", why);
    s->cancelled_word = mr_counter_new(m, cancels, "reason=\"content_filter\"", why);
    s->cancelled_broken = mr_counter_new(m, cancels, "reason=\"broken\"", why);
}

mr_streams *mr_streams_new(const mr_gateway_conf *conf, mr_outbox *out, mr_protection *protection,
                           mr_metrics *m, mr_error *err) {
    mr_streams *s = calloc(1, sizeof(*s));
    size_t n = 16;
    while (n < (size_t)conf->max_in_flight) n *= 2;
    if (!s) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    mr_buf_init(&s->event, EVENT_MAX);
    mr_buf_init(&s->clear, EVENT_MAX);
    s->buckets = calloc(n, sizeof(bucket));
    s->arena = mr_arena_new(4 * (size_t)conf->body_max + MR_TOKENS_MAX * sizeof(int64_t) + (1u << 20));
    if (!s->buckets || !s->arena) {
        mr_streams_free(s);
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    s->conf = conf;
    s->out = out;
    s->protection = protection;
    s->nbuckets = n;
    register_metrics(s, m);
    return s;
}

bucket *mr_streams_bucket(mr_streams *s, mr_str id) {
    return &s->buckets[mr_text_hash_feed(mr_text_hash_init(), id) & (s->nbuckets - 1)];
}

mr_choice *mr_streams_find(mr_streams *s, mr_str id) {
    mr_choice *c;
    LIST_FOREACH(c, mr_streams_bucket(s, id), in_bucket) {
        if (!c->of->resumed && mr_str_eqz(id, c->id)) return c;
    }
    return NULL;
}

static void forget_request(mr_choice *c) {
    c->of->table->kept -= c->request.n;
    mr_buf_done(&c->request);
}

void mr_choice_report(mr_choice *c) {
    const mr_stream_origin *from = &c->of->from;
    mr_protection_report(c->of->table->protection, &c->findings, mr_str_of(c->id), mr_str_of(from->tenant),
                         from->trace);
}

static void choice_done(mr_choice *c) {
    if (c->ticket) mr_ticket_forget(c->ticket);
    LIST_REMOVE(c, in_bucket);
    forget_request(c);
    mr_prefix_done(&c->sent);
    mr_buf_done(&c->content);
    mr_buf_done(&c->reasoning);
    mr_calls_done(&c->calls);
    json_decref(c->logprobs);
    mr_filter_free(c->filter);
    mr_choice_report(c);
    mr_findings_done(&c->findings);
}

static void settle(mr_stream *st) {
    const mr_usage *u = &st->usage;
    if (!st->accepted) {
        mr_hold_return(st->hold);
    } else {
        mr_hold_settle(st->hold, st->ended == st->n ? u->prompt_tokens + u->completion_tokens : st->seen);
    }
}

void mr_stream_free(mr_stream *st) {
    mr_streams *s = st->table;
    settle(st);
    for (int i = 0; i < st->n; i++) choice_done(&st->choice[i]);
    LIST_REMOVE(st, in_table);
    if (st->resumed) mr_log_release(s->log, st->at.partition);
    mr_gauge_set(s->in_flight, --s->count);
    json_decref(st->replies);
    free(st);
}

void mr_streams_free(mr_streams *s) {
    if (!s) return;
    for (mr_stream *st; (st = LIST_FIRST(&s->all));) mr_stream_free(st);
    mr_buf_done(&s->event);
    mr_buf_done(&s->clear);
    mr_arena_free(s->arena);
    free(s->buckets);
    free(s);
}

void mr_streams_use_log(mr_streams *s, mr_log_reader *log) {
    s->log = log;
}

int mr_streams_count(const mr_streams *s) {
    return s->count;
}

/* ---- entries ---- */

/* The first choice has the request's own id, so that a single one looks as if there were no others. */
static void choice_init(mr_choice *c, mr_stream *st, int index, const mr_openai_request *req) {
    const char *label = st->table->conf->ai_label;
    c->of = st;
    c->generation = 1;
    if (index == 0) {
        mr_str_copy(req->chat.id, c->id, sizeof(c->id));
    } else {
        snprintf(c->id, sizeof(c->id), "%.*s-%d", MR_FMT(req->chat.id), index);
    }
    c->render = (mr_render){.id = st->choice[0].id,
                            .model = req->model,
                            .created = mr_now_ms() / 1000,
                            .usage = req->include_usage,
                            .choice = index,
                            .marked = *label,
                            .label = *label && !req->form ? label : NULL};
    mr_answer_init(&c->answer);
    mr_prefix_init(&c->sent);
    mr_buf_init(&c->content, ANSWER_MAX);
    mr_buf_init(&c->reasoning, ANSWER_MAX);
    LIST_INSERT_HEAD(mr_streams_bucket(st->table, mr_str_of(c->id)), c, in_bucket);
}

mr_stream *mr_stream_new(mr_streams *s, mr_call *call, const mr_openai_request *req,
                         const mr_stream_origin *from) {
    mr_stream *st = calloc(1, sizeof(*st) + (size_t)req->n * sizeof(st->choice[0]));
    if (!st) return NULL;
    st->table = s;
    st->call = call;
    st->streamed = req->stream;
    st->started_us = st->said_us = mr_mono_us();
    st->source = MR_SOURCE_MODEL;
    st->from = *from;
    st->n = req->n;
    for (int i = 0; i < st->n; i++) choice_init(&st->choice[i], st, i, req);
    LIST_INSERT_HEAD(&s->all, st, in_table);
    mr_gauge_set(s->in_flight, ++s->count);
    return st;
}

/* ---- ids ---- */

void mr_choice_record_id(const mr_choice *c, char out[MR_RECORD_ID_LEN + 1]) {
    if (c->generation == 1) {
        snprintf(out, MR_RECORD_ID_LEN + 1, "%s", c->id);
    } else {
        snprintf(out, MR_RECORD_ID_LEN + 1, "%s~%d", c->id, c->generation);
    }
}

int mr_split_generation(mr_str *id) {
    const char *tilde = memrchr(id->p, '~', id->n);
    char digits[8];
    if (!tilde) return 1;
    snprintf(digits, sizeof(digits), "%.*s", (int)(id->p + id->n - tilde - 1), tilde + 1);
    id->n = (size_t)(tilde - id->p);
    return atoi(digits);
}
