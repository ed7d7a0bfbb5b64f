/* The table of requests in flight (see stream.h). */
#include "gateway/stream.h"

#include "base/log.h"
#include "gateway/answer.h"
#include "gateway/calls.h"
#include "gateway/render.h"
#include "schemas/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#define ANSWER_MAX     (16u << 20) /* bytes of an answer that is collected to be sent at once */
#define EVENT_MAX      (16u << 20)
#define DEADLINE_GRACE 2 /* seconds for the worker to end the answer itself, with its usage */

#define CHOICE_ID_LEN  (MR_REQUEST_ID_LEN + 12)

typedef enum { CHOICE_PRODUCING, CHOICE_ACCEPTED, CHOICE_ENDED } choice_state;

/* One answer: a request to the workers. */
typedef struct mr_choice {
    LIST_ENTRY(mr_choice) in_bucket;
    struct mr_stream *of;
    mr_ticket *ticket; /* while PRODUCING */
    choice_state state;
    bool begun;      /* its role was said */
    int64_t attempt; /* the latest that a record came from */
    char id[CHOICE_ID_LEN + 1];
    mr_render render;
    mr_answer answer;
    mr_buf content, reasoning; /* when not streamed */
    json_t *logprobs;          /* likewise */
    mr_calls calls;            /* their arguments likewise */
} mr_choice;

/* One request of a client. */
typedef struct mr_stream {
    LIST_ENTRY(mr_stream) in_table;
    mr_streams *table;
    mr_call *call;
    bool streamed, open; /* open: its headers are out */
    mr_stream_origin from;
    int64_t started_us, first_us, said_us;
    int64_t attempt; /* the latest of its choices */
    int source;
    mr_usage usage;  /* of the choices that have ended */
    json_t *replies; /* of them, when not streamed */
    int n, ended;
    mr_choice choice[]; /* [n] */
} mr_stream;

typedef LIST_HEAD(bucket, mr_choice) bucket;

struct mr_streams {
    const mr_gateway_conf *conf;
    mr_outbox *out;
    bucket *buckets;
    size_t nbuckets; /* a power of two */
    LIST_HEAD(, mr_stream) all;
    int count;
    mr_buf event; /* scratch */
    mr_gauge *in_flight;
    mr_histogram *first_token, *duration;
    mr_counter *duplicates, *gaps, *mismatches, *strays, *late, *prompt_tokens, *completion_tokens;
    mr_counter *cancelled_closed, *cancelled_slow, *cancelled_late, *cancelled_broken;
};

/* ---- table ---- */

int mr_request_id(char out[MR_REQUEST_ID_LEN + 1]) {
    unsigned char r[16];
    if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r)) return -1;
    memcpy(out, "chatcmpl-", 10);
    for (size_t i = 0; i < sizeof(r); i++) snprintf(out + 9 + 2 * i, 3, "%02x", r[i]);
    return 0;
}

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
    if (s) s->buckets = calloc(n, sizeof(bucket));
    if (!s || !s->buckets) {
        free(s);
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    s->conf = conf;
    s->out = out;
    s->nbuckets = n;
    mr_buf_init(&s->event, EVENT_MAX);
    register_metrics(s, m);
    return s;
}

static bucket *bucket_of(mr_streams *s, mr_str id) {
    return &s->buckets[mr_text_hash_feed(mr_text_hash_init(), id) & (s->nbuckets - 1)];
}

static mr_choice *find(mr_streams *s, mr_str id) {
    mr_choice *c;
    LIST_FOREACH(c, bucket_of(s, id), in_bucket) {
        if (mr_str_eqz(id, c->id)) return c;
    }
    return NULL;
}

static void choice_done(mr_choice *c) {
    if (c->ticket) mr_ticket_forget(c->ticket);
    LIST_REMOVE(c, in_bucket);
    mr_buf_done(&c->content);
    mr_buf_done(&c->reasoning);
    mr_calls_done(&c->calls);
    json_decref(c->logprobs);
}

static void stream_free(mr_stream *st) {
    mr_streams *s = st->table;
    for (int i = 0; i < st->n; i++) choice_done(&st->choice[i]);
    LIST_REMOVE(st, in_table);
    mr_gauge_set(s->in_flight, --s->count);
    json_decref(st->replies);
    free(st);
}

void mr_streams_free(mr_streams *s) {
    if (!s) return;
    for (mr_stream *st; (st = LIST_FIRST(&s->all));) stream_free(st);
    mr_buf_done(&s->event);
    free(s->buckets);
    free(s);
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
    mr_histogram_observe(s->duration, total);
    for (int i = 0; i < st->n; i++) {
        mr_counter_add(s->duplicates, st->choice[i].answer.duplicate_bytes);
        bytes += st->choice[i].answer.bytes;
    }
    mr_counter_add(s->prompt_tokens, (uint64_t)usage->prompt_tokens);
    mr_counter_add(s->completion_tokens, (uint64_t)usage->completion_tokens);
    mr_log(MR_INFO, "answer ended", MR_S("request", st->choice[0].id), MR_S("trace", st->from.trace),
           MR_S("client_request", st->from.client_request), MR_S("model", st->choice[0].render.model),
           MR_I("status", status), MR_S("finish", finish), MR_S("source", mr_source_names[st->source]),
           MR_I("streamed", st->streamed), MR_I("choices", st->n), MR_I("attempt", st->attempt),
           MR_I("bytes", bytes), MR_I("prompt_tokens", usage->prompt_tokens),
           MR_I("completion_tokens", usage->completion_tokens), MR_F("first_token_seconds", first),
           MR_F("seconds", total));
}

/* Free the worker's slot: nobody waits for the rest. */
static void cancel_choice(const mr_choice *choice) {
    const mr_stream *st = choice->of;
    char key[CHOICE_ID_LEN + 8];
    mr_control c = {0};
    mr_error err;
    snprintf(key, sizeof(key), "cancel/%s", choice->id);
    MR_SET(&c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_CANCEL);
    MR_SET(&c, MR_CONTROL_REQUEST, request, mr_str_of(choice->id));
    MR_SET(&c, MR_CONTROL_CREATED_MS, created_ms, mr_now_ms());
    mr_outbox_record rec = {MR_TOPIC_CONTROL, mr_str_of(key), &mr_control_def, &c, st->from.trace};
    if (mr_outbox_send(st->table->out, &rec, NULL, NULL, NULL, &err) < 0) {
        mr_log(MR_WARN, "cannot cancel", MR_S("request", choice->id), MR_S("reason", err.msg));
    }
}

static void cancel_all(const mr_stream *st) {
    for (int i = 0; i < st->n; i++) {
        if (st->choice[i].state != CHOICE_ENDED) cancel_choice(&st->choice[i]);
    }
}

static void send_cancel(const mr_stream *st, mr_counter *reason) {
    mr_counter_add(reason, 1);
    cancel_all(st);
}

/* After the headers an error is said twice: as text, for people whose client ignores error events, and as the event that
 * official clients raise. Then the connection closes without the end of its chunks. */
static void fail_stream(mr_stream *st, const mr_api_error *e) {
    const mr_choice *c = &st->choice[0];
    mr_buf *out = &st->table->event, sentence;
    mr_buf_init(&sentence, 4096);
    mr_render_sentence(e, c->answer.bytes == 0, &sentence);
    mr_piece p = {.channel = MR_CHANNEL_CONTENT,
                  .text = mr_buf_str(&sentence),
                  .first = !c->begun,
                  .offset = c->answer.bytes};
    mr_buf_clear(out);
    mr_render_piece(&c->render, &p, out);
    mr_render_error(e, c->answer.bytes, out);
    mr_buf_done(&sentence);
    mr_call_abort(st->call, out->failed ? MR_STR("") : mr_buf_str(out));
}

/* End with an error, in the form that the client can still take. */
static void fail(mr_stream *st, const mr_api_error *e) {
    record(st, e->status, "error");
    if (st->open) {
        fail_stream(st, e);
    } else {
        mr_call_error(st->call, e);
    }
    stream_free(st);
}

static void fail_and_cancel(mr_stream *st, mr_counter *reason, const mr_api_error *e) {
    send_cancel(st, reason);
    fail(st, e);
}

/* The peer is gone: nothing can be said, and the call is not ours any more. */
static void on_peer_closed(void *arg) {
    mr_stream *st = arg;
    send_cancel(st, st->table->cancelled_closed);
    record(st, 499, "closed");
    stream_free(st);
}

/* ---- to the client ---- */

/* Nothing more can be said to this client. */
static void cut_off(mr_stream *st, mr_counter *reason, const char *finish) {
    send_cancel(st, reason);
    record(st, 499, finish);
    mr_call_abort(st->call, MR_STR(""));
    stream_free(st);
}

/* False when the entry is gone, because its client does not read. */
static bool say(mr_stream *st, mr_str bytes) {
    if (mr_call_unsent(st->call) > (size_t)st->table->conf->output_max) {
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
    if (!event->failed) return say(st, mr_buf_str(event));
    cut_off(st, st->table->cancelled_broken, "out_of_memory");
    return false;
}

/* False when the entry is gone. */
static bool accept_choice(mr_choice *c) {
    mr_stream *st = c->of;
    if (c->ticket) mr_ticket_forget(c->ticket);
    c->ticket = NULL;
    c->state = CHOICE_ACCEPTED;
    if (!st->streamed || st->open) return true;
    st->open = true;
    mr_call_stream(st->call);
    return say(st, MR_STR(MR_SSE_ACCEPTED));
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
    fail(c->of, &e);
}

/* ---- admission ---- */

/* The first choice has the request's own id, so that a single one looks as if there were no others. */
static void choice_init(mr_choice *c, mr_stream *st, int index, const mr_openai_request *req) {
    c->of = st;
    if (index == 0) {
        snprintf(c->id, sizeof(c->id), "%.*s", MR_FMT(req->chat.id));
    } else {
        snprintf(c->id, sizeof(c->id), "%.*s-%d", MR_FMT(req->chat.id), index);
    }
    c->render = (mr_render){st->choice[0].id, req->model, mr_now_ms() / 1000, req->include_usage, index};
    mr_answer_init(&c->answer);
    mr_buf_init(&c->content, ANSWER_MAX);
    mr_buf_init(&c->reasoning, ANSWER_MAX);
    LIST_INSERT_HEAD(bucket_of(st->table, mr_str_of(c->id)), c, in_bucket);
}

static mr_stream *stream_new(mr_streams *s, mr_call *call, const mr_openai_request *req,
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

int mr_streams_start(mr_streams *s, mr_call *call, mr_openai_request *req, const mr_stream_origin *from,
                     mr_api_error *e) {
    mr_chat_request *r = &req->chat;
    mr_error err;
    if (s->count >= s->conf->max_in_flight) {
        return mr_refuse(e, 429, "too_many_requests", NULL, "Too many requests at once; please try again.");
    }
    mr_stream *st = stream_new(s, call, req, from);
    if (!st) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    MR_SET(r, MR_CHAT_REQUEST_CREATED_MS, created_ms, mr_now_ms());
    MR_SET(r, MR_CHAT_REQUEST_DEADLINE_MS, deadline_ms, r->created_ms + s->conf->request_timeout_s * 1000);
    MR_SET(r, MR_CHAT_REQUEST_REPLY_TO, reply_to, s->conf->partition);
    MR_SET(r, MR_CHAT_REQUEST_TRACE, trace, mr_str_of(st->from.trace));
    mr_outbox_record rec = {MR_TOPIC_REQUESTS, r->session, &mr_chat_request_def, r, st->from.trace};
    for (int i = 0; i < st->n; i++) {
        mr_choice *c = &st->choice[i];
        r->id = mr_str_of(c->id);
        if (i) MR_SET(r, MR_CHAT_REQUEST_CHOICE, choice, i);
        if (mr_outbox_send(s->out, &rec, on_acked, c, &c->ticket, &err) == 0) continue;
        while (i < st->n) st->choice[i++].state = CHOICE_ENDED; /* never begun */
        cancel_all(st);
        stream_free(st);
        return refuse_send(e, &err);
    }
    mr_call_logged(call);
    mr_call_on_close(call, on_peer_closed, st);
    return 0;
}

/* ---- records ---- */

/* The choice that a record belongs to. One whose delivery report is still to come is accepted by its answer. */
static mr_choice *receive(mr_streams *s, mr_str request, int64_t attempt) {
    mr_choice *c = find(s, request);
    if (!c || c->state == CHOICE_ENDED) {
        mr_counter_add(s->strays, 1);
        return NULL;
    }
    if (attempt > c->attempt) c->attempt = attempt;
    if (attempt > c->of->attempt) c->of->attempt = attempt;
    if (c->state == CHOICE_PRODUCING && !accept_choice(c)) return NULL;
    return c;
}

/* The records contradict each other. A worker that was taken for dead (frozen, cut off) may still send what it had: the
 * latest attempt counts, and nobody else can break its answer. */
static void contradict(mr_choice *c, mr_answer_verdict verdict, int64_t attempt) {
    mr_stream *st = c->of;
    mr_streams *s = st->table;
    if (attempt < c->attempt) {
        mr_counter_add(s->late, 1);
        return;
    }
    bool gap = verdict == MR_ANSWER_GAP;
    mr_api_error e;
    mr_counter_add(gap ? s->gaps : s->mismatches, 1);
    mr_log(MR_ERROR,
           gap ? "a part of an answer is missing" : "an answer was generated again with another text",
           MR_S("request", c->id), MR_I("attempt", st->attempt), MR_I("bytes", c->answer.bytes));
    if (gap) {
        mr_refuse(&e, 500, "answer_gap", NULL, "A part of the answer was lost. Please try again.");
    } else {
        mr_refuse(&e, 500, "answer_mismatch", NULL,
                  "The answer was interrupted and could not be continued. Please try again.");
    }
    fail_and_cancel(st, s->cancelled_broken, &e);
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

/* New text of a streamed answer. */
static void pass_on(mr_choice *c, const mr_response_delta *d, mr_str fresh, bool call_begins) {
    mr_streams *s = c->of->table;
    bool wanted = d->logprobs.n > 0 && d->channel != MR_CHANNEL_TOOL_CALL; /* OpenAI's are those of content */
    json_t *logprobs = wanted ? json_array() : NULL;
    mr_piece p = {d->channel, fresh, !c->begun, &d->call, call_begins, logprobs, c->answer.bytes};
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
    fail_and_cancel(st, st->table->cancelled_broken, &e);
}

void mr_streams_delta(mr_streams *s, const mr_response_delta *d) {
    mr_choice *c = receive(s, d->request, d->attempt);
    mr_str fresh;
    if (!c) return;
    mr_stream *st = c->of;
    mr_answer_verdict verdict = mr_answer_delta(&c->answer, d->offset, d->text, d->hash, &fresh);
    if (verdict == MR_ANSWER_DUPLICATE) return;
    if (verdict != MR_ANSWER_NEW) {
        contradict(c, verdict, MR_HAS(d, MR_RESPONSE_DELTA_ATTEMPT) ? d->attempt : c->attempt);
        return;
    }
    if (MR_HAS(d, MR_RESPONSE_DELTA_SOURCE)) st->source = d->source;
    if (fresh.n == 0 && d->logprobs.n == 0) return;
    mr_calls_verdict call =
        d->channel == MR_CHANNEL_TOOL_CALL ? mr_calls_see(&c->calls, &d->call) : MR_CALLS_GOES_ON;
    if (call == MR_CALLS_NO_MEMORY) {
        fail_memory(st);
        return;
    }
    if (call == MR_CALLS_MISMATCH) {
        contradict(c, MR_ANSWER_MISMATCH, c->attempt);
        return;
    }
    if (st->first_us == 0) {
        st->first_us = mr_mono_us();
        mr_histogram_observe(s->first_token, (double)(st->first_us - st->started_us) / 1e6);
    }
    if (st->streamed) {
        pass_on(c, d, fresh, call == MR_CALLS_BEGINS);
    } else {
        collect(c, d, fresh);
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
    mr_buf_clear(out);
    if (!c->begun) { /* an answer without text still says whose turn it is */
        mr_render_piece(&c->render,
                        &(mr_piece){.channel = MR_CHANNEL_CONTENT, .text = MR_STR(""), .first = true}, out);
    }
    mr_render_end(&c->render, whole, c->answer.bytes, out);
    if (last) {
        mr_render_usage(&c->render, whole, c->answer.bytes, out);
        mr_buf_puts(out, MR_SSE_DONE);
    }
    if (!say_event(st) || !last) return;
    mr_call_end(st->call);
    record(st, 200, mr_finish_names[whole->finish_reason]);
    stream_free(st);
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
    mr_call_set_header(st->call, "x-millrace-source", mr_source_names[st->source]);
    mr_call_reply(st->call, 200, mr_buf_str(out));
    record(st, 200, mr_finish_names[whole->finish_reason]);
    stream_free(st);
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
    fail(c->of, &e);
}

void mr_streams_end(mr_streams *s, const mr_response_end *end) {
    mr_choice *c = receive(s, end->request, end->attempt);
    if (!c) return;
    mr_stream *st = c->of;
    if (MR_HAS(end, MR_RESPONSE_END_SOURCE)) st->source = end->source;
    if (end->finish_reason == MR_FINISH_ERROR || end->finish_reason == MR_FINISH_CANCELLED) {
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

/* ---- time ---- */

static bool is_producing(const mr_stream *st) {
    for (int i = 0; i < st->n; i++) {
        if (st->choice[i].state == CHOICE_PRODUCING) return true;
    }
    return false;
}

static void tick(mr_stream *st, int64_t now_us) {
    const mr_gateway_conf *conf = st->table->conf;
    int64_t age_s = (now_us - st->started_us) / 1000000;
    mr_api_error e;
    if (is_producing(st) && age_s >= conf->accept_timeout_s) {
        mr_refuse(&e, 503, "not_accepted", NULL,
                  "The request could not be queued in time; please try again.");
        fail_and_cancel(st, st->table->cancelled_late, &e);
    } else if (age_s >= conf->request_timeout_s + DEADLINE_GRACE) {
        mr_refuse(&e, 504, "deadline_exceeded", NULL, "The answer took longer than %lld seconds.",
                  (long long)conf->request_timeout_s);
        fail_and_cancel(st, st->table->cancelled_late, &e);
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

void mr_streams_fail_all(mr_streams *s, const mr_api_error *e) {
    for (mr_stream *st; (st = LIST_FIRST(&s->all));) fail_and_cancel(st, s->cancelled_late, e);
}
