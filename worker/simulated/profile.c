/* See profile.h. */
#include "worker/simulated/profile.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define KEY(member) #member, .offset = offsetof(mr_sim_conf, member)
const mr_conf_key mr_sim_keys[] = {
    {.name = KEY(name), .type = MR_CONF_STR, .def = "simulated", .doc = "The model's name in answers."},
    {.name = KEY(load_s),
     .type = MR_CONF_NUM,
     .def = "0.5",
     .min = 0,
     .max = 86400,
     .doc = "Seconds from the start to the first token."},
    {.name = KEY(max_seqs),
     .type = MR_CONF_INT,
     .def = "16",
     .min = 1,
     .max = 4096,
     .doc = "Sequences that run at once; worker.max_seqs, where set, holds."},
    {.name = KEY(max_context),
     .type = MR_CONF_INT,
     .def = "8192",
     .min = 16,
     .max = 10000000,
     .doc = "Tokens of one sequence, prompt and answer; worker.max_context, where set, holds."},
    {.name = KEY(kv_blocks),
     .type = MR_CONF_INT,
     .def = "4096",
     .min = 1,
     .max = 100000000,
     .doc = "Blocks of the KV cache…"},
    {.name = KEY(kv_block_tokens),
     .type = MR_CONF_INT,
     .def = "16",
     .min = 1,
     .max = 4096,
     .doc = "…and tokens of one."},
    {.name = KEY(prefill_tokens_per_s),
     .type = MR_CONF_NUM,
     .def = "1500",
     .min = 0,
     .max = 1e12,
     .doc = "Prompt tokens computed in a second; 0: at once."},
    {.name = KEY(step_prompt_tokens),
     .type = MR_CONF_INT,
     .def = "512",
     .min = 1,
     .max = 1000000,
     .doc = "Prompt tokens that one step computes at most."},
    {.name = KEY(decode_ms),
     .type = MR_CONF_STRLIST,
     .def = "1:25,16:60",
     .doc = "Milliseconds of a step by the sequences in it, \"BATCH:MS\", batches ascending; straight lines "
            "between; empty: none."},
    {.name = KEY(context_us),
     .type = MR_CONF_NUM,
     .def = "0",
     .min = 0,
     .max = 1e6,
     .doc = "Microseconds that a step takes longer for every 1000 tokens of context in its batch."},
    {.name = KEY(tokens_per_step),
     .type = MR_CONF_INT,
     .def = "1",
     .min = 1,
     .max = 4096,
     .doc =
         "Tokens of a sequence that come together, as with guessed ones; the time is that of so many steps."},
    {.name = KEY(cached_share),
     .type = MR_CONF_NUM,
     .def = "0",
     .min = 0,
     .max = 1,
     .doc = "Share that the prefix cache knows of a conversation's earlier turns, and of one whose answer "
            "goes on."},
    {.name = KEY(answer_tokens),
     .type = MR_CONF_INT,
     .def = "200",
     .min = 1,
     .max = 1000000,
     .doc = "Tokens of an answer in the mean: half of it to one and a half."},
    {.name = KEY(reasoning_tokens),
     .type = MR_CONF_INT,
     .def = "0",
     .min = 0,
     .max = 1000000,
     .doc = "So many first tokens of an answer are reasoning."},
    {.name = KEY(text_seed),
     .type = MR_CONF_INT,
     .def = "0",
     .min = -1e15,
     .max = 1e15,
     .doc = "Another one is other hardware: another text to the same request."},
    {.name = KEY(scripts),
     .type = MR_CONF_BOOL,
     .def = "false",
     .doc = "For tests: the last user message says how to answer, see tests/support/scripted.conf."},
    {.name = KEY(fails),
     .type = MR_CONF_BOOL,
     .def = "false",
     .doc = "For tests: every answer ends half way with an error."},
    {.name = KEY(crash_at_token),
     .type = MR_CONF_INT,
     .def = "0",
     .min = 0,
     .max = 1e15,
     .doc = "For tests: the process dies before it generates its Nth token; 0: never."},
    {.name = KEY(hang_at_token),
     .type = MR_CONF_INT,
     .def = "0",
     .min = 0,
     .max = 1e15,
     .doc = "For tests: the process goes silent before its Nth token; 0: never."},
    {.name = KEY(wrong_from_token),
     .type = MR_CONF_INT,
     .def = "0",
     .min = 0,
     .max = 1e15,
     .doc = "For tests: from its Nth token on the text is another, as of broken hardware; 0: never."},
    {.name = KEY(slow),
     .type = MR_CONF_NUM,
     .def = "1",
     .min = 0.001,
     .max = 1e6,
     .doc = "Factor of every step's time."},
    {.name = KEY(leak_mb_per_s),
     .type = MR_CONF_NUM,
     .def = "0",
     .min = 0,
     .max = 10000,
     .doc = "For tests: megabytes by which the process grows each second."},
    {0},
};

/* ---- the batch curve ---- */

static int read_curve(mr_sim_profile *p, mr_error *err) {
    for (int i = 0; i < p->c.decode_ms.n; i++) {
        double batch, ms;
        char rest;
        const char *text = p->c.decode_ms.v[i];
        if (i == MR_SIM_CURVE_MAX)
            return mr_fail(err, MR_ETOOBIG, "simulated.decode_ms has more than %d points", MR_SIM_CURVE_MAX);
        if (sscanf(text, "%lf:%lf%c", &batch, &ms, &rest) != 2 || !(batch >= 1) || !(ms >= 0) || ms > 1e7 ||
            (i && batch <= p->batch[i - 1])) {
            return mr_fail(err, MR_EINVAL,
                           "simulated.decode_ms: '%.40s' is no BATCH:MS with a batch above the one before",
                           text);
        }
        p->batch[i] = batch;
        p->ms[i] = ms;
        p->npoints = i + 1;
    }
    return 0;
}

/* Beyond its ends the curve goes on level at the first point, and with its last slope at the last. */
static double decode_ms(const mr_sim_profile *p, int n) {
    if (n == 0 || p->npoints == 0) return 0;
    if (n <= p->batch[0] || p->npoints == 1) return p->ms[0];
    int i = 1;
    while (i < p->npoints - 1 && n > p->batch[i]) i++;
    double slope = (p->ms[i] - p->ms[i - 1]) / (p->batch[i] - p->batch[i - 1]);
    double ms = p->ms[i - 1] + slope * (n - p->batch[i - 1]);
    return ms > 0 ? ms : 0;
}

double mr_sim_step_us(const mr_sim_profile *p, int sequences, int64_t prompt, int64_t context) {
    double us = 1000 * decode_ms(p, sequences) * (double)p->c.tokens_per_step;
    if (sequences) us += p->c.context_us * (double)context / 1000;
    if (p->c.prefill_tokens_per_s > 0) us += (double)prompt * 1e6 / p->c.prefill_tokens_per_s;
    return us * p->c.slow;
}

/* ---- life ---- */

int mr_sim_profile_load(mr_sim_profile *p, const char *file, mr_error *err) {
    *p = (mr_sim_profile){.npoints = 0};
    const mr_conf_group groups[] = {{"simulated", mr_sim_keys, &p->c}, {0}};
    p->loaded = mr_conf_load(file, groups, err);
    if (!p->loaded) return -1;
    if (read_curve(p, err) == 0) return 0;
    mr_sim_profile_done(p);
    return -1;
}

void mr_sim_profile_done(mr_sim_profile *p) {
    mr_conf_free(p->loaded);
    p->loaded = NULL;
}
