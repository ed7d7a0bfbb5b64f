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

/* ---- attention over the paged cache ---- */

/* Keys are put transposed: element i of the token goes to row i, column slot. */
static void kv_put(const kv_layout *kv, unsigned char *head, int slot, const float *k, const float *v) {
    const int d = kv->head_dim, bt = kv->block_tokens;
    unsigned char *values = head + kv->value_offset;
    if (kv->type == DTYPE_F32) {
        float *kt = (float *)(void *)head;
        for (int i = 0; i < d; i++) kt[(size_t)i * (size_t)bt + (size_t)slot] = k[i];
        memcpy((float *)(void *)values + (size_t)slot * (size_t)kv->value_stride, v, (size_t)d * sizeof *v);
        return;
    }
    uint16_t *kt = (uint16_t *)(void *)head;
    uint16_t *vt = (uint16_t *)(void *)values + (size_t)slot * (size_t)kv->value_stride;
    for (int i = 0; i < d; i += KERNEL_LANES) {
        int left = lanes_left(i, d);
        uint16_t narrow[KERNEL_LANES];
        vf_store_bf16_n(narrow, vf_load_n(k + i, left), left);
        for (int j = 0; j < left; j++) kt[(size_t)(i + j) * (size_t)bt + (size_t)slot] = narrow[j];
        vf_store_bf16_n(vt + i, vf_load_n(v + i, left), left);
    }
}

INLINE vf kv_load(const void *base, size_t at, const bool wide) {
    return wide ? vf_load((const float *)base + at) : vf_load_bf16((const uint16_t *)base + at);
}

static inline const unsigned char *kv_block(const attend_args *a, int position) {
    return a->head + (size_t)a->blocks[position / a->kv->block_tokens] * a->kv->block_bytes;
}

/* Scores of R rows against the 16 positions from `position`; they may reach beyond a row's limit, which is not read later. */
INLINE void score_strip(const attend_args *a, int row, int position, const int R, const bool wide) {
    const size_t bt = (size_t)a->kv->block_tokens;
    const unsigned char *keys = kv_block(a, position);
    const size_t slot = (size_t)position % bt;
    vf acc[ATTEND_ROWS];
    UNROLL for (int r = 0; r < R; r++) acc[r] = vf_set1(0);
    for (int i = 0; i < a->kv->head_dim; i++) {
        vf k = kv_load(keys, (size_t)i * bt + slot, wide);
        UNROLL for (int r = 0; r < R; r++) acc[r] = vf_fma(vf_set1(a->q[row + r][i]), k, acc[r]);
    }
    UNROLL for (int r = 0; r < R; r++) {
        vf_store(a->scores + (size_t)(row + r) * a->scores_stride + position,
                 vf_mul(acc[r], vf_set1(a->scale)));
    }
}

/* Turns a row of scores into weights e^(s - max) and returns one over their sum. */
static float softmax_row(float *s, int limit) {
    /* the lanes beyond the limit repeat a valid score for the maximum and then weigh nothing */
    int padded = (limit + KERNEL_LANES - 1) / KERNEL_LANES * KERNEL_LANES;
    for (int i = limit; i < padded; i++) s[i] = s[limit - 1];
    vf top = vf_load(s);
    for (int i = KERNEL_LANES; i < padded; i += KERNEL_LANES) top = vf_max(top, vf_load(s + i));
    const vf max = vf_set1(vf_top(top));
    for (int i = 0; i < padded; i += KERNEL_LANES) vf_store(s + i, vf_exp(vf_sub(vf_load(s + i), max)));
    for (int i = limit; i < padded; i++) s[i] = 0;
    vf sum = vf_set1(0);
    for (int i = 0; i < padded; i += KERNEL_LANES) sum = vf_add(sum, vf_load(s + i));
    return 1.0f / vf_sum(sum);
}

enum { VALUE_VECTORS = 4 };

/* acc[row][c] += weights of positions [from, to) within one block x its values, columns from `column` on. */
INLINE void weigh_values(const attend_args *a, int row, int from, int to, int column, vf acc[][VALUE_VECTORS],
                         const int R, const int C, const bool wide) {
    const unsigned char *values = kv_block(a, from) + a->kv->value_offset;
    const int base = from - from % a->kv->block_tokens;
    for (int p = from; p < to; p++) {
        const size_t at = (size_t)(p - base) * (size_t)a->kv->value_stride + (size_t)column;
        vf v[VALUE_VECTORS];
        UNROLL for (int c = 0; c < C; c++) v[c] = kv_load(values, at + (size_t)c * KERNEL_LANES, wide);
        UNROLL for (int r = 0; r < R; r++) {
            vf w = vf_set1(a->scores[(size_t)(row + r) * a->scores_stride + (size_t)p]);
            UNROLL for (int c = 0; c < C; c++) acc[r][c] = vf_fma(w, v[c], acc[r][c]);
        }
    }
}

/* Columns [column, column + 16 C) of the output of R rows. What all rows see is walked together; then each row alone
 * goes on to its own limit, so that its sum is always in the order of positions. */
INLINE void value_strip(const attend_args *a, int row, int column, const float *inv, const int R, const int C,
                        const bool wide) {
    const int bt = a->kv->block_tokens;
    vf acc[ATTEND_ROWS][VALUE_VECTORS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int c = 0; c < C; c++) acc[r][c] = vf_set1(0);
    const int shared = a->limit[row];
    for (int p = 0; p < shared; p += bt) {
        weigh_values(a, row, p, shared < p + bt ? shared : p + bt, column, acc, R, C, wide);
    }
    UNROLL for (int r = 0; r < R; r++) {
        for (int p = shared; p < a->limit[row + r];) {
            int end = (p / bt + 1) * bt;
            if (end > a->limit[row + r]) end = a->limit[row + r];
            weigh_values(a, row + r, p, end, column, &acc[r], 1, C, wide);
            p = end;
        }
        UNROLL for (int c = 0; c < C; c++) {
            int left = a->kv->head_dim - column - c * KERNEL_LANES;
            if (left <= 0) continue;
            vf_store_n(a->out[row + r] + column + c * KERNEL_LANES, vf_mul(acc[r][c], vf_set1(inv[r])),
                       left < KERNEL_LANES ? left : KERNEL_LANES);
        }
    }
}

INLINE void attend_rows(const attend_args *a, int row, const int R, const bool wide) {
    float inv[ATTEND_ROWS];
    for (int p = 0; p < a->limit[row + R - 1]; p += KERNEL_LANES) score_strip(a, row, p, R, wide);
    for (int r = 0; r < R; r++) {
        inv[r] = softmax_row(a->scores + (size_t)(row + r) * a->scores_stride, a->limit[row + r]);
    }
    int column = 0;
    for (; column + VALUE_VECTORS * KERNEL_LANES <= a->kv->value_stride;
         column += VALUE_VECTORS * KERNEL_LANES) {
        value_strip(a, row, column, inv, R, VALUE_VECTORS, wide);
    }
    for (; column < a->kv->value_stride; column += KERNEL_LANES) value_strip(a, row, column, inv, R, 1, wide);
}

INLINE void attend_all(const attend_args *a, const bool wide) {
    int row = 0;
    for (; row + 4 <= a->rows; row += 4) attend_rows(a, row, 4, wide);
    for (; row < a->rows; row++) attend_rows(a, row, 1, wide);
}

static void attend(const attend_args *a) {
    if (a->kv->type == DTYPE_F32) {
        attend_all(a, true);
    } else {
        attend_all(a, false);
    }
}

#include "engine/cpu/kernels_tiled.h"

#include "engine/cpu/kernels_int8.h"
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
