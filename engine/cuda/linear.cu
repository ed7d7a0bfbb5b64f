/* Matrix products with weights read once, at 16 bytes a lane. See linear.h for the order of the sums.
 *
 * Weights are the mma's A operand: 16 rows of W against 8 tokens, so that a single token wastes tensor-core work, which is
 * plenty, and not memory traffic, which is not. A lane's 16 bytes are eight neighbouring k of one row; as both operands take
 * them so, the order within an mma does not matter, and neither operand needs shared memory or a transposition.
 */
#include "engine/cuda/bytes.h"
#include "engine/cuda/format.h"
#include "engine/cuda/linear.h"

#include <type_traits>

namespace cuda {

namespace {

constexpr int SEGMENTS = 4, WARPS = 4;

struct args {
    const void *weights;
    const float *scales, *bias;
    const void *x;
    const float *x_scales; /* of rounded activations, whose type is uint8_t here */
    float *y;
    int rows, pitch, tokens, y_stride;
};

__device__ __forceinline__ int segment_begin(const args &p, int segment) {
    return p.pitch / UNIT * segment / SEGMENTS;
}

/* What one warp works on: the rows and tokens of its lanes, clamped to those that exist; what lies beyond is not written. */
template <typename T, format F, int MT, int NT> struct warp_tile {
    using weight = typename std::conditional<F == format::stored, T, uint8_t>::type;
    const weight *w[MT][2];
    const float *scale[MT][2];
    const T *x[NT];
    const float *x_scales;
    int row0, token0, last_token, units;

    __device__ __forceinline__ warp_tile(const args &p, int row, int token)
        : x_scales(p.x_scales), row0(row), token0(token), last_token(p.tokens - 1), units(p.pitch / UNIT) {
        const int g = (int)threadIdx.x / 4;
        for (int m = 0; m < MT; m++)
            for (int h = 0; h < 2; h++) {
                const int r = min(row + m * 16 + h * 8 + g, p.rows - 1);
                w[m][h] = (const weight *)p.weights + (size_t)r * (size_t)p.pitch;
                scale[m][h] = F == format::stored ? nullptr : p.scales + (size_t)r * (size_t)(p.pitch / UNIT);
            }
        for (int t = 0; t < NT; t++)
            x[t] = (const T *)p.x + (size_t)min(token + t * 8 + g, p.tokens - 1) * (size_t)p.pitch;
    }
};

template <typename T, format F, typename D>
__device__ __forceinline__ void multiply(D d[4], const uint32_t a[4], const uint32_t b[2]) {
    if constexpr (std::is_same<T, uint8_t>::value)
        mma_bytes<F>(d, a, b);
    else
        mma(T{}, d, a, b);
}

/* sums += 16 bytes of each of a lane's rows and tokens, from its column k on; where both are of one width. */
template <typename T, format F, int MT, int NT, typename D>
__device__ __forceinline__ void add_words(const warp_tile<T, F, MT, NT> &tile, int k, D sums[MT][NT][4]) {
    uint4 w[MT][2], x[NT];
#pragma unroll
    for (int m = 0; m < MT; m++)
        for (int h = 0; h < 2; h++) w[m][h] = __ldcs((const uint4 *)(tile.w[m][h] + k));
#pragma unroll
    for (int t = 0; t < NT; t++) x[t] = __ldg((const uint4 *)(tile.x[t] + k));
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int t = 0; t < NT; t++) {
            const uint32_t a0[4] = {w[m][0].x, w[m][1].x, w[m][0].y, w[m][1].y}, b0[2] = {x[t].x, x[t].y};
            const uint32_t a1[4] = {w[m][0].z, w[m][1].z, w[m][0].w, w[m][1].w}, b1[2] = {x[t].z, x[t].w};
            multiply<T, F>(sums[m][t], a0, b0);
            multiply<T, F>(sums[m][t], a1, b1);
        }
}

/* acc += one unit of stored weights: four times 32 columns, of which a lane has eight. */
template <typename T, int MT, int NT>
__device__ __forceinline__ void add_unit(const warp_tile<T, format::stored, MT, NT> &tile, int unit,
                                         float acc[MT][NT][4]) {
    const int c = (int)threadIdx.x % 4;
#pragma unroll
    for (int step = 0; step < UNIT / 32; step++) add_words(tile, unit * UNIT + step * 32 + c * 8, acc);
}

/* Of a unit in 8 bits; what is loaded ahead takes registers, and many tokens have none to spare. */
template <int NT> constexpr int STEPS_AT_ONCE = NT < 8 ? UNIT / 64 : 1;

/* The same for 8 bits: twice 64 columns, of which a lane has sixteen; then the unit's scales. */
template <typename T, format F, int MT, int NT>
__device__ __forceinline__ void add_unit(const warp_tile<T, F, MT, NT> &tile, int unit,
                                         float acc[MT][NT][4]) {
    const int c = (int)threadIdx.x % 4;
    float part[MT][NT][4] = {};
#pragma unroll(STEPS_AT_ONCE <NT>)
    for (int step = 0; step < UNIT / 64; step++) {
        const int k = unit * UNIT + step * 64 + c * 16;
        uint4 w[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++)
            for (int h = 0; h < 2; h++) w[m][h] = __ldcs((const uint4 *)(tile.w[m][h] + k));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint4 x[NT];
#pragma unroll
            for (int t = 0; t < NT; t++) x[t] = __ldg((const uint4 *)(tile.x[t] + k + half * 8));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                const uint32_t upper[2] = {half ? w[m][0].z : w[m][0].x, half ? w[m][0].w : w[m][0].y};
                const uint32_t lower[2] = {half ? w[m][1].z : w[m][1].x, half ? w[m][1].w : w[m][1].y};
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    uint32_t above[2], below[2];
                    decode_word<T, F>(upper[j], above);
                    decode_word<T, F>(lower[j], below);
                    const uint32_t a[4] = {above[0], below[0], above[1], below[1]};
#pragma unroll
                    for (int t = 0; t < NT; t++) {
                        const uint32_t b[2] = {j ? x[t].z : x[t].x, j ? x[t].w : x[t].y};
                        mma(T{}, part[m][t], a, b);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const float upper = tile.scale[m][0][unit], lower = tile.scale[m][1][unit];
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                acc[m][t][i] = __fmaf_rn(i < 2 ? upper : lower, part[m][t][i], acc[m][t][i]);
    }
}

/* Activations in 8 bits as well: multiplied as they are, then scaled by both units' scales. */
template <format F, int MT, int NT>
__device__ __forceinline__ void add_unit(const warp_tile<uint8_t, F, MT, NT> &tile, int unit,
                                         float acc[MT][NT][4]) {
    const int c = (int)threadIdx.x % 4;
    byte_sum<F> part[MT][NT][4] = {};
#pragma unroll(STEPS_AT_ONCE <NT>)
    for (int step = 0; step < UNIT / 64; step++) add_words(tile, unit * UNIT + step * 64 + c * 16, part);
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int token = min(tile.token0 + t * 8 + c * 2 + i, tile.last_token);
            const float x = __ldg(tile.x_scales + (size_t)token * (size_t)tile.units + (size_t)unit);
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    acc[m][t][2 * h + i] =
                        __fmaf_rn((float)part[m][t][2 * h + i], __fmul_rn(tile.scale[m][h][unit], x),
                                  acc[m][t][2 * h + i]);
        }
}

template <typename T, format F, int MT, int NT>
__device__ __forceinline__ void sum_segment(const args &p, const warp_tile<T, F, MT, NT> &tile, int segment,
                                            float acc[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][t][i] = 0;
    const int end = segment_begin(p, segment + 1);
    for (int unit = segment_begin(p, segment); unit < end; unit++) add_unit(tile, unit, acc);
}

__device__ __forceinline__ void put(const args &p, int row, int token, float sum) {
    if (row >= p.rows || token >= p.tokens) return;
    p.y[(size_t)token * (size_t)p.y_stride + (size_t)row] = p.bias ? __fadd_rn(sum, p.bias[row]) : sum;
}

/* Row and token of element i of a lane's part of d, from the tile's first ones */
__device__ __forceinline__ int row_of(int lane, int i) {
    return lane / 4 + i / 2 * 8;
}
__device__ __forceinline__ int token_of(int lane, int i) {
    return lane % 4 * 2 + i % 2;
}

/* Few tokens: 16 rows a block, a segment a warp. */
template <typename T, format F, int NT> __global__ void __launch_bounds__(SEGMENTS * 32) few_tokens(args p) {
    __shared__ float part[SEGMENTS][NT * 4][32];
    const int lane = (int)threadIdx.x, segment = (int)threadIdx.y;
    const warp_tile<T, F, 1, NT> tile(p, (int)blockIdx.x * 16, (int)blockIdx.y * NT * 8);
    float acc[1][NT][4];
    sum_segment(p, tile, segment, acc);
    for (int t = 0; t < NT; t++)
        for (int i = 0; i < 4; i++) part[segment][t * 4 + i][lane] = acc[0][t][i];
    __syncthreads();
    for (int j = segment; j < NT * 4; j += SEGMENTS) {
        float sum = part[0][j][lane];
        for (int s = 1; s < SEGMENTS; s++) sum = __fadd_rn(sum, part[s][j][lane]);
        put(p, tile.row0 + row_of(lane, j % 4), tile.token0 + j / 4 * 8 + token_of(lane, j % 4), sum);
    }
}

/* Blocks that a multiprocessor has registers for, without any that wait in memory: tests/unit/engine_cuda/machine_code.py. */
template <typename T>
constexpr int MANY_BLOCKS =
    std::is_same<T, uint8_t>::value ? 2 : 0; /* 0: as the compiler finds best, which is 3 */

/* Many tokens: each warp has rows of its own, the block's warps share the tokens through the cache. The sum of a thread's segments waits
 * in shared memory, where it is not in the way of the next one's registers. */
template <typename T, format F, int MT, int NT>
__global__ void __launch_bounds__(WARPS * 32, MANY_BLOCKS<T>) many_tokens(args p) {
    const int lane = (int)threadIdx.x;
    const warp_tile<T, F, MT, NT> tile(p, ((int)blockIdx.x * WARPS + (int)threadIdx.y) * MT * 16,
                                       (int)blockIdx.y * NT * 8);
    if (tile.row0 >= p.rows) return;
    __shared__ float total[MT * NT * 4][WARPS * 32];
    const int thread = (int)threadIdx.y * 32 + lane;
    for (int s = 0; s < SEGMENTS; s++) {
        float acc[MT][NT][4];
        sum_segment(p, tile, s, acc);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int t = 0; t < NT; t++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float *sum = &total[(m * NT + t) * 4 + i][thread];
                    *sum = s ? __fadd_rn(*sum, acc[m][t][i]) : acc[m][t][i];
                }
    }
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                put(p, tile.row0 + m * 16 + row_of(lane, i), tile.token0 + t * 8 + token_of(lane, i),
                    total[(m * NT + t) * 4 + i][thread]);
}

/* Floats, without tensor cores: a warp a row, its lanes across the columns. A grid has fewer places in y than a pass may have tokens. */
constexpr int PLAIN_TOKENS = 65535;

template <format F> __device__ __forceinline__ float plain_product(const args &p, int row, int token) {
    using weight = typename std::conditional<F == format::stored, float, uint8_t>::type;
    const weight *w = (const weight *)p.weights + (size_t)row * (size_t)p.pitch;
    const float *x = (const float *)p.x + (size_t)token * (size_t)p.pitch;
    float sum = 0;
    for (int k = (int)threadIdx.x; k < p.pitch; k += 32) {
        float v;
        if constexpr (F == format::stored)
            v = w[k];
        else
            v = decode<F>(w[k]) * p.scales[(size_t)row * (size_t)(p.pitch / UNIT) + (size_t)(k / UNIT)];
        sum = __fmaf_rn(v, x[k], sum);
    }
    return warp_sum(sum);
}

template <format F> __global__ void plain(args p) {
    const int row = (int)blockIdx.x * WARPS + (int)threadIdx.y;
    if (row >= p.rows) return;
    for (int token = (int)blockIdx.y; token < p.tokens; token += PLAIN_TOKENS) {
        const float sum = plain_product<F>(p, row, token);
        if (!threadIdx.x) put(p, row, token, sum);
    }
}

unsigned blocks(int n, int each) {
    return (unsigned)((n + each - 1) / each);
}

template <typename T, format F, int NT> void launch_few(const args &p, cudaStream_t s) {
    LAUNCH((few_tokens<T, F, NT>), dim3(blocks(p.rows, 16), blocks(p.tokens, NT * 8)), dim3(32, SEGMENTS), 0,
           s, p);
}

template <typename T, format F> void launch(const args &p, cudaStream_t s) {
    /* an 8-bit unit has sums of its own: with two rows of tiles they would not fit into registers */
    constexpr int MT = F == format::stored ? 2 : 1, NT = 8;
    if constexpr (std::is_same<T, float>::value)
        LAUNCH((plain<F>), dim3(blocks(p.rows, WARPS), (unsigned)min(p.tokens, PLAIN_TOKENS)),
               dim3(32, WARPS), 0, s, p);
    else if (p.tokens <= 8)
        launch_few<T, F, 1>(p, s);
    else if (p.tokens <= 16)
        launch_few<T, F, 2>(p, s);
    else if (p.tokens <= 32)
        launch_few<T, F, 4>(p, s);
    else
        LAUNCH((many_tokens<T, F, MT, NT>), dim3(blocks(p.rows, WARPS * MT * 16), blocks(p.tokens, NT * 8)),
               dim3(32, WARPS), 0, s, p);
}

/* A thread four neighbouring weights, of one unit. */
template <typename T> __global__ void widen_rows(linear w, int first, T *out) {
    const int k = (int)(blockIdx.y * blockDim.x + threadIdx.x) * 4;
    if (k >= w.pitch) return;
    const size_t row = (size_t)first + blockIdx.x, at = row * (size_t)w.pitch + (size_t)k;
    const uint32_t word = *(const uint32_t *)((const uint8_t *)w.weights + at);
    const float scale = w.scales[at / UNIT];
    float v[4];
    for (int i = 0; i < 4; i++) {
        const uint32_t byte = word >> 8 * i & 0xff;
        v[i] = scale * (w.kind == format::int8 ? decode<format::int8>(byte) : decode<format::fp8>(byte));
    }
    T *to = out + (size_t)blockIdx.x * (size_t)w.pitch + (size_t)k;
    for (int i = 0; i < 4; i++) to[i] = narrow<T>(v[i]);
}

/* ---- weights as they come ---- */

/* One warp a unit. */
template <typename S> __global__ void quantise(linear w, int first, const S *from) {
    const int lane = (int)threadIdx.x, row = (int)blockIdx.y, unit = (int)blockIdx.x;
    const S *in = from + (size_t)row * (size_t)w.cols;
    float v[UNIT / 32];
    for (int i = 0; i < UNIT / 32; i++) {
        const int k = unit * UNIT + i * 32 + lane;
        v[i] = k < w.cols ? widen(in[k]) : 0;
    }
    const size_t at = (size_t)(first + row) * (size_t)(w.pitch / UNIT) + (size_t)unit;
    round_unit(w.kind, v, (uint8_t *)w.weights + at * UNIT, w.scales + at);
}

template <typename S, typename T> __global__ void convert(linear w, int first, const S *from) {
    const int k = (int)(blockIdx.x * blockDim.x + threadIdx.x), row = (int)blockIdx.y;
    if (k >= w.pitch) return;
    ((T *)w.weights)[(size_t)(first + row) * (size_t)w.pitch + (size_t)k] =
        narrow<T>(k < w.cols ? widen(from[(size_t)row * (size_t)w.cols + (size_t)k]) : 0);
}

} // namespace

template <typename T>
void linear_forward(const linear &w, const T *x, int n, float *y, int y_stride, cudaStream_t s) {
    const args p = {w.weights, w.scales, w.bias, x, nullptr, y, w.rows, w.pitch, n, y_stride};
    switch (w.kind) {
    case format::stored: return launch<T, format::stored>(p, s);
    case format::int8: return launch<T, format::int8>(p, s);
    case format::fp8: return launch<T, format::fp8>(p, s);
    }
}

void linear_forward(const linear &w, const rounded &x, int n, float *y, int y_stride, cudaStream_t s) {
    const args p = {w.weights, w.scales, w.bias, x.bytes, x.scales, y, w.rows, w.pitch, n, y_stride};
    if (w.kind == format::int8)
        launch<uint8_t, format::int8>(p, s);
    else
        launch<uint8_t, format::fp8>(p, s);
}

template <typename T> void linear_widen(const linear &w, int first, int rows, T *out, cudaStream_t s) {
    LAUNCH((widen_rows<T>), dim3((unsigned)rows, blocks(w.pitch, 4 * 256)), dim3(256), 0, s, w, first, out);
}

template <typename S>
void linear_quantise(const linear &w, int first, const S *from, int rows, cudaStream_t s) {
    LAUNCH((quantise<S>), dim3((unsigned)(w.pitch / UNIT), (unsigned)rows), dim3(32), 0, s, w, first, from);
}

template <typename S, typename T>
void linear_store(const linear &w, int first, const S *from, int rows, cudaStream_t s) {
    LAUNCH((convert<S, T>), dim3(blocks(w.pitch, 256), (unsigned)rows), dim3(256), 0, s, w, first, from);
}

#define INSTANTIATE(T)                                                                                       \
    template void linear_forward<T>(const linear &, const T *, int, float *, int, cudaStream_t);             \
    template void linear_widen<T>(const linear &, int, int, T *, cudaStream_t);                              \
    template void linear_quantise<T>(const linear &, int, const T *, int, cudaStream_t);                     \
    template void linear_store<T, float>(const linear &, int, const T *, int, cudaStream_t);                 \
    template void linear_store<T, __half>(const linear &, int, const T *, int, cudaStream_t);                \
    template void linear_store<T, __nv_bfloat16>(const linear &, int, const T *, int, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

} // namespace cuda
