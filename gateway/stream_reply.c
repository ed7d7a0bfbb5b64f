/* See stream_reply.h. */
#include "gateway/stream_reply.h"

#include "base/loop.h"
#include "gateway/stream_say.h"

/* ---- text ---- */

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
    mr_piece p = {d->channel, fresh, !c->begun, &d->call, call_begins, logprobs, mr_stream_event_id(c->of)};
    c->begun = true;
    mr_buf_clear(&s->event);
    if (wanted && (!logprobs || append_logprobs(d, fresh.n, logprobs) < 0)) s->event.failed = true;
    if (!s->event.failed) mr_render_piece(&c->render, &p, &s->event);
    json_decref(logprobs);
    (void)mr_stream_say_event(c->of);
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

void mr_stream_fail_memory(mr_stream *st) {
    mr_api_error e;
    mr_refuse(&e, 500, "out_of_memory", NULL, "Out of memory.");
    mr_stream_fail(st, st->table->cancelled_broken, &e);
}

/* ---- filtered text ---- */

/* Text that the filter let through. False when the entry is gone. */
static bool hand_on(mr_choice *c, int channel, mr_str text) {
    mr_stream *st = c->of;
    mr_buf *event = &st->table->event;
    if (text.n == 0) return true;
    if (!st->streamed) {
        mr_buf *out = channel == MR_CHANNEL_REASONING ? &c->reasoning : &c->content;
        mr_buf_put(out, text.p, text.n);
        return true;
    }
    if (!st->call) return true;
    mr_piece p = {.channel = channel, .text = text, .first = !c->begun, .at = mr_stream_event_id(st)};
    c->begun = true;
    mr_buf_clear(event);
    mr_render_piece(&c->render, &p, event);
    return mr_stream_say_event(st);
}

static void stop(mr_choice *c) {
    mr_counter_add(c->of->table->cancelled_word, 1);
    mr_choice_cancel(c);
    mr_choice_report(c);
    c->state = CHOICE_STOPPED;
    c->stopped_us = mr_mono_us();
}

static void on_found(void *arg, const mr_guard_rule *rule, mr_guard_action done, mr_str text) {
    mr_choice *c = arg;
    mr_protection_found(c->of->table->protection, &c->findings, rule, done, text);
}

/* More of the text of the channel that is under way. False when the entry is gone. */
static bool feed(mr_choice *c, mr_str text, bool over) {
    mr_streams *s = c->of->table;
    mr_error err;
    mr_buf_clear(&s->clear);
    if (mr_filter_feed(c->filter, text, over, &s->clear, &err) < 0 || s->clear.failed) {
        mr_stream_fail_memory(c->of);
        return false;
    }
    c->passed = c->channel_at + mr_filter_passed(c->filter);
    bool stopped = mr_filter_stopped(c->filter);
    if (over) {
        mr_filter_free(c->filter);
        c->filter = NULL;
    }
    if (!hand_on(c, c->channel, mr_buf_str(&s->clear))) return false;
    if (stopped) stop(c);
    return true;
}

bool mr_choice_flush(mr_choice *c) {
    return !c->filter || c->state == CHOICE_STOPPED || feed(c, MR_STR(""), true);
}

/* The first text of a channel, at that place of the answer. */
static int open_filter(mr_choice *c, int channel, uint64_t at) {
    mr_error err;
    size_t skip = c->skip > at ? (size_t)(c->skip - at) : 0;
    c->channel = channel;
    c->channel_at = at;
    c->filter = mr_protection_filter(c->of->table->protection, skip, on_found, c, &err);
    return c->filter ? 0 : -1;
}

/* A text ends where another channel begins. Arguments of calls are JSON for programs: they go by as they are. */
static void filter(mr_choice *c, const mr_response_delta *d, mr_str fresh, bool call_begins) {
    bool call = d->channel == MR_CHANNEL_TOOL_CALL;
    if (c->filter && c->channel != d->channel && (!mr_choice_flush(c) || c->state == CHOICE_STOPPED)) return;
    if (call) {
        c->passed = c->answer.bytes;
        if (c->of->streamed) {
            pass_on(c, d, fresh, call_begins);
        } else {
            collect(c, d, fresh);
        }
    } else if (!c->filter && open_filter(c, d->channel, c->answer.bytes - fresh.n) < 0) {
        mr_stream_fail_memory(c->of);
    } else {
        (void)feed(c, fresh, false);
    }
}

/* ---- ends ---- */

mr_response_end mr_choice_stopped_end(const mr_choice *c, const mr_response_end *end) {
    mr_response_end out = {0};
    MR_SET(&out, MR_RESPONSE_END_FINISH_REASON, finish_reason, MR_FINISH_CONTENT_FILTER);
    MR_SET(&out, MR_RESPONSE_END_SOURCE, source, c->of->source);
    if (end && MR_HAS(end, MR_RESPONSE_END_USAGE)) {
        out.usage = end->usage;
    } else {
        MR_SET(&out.usage, MR_USAGE_PROMPT_TOKENS, prompt_tokens, c->of->prompt);
        MR_SET(&out.usage, MR_USAGE_COMPLETION_TOKENS, completion_tokens, c->tokens);
    }
    MR_MARK(&out, MR_RESPONSE_END_USAGE);
    return out;
}

/* The last words of a choice that is streamed; *whole is its end with the usage of all. */
static void finish_streamed(mr_choice *c, const mr_response_end *whole) {
    mr_stream *st = c->of;
    mr_buf *out = &st->table->event;
    bool last = st->ended == st->n;
    const char *at = mr_stream_event_id(st);
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
    if (!mr_stream_say_event(st) || !last) return;
    if (st->call) mr_call_end(st->call);
    mr_stream_record(st, 200, mr_finish_names[whole->finish_reason]);
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
        mr_stream_fail_memory(st);
        return;
    }
    if (st->ended < st->n) return;
    mr_buf_clear(out);
    mr_render_completion(&c->render, json_incref(st->replies), whole, out);
    if (out->failed) {
        mr_stream_fail_memory(st);
        return;
    }
    if (st->call) {
        mr_call_set_header(st->call, "x-millrace-source", mr_source_names[st->source]);
        mr_call_reply(st->call, 200, mr_buf_str(out));
    }
    mr_stream_record(st, 200, mr_finish_names[whole->finish_reason]);
    mr_stream_free(st);
}

/* ---- either ---- */

void mr_choice_text(mr_choice *c, const mr_response_delta *d, mr_str fresh, bool call_begins) {
    if (mr_stream_filters(c->of)) {
        filter(c, d, fresh, call_begins);
    } else if (c->of->streamed) {
        pass_on(c, d, fresh, call_begins);
    } else {
        collect(c, d, fresh);
    }
}

void mr_choice_finish(mr_choice *c, const mr_response_end *whole) {
    if (c->of->streamed) {
        finish_streamed(c, whole);
    } else {
        finish_collected(c, whole);
    }
}
