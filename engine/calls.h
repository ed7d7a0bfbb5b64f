/* Tool calls in an answer: where they begin, which they are, and their arguments as they come, without the markup.
 *
 * What answer.h gives as content passes through here. Until a call begins it goes on as content, but for what might be its
 * beginning, which waits. From there on the answer is of the calls' grammar, which the step loop holds it to, and nothing but
 * arguments comes out. The state depends on the tokens alone, as that of answer.h.
 *
 * A call begins, in CALL_HERMES, where the text has <tool_call> and goes on as one; in CALL_LLAMA, where the content's beginning
 * has come up to the name of a tool. Blanks before it are dropped.
 *
 * The buffers are taken by calls_init; pushing allocates nothing. One thread at a time.
 */
#ifndef ENGINE_CALLS_H
#define ENGINE_CALLS_H

#include "engine/answer.h"
#include "engine/grammar/grammar.h"
#include "engine/text/template.h"

enum {
    CALL_NAME_MAX = 64,
    CALLS_MAX = 64,   /* then the answer ends */
    CALLS_HELD = 512, /* bytes that may turn out to begin a call: its markup, a name, blanks */
};

typedef enum { CALLS_OFF, CALLS_LOOKING, CALLS_READING } calls_phase;

/* Where the reader is in a call. */
typedef enum { CALL_BEFORE, CALL_KEY, CALL_NAME, CALL_ARGUMENTS } call_part;

/* What a push gave. Borrowed for the next ANSWER_TEXTS - 1 calls. */
typedef struct calls_text {
    engine_channel channel;
    const char *p;
    size_t n;
    int call;         /* ENGINE_CALL: its number… */
    const char *name; /* …and the tool's name */
} calls_text;

typedef struct calls {
    call_form form;
    calls_phase phase;
    bool must;              /* nothing but calls is in the content */
    grammar_cursor *cursor; /* at the beginning of the first call, or behind what of it has come */
    int begun;              /* calls whose name is known */
    call_part part;
    int depth;            /* of brackets in the arguments */
    bool quoted, escaped; /* within a string; behind a backslash */
    size_t nname;
    char name[CALL_NAME_MAX + 1];
    char *held; /* text not yet given out */
    size_t nheld, cap;
    char *out[ANSWER_TEXTS]; /* what was given out last, in turn; each begins with a name */
    int turn;
} calls;

/* longest_text: bytes of the longest text that will be pushed. */
int calls_init(calls *c, size_t longest_text, engine_error *err);
void calls_done(calls *c); /* not the cursor: it is begun and ended with each answer */

/* Begin a new answer. tools->n of 0: everything passes through. */
int calls_start(calls *c, call_form form, const engine_tools *tools, grammar_store *grammars,
                engine_error *err);
void calls_end(calls *c);

/* The text that the answer has just given; what it still holds back decides with it whether a call begins. *misfit: the text is
 * more than calls can be. */
calls_text calls_push(calls *c, const answer *a, answer_text text, bool *misfit);
/* No more text comes. */
calls_text calls_finish(calls *c, const answer *a, answer_text text);

#endif
