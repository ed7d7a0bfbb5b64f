/* An answer, from submit to its END event, and what the engine has of them: for engine.c, where answers come and go, and pass.c,
 * where their tokens come from. Slots (running, waiting, or ended and not yet reported) are all taken at open, with their token and
 * text buffers; nothing here allocates but the start of a structured output.
 */
#ifndef ENGINE_SLOT_H
#define ENGINE_SLOT_H

#include "engine/answer.h"
#include "engine/calls.h"
#include "engine/engine_internal.h"
#include "engine/grammar/grammar.h"
#include "engine/sample.h"
#include "engine/sched/draft.h"
#include "engine/sched/scheduler.h"

enum { DRAWS_MAX = 1 + DRAFT_MAX }; /* tokens of one answer in one step */
_Static_assert((int)ANSWER_TEXTS > (int)DRAWS_MAX,
               "a step's texts and the answer's end are borrowed together");

typedef enum {
    SLOT_FREE,
    SLOT_PENDING, /* a choice that begins when the prompt has been computed for the first one */
    SLOT_LIVE,
    SLOT_ENDED,
} slot_state;

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
    step_plan pass[2];    /* planned, and begun where the backend overlaps, in this order */
    int passes, guesses;  /* so many of them; guesses in the last, at most */
    engine_error broken;  /* one could not be begun: the next step says so, after this one's events */
    grammar_vocab *words; /* these two are made when the first structured output is asked for */
    grammar_store *formats;
    uint64_t steps, prompt_tokens, generated_tokens, guessed_tokens, right_guesses;
};

slot *slot_take(engine *e); /* the first free one; there is one */
void slot_put(engine *e, slot *s);
slot *slot_pop(slot_list *l);
void slot_drop_format(slot *s);

/* What the answer is held to. Fails where that cannot be. */
int slot_begin_format(engine *e, slot *s, const engine_format *f, engine_error *err);
int slot_begin_calls(engine *e, slot *s, const engine_request *r, engine_error *err);
/* The grammar that the content is held to; NULL: it is free, now or at all. */
grammar_cursor *slot_grammar(const slot *s);
/* Tokens that may come next; NULL: all. The grammar's, until it goes on. */
const uint64_t *slot_allowed(slot *s);

/* May the backend draw its next token? Again whenever `pending` changes. */
void slot_let_backend_draw(const engine *e, slot *s);

static inline int slot_answered(const slot *s) {
    return s->seq.ntokens - s->nprompt;
}
/* Is this token the end of the answer, and none of it? */
bool slot_is_end(const engine *e, const slot *s, int32_t token);
/* One more token of the answer, drawn or forced. */
calls_text slot_append(engine *e, slot *s, int32_t token);
/* Does the answer end with the token appended last? */
bool slot_is_complete(const slot *s, engine_finish *why);
void slot_end(engine *e, slot *s, engine_finish why);

#endif
