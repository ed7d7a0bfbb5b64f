/* The step loop: requests become slots, the scheduler plans their tokens, the backend computes logits, the sampler draws,
 * and the answer's text comes out as events.
 *
 * Where the backend computes beside its caller, a step ends by beginning the next one's pass, which goes on while the caller
 * handles the events: a request that comes meanwhile is in the pass after that, as one that comes while a step computes is, and one that
 * is cancelled has a place in the pass that nobody looks at.
 *
 * Runs on the caller's thread. Slots (running, waiting, or ended and not yet reported) are all taken at open, with their
 * token and text buffers; a step allocates nothing.
 */
#include "engine/engine_internal.h"

#include "engine/answer.h"
#include "engine/calls.h"
#include "engine/grammar/grammar.h"
#include "engine/sample.h"
#include "engine/sched/draft.h"
#include "engine/sched/scheduler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS_MAX = 1 + DRAFT_MAX }; /* tokens of one answer in one step */
_Static_assert((int)ANSWER_TEXTS > (int)DRAWS_MAX,
               "a step's texts and the answer's end are borrowed together");

typedef enum {
    SLOT_FREE,
    SLOT_PENDING, /* a choice that begins when the prompt has been computed for the first one */
    SLOT_LIVE,
    SLOT_ENDED,
} slot_state;

/* One answer, from submit to its END event. */
typedef struct slot {
    seq seq;           /* first: the scheduler hands it back */
    struct slot *next; /* in the list of free, ended or pending slots */
    struct slot *pending;
    slot_state state;
    uint64_t id;
    int choice;
    engine_sampling how; /* without the stop strings: those are the answer's */
    answer answer;
    drafter drafter;
    grammar_cursor *format; /* of structured output; NULL: none */
    calls calls;
    bool misfit; /* the last token was not of the format, or of the calls */
    sample_output drawn[DRAWS_MAX];
    batch_draw draw; /* of sequences that the backend may draw from */
    int32_t ids[DRAWS_MAX];
    int nprompt, reasoning;
    engine_finish finish; /* once ended */
    calls_text last;
    engine_error error;
} slot;

typedef struct slot_list {
    slot *first, *last;
} slot_list;

struct engine {
    engine_parts parts;
    engine_limits limits;
    scheduler *sched;
    sampler *sampler;
    slot *slots;
    int nslots, nfree;
    int32_t *ids; /* [nslots][max_context]: tokens of the sequences */
    int32_t *tables;
    logit_change
        *changes;    /* for a backend that draws: [max_seqs][max_context + stop ids], and the masks that */
    uint64_t *masks; /* go with them, [max_seqs][mask_words]. Of the pass that is planned */
    int mask_words;
    slot_list free, ended;
    step_plan pass;       /* planned, and begun where the backend overlaps; n is 0 between */
    int guesses;          /* in it, at most */
    engine_error broken;  /* it could not be begun: the next step says so, after this one's events */
    grammar_vocab *words; /* these two are made when the first structured output is asked for */
    grammar_store *formats;
    uint64_t steps, prompt_tokens, generated_tokens, guessed_tokens, right_guesses;
};

typedef struct event_list {
    engine_event *v;
    int n, max;
} event_list;

static void list_push(slot_list *l, slot *s) {
    s->next = NULL;
    *(l->last ? &l->last->next : &l->first) = s;
    l->last = s;
}

static slot *list_pop(slot_list *l) {
    slot *s = l->first;
    l->first = s->next;
    if (!l->first) l->last = NULL;
    return s;
}

static slot *take_free(engine *e) {
    e->nfree--;
    return list_pop(&e->free);
}

static void drop_format(slot *s) {
    grammar_cursor_free(s->format);
    s->format = NULL;
    calls_end(&s->calls);
}

static void put_free(engine *e, slot *s) {
    drop_format(s);
    s->state = SLOT_FREE;
    e->nfree++;
    list_push(&e->free, s);
}

/* ---- open and close ---- */

static size_t longest_piece(const engine_parts *p) {
    size_t longest = 0;
    for (int32_t id = 0; id < p->known_vocab; id++) {
        size_t n = 0;
        bool special;
        if (p->piece(p->owner, id, &n, &special) && n > longest) longest = n;
    }
    return longest;
}

static int make_slots(engine *e, engine_error *err) {
    const engine_limits *l = &e->limits;
    size_t context = (size_t)l->max_context;
    size_t blocks = (context + (size_t)l->block_tokens - 1) / (size_t)l->block_tokens;
    size_t n = (size_t)l->max_seqs + (size_t)l->max_waiting;
    e->slots = calloc(n, sizeof *e->slots);
    e->ids = calloc(n, context * sizeof *e->ids);
    e->tables = calloc(n, blocks * sizeof *e->tables);
    if (!e->slots || !e->ids || !e->tables) {
        return engine_fail(err, ENGINE_ENOMEM,
                           "no memory for %zu sequences of %zu tokens: lower max_seqs or max_context", n,
                           context);
    }
    size_t longest = longest_piece(&e->parts);
    for (size_t i = 0; i < n; i++) {
        slot *s = &e->slots[i];
        e->nslots++;
        if (answer_init(&s->answer, longest, err) || calls_init(&s->calls, s->answer.cap, err)) return -1;
        s->seq.tokens = e->ids + i * context;
        s->seq.table.block = e->tables + i * blocks;
        put_free(e, s);
    }
    return 0;
}

/* What a backend is told that draws by itself. */
static int make_changes(engine *e, engine_error *err) {
    const size_t seqs = (size_t)e->limits.max_seqs,
                 each = (size_t)e->limits.max_context + ENGINE_STOP_IDS_MAX;
    e->mask_words = (e->parts.known_vocab + 63) / 64;
    e->changes = calloc(seqs, each * sizeof *e->changes);
    e->masks = calloc(seqs, (size_t)e->mask_words * sizeof *e->masks);
    return e->changes && e->masks ? 0 : engine_fail(err, ENGINE_ENOMEM, "no memory for penalties and masks");
}

engine *engine_open_with(const engine_limits *limits, const engine_parts *parts, engine_error *err) {
    engine *e = calloc(1, sizeof *e);
    if (!e) {
        parts->close(parts->owner);
        engine_fail(err, ENGINE_ENOMEM, "no memory for an engine");
        return NULL;
    }
    e->parts = *parts;
    e->parts.info.max_events = 2 * limits->max_seqs + limits->guess_tokens;
    e->limits = *limits;
    e->sched = scheduler_new(&(scheduler_limits){.max_seqs = limits->max_seqs,
                                                 .max_waiting = limits->max_waiting,
                                                 .step_tokens = limits->step_tokens,
                                                 .reserve_tokens = limits->reserve_tokens,
                                                 .guess_tokens = limits->guess_tokens,
                                                 .kv_blocks = limits->kv_blocks,
                                                 .block_tokens = limits->block_tokens},
                             err);
    e->sampler = e->sched ? sampler_new(parts->known_vocab, err) : NULL;
    if (!e->sampler || make_slots(e, err) || (parts->begin && make_changes(e, err))) {
        engine_close(e);
        return NULL;
    }
    return e;
}

void engine_close(engine *e) {
    if (!e) return;
    for (int i = 0; i < e->nslots; i++) {
        answer_done(&e->slots[i].answer);
        drop_format(&e->slots[i]);
        calls_done(&e->slots[i].calls);
    }
    grammar_store_free(e->formats);
    grammar_vocab_free(e->words);
    free(e->slots);
    free(e->ids);
    free(e->tables);
    free(e->changes);
    free(e->masks);
    sampler_free(e->sampler);
    scheduler_free(e->sched);
    e->parts.close(e->parts.owner);
    free(e);
}

const engine_info *engine_describe(const engine *e) {
    return &e->parts.info;
}
const struct tokenizer *engine_tokenizer(const engine *e) {
    return e->parts.tokenizer;
}
const struct scheduler *engine_scheduler(const engine *e) {
    return e->sched;
}

/* ---- tokens of an answer ---- */

static int answered(const slot *s) {
    return s->seq.ntokens - s->nprompt;
}

/* The grammar that the content is held to; NULL: it is free, now or at all. */
static grammar_cursor *grammar_of(const slot *s) {
    return s->format ? s->format : s->calls.phase == CALLS_READING ? s->calls.cursor : NULL;
}

static bool ends_answer(const engine *e, const slot *s, int32_t token) {
    if (s->how.ignore_eos && !grammar_of(s)) return false;
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

static int begin_format(engine *e, slot *s, const engine_format *f, engine_error *err) {
    drop_format(s);
    s->misfit = false;
    if (!f->json && !f->schema) return 0;
    grammar_store *formats = formats_of(e, err);
    grammar *g = formats ? grammar_store_get(formats, f->schema, f->schema_len, err) : NULL;
    if (!g) return -1;
    s->format = grammar_cursor_new(g);
    grammar_unref(g);
    return s->format ? 0 : engine_fail(err, ENGINE_ENOMEM, "out of memory for structured output");
}

static int begin_calls(engine *e, slot *s, const engine_request *r, engine_error *err) {
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
    grammar_cursor *g = grammar_of(s);
    if (!g || s->answer.phase == ANSWER_THINKING) return;
    s->misfit = !(thought ? take_rest(s, g, text) : grammar_cursor_take(g, piece, n));
}

/* Tokens that may come next; NULL: all. */
static const uint64_t *allowed_tokens(slot *s) {
    grammar_cursor *g = grammar_of(s);
    return g && s->answer.phase != ANSWER_THINKING ? grammar_cursor_mask(g) : NULL;
}

static bool grammar_ends(const slot *s) {
    const grammar_cursor *g = grammar_of(s);
    bool extendable = true;
    return g && s->answer.phase != ANSWER_THINKING && grammar_cursor_complete(g, &extendable) &&
           (!extendable || s->calls.begun == CALLS_MAX);
}

/* One more token of the answer, drawn or forced. */
static calls_text append(engine *e, slot *s, int32_t token) {
    s->seq.tokens[s->seq.ntokens++] = token;
    bool thought = s->answer.phase == ANSWER_THINKING;
    size_t n;
    const char *piece = visible_piece(e, token, &n);
    answer_text text = answer_push(&s->answer, piece, n, answered(s) >= s->how.min_tokens);
    s->reasoning += thought || s->answer.phase == ANSWER_THINKING;
    follow_grammar(s, thought, piece, n, text);
    calls_text out = calls_push(&s->calls, &s->answer, text, &s->misfit);
    /* a stop string is one in the text that is read, not in what a tool is given */
    if (s->calls.phase == CALLS_READING) s->answer.nstops = 0;
    return out;
}

/* Does the answer end with the token appended last? */
static bool is_complete(const slot *s, engine_finish *why) {
    bool stopped = s->answer.stopped || grammar_ends(s);
    *why = stopped ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH;
    return stopped || s->seq.ntokens == s->seq.limit;
}

static void end(engine *e, slot *s, engine_finish why) {
    scheduler_remove(e->sched, &s->seq);
    bool whole = why == ENGINE_FINISH_STOP || why == ENGINE_FINISH_LENGTH;
    s->last = whole ? calls_finish(&s->calls, &s->answer, answer_finish(&s->answer))
                    : (calls_text){ENGINE_CONTENT, "", 0, 0, ""};
    s->finish = why == ENGINE_FINISH_STOP && s->calls.begun ? ENGINE_FINISH_CALLS : why;
    s->state = SLOT_ENDED;
    s->pending = NULL;
    list_push(&e->ended, s);
}

/* ---- submit ---- */

void engine_sampling_default(engine_sampling *s) {
    *s = (engine_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .logprobs = -1};
}

static int check_sampling(const engine_sampling *h, engine_error *err) {
    const struct {
        const char *name;
        float value, min, max;
    } ranges[] = {
        {"temperature", h->temperature, 0, 100},
        {"top_p", h->top_p, 0, 1},
        {"min_p", h->min_p, 0, 1},
        {"presence_penalty", h->presence_penalty, -100, 100},
        {"frequency_penalty", h->frequency_penalty, -100, 100},
        {"repetition_penalty", h->repetition_penalty, 0.01f, 100},
        {"max_tokens", (float)h->max_tokens, 0, INFINITY},
        {"min_tokens", (float)h->min_tokens, 0, INFINITY},
        {"logprobs", (float)h->logprobs, -1, SAMPLE_TOP_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max) continue;
        return engine_fail(err, ENGINE_EINVAL, "%s is %g: expected %g to %g", ranges[i].name,
                           (double)ranges[i].value, (double)ranges[i].min, (double)ranges[i].max);
    }
    return 0;
}

static int check_ids(const engine *e, const int32_t *ids, int n, const char *what, engine_error *err) {
    for (int i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < e->parts.known_vocab) continue;
        return engine_fail(err, ENGINE_EINVAL, "%s: %d is no token id: the vocabulary has %d", what, ids[i],
                           e->parts.known_vocab);
    }
    return 0;
}

static int set_prompt(engine *e, slot *s, const engine_request *r, engine_error *err) {
    int64_t n = r->nprompt;
    size_t cap = (size_t)e->limits.max_context;
    if (r->nmessages > 0) {
        const engine_chat chat = {r->messages, r->nmessages, r->tools.v, r->tools.n};
        n = e->parts.render(e->parts.owner, &chat, s->seq.tokens, cap, err);
        if (n < 0) return -1;
    } else if (n > 0 && (size_t)n < cap) {
        memcpy(s->seq.tokens, r->prompt, (size_t)n * sizeof *r->prompt);
    }
    if (n <= 0) return engine_fail(err, ENGINE_EINVAL, "the request has neither messages nor a prompt");
    if ((size_t)n >= cap) {
        return engine_fail(
            err, ENGINE_ETOOLONG,
            "the prompt has %lld tokens, and the model's context holds %zu with the answer: shorten it",
            (long long)n, cap);
    }
    s->nprompt = s->seq.ntokens = (int)n;
    s->seq.limit = e->limits.max_context;
    if (s->how.max_tokens && s->how.max_tokens < s->seq.limit - s->nprompt)
        s->seq.limit = s->nprompt + s->how.max_tokens;
    return check_ids(e, s->seq.tokens, s->nprompt, "prompt", err);
}

/* Replays the tokens of an earlier run. *ended: the answer was complete with them. */
static int replay(engine *e, slot *s, const engine_request *r, bool *ended, engine_error *err) {
    *ended = false;
    for (int i = 0; i < r->nforced; i++) {
        if (*ended) return engine_fail(err, ENGINE_EINVAL, "forced tokens go on after the end of the answer");
        if (ends_answer(e, s, r->forced[i])) {
            s->finish = ENGINE_FINISH_STOP;
            *ended = true;
            continue;
        }
        append(e, s, r->forced[i]);
        if (s->misfit) return engine_fail(err, ENGINE_EINVAL, "forced tokens are not of the response format");
        *ended = is_complete(s, &s->finish);
    }
    return 0;
}

static bool is_known(const engine *e, uint64_t id) {
    for (int i = 0; i < e->nslots; i++) {
        if (e->slots[i].state != SLOT_FREE && e->slots[i].id == id) return true;
    }
    return false;
}

/* The first choice is drawn as if it were the only one. */
static uint64_t seed_of_choice(uint64_t seed, int choice) {
    uint64_t z = seed + (uint64_t)choice * UINT64_C(0x9E3779B97F4A7C15);
    if (!choice) return seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void forget_drawn(slot *s) {
    for (int k = 0; k < DRAWS_MAX; k++) s->ids[k] = DRAWN_NOT;
}

/* Log probabilities are of the logits, and several choices begin from one row. */
static void let_backend_draw(const engine *e, slot *s) {
    const bool only_token = s->how.logprobs < 0 && !s->pending;
    s->draw = (batch_draw){.temperature = s->how.temperature,
                           .top_p = s->how.top_p,
                           .min_p = s->how.min_p,
                           .top_k = s->how.top_k,
                           .seed = s->how.seed,
                           .vocab = e->parts.known_vocab,
                           .ids = s->ids};
    s->seq.draw = only_token ? &s->draw : NULL;
}

static int begin_answer(engine *e, slot *s, const engine_request *r, int choice, engine_error *err) {
    s->id = r->id;
    s->choice = choice;
    s->how = r->sampling;
    s->how.stop = NULL;
    s->how.seed = seed_of_choice(r->sampling.seed, choice);
    s->seq.reused = -1;
    s->seq.width = 1;
    s->seq.guessed = 0;
    s->reasoning = 0;
    s->pending = NULL;
    drafter_start(&s->drafter);
    forget_drawn(s);
    let_backend_draw(e, s);
    bool thinking = r->nmessages > 0 && e->parts.opens_thinking;
    if (begin_format(e, s, &r->format, err) || begin_calls(e, s, r, err)) return -1;
    return answer_start(&s->answer, thinking, r->sampling.stop, r->sampling.nstop, err);
}

static int fill_slot(engine *e, slot *s, const engine_request *r, bool *ended, engine_error *err) {
    s->seq.table.salt = r->cache_salt;
    if (check_sampling(&r->sampling, err) || begin_answer(e, s, r, r->choice, err)) return -1;
    if (set_prompt(e, s, r, err)) return -1;
    if (check_ids(e, r->forced, r->nforced, "forced tokens", err)) return -1;
    return replay(e, s, r, ended, err);
}

/* A choice beside the first. */
static int add_choice(engine *e, slot *first, const engine_request *r, engine_error *err) {
    slot *s = e->free.first;
    if (begin_answer(e, s, r, r->choice + first->seq.width, err)) return -1;
    take_free(e);
    s->state = SLOT_PENDING;
    s->nprompt = s->seq.ntokens = first->nprompt;
    s->seq.limit = first->seq.limit;
    s->next = first->pending;
    first->pending = s;
    first->seq.width++;
    let_backend_draw(e, first);
    return 0;
}

static void drop_choices(engine *e, slot *first) {
    for (slot *s = first->pending, *next; s; s = next) {
        next = s->next;
        put_free(e, s);
    }
    put_free(e, first);
}

static int check_choices(const engine *e, const engine_request *r, engine_error *err) {
    if (r->n < 0 || r->n > e->limits.max_seqs || r->choice < 0) {
        return engine_fail(err, ENGINE_EINVAL, "n is %d: this engine gives 1 to %d answers to a request",
                           r->n, e->limits.max_seqs);
    }
    if (r->n > 1 && r->nforced) {
        return engine_fail(err, ENGINE_EINVAL, "forced tokens belong to one choice: ask for each by itself");
    }
    return 0;
}

static int check_room(const engine *e, const engine_request *r, engine_error *err) {
    scheduler_stats now = scheduler_stats_now(e->sched);
    if (is_known(e, r->id)) {
        return engine_fail(err, ENGINE_EINVAL, "request id %llu is already in use",
                           (unsigned long long)r->id);
    }
    if (e->nfree < (r->n > 1 ? r->n : 1) || now.waiting >= e->limits.max_waiting) {
        return engine_fail(err, ENGINE_EBUSY,
                           "%d requests run and %d wait, which is all that can: try again later", now.running,
                           now.waiting);
    }
    return 0;
}

int engine_submit(engine *e, const engine_request *r, engine_error *err) {
    bool ended;
    if (check_choices(e, r, err) || check_room(e, r, err)) return -1;
    slot *s = e->free.first;
    if (fill_slot(e, s, r, &ended, err)) return -1;
    take_free(e);
    s->state = SLOT_LIVE;
    while (s->seq.width < r->n) {
        if (add_choice(e, s, r, err) == 0) continue;
        drop_choices(e, s);
        return -1;
    }
    if (ended)
        end(e, s, s->finish);
    else
        scheduler_add(e->sched, &s->seq);
    return 0;
}

bool engine_cancel(engine *e, uint64_t id) {
    bool found = false;
    for (int i = 0; i < e->nslots; i++) {
        slot *s = &e->slots[i];
        if (s->state == SLOT_FREE || s->id != id) continue;
        if (s->state != SLOT_ENDED) end(e, s, ENGINE_FINISH_CANCELLED);
        found = true;
    }
    return found;
}

/* ---- step ---- */

static void report_token(event_list *out, const slot *s, const sample_output *drawn, calls_text text) {
    engine_channel quiet = s->answer.phase == ANSWER_THINKING ? ENGINE_REASONING : ENGINE_CONTENT;
    out->v[out->n++] = (engine_event){
        .kind = ENGINE_TOKENS,
        .id = s->id,
        .choice = s->choice,
        .token = drawn->token,
        .index = answered(s) - 1,
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

static int cached(const slot *s) {
    int known = s->seq.reused > 0 ? s->seq.reused : 0;
    return known < s->nprompt ? known : s->nprompt;
}

/* The slots are free for new requests, but what the events borrow stays until the next call. */
static void report_ended(engine *e, event_list *out) {
    while (e->ended.first && out->n < out->max) {
        slot *s = list_pop(&e->ended);
        out->v[out->n++] = (engine_event){
            .kind = ENGINE_END,
            .id = s->id,
            .choice = s->choice,
            .channel = s->last.channel,
            .text = s->last.p,
            .text_len = s->last.n,
            .call = s->last.call,
            .call_name = s->last.name,
            .finish = s->finish,
            .prompt_tokens = s->nprompt,
            .completion_tokens = answered(s),
            .reasoning_tokens = s->reasoning,
            .cached_tokens = cached(s),
            .error = s->finish == ENGINE_FINISH_ERROR ? s->error.msg : NULL,
        };
        put_free(e, s);
    }
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

/* What the next token is drawn with. */
static sample_input draw_input(const engine *e, slot *s, const float *logits) {
    /* a format ends when it ends, however few tokens that takes */
    bool early = !s->how.ignore_eos && !grammar_of(s) && answered(s) < s->how.min_tokens;
    return (sample_input){logits,
                          &s->how,
                          s->seq.tokens,
                          s->seq.ntokens,
                          s->nprompt,
                          e->parts.stop_ids,
                          early ? e->parts.nstop_ids : 0,
                          allowed_tokens(s)};
}

static int draw_here(engine *e, slot *s, const float *logits, sample_output *drawn) {
    const sample_input in = draw_input(e, s, logits);
    return sampler_draw(e->sampler, &in, drawn, &s->error);
}

/* One more token from a row of logits, or the one that the backend drew from it. False when the answer ends. */
static bool next_token(engine *e, slot *s, const float *logits, int32_t row, sample_output *drawn,
                       event_list *out) {
    if (row == DRAWN_NOT ? draw_here(e, s, logits, drawn) : take_drawn(row, drawn, &s->error)) {
        end(e, s, ENGINE_FINISH_ERROR);
        return false;
    }
    e->generated_tokens++;
    if (ends_answer(e, s, drawn->token)) {
        end(e, s, ENGINE_FINISH_STOP);
        return false;
    }
    report_token(out, s, drawn, append(e, s, drawn->token));
    engine_finish why = ENGINE_FINISH_ERROR;
    if (s->misfit)
        engine_fail(&s->error, ENGINE_EINTERNAL, "the reasoning ran into the answer, which must be JSON");
    else if (!is_complete(s, &why))
        return true;
    end(e, s, why);
    return false;
}

static void guess(const engine *e, slot *s) {
    int room = s->seq.limit - s->seq.ntokens - 1; /* the last token's own logits are not asked for */
    if (!e->limits.guess_tokens) return;
    s->seq.guessed = drafter_guess(&s->drafter, s->seq.tokens, s->seq.ntokens, room);
}

/* Draws from the row after the last known token, and goes on as long as the guessed tokens, from which the next rows were
 * computed, are those that are drawn. */
static void take_rows(engine *e, slot *s, const float *logits, int rows, event_list *out) {
    int tried = rows - 1, right = 0;
    bool goes_on, was_right;
    do {
        int32_t guessed = right < tried ? s->seq.tokens[s->seq.ntokens] : -1;
        sample_output *drawn = &s->drawn[right];
        const int32_t id = s->seq.draw ? s->ids[right] : DRAWN_NOT;
        goes_on = next_token(e, s, logits + (size_t)right * (size_t)e->parts.vocab, id, drawn, out);
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
    let_backend_draw(e, first);
    for (; s; s = next) {
        next = s->next;
        take_rows(e, s, logits, 1, out);
    }
}

/* How many of its tokens in this step belong to the prompt. */
static uint64_t prompt_share(const slot *s, const batch_seq *b) {
    int end = b->pos + b->ntokens < s->nprompt ? b->pos + b->ntokens : s->nprompt;
    return end > b->pos ? (uint64_t)(end - b->pos) : 0;
}

/* What else than logits decides over the tokens of this pass, for a backend that draws them. */
static void tell_changes(engine *e) {
    logit_change *changes = e->changes;
    uint64_t *mask = e->masks;
    for (int i = 0; i < e->pass.n; i++) {
        slot *s = (slot *)e->pass.seqs[i];
        if (!s->seq.draw || !e->pass.batch[i].nlogits) continue;
        const sample_input in = draw_input(e, s, NULL);
        s->draw.changes = changes;
        s->draw.nchanges = sampler_changes(e->sampler, &in, changes);
        s->draw.repetition = s->how.repetition_penalty;
        s->draw.allowed = in.allowed ? mask : NULL;
        changes += s->draw.nchanges;
        if (!in.allowed) continue;
        memcpy(mask, in.allowed,
               (size_t)e->mask_words * sizeof *mask); /* it is its grammar's, for a moment */
        mask += e->mask_words;
    }
}

static int plan_pass(engine *e, int max_guesses, engine_error *err) {
    e->guesses = max_guesses < e->limits.guess_tokens ? max_guesses : e->limits.guess_tokens;
    e->pass = scheduler_plan(e->sched, e->guesses);
    const step_plan *p = &e->pass;
    for (int i = 0; i < p->ncopies; i++) {
        e->parts.copy_block(e->parts.owner, p->copies[i].from, p->copies[i].to);
    }
    for (int i = 0; i < p->n; i++) forget_drawn((slot *)p->seqs[i]);
    if (e->parts.begin) tell_changes(e);
    return p->n && e->parts.begin ? e->parts.begin(e->parts.owner, p->batch, p->n, err) : 0;
}

/* A sequence that has been cancelled since has rows, and nobody to take them. */
static int finish_pass(engine *e, event_list *out, engine_error *err) {
    const step_plan p = e->pass;
    float *logits = NULL;
    e->pass.n = 0;
    if (e->parts.begin ? e->parts.finish(e->parts.owner, &logits, err)
                       : e->parts.forward(e->parts.owner, p.batch, p.n, &logits, err))
        return -1;
    scheduler_commit(e->sched);
    e->steps++;
    for (int i = 0; i < p.n; i++) {
        slot *s = (slot *)p.seqs[i];
        const int rows = p.batch[i].nlogits;
        if (s) e->prompt_tokens += prompt_share(s, &p.batch[i]);
        if (s && rows) {
            begin_pending(e, s, logits, out);
            take_rows(e, s, logits, rows, out);
        }
        logits += (size_t)rows * (size_t)e->parts.vocab;
    }
    return 0;
}

int engine_step(engine *e, engine_event *events, int max, engine_error *err) {
    event_list out = {events, 0, max};
    if (e->broken.code && err) *err = e->broken;
    if (e->broken.code) return -1;
    report_ended(e, &out);
    const int room = max - out.n - 2 * e->limits.max_seqs;
    if (room < 0 || (e->pass.n && e->guesses > room)) return out.n;
    if (!e->pass.n && plan_pass(e, room, err)) return -1;
    if (e->pass.n && finish_pass(e, &out, err)) return -1;
    report_ended(e, &out);
    /* the next step has room for guesses if this one had all that is asked for */
    const int guesses = max >= e->parts.info.max_events ? e->limits.guess_tokens : 0;
    if (e->parts.begin) plan_pass(e, guesses, &e->broken);
    return out.n;
}

bool engine_busy(const engine *e) {
    scheduler_stats now = scheduler_stats_now(e->sched);
    return e->ended.first || now.running || now.waiting;
}

engine_load engine_load_now(const engine *e) {
    const kv_pool *pool = scheduler_pool(e->sched);
    scheduler_stats now = scheduler_stats_now(e->sched);
    return (engine_load){
        .running = now.running,
        .waiting = now.waiting,
        .kv_blocks_used = kv_pool_blocks(pool) - kv_pool_free_blocks(pool),
        .kv_blocks = kv_pool_blocks(pool),
        .steps = e->steps,
        .prompt_tokens = e->prompt_tokens,
        .generated_tokens = e->generated_tokens,
        .preemptions = now.preemptions,
        .wanted_tokens = now.wanted_tokens,
        .cached_tokens = now.reused_tokens,
        .guessed_tokens = e->guessed_tokens,
        .right_guesses = e->right_guesses,
    };
}
