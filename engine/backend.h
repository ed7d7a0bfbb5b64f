/* What runs a forward pass. The scheduler sees only this; cpu/ and cuda/ implement it.
 *
 * A batch is a flat list of tokens, each of some sequence at some position. The KV cache is paged: block b of a sequence
 * holds positions [b*block_tokens, (b+1)*block_tokens), and the batch names the physical block of each. A forward pass
 * writes the batch's keys and values into the blocks and reads everything before them.
 *
 * A token's logits depend on its own sequence alone: bitwise the same in any batch, with any chunking, on any number of
 * threads. (A backend may be allowed otherwise: any_order.)
 */
#ifndef ENGINE_BACKEND_H
#define ENGINE_BACKEND_H

#include "engine/error.h"
#include "engine/model/model.h"

#include <stdint.h>

typedef struct backend backend;

typedef struct backend_options {
    int threads;     /* resolved, >= 1 */
    const char *isa; /* NULL: best */
    /* NULL or "stored": as in the checkpoint. "int8": quantised at open, and so are activations as they come; "int8-a16": the
     * same weights against unrounded activations. "fp8" and "fp8-a16": the same in e4m3, on GPUs */
    const char *weights;
    /* NULL or "full": keys and values in bf16 for bf16 checkpoints, else in f32. "int8": in 8 bits, with a scale for each
     * token's key and value in each head */
    const char *kv;
    /* A token's logits may depend on its batch, in their rounding: a GPU multiplies by cuBLASLt. */
    bool any_order;
    /* As in engine_options. */
    void (*loading)(void *arg, size_t done, size_t total);
    void *loading_arg;
    int kv_blocks, block_tokens; /* a block is a multiple of 16 tokens */
    int max_tokens;              /* most tokens in a batch */
    int max_logits;              /* most rows of logits in a batch */
    int max_seqs, max_blocks_per_seq;
    /* NULL: alone. Else the model is the shard of one rank, and this is its end of the group */
    struct comm *comm;
} backend_options;

/* A token whose logit x becomes (x > 0 ? x / repetition : x * repetition), less presence + frequency * count where it was said
 * before, before anything is drawn. */
enum { LOGIT_BANNED = -1 };
typedef struct logit_change {
    int32_t token;
    int32_t count; /* in the answer; LOGIT_BANNED: not to be drawn */
} logit_change;

/* How the token after each row of logits is drawn by a backend that can do so itself: the same token as the sampler's (sample.h). */
enum { DRAWN_NOT = -1, DRAWN_NO_NUMBERS = -2, DRAWN_NONE_LEFT = -3 };
typedef struct batch_draw {
    float temperature; /* 0: the likeliest */
    float top_p, min_p;
    int top_k; /* these three as in engine_sampling */
    uint64_t seed;
    int vocab; /* ids below this */
    float presence, frequency, repetition;
    /* Of the first row alone; those after it are not drawn where there is any of this. */
    const logit_change *changes; /* of each token one at most; without the token that is not known yet */
    int nchanges;
    const uint64_t *allowed; /* NULL: all; else bit i of word i / 64 is set for an id that may be drawn */
} batch_draw;

/* One sequence's share of a batch: ntokens tokens at positions pos, pos+1, … */
typedef struct batch_seq {
    const int32_t *
        tokens; /* [ntokens]; NULL: one, which the pass begun before this one draws after its row `drawn_row` */
    int ntokens;
    int drawn_row;
    int pos;
    const int32_t *blocks;  /* physical block ids covering positions 0 .. pos+ntokens-1 */
    int nlogits;            /* logits wanted for the last nlogits tokens (0 while prefill goes on) */
    const batch_draw *draw; /* NULL: logits, and no tokens, are wanted */
} batch_seq;

/* The model is borrowed and must outlive the backend. */
backend *backend_open_cpu(const model *m, const backend_options *opt, engine_error *err);
void backend_close(backend *b);

/* Runs the batch, and draws nothing. *logits: [sum of nlogits, vocab] f32 in the order of seqs, borrowed until the next call. */
int backend_forward(backend *b, const batch_seq *seqs, int nseqs, float **logits, engine_error *err);

/* What a pass gives: a row for each of the logits that were asked for, in the order of seqs. */
typedef struct batch_result {
    const float *logits;  /* [rows, vocab], of those that are not drawn */
    const int32_t *drawn; /* [rows]: the token after each, or DRAWN_…; NULL: none is */
} batch_result;

/* The same in two halves, of backends that compute beside their caller: begun, a pass goes on by itself. All that seqs lead to is
 * read before backend_begin returns. Passes run in the order in which they are begun, and blocks that are copied between two are
 * copied between them. backend_finish waits for the one begun first; its result is borrowed until the next pass is begun or
 * finished. One pass at a time, or two where backend_runs_ahead. */
bool backend_overlaps(const backend *b);
int backend_begin(backend *b, const batch_seq *seqs, int nseqs, engine_error *err);
int backend_finish(backend *b, batch_result *result, engine_error *err);
/* May one more be begun before the one under way is finished? Where the backend draws every row of that one: sequences can go on
 * with tokens that the caller does not know yet. */
bool backend_runs_ahead(const backend *b);

/* Makes block `to` a copy of block `from`, in every layer. Both are valid ids. */
void backend_copy_block(backend *b, int32_t from, int32_t to);

typedef struct backend_memory {
    size_t weights, kv, workspace; /* bytes */
} backend_memory;
backend_memory backend_memory_now(const backend *b);
/* What backend_open_cpu would take, without taking it: of one rank, where opt->comm is the rank's end of a group. */
int backend_measure_cpu(const model *m, const backend_options *opt, backend_memory *out, engine_error *err);
const char *backend_isa(const backend *b);

#endif
