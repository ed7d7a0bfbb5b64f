/* Guesses what a sequence says next, by looking where it said the same before: prompt lookup.
 *
 * Answers often repeat what stands in their prompt or earlier in themselves: names, code, quotations. Where the last tokens
 * have occurred before, what followed them then is guessed to follow now. The engine computes guesses together with the
 * token before them and draws every token as ever, so an answer is exactly what it would be without; a right guess only
 * saves a step.
 *
 * How much is guessed follows how often it was right: longer after success, shorter after failure, and after repeated
 * failure not at all for a while, each time longer. A wrong guess costs little, but not nothing.
 *
 * Plain values, no memory of its own.
 */
#ifndef ENGINE_SCHED_DRAFT_H
#define ENGINE_SCHED_DRAFT_H

#include <stdint.h>

enum { DRAFT_MAX = 7 }; /* most tokens of one guess: with the token before them, 8 rows of a matmul */

typedef struct drafter {
    int length;   /* of the next guess */
    int failures; /* guesses in a row of which no token was right */
    int rest;     /* tokens to let pass before guessing again */
    int pause;    /* the next rest */
} drafter;

void drafter_start(drafter *d);
/* Guesses what follows tokens[0..n), writes it behind them and returns how many tokens: 0 where there is no guess. At most
 * `room`. To be called once a step. */
int drafter_guess(drafter *d, int32_t *tokens, int n, int room);
/* Of so many guessed tokens that were tried, so many were right. */
void drafter_learn(drafter *d, int tried, int right);

#endif
