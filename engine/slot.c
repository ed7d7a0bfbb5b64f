/* See slot.h. */
#include "engine/slot.h"

#include <string.h>

static void push(slot_list *l, slot *s) {
    s->next = NULL;
    *(l->last ? &l->last->next : &l->first) = s;
    l->last = s;
}

slot *slot_pop(slot_list *l) {
    slot *s = l->first;
    l->first = s->next;
    if (!l->first) l->last = NULL;
    return s;
}

slot *slot_take(engine *e) {
    e->nfree--;
    return slot_pop(&e->free);
}

void slot_drop_format(slot *s) {
    grammar_cursor_free(s->format);
    s->format = NULL;
    calls_end(&s->calls);
}

void slot_put(engine *e, slot *s) {
    slot_drop_format(s);
    s->state = SLOT_FREE;
    e->nfree++;
    push(&e->free, s);
}

/* ---- tokens of an answer ---- */

grammar_cursor *slot_grammar(const slot *s) {
    return s->format ? s->format : s->calls.phase == CALLS_READING ? s->calls.cursor : NULL;
}

bool slot_is_end(const engine *e, const slot *s, int32_t token) {
    if (s->how.ignore_eos && !slot_grammar(s)) return false;
    for (int i = 0; i < e->parts.nstop_ids; i++) {
        if (e->parts.stop_ids[i] == token) return true;
    }
    return false;
}

static bool is_one_of(const char *p, size_t n, const char *const *tags) {
    for (; *tags; tags++) {
        if (strlen(*tags) == n && memcmp(p, *tags, n) == 0) return true;
    }
    return false;
}

/* A grammar_piece_fn: the tags around tool calls may be special tokens, and are text to the grammars. */
static const char *written_piece(void *engine_, int32_t token, size_t *n, bool *special) {
    static const char *const tags[] = {"<tool_call>", "</tool_call>", NULL};
    const engine *e = engine_;
    const char *p = e->parts.piece(e->parts.owner, token, n, special);
    if (p && *special && is_one_of(p, *n, tags)) *special = false;
    return p;
}

/* Special tokens have no text for the reader, but the tags of reasoning may be special tokens. */
static const char *visible_piece(engine *e, int32_t token, size_t *n) {
    static const char *const tags[] = {"<think>", "</think>", NULL};
    bool special = false;
    *n = 0;
    const char *p = written_piece(e, token, n, &special);
    if (!p || (special && !is_one_of(p, *n, tags))) *n = 0;
    return p ? p : "";
}

/* ---- structured output ---- */

static grammar_store *formats_of(engine *e, engine_error *err) {
    const engine_parts *p = &e->parts;
    if (!e->words)
        e->words = grammar_vocab_new(p->known_vocab, written_piece, e, p->stop_ids, p->nstop_ids, err);
    if (e->words && !e->formats) e->formats = grammar_store_new(e->words, err);
    return e->formats;
}

int slot_begin_format(engine *e, slot *s, const engine_format *f, engine_error *err) {
    slot_drop_format(s);
    s->misfit = false;
    if (!f->json && !f->schema) return 0;
    grammar_store *formats = formats_of(e, err);
    grammar *g = formats ? grammar_store_get(formats, f->schema, f->schema_len, err) : NULL;
    if (!g) return -1;
    s->format = grammar_cursor_new(g);
    grammar_unref(g);
    return s->format ? 0 : engine_fail(err, ENGINE_ENOMEM, "out of memory for structured output");
}

int slot_begin_calls(engine *e, slot *s, const engine_request *r, engine_error *err) {
    const engine_tools *t = &r->tools;
    if (t->n && (s->format || !r->nmessages))
        return engine_fail(err, ENGINE_EINVAL, "tools: %s",
                           s->format ? "cannot be combined with a response format"
                                     : "need messages, not token ids");
    grammar_store *formats = t->n ? formats_of(e, err) : NULL;
    if (t->n && !formats) return -1;
    return calls_start(&s->calls, e->parts.calls, t, formats, err);
}

/* The token whose bytes ended the reasoning may hold the content's beginning: what was given out, what is held back, and
 * what is no whole character yet. */
static bool take_rest(const slot *s, grammar_cursor *g, answer_text text) {
    const answer *a = &s->answer;
    return (text.channel != ENGINE_CONTENT || grammar_cursor_take(g, text.p, text.n)) &&
           grammar_cursor_take(g, a->held, a->nheld) &&
           grammar_cursor_take(g, (const char *)a->chars.part, (size_t)a->chars.npart);
}

static void follow_grammar(slot *s, bool thought, const char *piece, size_t n, answer_text text) {
    grammar_cursor *g = slot_grammar(s);
    if (!g || s->answer.phase == ANSWER_THINKING) return;
    s->misfit = !(thought ? take_rest(s, g, text) : grammar_cursor_take(g, piece, n));
}

const uint64_t *slot_allowed(slot *s) {
    grammar_cursor *g = slot_grammar(s);
    return g && s->answer.phase != ANSWER_THINKING ? grammar_cursor_mask(g) : NULL;
}

static bool grammar_ends(const slot *s) {
    const grammar_cursor *g = slot_grammar(s);
    bool extendable = true;
    return g && s->answer.phase != ANSWER_THINKING && grammar_cursor_complete(g, &extendable) &&
           (!extendable || s->calls.begun == CALLS_MAX);
}

calls_text slot_append(engine *e, slot *s, int32_t token) {
    s->seq.tokens[s->seq.ntokens++] = token;
    bool thought = s->answer.phase == ANSWER_THINKING;
    size_t n;
    const char *piece = visible_piece(e, token, &n);
    answer_text text = answer_push(&s->answer, piece, n, slot_answered(s) >= s->how.min_tokens);
    s->reasoning += thought || s->answer.phase == ANSWER_THINKING;
    follow_grammar(s, thought, piece, n, text);
    calls_text out = calls_push(&s->calls, &s->answer, text, &s->misfit);
    /* a stop string is one in the text that is read, not in what a tool is given */
    if (s->calls.phase == CALLS_READING) s->answer.nstops = 0;
    return out;
}

bool slot_is_complete(const slot *s, engine_finish *why) {
    bool stopped = s->answer.stopped || grammar_ends(s);
    *why = stopped ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH;
    return stopped || s->seq.ntokens == s->seq.limit;
}

void slot_end(engine *e, slot *s, engine_finish why) {
    scheduler_remove(e->sched, &s->seq);
    bool whole = why == ENGINE_FINISH_STOP || why == ENGINE_FINISH_LENGTH;
    s->last = whole ? calls_finish(&s->calls, &s->answer, answer_finish(&s->answer))
                    : (calls_text){ENGINE_CONTENT, "", 0, 0, ""};
    s->finish = why == ENGINE_FINISH_STOP && s->calls.begun ? ENGINE_FINISH_CALLS : why;
    s->state = SLOT_ENDED;
    s->pending = NULL;
    push(&e->ended, s);
}

/* Log probabilities are of the logits, and several choices begin from one row. */
void slot_let_backend_draw(const engine *e, slot *s) {
    const bool only_token = e->parts.begin && s->how.logprobs < 0 && !s->pending;
    s->draw = (batch_draw){.temperature = s->how.temperature,
                           .top_p = s->how.top_p,
                           .min_p = s->how.min_p,
                           .top_k = s->how.top_k,
                           .seed = s->how.seed,
                           .vocab = e->parts.known_vocab,
                           .presence = s->how.presence_penalty,
                           .frequency = s->how.frequency_penalty,
                           .repetition = s->how.repetition_penalty};
    s->seq.draw = only_token ? &s->draw : NULL;
}
