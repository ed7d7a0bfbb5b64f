/* Where a token is drawn from its logits.
 *
 * The draw depends on the logits, the sequence so far, and (seed, position): the random number is a counter-based one
 * (Philox), so there is no state to carry, save or restore, and a token is the same alone, in any batch, after a preemption
 * or in another process. Ties go to the lower id.
 *
 * Order: what may be drawn, penalties, temperature, min_p, top_k, top_p (over what top_k left, renormalised). Log probabilities are those of
 * the model, before any of this.
 *
 * A sampler is scratch memory for one vocabulary, taken by sampler_new; one thread at a time.
 */
#ifndef ENGINE_SAMPLE_H
#define ENGINE_SAMPLE_H

#include "engine/backend.h"
#include "engine/engine.h"

enum { SAMPLE_TOP_MAX = 20 };
#define SAMPLE_GREEDY_BELOW 1e-5f /* temperatures under this are greedy: dividing by them would overflow */

typedef struct sampler sampler;

sampler *sampler_new(int vocab, engine_error *err);
void sampler_free(sampler *s);

typedef struct sample_input {
    const float *logits; /* [vocab] */
    const engine_sampling *how;
    const int32_t *tokens; /* the sequence so far: nprompt tokens of prompt, then the answer's */
    int ntokens, nprompt;
    const int32_t *banned; /* ids that may not be drawn now */
    int nbanned;
    const uint64_t *allowed; /* NULL: all; else bit i of word i / 64 is set for an id that may be drawn */
} sample_input;

typedef struct sample_output {
    int32_t token;
    float logprob; /* of token; 0 when how->logprobs < 0 */
    engine_top_logprob top[SAMPLE_TOP_MAX];
    int ntop;
} sample_output;

/* Fails with ENGINE_EINTERNAL when the logits are not numbers. */
int sampler_draw(sampler *s, const sample_input *in, sample_output *out, engine_error *err);

/* What penalties and banned ids change, of each token once: for a backend that draws. Room for min(ntokens, vocab) + nbanned.
 * Returns how many. */
int sampler_changes(sampler *s, const sample_input *in, logit_change *out);

/* Uniform in [0, 1), the one random number at this position. */
double sample_uniform(uint64_t seed, uint64_t position);

#endif
