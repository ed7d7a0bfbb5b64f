/* From tokens to what the reader sees: whole characters, reasoning apart from content, and no trace of stop strings.
 *
 * Tokens are pushed one by one; what is certain comes out, the rest is held back: an incomplete character, the beginning
 * of a <think> or </think> tag, the beginning of a stop string. The state depends on the tokens alone, so pushing the
 * tokens of an earlier run (and throwing their text away) resumes it exactly.
 *
 * Reasoning is what stands between <think> and </think>. The opening tag counts only at the answer's very beginning (or
 * in the prompt, when the template writes it there): later in an answer it is text like any other. White space after a tag
 * is dropped. Stop strings are looked for in both channels, within one channel.
 *
 * The buffers are taken by answer_init; pushing allocates nothing. One thread at a time.
 */
#ifndef ENGINE_ANSWER_H
#define ENGINE_ANSWER_H

#include "engine/engine.h"
#include "engine/text/tokenizer.h"

enum {
    STOP_MAX = 16,
    STOP_BYTES_MAX = 256,
    ANSWER_TEXTS = 9, /* pushes whose text is seen together: the tokens of a step, and the answer's end */
};

typedef enum { ANSWER_OPENING, ANSWER_THINKING, ANSWER_CONTENT } answer_phase;

typedef struct stop_string {
    size_t n;
    char text[STOP_BYTES_MAX];
} stop_string;

typedef struct answer {
    answer_phase phase;
    bool after_tag; /* white space is being dropped */
    bool stopped;   /* a stop string has been found: nothing more comes out */
    detok chars;
    stop_string stops[STOP_MAX];
    int nstops;
    bool may_stop; /* at the last push */
    char *held;    /* text not yet certain */
    size_t nheld, cap;
    char *out[ANSWER_TEXTS]; /* what was handed out last, in turn */
    int turn;
} answer;

/* What a push gave: text that is now certain, possibly none. Borrowed for the next ANSWER_TEXTS - 1 calls. */
typedef struct answer_text {
    engine_channel channel;
    const char *p;
    size_t n;
} answer_text;

/* longest_piece: bytes of the longest token that will be pushed. */
int answer_init(answer *a, size_t longest_piece, engine_error *err);
void answer_done(answer *a);

/* Begin a new answer. Fails when a stop string is empty, too long, or one too many. */
int answer_start(answer *a, bool thinking, const char *const *stops, int nstops, engine_error *err);
/* The bytes of the next token. may_stop: stop strings count from here on (min_tokens has been reached). */
answer_text answer_push(answer *a, const char *piece, size_t n, bool may_stop);
/* No more tokens come: what was held back is text after all. */
answer_text answer_finish(answer *a);

#endif
