/* Passes over the backend: one is planned, begun and finished, and each of its rows becomes tokens of an answer, and events.
 *
 * Where the backend computes beside its caller, a pass goes on from pass_begin to pass_finish. Where it also draws every token of a
 * pass, and nothing else decides over the tokens after those, the next one is begun before that one is finished, so that the
 * backend is never without work: its sequences go on with tokens that are read where they were drawn, and become known here in
 * between. One that ends with such a token, or has been cancelled, has a row in the next pass that nobody looks at, and a key and
 * value that no other sequence sees: its blocks are given to passes that are begun later.
 *
 * Runs on the engine's thread.
 */
#ifndef ENGINE_PASS_H
#define ENGINE_PASS_H

#include "engine/slot.h"

typedef struct event_list {
    engine_event *v;
    int n, max;
} event_list;

/* Plans a pass with so many guesses at most, and begins it where the backend overlaps; none where there is nothing to compute. A
 * failure means that the backend is broken. */
int pass_begin(engine *e, int max_guesses, engine_error *err);
/* May the next one be begun now, while one is under way whose tokens are not known? Not where it has room for guesses, or there are
 * some in this one, or a grammar has to see each. */
bool pass_runs_ahead(const engine *e);
/* Computes the first, or waits until it is computed. A token for each sequence that has caught up, each guess that came true, and the
 * ends of answers. */
int pass_finish(engine *e, event_list *out, engine_error *err);

#endif
