/* The simulated engine: sequences that take the time which a profile says, and no time of a CPU's.
 *
 * It works in steps, as a real one: each computes prompt tokens up to a limit and one token of every sequence whose prompt
 * is done; sequences wait for a place and for KV blocks, and the youngest loses its blocks when they run out. A step ends
 * at an exact moment, and the next begins at that moment, however late the process was woken: speeds hold on a
 * machine that runs many of these. Answers are those of text.h.
 *
 * Frames are appended to `out`; no I/O, no clock: the caller says what time it is, in microseconds. One thread.
 */
#ifndef MR_SIM_ENGINE_H
#define MR_SIM_ENGINE_H

#include "worker/frames.h"
#include "worker/simulated/profile.h"

typedef struct mr_sim mr_sim;

/* What the profile or a script has the process do now, everything said before being sent. */
typedef enum { MR_SIM_WELL, MR_SIM_CRASHES, MR_SIM_HANGS } mr_sim_health;

/* The profile is borrowed. */
mr_sim *mr_sim_new(const mr_sim_profile *p, mr_error *err);
void mr_sim_free(mr_sim *s);

/* Refuses with MR_EINVAL (the request is wrong), MR_ETOOBIG (its context is too long) or MR_ESTATE (too many). */
int mr_sim_submit(mr_sim *s, const mr_frame_submit *f, int64_t now, mr_error *err);
int mr_sim_cancel(mr_sim *s, int64_t id, mr_buf *out, mr_error *err);

bool mr_sim_busy(const mr_sim *s);
/* When mr_sim_step is to be called next; INT64_MAX: not before a submit. */
int64_t mr_sim_due(const mr_sim *s);
/* Ends the step that is due, and begins the next one. */
int mr_sim_step(mr_sim *s, int64_t now, mr_buf *out, mr_error *err);
mr_sim_health mr_sim_health_now(const mr_sim *s);

int mr_sim_load(const mr_sim *s, mr_buf *out, mr_error *err);

#endif
