/* The CPU backend's own state, shared by backend.c (open, close) and forward.c (the pass). */
#ifndef ENGINE_CPU_CPU_H
#define ENGINE_CPU_CPU_H

#include "engine/backend_impl.h"
#include "engine/comm/comm.h"
#include "engine/cpu/arena.h"
#include "engine/cpu/deal.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/pool.h"

typedef struct cpu_layer {
    const float *attn_norm, *mlp_norm; /* [hidden] */
    matrix q, k, v, o, gate, up, down;
} cpu_layer;

/* One token of the running batch. */
typedef struct cpu_token {
    int32_t id;
    int pos;
    const batch_seq *seq;
} cpu_token;

/* Rows of the tokens of a pass that are the input of the next matmul, and how they came about. */
typedef struct cpu_rows {
    float *cos, *sin;      /* [head_dim / 2] each */
    float *x;              /* [hidden]: the residual stream */
    float *h;              /* [hidden]: normalised input of a matmul; later the rows that want logits */
    unsigned char *packed; /* the same, or another input, as the matmul's format wants it */
} cpu_rows;

enum { CPU_FEW_TOKENS = 2 };

typedef struct cpu_backend {
    backend base;
    const model *model;
    const kernels *k;
    pool *pool;

    matrix_format weights;   /* MATRIX_FORMATS: as stored */
    cpu_layer *layer;        /* [layers] */
    const float *final_norm; /* [hidden] */
    matrix head;
    bool embed_in_head;          /* tied, and the head is tiled and whole */
    const float *rope_frequency; /* [head_dim / 2] */

    kv_layout kv;
    size_t kv_layer_bytes;
    unsigned char *kv_data; /* [layers][kv_blocks][kv_heads] of kv_layout */

    /* the batch: T = its tokens */
    const batch_seq *seqs;
    int nseqs, ntokens, nlogits;
    cpu_token *token;            /* [T] */
    int *logit_token;            /* [nlogits]: which tokens want logits */
    cpu_rows shared;             /* of T tokens */
    cpu_rows *own;               /* [threads], of CPU_FEW_TOKENS each: see forward.c */
    float *q, *att;              /* [T, heads * head_dim] */
    float *key, *value;          /* [T, kv_heads * head_dim] */
    float *y;                    /* [T, hidden]: what a block adds to x */
    float *gate, *up;            /* [T, intermediate] */
    unsigned char *packed_parts; /* [T]: the input of o or of down, columns packed by who made them */
    float *scores;               /* [threads][ATTEND_ROWS][scores_stride] */
    size_t scores_stride;
    float *logits;    /* [max_logits, vocab] */
    float *gathered;  /* [ranks][nlogits, rank_vocab]: each rank's logits, before they are put side by side */
    int rank_vocab;   /* shard_vocab(), or the vocabulary when alone */
    deal_word *dealt; /* [threads] */
    unsigned first_stage;  /* of this pass, of those that are dealt */
    engine_error *failure; /* of the group of ranks, which ends the pass; for good */

    arena weight_arena, workspace, cache;
    size_t copied; /* bytes of the model's that are in the arena instead */
} cpu_backend;

/* The pass over the batch described above, run by every thread of the pool. */
void forward_thread(void *backend, int thread);
/* How many numbers of stages a pass uses. */
int forward_stages(const cpu_backend *b);

#endif
