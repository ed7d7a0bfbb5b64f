/* See pass.h. */
#include "engine/pass.h"

#include <string.h>

static void report_token(event_list *out, const slot *s, const sample_output *drawn, calls_text text) {
    engine_channel quiet = s->answer.phase == ANSWER_THINKING ? ENGINE_REASONING : ENGINE_CONTENT;
    out->v[out->n++] = (engine_event){
        .kind = ENGINE_TOKENS,
        .id = s->id,
        .choice = s->choice,
        .token = drawn->token,
        .index = slot_answered(s) - 1,
        .channel = text.n ? text.channel : quiet,
        .text = text.p,
        .text_len = text.n,
        .call = text.call,
        .call_name = text.name,
        .has_logprob = s->how.logprobs >= 0,
        .logprob = drawn->logprob,
        .top = drawn->top,
        .ntop = drawn->ntop,
    };
}

/* A token that the backend has drawn. */
static int take_drawn(int32_t id, sample_output *drawn, engine_error *err) {
    if (id == DRAWN_NO_NUMBERS || id == DRAWN_NONE_LEFT)
        return engine_fail(err, ENGINE_EINTERNAL,
                           id == DRAWN_NO_NUMBERS ? "the model computed logits that are not numbers"
                                                  : "no token is left to draw from");
    *drawn = (sample_output){.token = id};
    return 0;
}

/* What the next token is drawn with, or the one after `coming` that are not known yet. */
static sample_input draw_input(const engine *e, slot *s, const float *logits, int coming) {
    /* a format ends when it ends, however few tokens that takes */
    bool early = !s->how.ignore_eos && !slot_grammar(s) && slot_answered(s) + coming < s->how.min_tokens;
    return (sample_input){logits,
                          &s->how,
                          s->seq.tokens,
                          s->seq.ntokens,
                          s->nprompt,
                          e->parts.stop_ids,
                          early ? e->parts.nstop_ids : 0,
                          slot_allowed(s)};
}

static int draw_here(engine *e, slot *s, const float *logits, sample_output *drawn) {
    const sample_input in = draw_input(e, s, logits, 0);
    return sampler_draw(e->sampler, &in, drawn, &s->error);
}

/* One more token from a row of logits, or the one that the backend drew from it. False when the answer ends. */
static bool next_token(engine *e, slot *s, const float *logits, int32_t row, sample_output *drawn,
                       event_list *out) {
    if (row == DRAWN_NOT ? draw_here(e, s, logits, drawn) : take_drawn(row, drawn, &s->error)) {
        slot_end(e, s, ENGINE_FINISH_ERROR);
        return false;
    }
    e->generated_tokens++;
    if (slot_is_end(e, s, drawn->token)) {
        slot_end(e, s, ENGINE_FINISH_STOP);
        return false;
    }
    report_token(out, s, drawn, slot_append(e, s, drawn->token));
    engine_finish why = ENGINE_FINISH_ERROR;
    if (s->misfit)
        engine_fail(&s->error, ENGINE_EINTERNAL, "the reasoning ran into the answer, which must be JSON");
    else if (!slot_is_complete(s, &why))
        return true;
    slot_end(e, s, why);
    return false;
}

static void guess(const engine *e, slot *s) {
    int room = s->seq.limit - s->seq.ntokens - 1; /* the last token's own logits are not asked for */
    if (!e->limits.guess_tokens) return;
    s->seq.guessed = drafter_guess(&s->drafter, s->seq.tokens, s->seq.ntokens, room);
}

/* Rows of a sequence in a pass: its tokens, or the logits that they are to be drawn from. */
typedef struct drawn_rows {
    const float *logits;
    const int32_t *drawn; /* NULL: none is */
    int n;
} drawn_rows;

/* Takes the row after the last known token, and goes on as long as the guessed tokens, from which the next rows were
 * computed, are those that are drawn. */
static void take_rows(engine *e, slot *s, drawn_rows rows, event_list *out) {
    int tried = rows.n - 1, right = 0;
    bool goes_on, was_right;
    do {
        int32_t guessed = right < tried ? s->seq.tokens[s->seq.ntokens] : -1;
        sample_output *drawn = &s->drawn[right];
        const int32_t id = rows.drawn ? rows.drawn[right] : DRAWN_NOT;
        goes_on = next_token(e, s, rows.logits + (size_t)right * (size_t)e->parts.vocab, id, drawn, out);
        was_right = goes_on && drawn->token == guessed;
        right += was_right;
    } while (was_right);
    e->guessed_tokens += (uint64_t)tried;
    e->right_guesses += (uint64_t)right;
    if (!goes_on) return;
    if (tried) {
        scheduler_keep(e->sched, &s->seq, right);
        drafter_learn(&s->drafter, tried, right);
    }
    guess(e, s);
}

/* The prompt has been computed: the other choices begin from the same logits. */
static void begin_pending(engine *e, slot *first, const float *logits, event_list *out) {
    slot *s = first->pending, *next;
    if (!s) return;
    for (slot *p = s; p; p = p->next) {
        scheduler_fork(e->sched, &first->seq, &p->seq);
        p->state = SLOT_LIVE;
    }
    first->pending = NULL;
    slot_let_backend_draw(e, first);
    for (; s; s = next) {
        next = s->next;
        take_rows(e, s, (drawn_rows){.logits = logits, .n = 1}, out);
    }
}

/* How many of its tokens in this step belong to the prompt. */
static uint64_t prompt_share(const slot *s, const batch_seq *b) {
    int end = b->pos + b->ntokens < s->nprompt ? b->pos + b->ntokens : s->nprompt;
    return end > b->pos ? (uint64_t)(end - b->pos) : 0;
}

/* What else than logits decides over the tokens of this pass, for a backend that draws them. */
static void tell_changes(engine *e, const step_plan *p) {
    logit_change *changes = e->changes;
    uint64_t *mask = e->masks;
    for (int i = 0; i < p->n; i++) {
        slot *s = (slot *)p->seqs[i];
        if (!s->seq.draw || !p->batch[i].nlogits) continue;
        const sample_input in = draw_input(e, s, NULL, p->batch[i].tokens ? 0 : 1);
        s->draw.changes = changes;
        s->draw.nchanges = sampler_changes(e->sampler, &in, changes);
        s->draw.allowed = in.allowed ? mask : NULL;
        changes += s->draw.nchanges;
        if (!in.allowed) continue;
        memcpy(mask, in.allowed,
               (size_t)e->mask_words * sizeof *mask); /* it is its grammar's, for a moment */
        mask += e->mask_words;
    }
}

int pass_begin(engine *e, int max_guesses, engine_error *err) {
    const int guesses = max_guesses < e->limits.guess_tokens ? max_guesses : e->limits.guess_tokens;
    const step_plan p = scheduler_plan(e->sched, guesses);
    for (int i = 0; i < p.ncopies; i++) {
        e->parts.copy_block(e->parts.owner, p.copies[i].from, p.copies[i].to);
    }
    if (!p.n) return 0;
    e->guesses = guesses;
    e->pass[e->passes++] = p;
    if (!e->parts.begin) return 0;
    tell_changes(e, &p);
    return e->parts.begin(e->parts.owner, p.batch, p.n, err);
}

/* A pass has a token of each that runs, and guesses fill it up to so many. */
static bool has_room_for_guesses(const engine *e) {
    return scheduler_stats_now(e->sched).running < e->limits.guess_tokens;
}

bool pass_runs_ahead(const engine *e) {
    const engine_parts *parts = &e->parts;
    const step_plan *p = &e->pass[0];
    if (e->passes != 1 || !parts->runs_ahead || !parts->runs_ahead(parts->owner) || has_room_for_guesses(e))
        return false;
    for (int i = 0; i < p->n; i++) {
        const slot *s = (const slot *)p->seqs[i];
        const int rows = p->batch[i].nlogits;
        if (s && (rows > 1 || (rows && (s->format || s->calls.phase != CALLS_OFF)))) return false;
    }
    return true;
}

static int compute(engine *e, const step_plan *p, batch_result *result, engine_error *err) {
    float *logits = NULL;
    if (e->parts.begin) return e->parts.finish(e->parts.owner, result, err);
    const int rc = e->parts.forward(e->parts.owner, p->batch, p->n, &logits, err);
    *result = (batch_result){.logits = logits};
    return rc;
}

int pass_finish(engine *e, event_list *out, engine_error *err) {
    const step_plan p = e->pass[0];
    batch_result all;
    e->pass[0] = e->pass[1];
    e->passes--;
    if (compute(e, &p, &all, err)) return -1;
    scheduler_commit(e->sched);
    e->steps++;
    for (int i = 0, row = 0; i < p.n; row += p.batch[i++].nlogits) {
        slot *s = (slot *)p.seqs[i];
        if (s) e->prompt_tokens += prompt_share(s, &p.batch[i]);
        if (!s || !p.batch[i].nlogits) continue;
        const drawn_rows rows = {all.logits + (size_t)row * (size_t)e->parts.vocab,
                                 all.drawn ? all.drawn + row : NULL, p.batch[i].nlogits};
        begin_pending(e, s, rows.logits, out);
        take_rows(e, s, rows, out);
    }
    return 0;
}
