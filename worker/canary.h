/* The canary: a short greedy prompt that the engine answers now and then, always the same way.
 *
 * The first answer is remembered as long as the supervisor lives; an engine that answers otherwise computes wrongly, whatever the reason,
 * because a token depends on its own sequence alone. It is asked when the engine has nothing else to do, and among other requests when
 * that does not happen for a whole period. It takes a place in the engine like a request.
 *
 * Belongs to the loop's thread.
 */
#ifndef MR_CANARY_H
#define MR_CANARY_H

#include "base/loop.h"
#include "worker/host.h"

#define MR_CANARY_ID INT64_MAX /* of its submit; requests' ids stay below */

typedef struct mr_canary mr_canary;

/* period_ms 0: never. */
mr_canary *mr_canary_new(int64_t period_ms, mr_error *err);
void mr_canary_free(mr_canary *c);

/* Of an engine that was just started, or is to be looked at: ask at the next chance. */
void mr_canary_hurry(mr_canary *c);
/* Asks when it is time. idle: the engine has nothing else to do. Returns true when it asked. */
bool mr_canary_ask(mr_canary *c, mr_host *h, bool idle);
bool mr_canary_running(const mr_canary *c);
/* The engine that was asked is gone. */
void mr_canary_forget(mr_canary *c);

void mr_canary_tokens(mr_canary *c, const mr_frame_tokens *f);
/* Its end: true when the answer is the first one's, or the first. */
bool mr_canary_end(mr_canary *c, const mr_frame_end *f);

#endif
