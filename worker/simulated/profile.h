/* What a simulated engine is like: speeds, memory, the answers it gives, and how it misbehaves.
 *
 * A profile is a libconfig file with the group `simulated`; ops/profiles/ has some. Every key may be set by the environment
 * too (MILLRACE_SIMULATED_LOAD_S=2), as in every configuration of Millrace.
 */
#ifndef MR_SIM_PROFILE_H
#define MR_SIM_PROFILE_H

#include "base/conf.h"

#define MR_SIM_CURVE_MAX 32

typedef struct mr_sim_conf {
    const char *name;
    double load_s, prefill_tokens_per_s, context_us, cached_share, slow, leak_mb_per_s;
    int64_t max_seqs, max_context, kv_blocks, kv_block_tokens;
    int64_t step_prompt_tokens, tokens_per_step;
    mr_strlist decode_ms;
    int64_t answer_tokens, reasoning_tokens, text_seed;
    bool scripts, fails;
    int64_t crash_at_token, hang_at_token, wrong_from_token;
} mr_sim_conf;

typedef struct mr_sim_profile {
    mr_sim_conf c;
    double batch[MR_SIM_CURVE_MAX], ms[MR_SIM_CURVE_MAX]; /* of decode_ms; batch ascends */
    int npoints;
    mr_conf *loaded; /* owns the strings */
} mr_sim_profile;

extern const mr_conf_key mr_sim_keys[];

/* file: NULL for the defaults and the environment alone. */
int mr_sim_profile_load(mr_sim_profile *p, const char *file, mr_error *err);
void mr_sim_profile_done(mr_sim_profile *p);

/* Microseconds of one step that decodes `sequences` tokens in parallel and computes `prompt` tokens of prompts, with
 * `context` tokens of context in all. */
double mr_sim_step_us(const mr_sim_profile *p, int sequences, int64_t prompt, int64_t context);

#endif
