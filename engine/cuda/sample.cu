/* See sample.h. One block a row; half a warp a chunk, as sums of 16 lanes are folded in sample_chunk_body.h. No operation here may be
 * fused, for those of the CPU are not.
 */
#include "engine/cuda/sample.h"

namespace cuda {

namespace {

constexpr int LANES = 16;

/* exp_down of sample_chunk_body.h, operation by operation. */
__device__ __forceinline__ float exp_down(float x) {
    const float in = x < -87.0f ? -87.0f : x;
    const float shifted = __fadd_rn(__fmul_rn(in, 1.44269504f), 12582912.0f);
    const float n = __fadd_rn(shifted, -12582912.0f);
    const float r = __fadd_rn(__fadd_rn(in, -__fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
    float p = 1.9875691500e-4f;
    p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
    const float scale = __uint_as_float((__float_as_uint(shifted) + 127u) << 23);
    return x < -87.0f ? 0.0f : __fmul_rn(p, scale);
}

__device__ __forceinline__ float weight_of(float x, float best, float factor) {
    return exp_down(__fmul_rn(__fadd_rn(x, -best), factor));
}

/* Fills `highest`; returns the row's in every thread, or NaN where a logit is not a finite number. */
__device__ float scan(const float *x, int vocab, float *highest) {
    __shared__ float of_warp[ROW_THREADS / 32];
    __shared__ int bad;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    float most = -INFINITY;
    bool finite = true;
    if (!threadIdx.x) bad = 0;
    __syncthreads();
    for (int c = warp; c < sample_chunks(vocab); c += ROW_THREADS / 32) {
        float of_chunk = -INFINITY;
        for (int i = c * SAMPLE_CHUNK + lane; i < min((c + 1) * SAMPLE_CHUNK, vocab); i += 32) {
            of_chunk = fmaxf(of_chunk, x[i]);
            finite = finite && x[i] * 0.0f == 0.0f;
        }
        of_chunk = warp_max(of_chunk);
        if (!lane) highest[c] = of_chunk;
        most = fmaxf(most, of_chunk);
    }
    if (!lane) of_warp[warp] = most;
    if (!finite) bad = 1;
    __syncthreads();
    for (int w = 0; w < ROW_THREADS / 32; w++) most = fmaxf(most, of_warp[w]);
    return bad ? NAN : most;
}

/* The weights of each chunk, added up in the CPU's order. */
__device__ void weigh(const float *x, int vocab, float best, float factor, double *sum) {
    const int lane = (int)threadIdx.x % LANES, group = (int)threadIdx.x / LANES, groups = ROW_THREADS / LANES;
    const int chunks = sample_chunks(vocab);
    for (int first = 0; first < chunks; first += groups) { /* both halves of a warp come to every shuffle */
        const int c = first + group, begin = c * SAMPLE_CHUNK,
                  n = c < chunks ? min(SAMPLE_CHUNK, vocab - begin) : 0;
        double mine = 0;
        for (int i = lane; i < n / LANES * LANES; i += LANES)
            mine += (double)weight_of(x[begin + i], best, factor);
        if (!lane)
            for (int i = n / LANES * LANES; i < n; i++) mine += (double)weight_of(x[begin + i], best, factor);
        double all = mine;
        for (int j = 1; j < LANES; j++)
            all += __shfl_sync(FULL, mine, (int)threadIdx.x / LANES % 2 * LANES + j);
        if (!lane && n) sum[c] = all;
    }
    __syncthreads();
}

__device__ int first_of(const float *x, const float *highest, float best) {
    int c = 0;
    while (highest[c] != best) c++;
    int i = c * SAMPLE_CHUNK;
    while (x[i] != best) i++;
    return i;
}

/* pick_of_all of sample.c */
__device__ int pick(const float *x, int vocab, float best, float factor, const double *of_chunk, double u) {
    const int chunks = sample_chunks(vocab);
    double total = 0, sum = 0;
    for (int c = 0; c < chunks; c++) total += of_chunk[c];
    const double goal = u * total;
    int c = 0;
    for (; c + 1 < chunks && sum + of_chunk[c] <= goal; c++) sum += of_chunk[c];
    int i = c * SAMPLE_CHUNK;
    for (const int end = min(i + SAMPLE_CHUNK, vocab); i < end; i++) {
        sum += (double)weight_of(x[i], best, factor);
        if (sum > goal) return i;
    }
    while (i > 1 && !(weight_of(x[i - 1], best, factor) > 0)) i--; /* rounding: the last that can be drawn */
    return i - 1;
}

__global__ void __launch_bounds__(ROW_THREADS)
    draw(const float *logits, int stride, const draw_row *rows, draw_room room, int *ids) {
    const size_t row = blockIdx.x;
    const draw_row how = rows[row];
    if (!how.vocab) {
        if (!threadIdx.x) ids[row] = -1;
        return;
    }
    const float *x = logits + row * (size_t)stride;
    float *highest = room.highest + row * (size_t)room.chunks;
    double *sum = room.sum + row * (size_t)room.chunks;
    const float best = scan(x, how.vocab, highest);
    if (best == best && how.factor > 0) weigh(x, how.vocab, best, how.factor, sum);
    if (threadIdx.x) return;
    ids[row] = best != best     ? -2
               : how.factor > 0 ? pick(x, how.vocab, best, how.factor, sum, how.u)
                                : first_of(x, highest, best);
}

} // namespace

void sample_rows(const float *logits, int stride, const draw_row *rows, int n, const draw_room &room,
                 int *ids, cudaStream_t s) {
    LAUNCH(draw, dim3((unsigned)n), dim3(ROW_THREADS), 0, s, logits, stride, rows, room, ids);
}

} // namespace cuda
