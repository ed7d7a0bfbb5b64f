/* A sequence of the simulated engine: one request, its answer so far, and the text of it that is held back.
 *
 * Text is handed out in whole characters, and not while it may be the beginning of a stop string.
 */
#ifndef MR_SIM_SEQUENCE_H
#define MR_SIM_SEQUENCE_H

#include "worker/frames.h"
#include "worker/simulated/profile.h"
#include "worker/simulated/text.h"

#define MR_SIM_STOPS 16

typedef struct mr_sim_sequence {
    struct mr_sim_sequence *prev, *next; /* in the order they came */
    int64_t id;
    mr_sim_text text;
    int64_t prompt, cached; /* tokens of the conversation, and of those what the cache knew */
    int64_t index;          /* tokens of the answer so far */
    int64_t limit, natural; /* it ends there: for its length, or by itself */
    int64_t reasoning;      /* so many of its first tokens are reasoning */
    int64_t todo;           /* context tokens still to be computed */
    int64_t blocks;         /* of the KV cache; 0: not in the batch */
    int64_t due_us;         /* not in a step before */
    int64_t chunk;          /* prompt tokens of it in the step under way */
    bool stepping;          /* it generates in the step under way */
    bool logprobs, stopped; /* stopped: a stop string was met */

    int64_t pause_us, crash, hang; /* a script's; crash, hang: at that token, -1 never */
    bool fails;

    mr_buf held;
    size_t said; /* bytes at its front that the last take handed out */
    char *stop[MR_SIM_STOPS];
    int nstop;
} mr_sim_sequence;

/* Fills in what the request says. max_context: of the engine. Fails with MR_EINVAL or MR_ETOOBIG, for the user. */
int mr_sim_sequence_init(mr_sim_sequence *q, const mr_sim_profile *p, const mr_frame_submit *f,
                         int64_t max_context, mr_arena *scratch, mr_error *err);
void mr_sim_sequence_done(mr_sim_sequence *q);

/* The answer goes on with this token: what may be said now, borrowed until the next call. */
mr_str mr_sim_sequence_take(mr_sim_sequence *q, int64_t token);
/* What was held back, at the end. */
mr_str mr_sim_sequence_rest(const mr_sim_sequence *q);
int mr_sim_sequence_channel(const mr_sim_sequence *q); /* of the token taken last */

#endif
