/* Attention over the paged KV cache: rope and append, then the pass for prefill and decode alike.
 *
 * The cache is [block][layer][kv_head] of keys [block_tokens][dim] and values transposed, [dim][block_tokens]: what a tensor
 * core wants side by side lies side by side, and a block is one piece. dim is head_dim rounded up to 16, with zeros there.
 * The functions get the cache from the layer they are called for. It must begin as zeros, and holds finite numbers only: what
 * a sequence may not see is multiplied by zero.
 *
 * Batch invariance: the positions before a token are taken in chunks of CHUNK, at multiples of CHUNK. A chunk's softmax and
 * weighted values are computed for themselves and merged in order. A tile of up to 16 rows (heads of a group, and
 * neighbouring tokens) is one warp's; it takes all chunks in turn, or, where there are few tiles, every chunk of it is another
 * warp's and attention_merge joins them by the same operations: the bits are the same, so the host may choose by what
 * is faster, or by the room that is left for partial results.
 *
 * Launches do not wait; errors are seen by cudaGetLastError.
 */
#ifndef ENGINE_CUDA_ATTENTION_H
#define ENGINE_CUDA_ATTENTION_H

#include "engine/cuda/device.h"

namespace cuda {

constexpr int CHUNK = 64, TILE_ROWS = 16, DIM_UNIT = 16, DIM_MAX = 128;

constexpr int padded_dim(int head_dim) {
    return (head_dim + DIM_UNIT - 1) / DIM_UNIT * DIM_UNIT;
}
/* Those that attention_forward was made for. */
constexpr bool has_dim(int dim) {
    return dim == 16 || dim == 32 || dim == 48 || dim == 64 || dim == 80 || dim == 96 || dim == 128;
}

/* One sequence of the batch, on the device. */
struct sequence {
    int first_token; /* its first row in the batch */
    int pos;         /* that row's position */
    int table;       /* its block table begins here */
};

/* What one warp does for each KV head. */
struct attend_item {
    int seq, row0, rows; /* rows of the tile: row = token * group + head in the group */
    int chunk, chunks;   /* from `chunk`, so many */
    int partial;         /* where its results go: -1 into the output; else the partial rows from here */
};

/* A tile whose chunks were computed apart. */
struct merge_item {
    int seq, row0, rows, chunks, partial;
};

struct attention {
    int heads, kv_heads, head_dim, dim, block_tokens;
    size_t block_stride; /* elements from a block to the next */
    int out_pitch;       /* of a row of the output, whose heads lie together without padding */
    float *
        wide; /* not NULL: where the output goes, in floats, to be rounded only once; there is no `out` then */
    float scale;
    const sequence *seqs;
    const int *tables; /* block ids */
    float *partial;    /* [partial rows][dim + 2]: values, maximum, sum */
};

/* Rows of `partial` that a tile of so many rows needs for its chunks */
constexpr int partial_rows(int kv_heads, int rows, int chunks) {
    return kv_heads * rows * chunks;
}

/* Rotates q and k of each token by its position and appends k and v to the cache. qkv [tokens][(heads + 2 kv_heads) *
 * head_dim] of the product with the joined matrix; q [tokens][heads][dim] for attention_forward. angles [positions][head_dim]:
 * cosines, then sines. token_seq, token_pos [tokens]; a token_seq below 0 is no token. */
template <typename T>
void attention_append(const attention &a, const float *qkv, const float *angles, const int *token_seq,
                      const int *token_pos, int tokens, T *q, T *cache, cudaStream_t s);

/* nitems and nmerges are what the grid is made for; *counts says how many there are of each: a graph is launched with other
 * counts than it was captured with. */
template <typename T>
void attention_forward(const attention &a, const T *q, const T *cache, const attend_item *items, int nitems,
                       const int *counts, T *out, cudaStream_t s);
template <typename T>
void attention_merge(const attention &a, const merge_item *items, int nitems, const int *counts, T *out,
                     cudaStream_t s);

} // namespace cuda

#endif
