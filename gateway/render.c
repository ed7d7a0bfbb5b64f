/* Answers in OpenAI's JSON, with DeepSeek's reasoning_content and prompt_cache_hit_tokens. */
#include "gateway/render.h"

#include <string.h>

#define LABEL_GAP "\n\n"

static int put(const char *p, size_t n, void *out) {
    mr_buf_put(out, p, n);
    return ((mr_buf *)out)->failed ? -1 : 0;
}

void mr_render_json(json_t *j, mr_buf *out) {
    if (!j || json_dump_callback(j, put, out, JSON_COMPACT) != 0) out->failed = true;
    json_decref(j);
}

static void event(json_t *j, const char *at, mr_buf *out) {
    mr_buf_printf(out, "id: %s\ndata: ", at);
    mr_render_json(j, out);
    mr_buf_puts(out, "\n\n");
}

/* ---- parts ---- */

static json_t *bytes_json(mr_str s) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < s.n; i++) {
        if (json_array_append_new(list, json_integer((unsigned char)s.p[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *token_json(mr_str token, double logprob, mr_str bytes) {
    return json_pack("{s:s%, s:f, s:o}", "token", token.p, token.n, "logprob", logprob, "bytes",
                     bytes_json(bytes));
}

static json_t *logprob_json(const mr_logprob *p) {
    json_t *top = json_array(), *out = NULL;
    int failed = !top;
    for (uint32_t i = 0; !failed && i < p->top.n; i++) {
        const mr_top_logprob *t = &p->top.v[i];
        mr_str bytes = MR_HAS(t, MR_TOP_LOGPROB_BYTES) ? t->bytes : t->token;
        failed = json_array_append_new(top, token_json(t->token, t->logprob, bytes));
    }
    if (!failed) {
        out = token_json(p->token, p->logprob, MR_HAS(p, MR_LOGPROB_BYTES) ? p->bytes : p->token);
        if (out && json_object_set(out, "top_logprobs", top) != 0) {
            json_decref(out);
            out = NULL;
        }
    }
    json_decref(top);
    return out;
}

int mr_render_logprobs(const mr_logprob *v, uint32_t n, json_t *list) {
    for (uint32_t i = 0; i < n; i++) {
        if (json_array_append_new(list, logprob_json(&v[i])) != 0) return -1;
    }
    return 0;
}

static json_t *choice_logprobs(const json_t *list) {
    return list ? json_pack("{s:O}", "content", list) : json_null();
}

static int source_of(const mr_response_end *end) {
    return MR_HAS(end, MR_RESPONSE_END_SOURCE) ? end->source : MR_SOURCE_MODEL;
}

static const char *source_name(const mr_response_end *end) {
    return mr_source_names[source_of(end)];
}

/* `source` is none of OpenAI's members: what nobody generated is not billed, and this says why. */
static json_t *usage_json(const mr_response_end *end) {
    const mr_usage *u = &end->usage;
    json_int_t hit =
        u->prompt_cache_hit_tokens < u->prompt_tokens ? u->prompt_cache_hit_tokens : u->prompt_tokens;
    return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}, s:I, s:I, s:s}", "prompt_tokens",
                     (json_int_t)u->prompt_tokens, "completion_tokens", (json_int_t)u->completion_tokens,
                     "total_tokens", (json_int_t)(u->prompt_tokens + u->completion_tokens),
                     "prompt_tokens_details", "cached_tokens", hit, "completion_tokens_details",
                     "reasoning_tokens", (json_int_t)u->reasoning_tokens, "prompt_cache_hit_tokens", hit,
                     "prompt_cache_miss_tokens", (json_int_t)u->prompt_tokens - hit, "source",
                     source_name(end));
}

/* What OpenAI's API has no word for. */
static json_t *extra_json(const mr_render *r, const mr_response_end *end) {
    json_t *out = json_pack("{s:s}", "source", source_name(end));
    if (out && r->marked && source_of(end) == MR_SOURCE_MODEL)
        json_object_set_new(out, "ai_generated", json_true());
    return out;
}

/* The sentence at the end of what the model wrote, or NULL: arguments of calls are for programs. */
static const char *label_of(const mr_render *r, const mr_response_end *end) {
    bool labelled = source_of(end) == MR_SOURCE_MODEL && end->finish_reason != MR_FINISH_TOOL_CALLS;
    return labelled ? r->label : NULL;
}

/* A chunk with these choices (stolen). OpenAI says `usage: null` in all chunks but the last when it was asked for. */
static json_t *chunk_json(const mr_render *r, json_t *choices) {
    json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", r->id, "object", "chat.completion.chunk",
                          "created", (json_int_t)r->created, "model", r->model, "choices", choices);
    if (j && r->usage) json_object_set_new(j, "usage", json_null());
    return j;
}

/* ---- streams ---- */

/* The id and the name are said once, with the first arguments. */
static json_t *call_delta(const mr_piece *p) {
    const mr_delta_call *c = p->call;
    json_t *function = json_pack("{s:s%}", "arguments", p->text.p, p->text.n);
    if (function && p->call_begins) json_object_set_new(function, "name", json_stringn(c->name.p, c->name.n));
    json_t *call = json_pack("{s:I, s:o}", "index", (json_int_t)c->index, "function", function);
    if (call && p->call_begins) {
        json_object_set_new(call, "id", json_stringn(c->id.p, c->id.n));
        json_object_set_new(call, "type", json_string("function"));
    }
    json_t *delta = json_pack("{s:[o]}", "tool_calls", call);
    if (delta && p->first) {
        json_object_set_new(delta, "role", json_string("assistant"));
        json_object_set_new(delta, "content", json_null());
    }
    return delta;
}

static json_t *text_delta(const mr_piece *p) {
    const char *field = p->channel == MR_CHANNEL_REASONING ? "reasoning_content" : "content";
    return json_pack("{s:s*, s:s%}", "role", p->first ? "assistant" : NULL, field, p->text.p, p->text.n);
}

void mr_render_piece(const mr_render *r, const mr_piece *p, mr_buf *out) {
    json_t *delta = p->channel == MR_CHANNEL_TOOL_CALL ? call_delta(p) : text_delta(p);
    json_t *choices = json_pack("[{s:i, s:o, s:o, s:n}]", "index", r->choice, "delta", delta, "logprobs",
                                choice_logprobs(p->logprobs), "finish_reason");
    event(chunk_json(r, choices), p->at, out);
}

void mr_render_end(const mr_render *r, const mr_response_end *end, const char *at, mr_buf *out) {
    const char *label = label_of(r, end);
    json_t *delta = label ? json_pack("{s:s+}", "content", LABEL_GAP, label) : json_object();
    json_t *choices = json_pack("[{s:i, s:o, s:n, s:s}]", "index", r->choice, "delta", delta, "logprobs",
                                "finish_reason", mr_finish_names[end->finish_reason]);
    json_t *last = chunk_json(r, choices);
    if (last) json_object_set_new(last, "millrace", extra_json(r, end));
    event(last, at, out);
}

void mr_render_usage(const mr_render *r, const mr_response_end *end, const char *at, mr_buf *out) {
    if (!r->usage) return;
    json_t *usage = chunk_json(r, json_array());
    if (usage) {
        json_object_set_new(usage, "usage", usage_json(end));
        json_object_set_new(usage, "millrace", extra_json(r, end));
    }
    event(usage, at, out);
}

void mr_render_error(const mr_api_error *e, const char *at, mr_buf *out) {
    event(mr_api_error_json(e), at, out);
}

void mr_render_sentence(const mr_api_error *e, bool first, mr_buf *out) {
    mr_buf_printf(out, "%s[Error: the answer could not be finished: %s]", first ? "" : "\n\n", e->message);
}

/* ---- whole answers ---- */

/* An answer of calls alone has no content, rather than an empty one. */
static json_t *message_json(const mr_reply *reply, const char *label) {
    bool calls = reply->calls->n > 0, silent = calls && reply->content.n == 0;
    json_t *content = silent ? json_null()
                             : json_pack("s%++", reply->content.p, reply->content.n, label ? LABEL_GAP : "",
                                         label ? label : "");
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content", content);
    if (message && reply->reasoning.n > 0) {
        json_object_set_new(message, "reasoning_content",
                            json_stringn(reply->reasoning.p, reply->reasoning.n));
    }
    if (message && calls && json_object_set_new(message, "tool_calls", mr_calls_json(reply->calls)) != 0) {
        json_decref(message);
        message = NULL;
    }
    return message;
}

json_t *mr_render_choice(const mr_render *r, const mr_reply *reply, const mr_response_end *end) {
    return json_pack("{s:i, s:o, s:o, s:s}", "index", r->choice, "message",
                     message_json(reply, label_of(r, end)), "logprobs", choice_logprobs(reply->logprobs),
                     "finish_reason", mr_finish_names[end->finish_reason]);
}

void mr_render_completion(const mr_render *r, json_t *choices, const mr_response_end *end, mr_buf *out) {
    mr_render_json(json_pack("{s:s, s:s, s:I, s:s, s:o, s:o, s:o}", "id", r->id, "object", "chat.completion",
                             "created", (json_int_t)r->created, "model", r->model, "choices", choices,
                             "usage", usage_json(end), "millrace", extra_json(r, end)),
                   out);
}
