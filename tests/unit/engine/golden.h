/* Checkpoints of tests/golden with what the reference computed for them, and a backend over them. */
#ifndef TESTS_UNIT_ENGINE_GOLDEN_H
#define TESTS_UNIT_ENGINE_GOLDEN_H

#include "engine/backend.h"

#include <stddef.h>

extern const char *const golden_names[];
extern const size_t golden_count;
enum { GOLDEN_ISAS = 5 };
extern const char *const golden_isas[GOLDEN_ISAS]; /* from the plainest */

typedef struct golden_prompt {
    int32_t *ids;
    int nids;
    float *logits; /* [nids, vocab] */
    int32_t greedy[64];
} golden_prompt;

typedef struct golden {
    model *model;
    golden_prompt prompt[4];
    int nprompts;
} golden;

/* Fails the test when something is missing. */
golden golden_open(const char *name);
void golden_close(golden *g);

/* Is the instruction set there on this CPU? */
bool golden_isa_runs(const char *isa);

enum { GOLDEN_BLOCK = 16, GOLDEN_BLOCKS = 64, GOLDEN_SEQ_BLOCKS = 16, GOLDEN_TOKENS = 128 };
/* A backend of 64 blocks of 16 tokens, batches of 128 tokens. */
backend *golden_backend(const model *m, const char *isa, int threads);
/* The same with weights and KV cache as backend_options says. */
backend *golden_backend_with(const model *m, const char *weights, const char *kv, const char *isa,
                             int threads);
backend_options golden_options(const char *isa, int threads);
/* The same over so many ranks. */
backend *golden_ranks(const model *m, const char *isa, int threads, int ranks);

#endif
