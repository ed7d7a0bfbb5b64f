/* The engine's inside, for engine/ and its tests: what a step loop needs from a model and a tokenizer, as plain functions,
 * so that a test can put its own in their place. engine_open (open.c) fills it from a checkpoint.
 */
#ifndef ENGINE_ENGINE_INTERNAL_H
#define ENGINE_ENGINE_INTERNAL_H

#include "engine/backend.h"
#include "engine/engine.h"
#include "engine/text/template.h"

enum { ENGINE_STOP_IDS_MAX = 16 };

/* Sizes, all resolved: nothing is 0 for "default" any more. */
typedef struct engine_limits {
    int max_seqs, max_waiting;
    int max_context; /* of one sequence; fits into kv_blocks */
    int step_tokens; /* >= max_seqs */
    int reserve_tokens;
    int guess_tokens; /* <= step_tokens; 0: no speculation */
    int kv_blocks, block_tokens;
} engine_limits;

typedef struct engine_parts {
    void *owner; /* first argument of the functions */
    /* As backend_forward, backend_copy_block, chat_template_render and tokenizer_piece; rows of logits have `vocab` floats. */
    int (*forward)(void *owner, const batch_seq *seqs, int nseqs, float **logits, engine_error *err);
    /* As backend_begin, backend_finish and backend_runs_ahead; NULL where the backend does not overlap, the last also where it
     * is not to run ahead. */
    int (*begin)(void *owner, const batch_seq *seqs, int nseqs, engine_error *err);
    int (*finish)(void *owner, batch_result *result, engine_error *err);
    bool (*runs_ahead)(void *owner);
    void (*copy_block)(void *owner, int32_t from, int32_t to);
    int64_t (*render)(void *owner, const engine_chat *chat, int32_t *out, size_t cap, engine_error *err);
    const char *(*piece)(void *owner, int32_t id, size_t *n, bool *special);
    void (*close)(void *owner);

    int vocab;       /* floats in a row of logits */
    int known_vocab; /* ids that have a text: others are padding and are never drawn. <= vocab */
    int32_t stop_ids[ENGINE_STOP_IDS_MAX]; /* tokens that end an answer */
    int nstop_ids;
    bool opens_thinking;               /* the rendered prompt ends inside of <think> */
    call_form calls;                   /* how the model writes tool calls */
    const struct tokenizer *tokenizer; /* for engine_tokenizer */
    engine_info info;                  /* for engine_describe; its strings live as long as the owner */
} engine_parts;

/* Takes over the parts: they are closed by engine_close, and at once on failure. */
engine *engine_open_with(const engine_limits *limits, const engine_parts *parts, engine_error *err);

/* Bytes of KV cache that a token takes in the CPU's backend, in the type that kv_type() says. */
size_t engine_kv_bytes_per_token(const model_config *c, dtype type);

/* What engine_options.device says: 1 for GPUs, 0 for the CPU, -1 with err where it is no device. */
int engine_on_gpu(const char *device, engine_error *err);

/* What each of `ranks` ranks of a model would take, without taking it: rank 0's, which has the most. A GPU's needs no GPU. */
int engine_measure(const model *m, bool gpu, int ranks, backend_options o, backend_memory *out,
                   engine_error *err);

/* Of this machine, or of the control group that the process is in. */
size_t engine_available_memory(void);

struct scheduler;
const struct scheduler *engine_scheduler(const engine *e);

#endif
