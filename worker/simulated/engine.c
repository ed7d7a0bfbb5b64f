/* See engine.h. */
#include "worker/simulated/engine.h"

#include "worker/simulated/sequence.h"

#include <stdlib.h>

#define SCRATCH_MAX (64u << 20)
#define LATE_US     200000 /* a process that was stopped for longer does not make up for it */

struct mr_sim {
    const mr_sim_profile *p;
    mr_arena *scratch;
    mr_sim_sequence *first, *last; /* running and waiting, in the order they came */
    int n, running;
    int64_t blocks_used;
    int64_t step_ends_us; /* 0: no step is under way */
    int64_t wake_us;      /* without a step: when the next sequence is due */
    int64_t steps, prefilled, generated, preemptions, wanted, cached;
    mr_sim_health health;
};

mr_sim *mr_sim_new(const mr_sim_profile *p, mr_error *err) {
    mr_sim *s = calloc(1, sizeof(*s));
    if (!s || !(s->scratch = mr_arena_new(SCRATCH_MAX))) {
        free(s);
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    s->p = p;
    s->wake_us = INT64_MAX;
    return s;
}

/* ---- sequences and their blocks ---- */

static int64_t blocks_for(const mr_sim *s, int64_t tokens) {
    return (tokens + s->p->c.kv_block_tokens - 1) / s->p->c.kv_block_tokens;
}

static int64_t blocks_free(const mr_sim *s) {
    return s->p->c.kv_blocks - s->blocks_used;
}

static void set_blocks(mr_sim *s, mr_sim_sequence *q, int64_t blocks) {
    s->running += (blocks > 0) - (q->blocks > 0);
    s->blocks_used += blocks - q->blocks;
    q->blocks = blocks;
}

static void drop(mr_sim *s, mr_sim_sequence *q) {
    set_blocks(s, q, 0);
    *(q->prev ? &q->prev->next : &s->first) = q->next;
    *(q->next ? &q->next->prev : &s->last) = q->prev;
    s->n--;
    mr_sim_sequence_done(q);
    free(q);
}

void mr_sim_free(mr_sim *s) {
    if (!s) return;
    while (s->first) drop(s, s->first);
    mr_arena_free(s->scratch);
    free(s);
}

int mr_sim_submit(mr_sim *s, const mr_frame_submit *f, int64_t now, mr_error *err) {
    const mr_sim_conf *c = &s->p->c;
    int64_t most = c->kv_blocks * c->kv_block_tokens;
    if (s->n >= 2 * c->max_seqs) return mr_fail(err, MR_ESTATE, "more requests than twice max_seqs");
    mr_sim_sequence *q = malloc(sizeof(*q));
    if (!q) return mr_fail(err, MR_ESTATE, "out of memory");
    mr_arena_reset(s->scratch);
    if (mr_sim_sequence_init(q, s->p, f, most < c->max_context ? most : c->max_context, s->scratch, err)) {
        free(q);
        return -1;
    }
    q->due_us = now;
    q->prev = s->last;
    *(s->last ? &s->last->next : &s->first) = q;
    s->last = q;
    s->n++;
    if (!s->step_ends_us && now < s->wake_us) s->wake_us = now;
    return 0;
}

/* ---- what is said ---- */

static int say_end(mr_sim *s, mr_sim_sequence *q, int finish, mr_buf *out, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_END};
    int64_t reasoning = q->index < q->reasoning ? q->index : q->reasoning;
    bool whole = finish == MR_FINISH_LENGTH || (finish == MR_FINISH_STOP && !q->stopped);
    f.end = (mr_frame_end){.id = q->id,
                           .finish = finish,
                           .channel = mr_sim_sequence_channel(q),
                           .text = whole ? mr_sim_sequence_rest(q) : MR_STR(""),
                           .prompt_tokens = q->prompt,
                           .completion_tokens = q->index,
                           .reasoning_tokens = reasoning,
                           .cached_tokens = q->cached < q->prompt ? q->cached : q->prompt,
                           .code = MR_STR(""),
                           .name = MR_STR(""),
                           .message = MR_STR("")};
    if (finish == MR_FINISH_ERROR) {
        f.end.status = 500;
        f.end.code = MR_STR("scripted");
        f.end.message = MR_STR("a simulated failure");
    }
    int rc = mr_frame_encode(&f, out, err);
    drop(s, q);
    return rc;
}

static int say_token(const mr_sim_sequence *q, int64_t token, mr_str text, mr_buf *out, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_TOKENS};
    mr_logprob lp = {.set = 0};
    mr_str bytes = mr_sim_token_bytes(token);
    f.tokens = (mr_frame_tokens){.id = q->id,
                                 .index = q->index - 1,
                                 .tokens = {&token, 1},
                                 .channel = mr_sim_sequence_channel(q),
                                 .text = text,
                                 .name = MR_STR("")};
    if (q->logprobs) {
        MR_SET(&lp, MR_LOGPROB_TOKEN, token, mr_str_is_utf8(bytes) ? bytes : MR_STR("\xef\xbf\xbd"));
        MR_SET(&lp, MR_LOGPROB_LOGPROB, logprob, -0.5);
        MR_SET(&lp, MR_LOGPROB_BYTES, bytes, bytes);
        f.tokens.logprobs.v = &lp;
        f.tokens.logprobs.n = 1;
    }
    return mr_frame_encode(&f, out, err);
}

int mr_sim_cancel(mr_sim *s, int64_t id, mr_buf *out, mr_error *err) {
    for (mr_sim_sequence *q = s->first; q; q = q->next) {
        if (q->id == id) return say_end(s, q, MR_FINISH_CANCELLED, out, err);
    }
    return 0;
}

int mr_sim_load(const mr_sim *s, mr_buf *out, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_LOAD};
    f.load = (mr_frame_load){.running = s->running,
                             .waiting = s->n - s->running,
                             .kv_blocks_used = s->blocks_used,
                             .kv_blocks = s->p->c.kv_blocks,
                             .steps = s->steps,
                             .prompt_tokens = s->prefilled,
                             .generated_tokens = s->generated,
                             .preemptions = s->preemptions,
                             .wanted_tokens = s->wanted,
                             .cached_tokens = s->cached};
    return mr_frame_encode(&f, out, err);
}

/* ---- the end of a step ---- */

/* Makes room for one more token of q by taking it from the youngest; false: q is the youngest, and lost its own. */
static bool grow(mr_sim *s, mr_sim_sequence *q) {
    int64_t need = blocks_for(s, q->prompt + q->index + 1);
    if (need <= q->blocks) return true;
    for (mr_sim_sequence *y = s->last; y && blocks_free(s) < need - q->blocks; y = y->prev) {
        if (!y->blocks) continue;
        set_blocks(s, y, 0);
        y->todo = y->prompt + y->index;
        y->chunk = 0;
        y->stepping = false;
        s->preemptions++;
        if (y == q) return false;
    }
    set_blocks(s, q, need);
    return true;
}

/* The misbehaviour that comes before the next token, if any does. */
static mr_sim_health mishap(const mr_sim *s, const mr_sim_sequence *q) {
    const mr_sim_conf *c = &s->p->c;
    if (q->index == q->crash || (c->crash_at_token && s->generated + 1 >= c->crash_at_token))
        return MR_SIM_CRASHES;
    if (q->index == q->hang || (c->hang_at_token && s->generated + 1 >= c->hang_at_token))
        return MR_SIM_HANGS;
    return MR_SIM_WELL;
}

/* How it ends before its next token, or -1. */
static int finish_of(const mr_sim_sequence *q) {
    if (q->fails && q->index >= q->natural / 2) return MR_FINISH_ERROR;
    if (q->stopped || q->index >= q->natural) return MR_FINISH_STOP;
    return q->index >= q->limit ? MR_FINISH_LENGTH : -1;
}

static int generate(mr_sim *s, mr_sim_sequence *q, int64_t now, mr_buf *out, mr_error *err) {
    const mr_sim_conf *c = &s->p->c;
    for (int64_t i = 0; i < c->tokens_per_step; i++) {
        s->health = mishap(s, q);
        if (s->health != MR_SIM_WELL) return 0;
        int finish = finish_of(q);
        if (finish >= 0) return say_end(s, q, finish, out, err);
        if (!grow(s, q)) return 0;
        s->generated++;
        bool wrong = c->wrong_from_token && s->generated >= c->wrong_from_token;
        bool last = q->index + 1 >= (q->natural < q->limit ? q->natural : q->limit);
        int64_t token = mr_sim_text_next(&q->text, last, wrong);
        if (say_token(q, token, mr_sim_sequence_take(q, token), out, err)) return -1;
    }
    q->due_us = now + q->pause_us;
    int finish = finish_of(q);
    return finish >= 0 && finish != MR_FINISH_ERROR ? say_end(s, q, finish, out, err) : 0;
}

static int end_step(mr_sim *s, int64_t now, mr_buf *out, mr_error *err) {
    s->steps++;
    for (mr_sim_sequence *q = s->first, *next; q; q = next) {
        next = q->next;
        bool first = q->chunk > 0 && q->chunk == q->todo;
        s->prefilled += q->chunk;
        q->todo -= q->chunk;
        q->chunk = 0;
        if (!first && !q->stepping) continue;
        q->stepping = false;
        if (generate(s, q, now, out, err)) return -1;
        if (s->health != MR_SIM_WELL) return 0;
    }
    return 0;
}

/* ---- the beginning of a step ---- */

/* Who waits gets a place in the order of coming, but nobody overtakes one that waits for blocks. */
static void admit(mr_sim *s) {
    for (mr_sim_sequence *q = s->first; q && s->running < s->p->c.max_seqs; q = q->next) {
        if (q->blocks) continue;
        int64_t need = blocks_for(s, q->prompt + q->index + 1);
        if (need > blocks_free(s)) return;
        set_blocks(s, q, need);
        s->wanted += q->prompt + q->index;
        s->cached += q->prompt + q->index - q->todo;
    }
}

/* Without a step: when one can begin. */
static int64_t next_due(const mr_sim *s) {
    int64_t due = INT64_MAX;
    for (const mr_sim_sequence *q = s->first; q; q = q->next) {
        if (q->blocks && q->due_us < due) due = q->due_us;
    }
    return due;
}

static void begin_step(mr_sim *s, int64_t start) {
    int64_t left = s->p->c.step_prompt_tokens, prompt = 0, context = 0;
    int decoding = 0;
    admit(s);
    for (mr_sim_sequence *q = s->first; q; q = q->next) {
        if (!q->blocks || q->due_us > start) continue;
        if (q->todo > 0) {
            q->chunk = q->todo < left ? q->todo : left;
            left -= q->chunk;
            prompt += q->chunk;
        } else {
            q->stepping = true;
            decoding++;
            context += q->prompt + q->index;
        }
    }
    bool any = decoding || prompt;
    s->step_ends_us = any ? start + (int64_t)mr_sim_step_us(s->p, decoding, prompt, context) : 0;
    s->wake_us = any ? INT64_MAX : next_due(s);
}

int mr_sim_step(mr_sim *s, int64_t now, mr_buf *out, mr_error *err) {
    if (now < mr_sim_due(s)) return 0;
    int64_t start = now;
    if (s->step_ends_us) {
        if (now - s->step_ends_us < LATE_US) start = s->step_ends_us;
        if (end_step(s, start, out, err)) return -1;
        if (s->health != MR_SIM_WELL) return 0;
    }
    begin_step(s, start);
    return 0;
}

bool mr_sim_busy(const mr_sim *s) {
    return s->n > 0;
}

int64_t mr_sim_due(const mr_sim *s) {
    return s->step_ends_us ? s->step_ends_us : s->wake_us;
}

mr_sim_health mr_sim_health_now(const mr_sim *s) {
    return s->health;
}
