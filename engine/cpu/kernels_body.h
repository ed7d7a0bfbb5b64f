/* The kernels themselves, written once over a vector of 16 floats (`vf` and its operations) that the including file
 * defines for its instruction set. Not a header in the usual sense: include it once, at the end of kernels_<isa>.c.
 *
 * Stateless; called by the compute threads at the same time on disjoint outputs.
 */

/* Tiles are instances of one always-inlined function with constant sizes, so that the accumulators live in registers. */
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* exp, within 2 units in the last place; below -87 it stays at the smallest normal number. */
INLINE vf vf_exp(vf x) {
    x = vf_min(vf_max(x, vf_set1(-87.0f)), vf_set1(88.0f));
    /* adding and taking away 1.5 * 2^23 rounds to a whole number */
    const vf magic = vf_set1(12582912.0f);
    vf n = vf_sub(vf_fma(x, vf_set1(1.44269504f), magic), magic);
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_fma(vf_set1(1.9875691500e-4f), r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    p = vf_fma(p, vf_mul(r, r), vf_add(r, vf_set1(1.0f)));
    return vf_scale2(p, n);
}

static inline int lanes_left(int i, int n) {
    return n - i < KERNEL_LANES ? n - i : KERNEL_LANES;
}

INLINE vf load_n(const void *p, const dtype type, size_t at, int n) {
    if (type == DTYPE_F32) return vf_load_n((const float *)p + at, n);
    if (type == DTYPE_F16) return vf_load_f16_n((const uint16_t *)p + at, n);
    return vf_load_bf16_n((const uint16_t *)p + at, n);
}

INLINE vf load(const void *p, const dtype type, size_t at) {
    if (type == DTYPE_F32) return vf_load((const float *)p + at);
    if (type == DTYPE_F16) return vf_load_f16((const uint16_t *)p + at);
    return vf_load_bf16((const uint16_t *)p + at);
}

/* ---- matmul over weights as stored: y[t][r] = x[t] . w[r] + bias[r] ---- */

/* R rows x N tokens of accumulators over the whole of K: every element is one chain of sums in 16 lanes, folded at the end,
 * the same for every R and N. */
INLINE void stored_tile(const matrix *m, int row, const float *x, float *y, size_t ldy, const dtype type,
                        const int R, const int N) {
    const size_t K = (size_t)m->cols, tail = K % KERNEL_LANES, whole = K - tail, w = (size_t)row * K;
    vf acc[TILE_ROWS][TILE_TOKENS], wv[TILE_ROWS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < N; t++) acc[r][t] = vf_set1(0);
    for (size_t k = 0; k < whole; k += KERNEL_LANES) {
        UNROLL for (int r = 0; r < R; r++) wv[r] = load(m->data, type, w + (size_t)r * K + k);
        UNROLL for (int t = 0; t < N; t++) {
            vf xv = vf_load(x + (size_t)t * K + k);
            UNROLL for (int r = 0; r < R; r++) acc[r][t] = vf_fma(wv[r], xv, acc[r][t]);
        }
    }
    if (tail) {
        UNROLL for (int r = 0; r < R; r++) wv[r] =
            load_n(m->data, type, w + (size_t)r * K + whole, (int)tail);
        UNROLL for (int t = 0; t < N; t++) {
            vf xv = vf_load_n(x + (size_t)t * K + whole, (int)tail);
            UNROLL for (int r = 0; r < R; r++) acc[r][t] = vf_fma(wv[r], xv, acc[r][t]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        const float bias = m->bias ? m->bias[row + r] : 0;
        UNROLL for (int t = 0; t < N; t++) y[(size_t)t * ldy + (size_t)(row + r)] = vf_sum(acc[r][t]) + bias;
    }
}

/* R rows against all of the tokens */
INLINE void stored_rows(const matrix *m, int row, const float *x, int n, float *y, size_t ldy,
                        const dtype type, const int R) {
    const size_t K = (size_t)m->cols;
    int t = 0;
    for (; t + TILE_TOKENS <= n; t += TILE_TOKENS) {
        stored_tile(m, row, x + (size_t)t * K, y + (size_t)t * ldy, ldy, type, R, TILE_TOKENS);
    }
    for (; TILE_TOKENS > 2 && t + 2 <= n; t += 2) {
        stored_tile(m, row, x + (size_t)t * K, y + (size_t)t * ldy, ldy, type, R, 2);
    }
    if (t < n) stored_tile(m, row, x + (size_t)t * K, y + (size_t)t * ldy, ldy, type, R, 1);
}

/* Tokens whose x stays in half a megabyte of L2 while all rows of weights stream past it. */
static int token_block(int cols) {
    int fit = (1 << 19) / (int)sizeof(float) / cols / TILE_TOKENS * TILE_TOKENS;
    return fit < TILE_TOKENS ? TILE_TOKENS : fit;
}

INLINE void stored_all(const matrix *m, int row0, int row1, const activations *in, int n, float *y,
                       size_t ldy, const dtype type) {
    const int block = token_block(m->cols);
    for (int t = 0; t < n; t += block) {
        const int count = n - t < block ? n - t : block;
        const float *x = in->x + (size_t)t * (size_t)m->cols;
        float *out = y + (size_t)t * ldy;
        int r = row0;
        for (; r + TILE_ROWS <= row1; r += TILE_ROWS) stored_rows(m, r, x, count, out, ldy, type, TILE_ROWS);
        for (; r < row1; r++) stored_rows(m, r, x, count, out, ldy, type, 1);
    }
}

static void matmul_f32(const matrix *m, int row0, int row1, const activations *in, int n, float *y,
                       size_t ldy) {
    stored_all(m, row0, row1, in, n, y, ldy, DTYPE_F32);
}

static void matmul_f16(const matrix *m, int row0, int row1, const activations *in, int n, float *y,
                       size_t ldy) {
    stored_all(m, row0, row1, in, n, y, ldy, DTYPE_F16);
}

static void matmul_bf16(const matrix *m, int row0, int row1, const activations *in, int n, float *y,
                        size_t ldy) {
    stored_all(m, row0, row1, in, n, y, ldy, DTYPE_BF16);
}

/* ---- elementwise, one row at a time ---- */

static void widen(float *out, const void *row, dtype type, int n) {
    for (int i = 0; i < n; i += KERNEL_LANES) {
        int left = lanes_left(i, n);
        vf_store_n(out + i, load_n(row, type, (size_t)i, left), left);
    }
}

static void add_rmsnorm(float *out, float *x, const float *add, const float *w, int n, float eps) {
    vf sum = vf_set1(0);
    for (int i = 0; i < n; i += KERNEL_LANES) {
        int left = lanes_left(i, n);
        vf v = vf_load_n(x + i, left);
        if (add) {
            v = vf_add(v, vf_load_n(add + i, left));
            vf_store_n(x + i, v, left);
        }
        sum = vf_fma(v, v, sum);
    }
    vf scale = vf_set1(1.0f / sqrtf(vf_sum(sum) / (float)n + eps));
    for (int i = 0; i < n; i += KERNEL_LANES) {
        int left = lanes_left(i, n);
        vf v = vf_mul(vf_load_n(x + i, left), scale);
        vf_store_n(out + i, vf_mul(v, vf_load_n(w + i, left)), left);
    }
}

static void rope(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i += KERNEL_LANES) {
        int left = lanes_left(i, half);
        vf a = vf_load_n(x + i, left), b = vf_load_n(x + half + i, left);
        vf c = vf_load_n(cos + i, left), s = vf_load_n(sin + i, left);
        vf_store_n(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)), left);
        vf_store_n(x + half + i, vf_add(vf_mul(b, c), vf_mul(a, s)), left);
    }
}

static void swiglu(float *gate, const float *up, int n) {
    const vf one = vf_set1(1);
    for (int i = 0; i < n; i += KERNEL_LANES) {
        int left = lanes_left(i, n);
        vf g = vf_load_n(gate + i, left);
        vf e = vf_exp(vf_sub(vf_set1(0), g));
        vf_store_n(gate + i, vf_mul(vf_div(g, vf_add(one, e)), vf_load_n(up + i, left)), left);
    }
}

#include "engine/cpu/kernels_tiled.h"

#include "engine/cpu/kernels_int8.h"

#include "engine/cpu/kernels_attend.h"
#ifdef KERNELS_HAVE_BF16
#include "engine/cpu/kernels_bf16.h"
#endif
#include "engine/cpu/kernels_probe.h"

const kernels KERNELS_TABLE = {
    .isa = KERNELS_ISA,
    .matmul = {[MATRIX_F32] = matmul_f32,
               [MATRIX_F16] = matmul_f16,
               [MATRIX_BF16] = matmul_bf16,
#ifdef KERNELS_HAVE_BF16
               [MATRIX_BF16_TILED] = matmul_bf16_tiled,
#endif
               [MATRIX_W8A8] = matmul_w8a8,
               [MATRIX_W8A16] = matmul_w8a16},
    .pack =
        {
#ifdef KERNELS_HAVE_BF16
            [MATRIX_BF16_TILED] = pack_bf16,
#endif
            [MATRIX_W8A8] = pack_int8},
    .panel_tokens = TILED_TOKENS,
    .widen = widen,
    .add_rmsnorm = add_rmsnorm,
    .rope = rope,
    .swiglu = swiglu,
    .kv_put = kv_put,
    .attend = attend,
    .probe_read = probe_read,
    .probe_multiply = probe_multiply,
};
