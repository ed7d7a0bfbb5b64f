/* See attention.h. Half types: scores and values by tensor cores, one warp a tile. Floats: the same steps, a row at a time. */
#include "engine/cuda/attention.h"

#include <cfloat>
#include <type_traits>

namespace cuda {

namespace {

constexpr int WARPS = 4, STEP = 16; /* positions of one mma of values */
constexpr float NOTHING = -INFINITY;

/* Keys of one head in one block, or its values. */
template <typename T>
__device__ __forceinline__ const T *keys_of(const attention &a, const T *cache, int block, int head) {
    return cache + (size_t)block * a.block_stride + (size_t)(head * 2 * a.block_tokens * a.dim);
}
__device__ __forceinline__ int block_at(const attention &a, const sequence &q, int position) {
    return a.tables[q.table + position / a.block_tokens];
}

/* What a row has seen so far: the largest score (times log2 e), the sum of 2^(score - largest), the values weighted so. */
struct seen {
    float most, sum;
};

/* The factors by which what was seen and the next chunk are taken together. A chunk in which a row may see nothing changes no
 * bit. */
__device__ __forceinline__ seen join(seen before, seen next, float *keep, float *add) {
    const float most = fmaxf(before.most, next.most);
    *keep = before.most == NOTHING ? 0 : exp2f(before.most - most);
    *add = next.most == NOTHING ? 0 : exp2f(next.most - most);
    return {most, __fmaf_rn(before.sum, *keep, __fmul_rn(next.sum, *add))};
}
__device__ __forceinline__ float join_value(float before, float next, float keep, float add) {
    return __fmaf_rn(before, keep, __fmul_rn(next, add));
}

struct row_place {
    int token, head; /* of the batch; of all heads */
    int limit;       /* positions it sees */
};

__device__ __forceinline__ row_place place_of(const attention &a, const sequence &q, int kv_head, int row) {
    const int group = a.heads / a.kv_heads;
    return {q.first_token + row / group, kv_head * group + row % group, q.pos + row / group + 1};
}

__device__ __forceinline__ float *partial_row(const attention &a, const attend_item &it, int kv_head,
                                              int row) {
    return a.partial + (size_t)(it.partial + kv_head * it.rows + row) * (size_t)(a.dim + 2);
}

template <typename T>
__device__ __forceinline__ void write_value(const attention &a, const row_place &p, int i, float value,
                                            float sum, T *out) {
    const size_t at = (size_t)p.token * (size_t)a.out_pitch + (size_t)(p.head * a.head_dim + i);
    if (i >= a.head_dim) return;
    if (a.wide)
        a.wide[at] = value / sum;
    else
        out[at] = narrow<T>(value / sum);
}

/* ---- half types ---- */

template <typename T, int D> struct half_tile {
    uint2 q[D / 16][2]; /* rows g and g + 8 */
    row_place place[2];
    seen total[2];
    float o[D / 8][4];
};

template <typename T, int D>
__device__ __forceinline__ void load_tile(const attention &a, const sequence &seq, const attend_item &it,
                                          int kv_head, const T *q, half_tile<T, D> &t) {
    const int g = (int)threadIdx.x / 4, c = (int)threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        t.place[h] = place_of(a, seq, kv_head, it.row0 + min(g + 8 * h, it.rows - 1));
        t.total[h] = {NOTHING, 0};
        const T *row =
            q + ((size_t)t.place[h].token * (size_t)a.heads + (size_t)t.place[h].head) * (size_t)a.dim;
#pragma unroll
        for (int k = 0; k < D / 16; k++) t.q[k][h] = *(const uint2 *)(row + k * 16 + c * 4);
    }
#pragma unroll
    for (int d = 0; d < D / 8; d++)
#pragma unroll
        for (int i = 0; i < 4; i++) t.o[d][i] = 0;
}

/* Scores of 16 positions in two mma tiles. Column n of tile j is position 4 (n / 2) + n % 2 + 2 j, so that the two are, as
 * they are, the fragment that is multiplied with four neighbouring positions of a value. */
template <typename T, int D>
__device__ __forceinline__ void score_step(const half_tile<T, D> &t, const T *keys, int slot, float s[2][4]) {
    const int g = (int)threadIdx.x / 4, c = (int)threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const T *key = keys + (size_t)(slot + 4 * (g / 2) + g % 2 + 2 * j) * (size_t)D;
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = 0;
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            const uint2 b = *(const uint2 *)(key + k * 16 + c * 4);
            const uint32_t av[4] = {t.q[k][0].x, t.q[k][1].x, t.q[k][0].y, t.q[k][1].y}, bv[2] = {b.x, b.y};
            mma(T{}, s[j], av, bv);
        }
    }
}

/* Scaled scores; minus infinity where a row does not see. */
template <typename T, int D>
__device__ __forceinline__ void mask_step(const half_tile<T, D> &t, int position, float factor,
                                          float s[2][4]) {
    const int c = (int)threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = position + 4 * c + i % 2 + 2 * j;
            s[j][i] = at < t.place[i / 2].limit ? __fmul_rn(s[j][i], factor) : NOTHING;
        }
}

/* s becomes 2^(s - largest), row by row. */
__device__ __forceinline__ void soften(float s[CHUNK / STEP][2][4], seen of[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float most = NOTHING, sum = 0;
#pragma unroll
        for (int p = 0; p < CHUNK / STEP; p++)
#pragma unroll
            for (int j = 0; j < 2; j++) most = fmaxf(most, fmaxf(s[p][j][2 * h], s[p][j][2 * h + 1]));
        most = fmaxf(most, __shfl_xor_sync(FULL, most, 1));
        most = fmaxf(most, __shfl_xor_sync(FULL, most, 2));
#pragma unroll
        for (int p = 0; p < CHUNK / STEP; p++)
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) {
                    s[p][j][i] = most == NOTHING ? 0 : exp2f(s[p][j][i] - most);
                    sum = __fadd_rn(sum, s[p][j][i]);
                }
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL, sum, 1));
        sum = __fadd_rn(sum, __shfl_xor_sync(FULL, sum, 2));
        of[h] = {most, sum};
    }
}

template <typename T, int D>
__device__ __forceinline__ void add_chunk(const attention &a, const sequence &seq, const T *cache,
                                          int kv_head, int chunk, int end, half_tile<T, D> &t) {
    const int g = (int)threadIdx.x / 4, c = (int)threadIdx.x % 4;
    const float factor = a.scale * 1.44269504f;
    float s[CHUNK / STEP][2][4];
    const T *values[CHUNK / STEP];
#pragma unroll
    for (int p = 0; p < CHUNK / STEP; p++) {
        const int position = chunk * CHUNK + p * STEP, slot = position % a.block_tokens;
        values[p] = nullptr;
#pragma unroll
        for (int i = 0; i < 8; i++) s[p][i / 4][i % 4] = NOTHING;
        if (position >= end) continue; /* no row of the tile sees it, and it may have no block */
        const T *keys = keys_of(a, cache, block_at(a, seq, position), kv_head);
        values[p] = keys + (size_t)(a.block_tokens * D + slot);
        score_step(t, keys, slot, s[p]);
        mask_step(t, position, factor, s[p]);
    }
    seen of[2];
    soften(s, of);
    float keep[2], add[2];
#pragma unroll
    for (int h = 0; h < 2; h++) t.total[h] = join(t.total[h], of[h], &keep[h], &add[h]);
#pragma unroll
    for (int d = 0; d < D / 8; d++) {
        float o[4] = {};
#pragma unroll
        for (int p = 0; p < CHUNK / STEP; p++) {
            if (!values[p]) continue;
            const uint2 b = *(const uint2 *)(values[p] + (size_t)((d * 8 + g) * a.block_tokens + 4 * c));
            const uint32_t av[4] = {pair<T>(s[p][0][0], s[p][0][1]), pair<T>(s[p][0][2], s[p][0][3]),
                                    pair<T>(s[p][1][0], s[p][1][1]), pair<T>(s[p][1][2], s[p][1][3])},
                           bv[2] = {b.x, b.y};
            mma(T{}, o, av, bv);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) t.o[d][i] = join_value(t.o[d][i], o[i], keep[i / 2], add[i / 2]);
    }
}

template <typename T, int D>
__device__ __forceinline__ void finish_tile(const attention &a, const attend_item &it, int kv_head,
                                            const half_tile<T, D> &t, T *out) {
    const int g = (int)threadIdx.x / 4, c = (int)threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (g + 8 * h >= it.rows) continue;
        float *partial = it.partial < 0 ? nullptr : partial_row(a, it, kv_head, g + 8 * h);
        if (partial && !c) partial[D] = t.total[h].most, partial[D + 1] = t.total[h].sum;
#pragma unroll
        for (int d = 0; d < D / 8; d++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int at = d * 8 + 2 * c + i;
                if (partial)
                    partial[at] = t.o[d][2 * h + i];
                else
                    write_value(a, t.place[h], at, t.o[d][2 * h + i], t.total[h].sum, out);
            }
    }
}

template <typename T, int D>
__device__ __forceinline__ void attend_item_of_warp(const attention &a, const T *q, const T *cache,
                                                    const attend_item &it, int kv_head, T *out) {
    const sequence seq = a.seqs[it.seq];
    half_tile<T, D> t;
    load_tile(a, seq, it, kv_head, q, t);
    const int end = place_of(a, seq, kv_head, it.row0 + it.rows - 1).limit;
    for (int i = 0; i < it.chunks; i++) add_chunk(a, seq, cache, kv_head, it.chunk + i, end, t);
    finish_tile(a, it, kv_head, t, out);
}

/* ---- floats: lanes take two positions each for the scores, and then the dimensions ---- */

template <int D> struct float_row {
    seen total;
    float o[(D + 31) / 32];
};

template <int D>
__device__ __forceinline__ void add_chunk(const attention &a, const sequence &seq, const float *cache,
                                          int kv_head, int chunk, int limit, const float *q,
                                          float_row<D> &t) {
    const int lane = (int)threadIdx.x;
    float s[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int position = chunk * CHUNK + 32 * h + lane;
        s[h] = NOTHING;
        if (position >= limit) continue;
        const float *key =
            keys_of(a, cache, block_at(a, seq, position), kv_head) + position % a.block_tokens * D;
        float dot = 0;
        for (int i = 0; i < D; i++) dot = __fmaf_rn(q[i], key[i], dot);
        s[h] = dot * (a.scale * 1.44269504f);
    }
    seen of = {warp_max(fmaxf(s[0], s[1])), 0};
#pragma unroll
    for (int h = 0; h < 2; h++) s[h] = of.most == NOTHING ? 0 : exp2f(s[h] - of.most);
    of.sum = warp_sum(s[0] + s[1]);
    float keep, add, o[(D + 31) / 32] = {};
    t.total = join(t.total, of, &keep, &add);
    for (int p = 0; p < CHUNK; p++) {
        const int position = chunk * CHUNK + p;
        const float weight = __shfl_sync(FULL, s[p / 32], p % 32);
        if (position >= limit) continue;
        const float *value = keys_of(a, cache, block_at(a, seq, position), kv_head) + a.block_tokens * D +
                             position % a.block_tokens;
        for (int i = lane; i < D; i += 32)
            o[i / 32] = __fmaf_rn(weight, value[i * a.block_tokens], o[i / 32]);
    }
    for (int i = 0; i < (D + 31) / 32; i++) t.o[i] = join_value(t.o[i], o[i], keep, add);
}

template <typename T, int D>
__device__ __forceinline__ void attend_item_of_warp(const attention &a, const float *q, const float *cache,
                                                    const attend_item &it, int kv_head, float *out) {
    const sequence seq = a.seqs[it.seq];
    const int lane = (int)threadIdx.x;
    for (int row = 0; row < it.rows; row++) {
        const row_place place = place_of(a, seq, kv_head, it.row0 + row);
        const float *mine = q + ((size_t)place.token * (size_t)a.heads + (size_t)place.head) * (size_t)D;
        float_row<D> t = {{NOTHING, 0}, {}};
        for (int i = 0; i < it.chunks; i++)
            add_chunk<D>(a, seq, cache, kv_head, it.chunk + i, place.limit, mine, t);
        float *partial = it.partial < 0 ? nullptr : partial_row(a, it, kv_head, row);
        if (partial && !lane) partial[D] = t.total.most, partial[D + 1] = t.total.sum;
        for (int i = lane; i < D; i += 32) {
            if (partial)
                partial[i] = t.o[i / 32];
            else
                write_value(a, place, i, t.o[i / 32], t.total.sum, out);
        }
    }
}

/* As MANY_BLOCKS of linear.cu */
template <int D> constexpr int BLOCKS = D <= 48 ? 3 : 2;

template <typename T, int D>
__global__ void __launch_bounds__(WARPS * 32, BLOCKS<D>)
    attend(attention a, const T *q, const T *cache, const attend_item *items, const int *counts, T *out) {
    const int i = (int)blockIdx.x * WARPS + (int)threadIdx.y;
    if (i < counts[0]) attend_item_of_warp<T, D>(a, q, cache, items[i], (int)blockIdx.y, out);
}

/* One warp a row: its chunks in order. */
template <typename T> __global__ void merge(attention a, const merge_item *items, const int *counts, T *out) {
    const int item = (int)blockIdx.x, kv_head = (int)blockIdx.y, row = (int)threadIdx.y,
              lane = (int)threadIdx.x;
    if (item >= counts[1]) return;
    const merge_item it = items[item];
    if (row >= it.rows) return;
    float o[DIM_MAX / 32] = {};
    seen total = {NOTHING, 0};
    for (int chunk = 0; chunk < it.chunks; chunk++) {
        const float *partial =
            a.partial +
            (size_t)(it.partial + (chunk * a.kv_heads + kv_head) * it.rows + row) * (size_t)(a.dim + 2);
        float keep, add;
        total = join(total, {partial[a.dim], partial[a.dim + 1]}, &keep, &add);
        for (int i = lane; i < a.dim; i += 32) o[i / 32] = join_value(o[i / 32], partial[i], keep, add);
    }
    const row_place place = place_of(a, a.seqs[it.seq], kv_head, it.row0 + row);
    for (int i = lane; i < a.dim; i += 32) write_value(a, place, i, o[i / 32], total.sum, out);
}

/* ---- rope and append: a block a token ---- */

/* Element i of a head, rotated: pairs are half a head apart. */
__device__ __forceinline__ float rotated(const attention &a, const float *x, const float *angles, int i) {
    const int half = a.head_dim / 2, j = i % half;
    const float cos = angles[j], sin = angles[half + j];
    return i < half ? x[i] * cos - x[i + half] * sin : x[i] * cos + x[i - half] * sin;
}

template <typename T>
__global__ void append(attention a, const float *qkv, const float *angles, const int *token_seq,
                       const int *token_pos, T *q, T *cache) {
    const int token = (int)blockIdx.x, seq = token_seq[token];
    if (seq < 0) return;
    const int pos = token_pos[token], slot = pos % a.block_tokens;
    const float *x = qkv + (size_t)token * (size_t)((a.heads + 2 * a.kv_heads) * a.head_dim);
    const float *mine = angles + (size_t)pos * (size_t)a.head_dim;
    for (int at = (int)threadIdx.x; at < a.heads * a.dim; at += (int)blockDim.x) {
        const int i = at % a.dim;
        q[(size_t)token * (size_t)(a.heads * a.dim) + (size_t)at] =
            narrow<T>(i < a.head_dim ? rotated(a, x + at / a.dim * a.head_dim, mine, i) : 0);
    }
    const int block = block_at(a, a.seqs[seq], pos);
    const float *k = x + a.heads * a.head_dim, *v = k + a.kv_heads * a.head_dim;
    for (int at = (int)threadIdx.x; at < a.kv_heads * a.head_dim; at += (int)blockDim.x) {
        const int head = at / a.head_dim, i = at % a.head_dim;
        T *keys = const_cast<T *>(keys_of(a, (const T *)cache, block, head));
        keys[slot * a.dim + i] = narrow<T>(rotated(a, k + head * a.head_dim, mine, i));
        keys[(a.dim + i) * a.block_tokens + slot] = narrow<T>(v[at]);
    }
}

template <typename T, int D>
void launch(const attention &a, const T *q, const T *cache, const attend_item *items, int n,
            const int *counts, T *out, cudaStream_t s) {
    LAUNCH((attend<T, D>), dim3((unsigned)((n + WARPS - 1) / WARPS), (unsigned)a.kv_heads), dim3(32, WARPS),
           0, s, a, q, cache, items, counts, out);
}

} // namespace

template <typename T>
void attention_append(const attention &a, const float *qkv, const float *angles, const int *token_seq,
                      const int *token_pos, int tokens, T *q, T *cache, cudaStream_t s) {
    LAUNCH((append<T>), dim3((unsigned)tokens), dim3(ROW_THREADS), 0, s, a, qkv, angles, token_seq, token_pos,
           q, cache);
}

template <typename T>
void attention_forward(const attention &a, const T *q, const T *cache, const attend_item *items, int n,
                       const int *counts, T *out, cudaStream_t s) {
    switch (a.dim) {
    case 16: return launch<T, 16>(a, q, cache, items, n, counts, out, s);
    case 32: return launch<T, 32>(a, q, cache, items, n, counts, out, s);
    case 48: return launch<T, 48>(a, q, cache, items, n, counts, out, s);
    case 64: return launch<T, 64>(a, q, cache, items, n, counts, out, s);
    case 80: return launch<T, 80>(a, q, cache, items, n, counts, out, s);
    case 96: return launch<T, 96>(a, q, cache, items, n, counts, out, s);
    case 128: return launch<T, 128>(a, q, cache, items, n, counts, out, s);
    }
}

template <typename T>
void attention_merge(const attention &a, const merge_item *items, int n, const int *counts, T *out,
                     cudaStream_t s) {
    LAUNCH((merge<T>), dim3((unsigned)n, (unsigned)a.kv_heads), dim3(32, TILE_ROWS), 0, s, a, items, counts,
           out);
}

#define INSTANTIATE(T)                                                                                       \
    template void attention_append<T>(const attention &, const float *, const float *, const int *,          \
                                      const int *, int, T *, T *, cudaStream_t);                             \
    template void attention_forward<T>(const attention &, const T *, const T *, const attend_item *, int,    \
                                       const int *, T *, cudaStream_t);                                      \
    template void attention_merge<T>(const attention &, const merge_item *, int, const int *, T *,           \
                                     cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

} // namespace cuda
