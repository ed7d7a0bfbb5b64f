/* The table of requests in flight (see stream.h). */
#include "gateway/stream_internal.h"

#include "base/log.h"
#include "schemas/estimate.h"
#include "schemas/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX     (16u << 20) /* bytes of an answer that is collected to be sent at once */
#define EVENT_MAX      (16u << 20)
#define DEADLINE_GRACE 2 /* seconds for the worker to end the answer itself, with its usage */

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
    s->cancelled_broken = mr_counter_new(m, cancels, "reason=\"broken\"", why);
}

mr_streams *mr_streams_new(const mr_gateway_conf *conf, mr_outbox *out, mr_metrics *m, mr_error *err) {
    mr_streams *s = calloc(1, sizeof(*s));
    size_t n = 16;
    while (n < (size_t)conf->max_in_flight) n *= 2;
    if (!s) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    mr_buf_init(&s->event, EVENT_MAX);
    s->buckets = calloc(n, sizeof(bucket));
    s->arena = mr_arena_new(4 * (size_t)conf->body_max + MR_TOKENS_MAX * sizeof(int64_t) + (1u << 20));
    if (!s->buckets || !s->arena) {
        mr_streams_free(s);
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    s->conf = conf;
    s->out = out;
    s->nbuckets = n;
    register_metrics(s, m);
    return s;
}

bucket *mr_streams_bucket(mr_streams *s, mr_str id) {
    return &s->buckets[mr_text_hash_feed(mr_text_hash_init(), id) & (s->nbuckets - 1)];
}

static mr_choice *find(mr_streams *s, mr_str id) {
    mr_choice *c;
    LIST_FOREACH(c, mr_streams_bucket(s, id), in_bucket) {
        if (!c->of->resumed && mr_str_eqz(id, c->id)) return c;
    }
    return NULL;
}

static void choice_done(mr_choice *c) {
    if (c->ticket) mr_ticket_forget(c->ticket);
    LIST_REMOVE(c, in_bucket);
    mr_regenerate_forget(c);
    mr_prefix_done(&c->sent);
    mr_buf_done(&c->content);
    mr_buf_done(&c->reasoning);
    mr_calls_done(&c->calls);
    json_decref(c->logprobs);
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

/* ---- ends ---- */

static double seconds_since(int64_t us) {
    return (double)(mr_mono_us() - us) / 1e6;
}

/* The one log line of a request, and its place in the metrics. */
static void record(mr_stream *st, int status, const char *finish) {
    mr_streams *s = st->table;
    const mr_usage *usage = &st->usage;
    double total = seconds_since(st->started_us);
    double first = st->first_us ? (double)(st->first_us - st->started_us) / 1e6 : 0;
    uint64_t bytes = 0;
    if (!st->resumed) mr_histogram_observe(s->duration, total);
    for (int i = 0; i < st->n; i++) {
        mr_counter_add(s->duplicates, st->choice[i].answer.duplicate_bytes);
        bytes += st->choice[i].answer.bytes;
    }
    if (!st->resumed) { /* counted where it was asked for */
        mr_counter_add(s->prompt_tokens, (uint64_t)usage->prompt_tokens);
        mr_counter_add(s->completion_tokens, (uint64_t)usage->completion_tokens);
    }
    mr_log(MR_INFO, "answer ended", MR_S("request", st->choice[0].id), MR_S("trace", st->from.trace),
           MR_S("client_request", st->from.client_request), MR_S("model", st->choice[0].render.model),
           MR_I("status", status), MR_S("finish", finish), MR_S("source", mr_source_names[st->source]),
           MR_I("streamed", st->streamed), MR_I("resumed", st->resumed), MR_I("choices", st->n),
           MR_I("attempt", st->attempt), MR_I("bytes", bytes), MR_I("prompt_tokens", usage->prompt_tokens),
           MR_I("completion_tokens", usage->completion_tokens), MR_F("first_token_seconds", first),
           MR_F("seconds", total));
}

void mr_choice_record_id(const mr_choice *c, char out[MR_RECORD_ID_LEN + 1]) {
    if (c->generation == 1) {
        snprintf(out, MR_RECORD_ID_LEN + 1, "%s", c->id);
    } else {
        snprintf(out, MR_RECORD_ID_LEN + 1, "%s~%d", c->id, c->generation);
    }
}

void mr_choice_cancel(const mr_choice *choice) {
    const mr_stream *st = choice->of;
    char id[MR_RECORD_ID_LEN + 1], key[MR_RECORD_ID_LEN + 8];
    mr_control c = {0};
    mr_error err;
    mr_choice_record_id(choice, id);
    snprintf(key, sizeof(key), "cancel/%s", id);
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_CANCEL);
    MR_SET(&c, MR_CONTROL_REQUEST, request, mr_str_of(id));
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    mr_outbox_record rec = {MR_TOPIC_CONTROL, mr_str_of(key), &mr_control_def, &c, st->from.trace};
    if (mr_outbox_send(st->table->out, &rec, NULL, NULL, NULL, &err) < 0) {
        mr_log(MR_WARN, "cannot cancel", MR_S("request", id), MR_S("reason", err.msg));
    }
}

static void cancel_all(const mr_stream *st) {
    for (int i = 0; i < st->n; i++) {
        if (st->choice[i].state != CHOICE_ENDED) mr_choice_cancel(&st->choice[i]);
    }
}

static void send_cancel(const mr_stream *st, mr_counter *reason) {
    mr_counter_add(reason, 1);
    cancel_all(st);
}

/* The id of an event that says all that was passed on so far. */
static const char *event_id(mr_stream *st) {
    uint64_t bytes[MR_CHOICES_MAX];
    for (int i = 0; i < st->n; i++) {
        const mr_choice *c = &st->choice[i];
        bytes[i] = c->answer.bytes > c->skip ? c->answer.bytes : c->skip;
    }
    mr_event_id(bytes, st->n, st->table->at);
    return st->table->at;
}

/* After the headers an error is said twice: as text, for people whose client ignores error events, and as the event that
 * official clients raise. Then the connection closes without the end of its chunks. */
static void fail_stream(mr_stream *st, const mr_api_error *e) {
    const mr_choice *c = &st->choice[0];
    const char *at = event_id(st);
    mr_buf *out = &st->table->event, sentence;
    mr_buf_init(&sentence, 4096);
    mr_render_sentence(e, c->answer.bytes == 0, &sentence);
    mr_piece p = {.channel = MR_CHANNEL_CONTENT, .text = mr_buf_str(&sentence), .first = !c->begun, .at = at};
    mr_buf_clear(out);
    mr_render_piece(&c->render, &p, out);
    mr_render_error(e, at, out);
    mr_buf_done(&sentence);
    mr_call_abort(st->call, out->failed ? MR_STR("") : mr_buf_str(out));
}

/* End with an error, in the form that the client can still take. */
void mr_stream_end_with(mr_stream *st, const mr_api_error *e) {
    record(st, e->status, "error");
    if (!st->call) {
        /* nobody is there to hear it */
    } else if (st->open) {
        fail_stream(st, e);
    } else {
        mr_call_error(st->call, e);
    }
    mr_stream_free(st);
}

void mr_stream_fail(mr_stream *st, mr_counter *reason, const mr_api_error *e) {
    send_cancel(st, reason);
    mr_stream_end_with(st, e);
}

void mr_stream_drop(mr_stream *st, const char *finish) {
    record(st, 499, finish);
    mr_stream_free(st);
}

/* The peer is gone: nothing can be said, and the call is not ours any more. */
static void on_peer_closed(void *arg) {
    mr_stream *st = arg;
    st->call = NULL;
    st->vanished_us = mr_mono_us();
    if (st->moved) {
        mr_stream_drop(st, "moved");
    } else if (st->from.grace_s == 0) {
        send_cancel(st, st->table->cancelled_closed);
        mr_stream_drop(st, "closed");
    }
}

void mr_stream_watch(mr_stream *st) {
    mr_call_logged(st->call);
    mr_call_on_close(st->call, on_peer_closed, st);
}

/* ---- to the client ---- */

/* Nothing more can be said to this client. */
static void cut_off(mr_stream *st, mr_counter *reason, const char *finish) {
    send_cancel(st, reason);
    record(st, 499, finish);
    mr_call_abort(st->call, MR_STR(""));
    mr_stream_free(st);
}

/* What is read from the log comes as fast as that goes, until its end. */
static size_t output_max(const mr_stream *st) {
    return (size_t)st->table->conf->output_max * (st->resumed && !st->caught_up ? 8 : 1);
}

/* False when the entry is gone, because its client does not read. */
static bool say(mr_stream *st, mr_str bytes) {
    if (!st->call) return true;
    if (mr_call_unsent(st->call) > output_max(st)) {
        cut_off(st, st->table->cancelled_slow, "slow_client");
        return false;
    }
    if (!mr_call_send(st->call, bytes)) {
        cut_off(st, st->table->cancelled_broken, "out_of_memory");
        return false;
    }
    st->said_us = mr_mono_us();
    return true;
}

static bool say_event(mr_stream *st) {
    const mr_buf *event = &st->table->event;
    if (!st->call || !event->failed) return say(st, mr_buf_str(event));
    cut_off(st, st->table->cancelled_broken, "out_of_memory");
    return false;
}

/* False when the entry is gone. */
static bool accept_choice(mr_choice *c) {
    mr_stream *st = c->of;
    if (c->ticket) mr_ticket_forget(c->ticket);
    c->ticket = NULL;
    c->state = CHOICE_ACCEPTED;
    c->of->accepted = true;
    if (!st->streamed || st->open || !st->call) return true;
    st->open = true;
    mr_call_stream(st->call);
    return say(st, MR_STR(MR_SSE_ACCEPTED));
}

void mr_stream_accept(mr_stream *st) {
    for (int i = 0, n = st->n; i < n; i++) {
        bool last = i == n - 1;
        if (!accept_choice(&st->choice[i]) || last) return;
    }
}

static void on_acked(void *arg, const mr_error *err) {
    mr_choice *c = arg;
    mr_api_error e;
    c->ticket = NULL;
    if (!err) {
        (void)accept_choice(c);
        return;
    }
    mr_log(MR_ERROR, "a request was not accepted by Kafka", MR_S("request", c->id), MR_S("reason", err->msg));
    mr_refuse(&e, 503, "not_accepted", NULL, "The request could not be queued; please try again.");
    c->state = CHOICE_ENDED; /* the others are cancelled */
    cancel_all(c->of);
    mr_stream_end_with(c->of, &e);
}

/* ---- admission ---- */

/* The first choice has the request's own id, so that a single one looks as if there were no others. */
static void choice_init(mr_choice *c, mr_stream *st, int index, const mr_openai_request *req) {
    c->of = st;
    c->generation = 1;
    if (index == 0) {
        snprintf(c->id, sizeof(c->id), "%.*s", MR_FMT(req->chat.id));
    } else {
        snprintf(c->id, sizeof(c->id), "%.*s-%d", MR_FMT(req->chat.id), index);
    }
    c->render = (mr_render){st->choice[0].id, req->model, mr_now_ms() / 1000, req->include_usage, index};
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
        cancel_all(st);
        mr_stream_free(st);
        return refuse_send(e, &err);
    }
    st->hold = hold;
    if (hold) st->seen = mr_prompt_tokens(r);
    mr_stream_watch(st);
    return 0;
}

/* ---- records ---- */

int mr_split_generation(mr_str *id) {
    const char *tilde = memrchr(id->p, '~', id->n);
    char digits[8];
    if (!tilde) return 1;
    snprintf(digits, sizeof(digits), "%.*s", (int)(id->p + id->n - tilde - 1), tilde + 1);
    id->n = (size_t)(tilde - id->p);
    return atoi(digits);
}

/* The choice of an own request that a record belongs to. */
static mr_choice *find_own(mr_streams *s, mr_str request) {
    (void)mr_split_generation(&request);
    mr_choice *c = find(s, request);
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
    return c->state != CHOICE_PRODUCING || accept_choice(c);
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

/* The log probabilities of the last `fresh` of the delta's bytes. */
static int append_logprobs(const mr_response_delta *d, size_t fresh, json_t *list) {
    size_t known = d->text.n - fresh;
    uint32_t i = 0;
    for (; i < d->logprobs.n && known > 0; i++) {
        const mr_logprob *p = &d->logprobs.v[i];
        size_t n = MR_HAS(p, MR_LOGPROB_BYTES) ? p->bytes.n : p->token.n;
        if (n > known) break;
        known -= n;
    }
    return mr_render_logprobs(d->logprobs.v + i, d->logprobs.n - i, list);
}

/* What the client of a resumed answer lacks of it, in whole characters. */
static mr_str unseen(const mr_choice *c, mr_str fresh) {
    uint64_t from = c->answer.bytes - fresh.n;
    if (c->skip <= from) return fresh;
    size_t seen = c->skip < c->answer.bytes ? (size_t)(c->skip - from) : fresh.n;
    while (seen < fresh.n && ((unsigned char)fresh.p[seen] & 0xc0) == 0x80) seen++;
    return (mr_str){fresh.p + seen, fresh.n - seen};
}

/* New text of a streamed answer. */
static void pass_on(mr_choice *c, const mr_response_delta *d, mr_str fresh, bool call_begins) {
    mr_streams *s = c->of->table;
    size_t all = fresh.n;
    fresh = unseen(c, fresh);
    if (!c->of->call || (fresh.n == 0 && c->answer.bytes <= c->skip)) return;
    bool wanted = d->logprobs.n > 0 && d->channel != MR_CHANNEL_TOOL_CALL; /* OpenAI's are those of content */
    json_t *logprobs = wanted ? json_array() : NULL;
    call_begins = call_begins && fresh.n == all;
    mr_piece p = {d->channel, fresh, !c->begun, &d->call, call_begins, logprobs, event_id(c->of)};
    c->begun = true;
    mr_buf_clear(&s->event);
    if (wanted && (!logprobs || append_logprobs(d, fresh.n, logprobs) < 0)) s->event.failed = true;
    if (!s->event.failed) mr_render_piece(&c->render, &p, &s->event);
    json_decref(logprobs);
    (void)say_event(c->of);
}

/* New text of an answer that goes out as a whole. */
static void collect(mr_choice *c, const mr_response_delta *d, mr_str fresh) {
    if (d->channel == MR_CHANNEL_TOOL_CALL) {
        mr_calls_append(&c->calls, fresh);
        return;
    }
    mr_buf *out = d->channel == MR_CHANNEL_REASONING ? &c->reasoning : &c->content;
    mr_buf_put(out, fresh.p, fresh.n);
    if (d->logprobs.n == 0) return;
    if (!c->logprobs) c->logprobs = json_array();
    if (!c->logprobs || append_logprobs(d, fresh.n, c->logprobs) < 0) out->failed = true;
}

static void fail_memory(mr_stream *st) {
    mr_api_error e;
    mr_refuse(&e, 500, "out_of_memory", NULL, "Out of memory.");
    mr_stream_fail(st, st->table->cancelled_broken, &e);
}

static void take_delta(mr_choice *c, const mr_response_delta *d) {
    mr_stream *st = c->of;
    mr_streams *s = st->table;
    mr_str fresh;
    if (!receive(c, d->request, d->attempt)) return;
    mr_answer_verdict verdict = mr_answer_delta(&c->answer, d->offset, d->text, d->hash, &fresh);
    if (verdict == MR_ANSWER_DUPLICATE) return;
    if (verdict != MR_ANSWER_NEW) {
        contradict(c, verdict, MR_HAS(d, MR_RESPONSE_DELTA_ATTEMPT) ? d->attempt : c->attempt);
        return;
    }
    if (MR_HAS(d, MR_RESPONSE_DELTA_SOURCE)) st->source = d->source;
    st->seen += d->tokens;
    mr_prefix_add(&c->sent, d, &c->answer);
    if (fresh.n == 0 && d->logprobs.n == 0) return;
    mr_calls_verdict call =
        d->channel == MR_CHANNEL_TOOL_CALL ? mr_calls_see(&c->calls, &d->call) : MR_CALLS_GOES_ON;
    if (call == MR_CALLS_NO_MEMORY) {
        fail_memory(st);
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
    if (st->streamed) {
        pass_on(c, d, fresh, call == MR_CALLS_BEGINS);
    } else {
        collect(c, d, fresh);
    }
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

/* The last words of a choice that is streamed; *whole is its end with the usage of all. */
static void finish_streamed(mr_choice *c, const mr_response_end *whole) {
    mr_stream *st = c->of;
    mr_buf *out = &st->table->event;
    bool last = st->ended == st->n;
    const char *at = event_id(st);
    mr_buf_clear(out);
    if (!c->begun) { /* an answer without text still says whose turn it is */
        mr_render_piece(
            &c->render,
            &(mr_piece){.channel = MR_CHANNEL_CONTENT, .text = MR_STR(""), .first = true, .at = at}, out);
    }
    mr_render_end(&c->render, whole, at, out);
    if (last) {
        mr_render_usage(&c->render, whole, at, out);
        mr_buf_puts(out, MR_SSE_DONE);
    }
    if (!say_event(st) || !last) return;
    if (st->call) mr_call_end(st->call);
    record(st, 200, mr_finish_names[whole->finish_reason]);
    mr_stream_free(st);
}

static int add_reply(mr_choice *c, const mr_response_end *end) {
    mr_stream *st = c->of;
    if (c->content.failed || c->reasoning.failed) return -1;
    if (!st->replies) {
        st->replies = json_array();
        for (int i = 0; i < st->n; i++) json_array_append_new(st->replies, json_null());
    }
    const mr_reply reply = {mr_buf_str(&c->content), mr_buf_str(&c->reasoning), &c->calls, c->logprobs};
    return json_array_set_new(st->replies, (size_t)c->render.choice,
                              mr_render_choice(&c->render, &reply, end));
}

static void finish_collected(mr_choice *c, const mr_response_end *whole) {
    mr_stream *st = c->of;
    mr_buf *out = &st->table->event;
    if (add_reply(c, whole) < 0) {
        fail_memory(st);
        return;
    }
    if (st->ended < st->n) return;
    mr_buf_clear(out);
    mr_render_completion(&c->render, json_incref(st->replies), whole, out);
    if (out->failed) {
        fail_memory(st);
        return;
    }
    if (st->call) {
        mr_call_set_header(st->call, "x-millrace-source", mr_source_names[st->source]);
        mr_call_reply(st->call, 200, mr_buf_str(out));
    }
    record(st, 200, mr_finish_names[whole->finish_reason]);
    mr_stream_free(st);
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
    cancel_all(c->of);
    mr_stream_end_with(c->of, &e);
}

static void take_end(mr_choice *c, const mr_response_end *end) {
    mr_stream *st = c->of;
    mr_streams *s = st->table;
    if (!receive(c, end->request, end->attempt)) return;
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
    add_usage(st, &end->usage);
    c->state = CHOICE_ENDED;
    st->ended++;
    mr_response_end whole = *end;
    whole.usage = st->usage;
    if (st->streamed) {
        finish_streamed(c, &whole);
    } else {
        finish_collected(c, &whole);
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

static void tick(mr_stream *st, int64_t now_us) {
    const mr_gateway_conf *conf = st->table->conf;
    int64_t age = age_s(st, now_us);
    mr_api_error e;
    if (st->resumed && !mr_resume_tick(st, now_us)) return;
    if (!st->call && now_us - st->vanished_us >= st->from.grace_s * 1000000) {
        send_cancel(st, st->table->cancelled_closed);
        mr_stream_drop(st, "closed");
    } else if (!st->resumed && is_producing(st) && age >= conf->accept_timeout_s) {
        mr_refuse(&e, 503, "not_accepted", NULL,
                  "The request could not be queued in time; please try again.");
        mr_stream_fail(st, st->table->cancelled_late, &e);
    } else if (age >= conf->request_timeout_s + DEADLINE_GRACE) {
        mr_refuse(&e, 504, "deadline_exceeded", NULL, "The answer took longer than %lld seconds.",
                  (long long)conf->request_timeout_s);
        mr_stream_fail(st, st->table->cancelled_late, &e);
    } else if (st->open && now_us - st->said_us >= conf->keep_alive_s * 1000000) {
        (void)say(st, MR_STR(MR_SSE_KEEP_ALIVE));
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
        if (st->call && st->open && st->from.grace_s > 0) {
            mr_call_abort(st->call, MR_STR(""));
            mr_stream_drop(st, "let_go");
        } else {
            mr_stream_end_with(st, e);
        }
    }
}
