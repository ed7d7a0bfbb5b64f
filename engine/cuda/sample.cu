/* See sample.h. One block a row; half a warp a chunk, as sums of 16 lanes are folded in sample_chunk_body.h. No operation here may be
 * fused, for those of the CPU are not.
 */
#include "engine/cuda/sample.h"

#include <cfloat>

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

/* Fills `highest`; returns the row's in every thread, or NaN where a logit is not a finite number. Changed ones may be infinite. */
__device__ float scan(const float *x, int vocab, bool changed, float *highest) {
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
            finite = finite && (changed || x[i] * 0.0f == 0.0f);
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

/* change() of sample.c */
__device__ __forceinline__ float changed(float x, const draw_row &how, int count) {
    if (count == LOGIT_BANNED) return -INFINITY;
    const float kept = x > 0 ? __fdiv_rn(x, how.repetition) : __fmul_rn(x, how.repetition),
                less = count ? __fadd_rn(how.presence, __fmul_rn(how.frequency, (float)count)) : 0;
    return __fadd_rn(kept, -less);
}

/* adjust() of sample.c. The token that was drawn just now counts once more, or for the first time. */
__device__ void change(float *x, const draw_row &how, const draw_changes &c) {
    __shared__ bool known;
    const int coming = how.coming < 0 ? -1 : c.tokens[how.coming];
    if (!threadIdx.x) known = coming < 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < how.changes; i += ROW_THREADS) {
        const logit_change of = c.changes[how.first_change + i];
        if (of.token == coming) known = true;
        x[of.token] = changed(x[of.token], how, of.count + (of.token == coming && of.count != LOGIT_BANNED));
    }
    __syncthreads();
    if (!threadIdx.x && !known) x[coming] = changed(x[coming], how, 1);
    __syncthreads();
    const uint64_t *mask = c.masks + (size_t)how.mask * (size_t)c.words;
    for (int i = (int)threadIdx.x; how.mask >= 0 && i < how.vocab; i += ROW_THREADS)
        if (!(mask[i / 64] >> (i % 64) & 1)) x[i] = -INFINITY;
    __syncthreads();
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

__device__ double sum_chunks(const double *of_chunk, int chunks) {
    double total = 0;
    for (int c = 0; c < chunks; c++) total += of_chunk[c];
    return total;
}

/* pick_of_all of sample.c */
__device__ int pick(const float *x, int vocab, float best, float factor, const double *of_chunk, double u) {
    const int chunks = sample_chunks(vocab);
    const double goal = u * sum_chunks(of_chunk, chunks);
    double sum = 0;
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

/* ---- filters ---- */

using mass_t = unsigned long long;

/* mass() of sample.c */
__device__ __forceinline__ mass_t mass_of(float weight) {
    return (mass_t)__fmul_rn(weight, 0x1p40f);
}

/* Greater for the likelier token, of equal logits the one of lower id; no two are the same. */
__device__ __forceinline__ uint32_t order_of(float x) {
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f)); /* one zero */
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ mass_t key_of(float x, int id) {
    return (mass_t)order_of(x) << 32 | (0xffffffffu - (uint32_t)id);
}

/* The tokens that are still in the draw: those of weight `least` and key `border` and above. */
struct kept {
    const float *x, *highest;
    int vocab;
    float best, factor, least;
    mass_t border;
};

/* visit(key, mass) for each of them whose key is `lowest` or above, by the threads of the block. */
template <typename F> __device__ __forceinline__ void each_kept(const kept &k, mass_t lowest, F visit) {
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    if (lowest < k.border) lowest = k.border;
    for (int c = warp; c < sample_chunks(k.vocab); c += ROW_THREADS / 32) {
        if (order_of(k.highest[c]) < (uint32_t)(lowest >> 32)) continue;
        for (int i = c * SAMPLE_CHUNK + lane; i < min((c + 1) * SAMPLE_CHUNK, k.vocab); i += 32) {
            const mass_t key = key_of(k.x[i], i);
            if (key < lowest) continue;
            const float weight = weight_of(k.x[i], k.best, k.factor);
            if (weight >= k.least) visit(key, mass_of(weight));
        }
    }
}

/* Their number, or their mass; every thread gets it. */
__device__ mass_t sum_kept(const kept &k, bool count) {
    __shared__ mass_t sum;
    __syncthreads();
    if (!threadIdx.x) sum = 0;
    __syncthreads();
    mass_t mine = 0;
    each_kept(k, 0, [&](mass_t, mass_t mass) { mine += count ? 1 : mass; });
    atomicAdd(&sum, mine);
    __syncthreads();
    return sum;
}

/* The key of the token, from the likeliest down, with which so many are reached, or so much mass; not more than there is. */
__device__ mass_t select_kept(const kept &k, bool count, mass_t goal) {
    __shared__ mass_t of_digit[256], found, rest;
    mass_t prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        __syncthreads();
        for (int d = (int)threadIdx.x; d < 256; d += ROW_THREADS) of_digit[d] = 0;
        if (!threadIdx.x && shift == 56) rest = goal;
        __syncthreads();
        each_kept(k, prefix, [&](mass_t key, mass_t mass) {
            if (shift == 56 || (key ^ prefix) >> (shift + 8) == 0)
                atomicAdd(&of_digit[key >> shift & 255], count ? 1 : mass);
        });
        __syncthreads();
        if (!threadIdx.x) {
            int d = 255;
            for (; d > 0 && of_digit[d] < rest; d--) rest -= of_digit[d];
            found = prefix | (mass_t)d << shift;
        }
        __syncthreads();
        prefix = found;
    }
    return prefix;
}

/* keep() of sample.c: what is out by its weight alone */
__device__ float least_weight(const draw_row &how, double total) {
    double least = fmax((double)how.min_p, (double)FLT_MIN);
    if (how.top_p < 1 && how.top_k <= 0 && how.min_p <= 0)
        least = fmax(least, total * (1 - (double)how.top_p) / how.vocab * (1 - 1e-6));
    return (float)least;
}

/* draw() of sample.c, past the weights; the same in every thread. The lowest logit that the sampler allows for top_k changes nothing
 * here, for no token of a higher logit has a lower weight: exp_down never falls (all floats were tried). */
__device__ int filter(const draw_row &how, kept k, double total) {
    k.least = least_weight(how, total);
    if (how.top_k > 0 && (mass_t)how.top_k < sum_kept(k, true))
        k.border = select_kept(k, true, (mass_t)how.top_k);
    mass_t sum = sum_kept(k, false);
    if (how.top_p < 1) {
        const mass_t whole = how.top_k > 0 || how.min_p > 0 ? sum : (mass_t)(total * 0x1p40);
        const mass_t goal = (mass_t)((double)whole * (double)how.top_p);
        if (goal < sum) k.border = select_kept(k, false, goal ? goal : 1);
        sum = sum_kept(k, false);
    }
    const mass_t goal = (mass_t)(how.u * (double)sum) + 1;
    return (int)(0xffffffffu - (uint32_t)select_kept(k, false, goal < sum ? goal : sum));
}

__device__ __forceinline__ bool is_filtered(const draw_row &how) {
    return how.factor > 0 && (how.top_k > 0 || how.min_p > 0 || how.top_p < 1);
}

__global__ void __launch_bounds__(ROW_THREADS)
    draw(float *logits, int stride, const draw_row *rows, draw_changes changes, draw_room room, int *ids) {
    const size_t row = blockIdx.x;
    const draw_row how = rows[row];
    if (!how.vocab) {
        if (!threadIdx.x) ids[row] = DRAWN_NOT;
        return;
    }
    float *x = logits + row * (size_t)stride;
    float *highest = room.highest + row * (size_t)room.chunks;
    double *sum = room.sum + row * (size_t)room.chunks;
    float best = scan(x, how.vocab, false, highest);
    if (best == best && (how.changes || how.coming >= 0 || how.mask >= 0)) {
        change(x, how, changes);
        best = scan(x, how.vocab, true, highest);
    }
    if (best != best || best == -INFINITY) {
        if (!threadIdx.x) ids[row] = best != best ? DRAWN_NO_NUMBERS : DRAWN_NONE_LEFT;
        return;
    }
    if (how.factor > 0) weigh(x, how.vocab, best, how.factor, sum);
    if (is_filtered(how)) {
        const kept all = {x, highest, how.vocab, best, how.factor, 0, 0};
        const int id = filter(how, all, sum_chunks(sum, sample_chunks(how.vocab)));
        if (!threadIdx.x) ids[row] = id;
        return;
    }
    if (threadIdx.x) return;
    ids[row] = how.factor > 0 ? pick(x, how.vocab, best, how.factor, sum, how.u) : first_of(x, highest, best);
}

} // namespace

void sample_rows(float *logits, int stride, const draw_row *rows, int n, const draw_changes &changes,
                 const draw_room &room, int *ids, cudaStream_t s) {
    LAUNCH(draw, dim3((unsigned)n), dim3(ROW_THREADS), 0, s, logits, stride, rows, changes, room, ids);
}

} // namespace cuda
