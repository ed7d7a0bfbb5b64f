/* A stream: deltas and the terminal record. See stream.h. */
#include "worker/stream.h"

#include "base/log.h"
#include "schemas/hash.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_US       250000 /* after a full queue, or a terminal record that was not delivered */
#define END_TRIES      20     /* then the stream is broken: its partition may not exist */
#define DELTA_FULL     65536  /* bytes of text that do not wait for the interval */
#define DELTA_TOKENS   65536  /* that a record can say */
#define LOGPROBS_BYTES (16u << 20)
#define CALL_ID_LEN    (5 + MR_TEXT_HASH_LEN)

/* ---- breaking, and waiting ---- */

static void wait_us(mr_stream *s, int64_t us) {
    struct timeval tv = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    if (!evtimer_pending(s->timer, NULL)) evtimer_add(s->timer, &tv);
}

/* The owner hears of it from the loop, never from within its own call. */
static void break_stream(mr_stream *s, const char *why) {
    if (s->broken) return;
    s->broken = true;
    snprintf(s->why, sizeof(s->why), "%s", why);
    evtimer_del(s->timer);
    wait_us(s, 0);
}

static void tell_when_broken(mr_stream *s) {
    if (s->in_air) return;
    evtimer_del(s->timer);
    s->opt.broken(s->opt.owner, s->why); /* may close the stream */
}

/* ---- deltas ---- */

static bool collect_logprobs(mr_stream *s, const mr_logprob *lp, uint32_t n);

static void drop_pending(mr_stream *s) {
    mr_buf_clear(&s->text);
    s->pending_tokens = 0;
    mr_buf_clear(&s->ids);
    s->logprobs.n = 0;
    if (s->arena) mr_arena_reset(s->arena);
}

/* Of an answer that is gone on with as "ID~2", calls keep their ids. */
static mr_str answer_id(const mr_stream *s) {
    const char *tilde = memrchr(s->opt.request.p, '~', s->opt.request.n);
    return tilde ? (mr_str){s->opt.request.p, (size_t)(tilde - s->opt.request.p)} : s->opt.request;
}

/* The call's id is the same in every attempt at the answer. */
static void describe_call(const mr_stream *s, mr_delta_call *call, char id[CALL_ID_LEN + 1]) {
    char number[24];
    snprintf(number, sizeof(number), "/%lld", (long long)s->call);
    uint64_t hash = mr_text_hash_feed(mr_text_hash_init(), answer_id(s));
    memcpy(id, "call_", 5);
    mr_text_hash_hex(mr_text_hash_feed(hash, mr_str_of(number)), id + 5);
    MR_SET(call, MR_DELTA_CALL_INDEX, index, s->call);
    MR_SET(call, MR_DELTA_CALL_ID, id, mr_str_of(id));
    MR_SET(call, MR_DELTA_CALL_NAME, name, mr_str_of(s->name));
}

static int send_delta(mr_stream *s, uint64_t hash, mr_error *err) {
    char hex[MR_TEXT_HASH_LEN + 1], id[CALL_ID_LEN + 1];
    mr_text_hash_hex(hash, hex);
    mr_response_delta d = {.set = 0};
    MR_SET(&d, MR_RESPONSE_DELTA_V, v, MR_SCHEMA_VERSION);
    MR_SET(&d, MR_RESPONSE_DELTA_REQUEST, request, s->opt.request);
    MR_SET(&d, MR_RESPONSE_DELTA_ATTEMPT, attempt, s->attempt);
    MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, s->tokens - s->pending_tokens);
    MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, s->pending_tokens);
    MR_SET(&d, MR_RESPONSE_DELTA_OFFSET, offset, s->bytes - (int64_t)s->text.n);
    MR_SET(&d, MR_RESPONSE_DELTA_CHANNEL, channel, s->channel);
    MR_SET(&d, MR_RESPONSE_DELTA_TEXT, text, mr_buf_str(&s->text));
    MR_SET(&d, MR_RESPONSE_DELTA_HASH, hash, mr_str_of(hex));
    MR_SET(&d, MR_RESPONSE_DELTA_SOURCE, source, MR_SOURCE_MODEL);
    if (s->channel == MR_CHANNEL_TOOL_CALL) {
        describe_call(s, &d.call, id);
        MR_MARK(&d, MR_RESPONSE_DELTA_CALL);
    }
    if (s->ids.n == (size_t)s->pending_tokens * sizeof(int64_t)) {
        d.token_ids.v = (int64_t *)(void *)s->ids.p;
        d.token_ids.n = (uint32_t)s->pending_tokens;
        MR_MARK(&d, MR_RESPONSE_DELTA_TOKEN_IDS);
    }
    if (s->logprobs.n) {
        d.logprobs.v = s->logprobs.v;
        d.logprobs.n = s->logprobs.n;
        MR_MARK(&d, MR_RESPONSE_DELTA_LOGPROBS);
    }
    mr_buf *body = mr_publisher_scratch(s->opt.publisher);
    if (mr_pack(&mr_response_delta_def, &d, body, err)) return -1;
    return mr_publisher_send(s->opt.publisher, "ResponseDelta", s->opt.partition, s->opt.request,
                             mr_buf_str(body), s->opt.trace, &s->delta_tag, err);
}

/* True when nothing with text is pending any more. Tokens without text wait for the text that they belong to. */
static bool flush(mr_stream *s) {
    mr_error err;
    if (s->broken || s->text.n == 0) return true;
    uint64_t hash = mr_text_hash_feed(s->hash, mr_buf_str(&s->text));
    if (send_delta(s, hash, &err) == 0) {
        s->hash = hash;
        s->sent_us = mr_mono_us();
        s->in_air++;
        drop_pending(s);
        return true;
    }
    if (err.code == MR_ESTATE) {
        wait_us(s, RETRY_US); /* the local queue is full: what comes meanwhile makes a longer delta */
    } else {
        break_stream(s, err.msg);
    }
    return false;
}

static void settle(mr_stream *s) {
    if (s->broken) {
        tell_when_broken(s);
    } else if (s->ended && s->in_air == 0) {
        s->opt.ended(s->opt.owner); /* may close the stream */
    }
}

static void delta_delivered(void *of, const mr_error *err) {
    mr_stream *s = of;
    s->in_air--;
    if (err) break_stream(s, err->msg);
    settle(s);
}

/* The timer may come a little early: the loop's clock stands still within a round. */
static void flush_when_due(mr_stream *s) {
    int64_t wait = s->sent_us + MR_DELTA_INTERVAL_US - mr_mono_us();
    if (!s->sent_us || wait <= 0 || s->text.n >= DELTA_FULL) {
        flush(s);
    } else {
        wait_us(s, wait);
    }
}

/* May it be in one delta with what is pending? */
static bool goes_on(const mr_stream *s, const mr_stream_piece *p) {
    return p->channel == s->channel && (p->channel != MR_CHANNEL_TOOL_CALL || p->call == s->call);
}

static void set_kind(mr_stream *s, const mr_stream_piece *p) {
    s->channel = p->channel;
    s->call = p->call;
    mr_str_copy(p->name, s->name, sizeof(s->name));
}

/* Text that an engine held back until the end: it would hold it back again, did it go on from these tokens. So it goes into
 * a delta of its own; where the queue is full, or tokens without text are pending, that delta says no tokens. */
static void split_held_back(mr_stream *s) {
    flush(s);
    mr_buf_clear(&s->ids);
}

void mr_stream_text(mr_stream *s, const mr_stream_piece *p) {
    if (s->broken) return;
    if (p->text.n && s->text.n && !goes_on(s, p)) {
        flush(s);
        if (s->text.n) break_stream(s, "text of two channels is held back at once");
    }
    if (p->text.n && p->tokens.n == 0) split_held_back(s);
    if (p->text.n && !s->text.n) set_kind(s, p);
    mr_buf_put(&s->text, p->text.p, p->text.n);
    s->bytes += (int64_t)p->text.n;
    s->tokens += p->tokens.n;
    s->pending_tokens += p->tokens.n;
    if (p->tokens.n) mr_buf_put(&s->ids, p->tokens.v, p->tokens.n * sizeof(*p->tokens.v));
    if (s->text.failed || s->ids.failed || !collect_logprobs(s, p->lp, p->nlp)) {
        break_stream(s, "too much text waits for Kafka");
        return;
    }
    if (s->text.n) flush_when_due(s);
}

/* ---- logprobs of the pending tokens ---- */

static bool copy_top(mr_arena *a, const mr_logprob *from, mr_logprob *to) {
    to->top.v = mr_arena_alloc(a, from->top.n * sizeof(*to->top.v));
    if (!to->top.v) return from->top.n == 0;
    for (uint32_t i = 0; i < from->top.n; i++) {
        to->top.v[i] = from->top.v[i];
        to->top.v[i].token = mr_arena_str(a, from->top.v[i].token);
        to->top.v[i].bytes = mr_arena_str(a, from->top.v[i].bytes);
        if (!to->top.v[i].token.p || !to->top.v[i].bytes.p) return false;
    }
    return true;
}

static bool copy_logprob(mr_arena *a, const mr_logprob *from, mr_logprob *to) {
    *to = *from;
    to->token = mr_arena_str(a, from->token);
    to->bytes = mr_arena_str(a, from->bytes);
    return to->token.p && to->bytes.p && copy_top(a, from, to);
}

static bool room_for_logprobs(mr_stream *s, uint32_t n) {
    if (!s->arena) s->arena = mr_arena_new(LOGPROBS_BYTES);
    if (!s->arena) return false;
    if (s->logprobs.n + n <= s->logprobs_cap) return true;
    uint32_t cap = 2 * (s->logprobs.n + n);
    mr_logprob *v = realloc(s->logprobs.v, cap * sizeof(*v));
    if (!v) return false;
    s->logprobs.v = v;
    s->logprobs_cap = cap;
    return true;
}

static bool collect_logprobs(mr_stream *s, const mr_logprob *lp, uint32_t n) {
    if (n == 0) return true;
    if (!room_for_logprobs(s, n)) return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!copy_logprob(s->arena, &lp[i], &s->logprobs.v[s->logprobs.n])) return false;
        s->logprobs.n++;
    }
    return true;
}

/* ---- the terminal record ---- */

static void send_end(mr_stream *s) {
    mr_error err;
    evtimer_del(s->timer); /* what a delta waited for happens now, and once */
    if (s->broken || !flush(s)) return;
    if (mr_publisher_send(s->opt.publisher, "ResponseEnd", s->opt.partition, s->opt.request,
                          mr_buf_str(&s->end), s->opt.trace, &s->end_tag, &err) == 0) {
        s->in_air++;
    } else if (++s->end_tries < END_TRIES) {
        wait_us(s, RETRY_US);
    } else {
        break_stream(s, err.msg);
    }
}

static void end_delivered(void *of, const mr_error *err) {
    mr_stream *s = of;
    s->in_air--;
    s->ended = err == NULL;
    if (err && !s->broken && ++s->end_tries < END_TRIES) {
        mr_log(MR_WARN, "end of answer not delivered, sending it again", MR_SS("request", s->opt.request),
               MR_S("error", err->msg));
        wait_us(s, RETRY_US);
    } else if (err) {
        break_stream(s, err->msg);
    }
    settle(s);
}

static void describe_answer(const mr_stream *s, mr_response_end *end, uint64_t hash, char hex[]) {
    const mr_publisher_options *o = mr_publisher_describe(s->opt.publisher);
    mr_text_hash_hex(hash, hex);
    MR_SET(end, MR_RESPONSE_END_V, v, MR_SCHEMA_VERSION);
    MR_SET(end, MR_RESPONSE_END_REQUEST, request, s->opt.request);
    MR_SET(end, MR_RESPONSE_END_ATTEMPT, attempt, s->attempt);
    MR_SET(end, MR_RESPONSE_END_TOKENS, tokens, s->tokens);
    MR_SET(end, MR_RESPONSE_END_OFFSET, offset, s->bytes);
    MR_SET(end, MR_RESPONSE_END_HASH, hash, mr_str_of(hex));
    MR_SET(end, MR_RESPONSE_END_MODEL, model, mr_str_of(o->model));
    MR_SET(end, MR_RESPONSE_END_SOURCE, source, MR_SOURCE_MODEL);
    MR_SET(end, MR_RESPONSE_END_WORKER, worker, mr_str_of(o->worker));
}

void mr_stream_end(mr_stream *s, mr_response_end *end) {
    char hex[MR_TEXT_HASH_LEN + 1];
    mr_error err;
    if (s->broken) return;
    describe_answer(s, end, mr_text_hash_feed(s->hash, mr_buf_str(&s->text)), hex);
    mr_buf_clear(&s->end);
    if (mr_pack(&mr_response_end_def, end, &s->end, &err)) {
        break_stream(s, err.msg);
        return;
    }
    s->ending = true;
    send_end(s);
}

/* ---- life ---- */

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    mr_stream *s = arg;
    if (s->broken) {
        tell_when_broken(s);
    } else if (s->ending) {
        send_end(s);
    } else if (s->text.n) {
        flush_when_due(s);
    }
}

int mr_stream_open(mr_stream *s, const mr_stream_options *opt, mr_error *err) {
    *s = (mr_stream){.opt = *opt, .base = {.hash = mr_text_hash_init()}};
    if (opt->base) s->base = *opt->base;
    s->tokens = s->base.tokens;
    s->bytes = s->base.bytes;
    s->hash = s->base.hash;
    s->delta_tag = (mr_tag){delta_delivered, s};
    s->end_tag = (mr_tag){end_delivered, s};
    mr_buf_init(&s->text, MR_DELTA_MAX);
    mr_buf_init(&s->end, 1 << 20);
    mr_buf_init(&s->ids, DELTA_TOKENS * sizeof(int64_t));
    s->timer = evtimer_new(mr_loop_base(opt->loop), on_timer, s);
    if (!s->timer) return mr_fail(err, MR_ENOMEM, "out of memory for an answer");
    return 0;
}

void mr_stream_close(mr_stream *s) {
    if (s->timer) event_free(s->timer);
    mr_buf_done(&s->text);
    mr_buf_done(&s->end);
    mr_buf_done(&s->ids);
    mr_arena_free(s->arena);
    free(s->logprobs.v);
    *s = (mr_stream){.timer = NULL};
}

bool mr_stream_idle(const mr_stream *s) {
    return s->in_air == 0;
}

void mr_stream_abandon(mr_stream *s, const char *why) {
    break_stream(s, why);
}

void mr_stream_restart(mr_stream *s) {
    evtimer_del(s->timer);
    drop_pending(s);
    s->tokens = s->base.tokens;
    s->bytes = s->base.bytes;
    s->hash = s->base.hash;
    s->sent_us = 0;
    s->broken = s->ending = s->ended = false;
    s->end_tries = 0;
}
