/* See stream_say.h. */
#include "gateway/stream_say.h"

#include "base/log.h"

#include <stdio.h>

/* ---- ends, and what the workers hear of them ---- */

static double seconds_since(int64_t us) {
    return (double)(mr_mono_us() - us) / 1e6;
}

/* The one log line of a request, and its place in the metrics. */
void mr_stream_record(mr_stream *st, int status, const char *finish) {
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

void mr_stream_cancel_rest(const mr_stream *st) {
    for (int i = 0; i < st->n; i++) {
        if (st->choice[i].state < CHOICE_STOPPED) mr_choice_cancel(&st->choice[i]);
    }
}

void mr_stream_cancel(const mr_stream *st, mr_counter *reason) {
    mr_counter_add(reason, 1);
    mr_stream_cancel_rest(st);
}

/* The id of an event that says all that was passed on so far. */
const char *mr_stream_event_id(mr_stream *st) {
    uint64_t bytes[MR_CHOICES_MAX];
    for (int i = 0; i < st->n; i++) {
        const mr_choice *c = &st->choice[i];
        uint64_t said = mr_stream_filters(st) ? c->passed : c->answer.bytes;
        bytes[i] = said > c->skip ? said : c->skip;
    }
    mr_event_id(bytes, st->n, st->table->at);
    return st->table->at;
}

/* After the headers an error is said twice: as text, for people whose client ignores error events, and as the event that
 * official clients raise. Then the connection closes without the end of its chunks. */
static void fail_stream(mr_stream *st, const mr_api_error *e) {
    const mr_choice *c = &st->choice[0];
    const char *at = mr_stream_event_id(st);
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
    /* an accepted stream tells its errors as a stream, however early */
    if (st->streamed && st->accepted && !mr_stream_open(st)) return;
    mr_stream_record(st, e->status, "error");
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
    mr_stream_cancel(st, reason);
    mr_stream_end_with(st, e);
}

void mr_stream_drop(mr_stream *st, const char *finish) {
    mr_stream_record(st, 499, finish);
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
        mr_stream_cancel(st, st->table->cancelled_closed);
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
    mr_stream_cancel(st, reason);
    mr_stream_record(st, 499, finish);
    mr_call_abort(st->call, MR_STR(""));
    mr_stream_free(st);
}

/* What is read from the log comes as fast as that goes, until its end. */
static size_t output_max(const mr_stream *st) {
    return (size_t)st->table->conf->output_max * (st->resumed && !st->caught_up ? 8 : 1);
}

/* False when the entry is gone, because its client does not read. */
static bool send_bytes(mr_stream *st, mr_str bytes) {
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

/* The headers and a first comment; with a record of the answer they say where it comes from. */
static bool open_stream(mr_stream *st, bool answered) {
    st->open = true;
    if (answered) mr_call_set_header(st->call, "x-millrace-source", mr_source_names[st->source]);
    mr_call_stream(st->call);
    return send_bytes(st, MR_STR(MR_SSE_ACCEPTED));
}

bool mr_stream_open(mr_stream *st) {
    return !st->call || st->open || open_stream(st, false);
}

bool mr_stream_say(mr_stream *st, mr_str bytes) {
    if (!st->call) return true;
    return (st->open || open_stream(st, true)) && send_bytes(st, bytes);
}

bool mr_stream_say_event(mr_stream *st) {
    const mr_buf *event = &st->table->event;
    if (!st->call || !event->failed) return mr_stream_say(st, mr_buf_str(event));
    if (mr_stream_open(st)) cut_off(st, st->table->cancelled_broken, "out_of_memory");
    return false;
}

void mr_choice_accept(mr_choice *c) {
    mr_stream *st = c->of;
    if (c->ticket) mr_ticket_forget(c->ticket);
    c->ticket = NULL;
    c->state = CHOICE_ACCEPTED;
    if (!st->accepted) st->accepted_us = mr_mono_us();
    st->accepted = true;
}

void mr_stream_accept(mr_stream *st) {
    for (int i = 0; i < st->n; i++) mr_choice_accept(&st->choice[i]);
}
