/* How the traffic of each pool is split between its blue and green workers: what the Control records say.
 *
 * A session keeps its color: the choice is a function of its hash and the weights alone, the same in every router, and
 * moving the weights by a step moves only as many sessions. A pool that no record speaks of is all blue.
 * Belongs to one thread.
 */
#ifndef MR_WEIGHTS_H
#define MR_WEIGHTS_H

#include "schemas/messages.h"

typedef struct mr_weights mr_weights;

mr_weights *mr_weights_new(mr_error *err);
void mr_weights_free(mr_weights *w);

/* A record of chat.control: its key and its value, which is empty when the key was deleted. Other kinds than weights are
 * ignored, and so is one of a lower epoch than the pool's. Fails on what cannot be read. */
int mr_weights_update(mr_weights *w, mr_str key, mr_str value, mr_arena *scratch, mr_error *err);

/* The share of the requests that a color (MR_BLUE, MR_GREEN) gets, 0 to 1. */
double mr_weights_share(const mr_weights *w, mr_str pool, int color);

/* "blue" or "green". */
const char *mr_weights_color(const mr_weights *w, mr_str pool, mr_str session);

#endif
