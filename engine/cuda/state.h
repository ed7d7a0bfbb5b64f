/* The CUDA backend's own state, shared by backend.cu (open, close), load.cu (weights) and forward.cu (the pass).
 *
 * One device, one stream, one host thread. All device memory is one allocation, laid out as the CPU's arenas are: measured, then
 * placed. Weights lie as in the checkpoint, q, k and v joined to one matrix, and gate and up.
 */
#ifndef ENGINE_CUDA_STATE_H
#define ENGINE_CUDA_STATE_H

#include "engine/cuda/attention.h"
#include "engine/cuda/check.h"
#include "engine/cuda/cublas.h"
#include "engine/cuda/elementwise.h"
#include "engine/cuda/linear.h"
#include "engine/cuda/sample.h"

extern "C" {
#include "engine/backend_impl.h"
#include "engine/comm/comm.h"
#include "engine/cuda/cuda.h"
}

namespace cuda {

struct layer {
    float *attn_norm, *mlp_norm; /* [hidden] */
    linear qkv, o, gate_up, down;
};

/* A batch as the kernels read it; on the host the same, in pinned memory, to be copied in one piece. */
struct plan {
    int *counts;                /* [2]: items, merges */
    int *ids;                   /* [max_tokens]; below 0: see embed */
    int *token_seq, *token_pos; /* [max_tokens] */
    int *logit_rows;            /* [max_logits] */
    draw_row *draws;            /* [max_logits] */
    sequence *seqs;             /* [max_seqs] */
    attend_item *items;         /* [max_items] */
    merge_item *merges;         /* [max_merges] */
    int *tables;                /* [max_seqs * max_blocks_per_seq], one after the other */
    size_t bytes;
    /* copied by themselves, where there are any */
    logit_change *changes; /* [max_changes] */
    uint64_t *masks;       /* [max_seqs][mask_words] */
};

/* What the host has of a pass, from its begin to its finish: the device may not have read the plan yet, and writes the tokens. Two
 * take turns, in pinned memory. */
struct turn {
    plan host;
    unsigned char *memory;
    int *drawn; /* [max_logits] */
    bool draws; /* every row */
    cudaEvent_t over;
};

/* Sizes of a pass: what its launches were made for. Two passes of the same shape are the same graph. */
struct shape {
    int tokens, logits, items, merges;
};

enum { GRAPHS = 64 };
struct graph {
    shape of;
    cudaGraphExec_t exec; /* NULL: free */
    uint64_t used;
};

struct state {
    backend base; /* first */
    const model *m;
    int device, sms;
    cudaStream_t stream;
    dtype type; /* of activations and cache */
    format weights;
    bool rounds; /* activations, to the format of the weights */

    layer *layers; /* [layers], on the host */
    float *final_norm;
    linear head, embeddings;
    bool tied;     /* the embeddings are the head: it is whole */
    float *angles; /* [positions][head_dim]: cosines, then sines */
    size_t weight_bytes, kv_bytes, workspace_bytes;
    unsigned char *memory; /* all of the device's */

    void *cache;        /* [kv_blocks][layers][kv_heads][2][block_tokens * dim] */
    attention attend;   /* without what a pass sets */
    size_t cache_layer; /* elements */

    turn turns[2];
    uint64_t begun, finished; /* passes */
    plan dev;
    unsigned char *dev_plan;
    int max_items, max_merges, max_partial, max_changes;
    float *x, *y, *qkv, *gate_up; /* f32: [T][hidden], [T][hidden], [T][q + k + v], [T][2 intermediate] */
    void *h, *q, *att, *act;      /* type: [T or logits][pitch], [T][heads][dim], [T][pitch], [T][pitch] */
    rounded h8, att8, act8; /* the inputs of products where they are rounded: then there is no h and no act */
    int att_pitch, act_pitch, hidden_pitch;
    float *logits, *gathered, *host_logits;
    draw_room room; /* to draw in */
    int *drawn;     /* [max_logits]: by the pass that ran last */
    float *sums;    /* [ranks][sum_piece]: room for a device's collectives */
    size_t sum_piece;
    int rank_vocab;

    cublas *library;  /* NULL: deterministic */
    cublas_room wide; /* its room */

    graph graphs[GRAPHS];
    uint64_t passes;
    engine_error failure; /* ends the backend; for good */
};

int load_weights(state *b, engine_error *err);
int begin_pass(state *b, const batch_seq *seqs, int nseqs, engine_error *err);
int finish_pass(state *b, batch_result *result, engine_error *err);
bool draws_all(const state *b); /* of the pass begun last */
void forward_done(state *b);    /* frees the graphs */

} // namespace cuda

#endif
