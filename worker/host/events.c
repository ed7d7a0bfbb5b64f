/* See events.h. */
#include "worker/host/events.h"

#include "engine/text/tokenizer.h"

#include <string.h>

static const int channels[] = {[ENGINE_CONTENT] = MR_CHANNEL_CONTENT,
                               [ENGINE_REASONING] = MR_CHANNEL_REASONING,
                               [ENGINE_CALL] = MR_CHANNEL_TOOL_CALL};
static const int finishes[] = {[ENGINE_FINISH_STOP] = MR_FINISH_STOP,
                               [ENGINE_FINISH_CALLS] = MR_FINISH_TOOL_CALLS,
                               [ENGINE_FINISH_LENGTH] = MR_FINISH_LENGTH,
                               [ENGINE_FINISH_CANCELLED] = MR_FINISH_CANCELLED,
                               [ENGINE_FINISH_ERROR] = MR_FINISH_ERROR};

static mr_str piece(const engine *e, int32_t token) {
    bool special;
    mr_str s = {NULL, 0};
    s.p = tokenizer_piece(engine_tokenizer(e), token, &s.n, &special);
    return s.p ? s : MR_STR("");
}

/* A token may be a part of a character: its bytes are exact, its text is for reading. */
static mr_str readable(mr_str bytes) {
    return mr_str_is_utf8(bytes) ? bytes : MR_STR("\xef\xbf\xbd");
}

static double bounded(float logprob) {
    return logprob < -1e6f ? -1e6 : (double)logprob;
}

static int set_logprobs(const engine *e, const engine_event *ev, mr_arena *a, mr_logprob *out,
                        mr_error *err) {
    mr_str bytes = piece(e, ev->token);
    MR_SET(out, MR_LOGPROB_TOKEN, token, readable(bytes));
    MR_SET(out, MR_LOGPROB_LOGPROB, logprob, bounded(ev->logprob));
    MR_SET(out, MR_LOGPROB_BYTES, bytes, bytes);
    out->top.v = mr_arena_alloc(a, (size_t)ev->ntop * sizeof(*out->top.v));
    if (!out->top.v && ev->ntop) return mr_fail(err, MR_ENOMEM, "out of memory for log probabilities");
    out->top.n = (uint32_t)ev->ntop;
    MR_MARK(out, MR_LOGPROB_TOP);
    for (int i = 0; i < ev->ntop; i++) {
        mr_top_logprob *t = &out->top.v[i];
        bytes = piece(e, ev->top[i].token);
        MR_SET(t, MR_TOP_LOGPROB_TOKEN, token, readable(bytes));
        MR_SET(t, MR_TOP_LOGPROB_LOGPROB, logprob, bounded(ev->top[i].logprob));
        MR_SET(t, MR_TOP_LOGPROB_BYTES, bytes, bytes);
    }
    return 0;
}

static int encode_tokens(const engine *e, const engine_event *ev, mr_arena *a, mr_buf *out, mr_error *err) {
    int64_t token = ev->token;
    mr_logprob logprob = {0};
    mr_frame f = {.type = MR_FRAME_TOKENS};
    f.tokens = (mr_frame_tokens){.id = (int64_t)ev->id,
                                 .index = ev->index,
                                 .tokens = {&token, 1},
                                 .channel = channels[ev->channel],
                                 .text = {ev->text, ev->text_len},
                                 .call = ev->call,
                                 .name = mr_str_of(ev->call_name)};
    if (ev->has_logprob) {
        f.tokens.logprobs.v = &logprob;
        f.tokens.logprobs.n = 1;
        if (set_logprobs(e, ev, a, &logprob, err)) return -1;
    }
    return mr_frame_encode(&f, out, err);
}

static int encode_end(const engine_event *ev, mr_buf *out, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_END};
    f.end = (mr_frame_end){.id = (int64_t)ev->id,
                           .finish = finishes[ev->finish],
                           .channel = channels[ev->channel],
                           .text = {ev->text, ev->text_len},
                           .prompt_tokens = ev->prompt_tokens,
                           .completion_tokens = ev->completion_tokens,
                           .reasoning_tokens = ev->reasoning_tokens,
                           .cached_tokens = ev->cached_tokens,
                           .status = ev->error ? 500 : 0,
                           .code = MR_STR(""),
                           .message = mr_str_of(ev->error),
                           .call = ev->call,
                           .name = mr_str_of(ev->call_name)};
    return mr_frame_encode(&f, out, err);
}

int mr_host_event(const engine *e, const engine_event *ev, mr_arena *a, mr_buf *out, mr_error *err) {
    mr_arena_reset(a);
    return ev->kind == ENGINE_TOKENS ? encode_tokens(e, ev, a, out, err) : encode_end(ev, out, err);
}

int mr_host_load(const engine *e, mr_buf *out, mr_error *err) {
    engine_load l = engine_load_now(e);
    mr_frame f = {.type = MR_FRAME_LOAD};
    f.load = (mr_frame_load){.running = l.running,
                             .waiting = l.waiting,
                             .kv_blocks_used = l.kv_blocks_used,
                             .kv_blocks = l.kv_blocks,
                             .steps = (int64_t)l.steps,
                             .prompt_tokens = (int64_t)l.prompt_tokens,
                             .generated_tokens = (int64_t)l.generated_tokens,
                             .preemptions = (int64_t)l.preemptions,
                             .wanted_tokens = (int64_t)l.wanted_tokens,
                             .cached_tokens = (int64_t)l.cached_tokens,
                             .guessed_tokens = (int64_t)l.guessed_tokens,
                             .right_guesses = (int64_t)l.right_guesses};
    return mr_frame_encode(&f, out, err);
}
