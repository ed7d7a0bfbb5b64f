/* The 8-bit kernels, the second half of kernels_body.h: weights as quantised and interleaved by matrix.c.
 *
 * W8A8: activations are quantised too, per token and group of columns, and multiplied in whole numbers, which are exact
 * and so the same on every CPU; the sum of a group is scaled and added in f32, group after group.
 * W8A16: the same weights widened to f32, against f32 activations; for accuracy.
 */

/* A row of activations: the bytes, then per group its scale, and what the weights' offset of 128 adds to its sum. */
typedef struct packed_row {
    const int8_t *bytes;
    const float *scale;
    const int32_t *offset;
} packed_row;

INLINE packed_row packed_at(const unsigned char *packed, int cols) {
    const unsigned char *scale = packed + int8_columns(cols);
    return (packed_row){(const int8_t *)packed, (const float *)(const void *)scale,
                        (const int32_t *)(const void *)scale + int8_groups(cols)};
}

/* Returns the scale of n values that become bytes. */
INLINE float quantise_group(int8_t *bytes, const float *x, int n) {
    vf top = vf_set1(0);
    for (int i = 0; i < n; i += KERNEL_LANES) top = vf_max(top, vf_abs(vf_load_n(x + i, lanes_left(i, n))));
    const float largest = vf_top(top);
    const vf inverse = vf_set1(largest > 0 ? 127.0f / largest : 0);
    for (int i = 0; i < n; i += KERNEL_LANES) {
        int left = lanes_left(i, n);
        vf_store_int8_n(bytes + i, vf_mul(vf_load_n(x + i, left), inverse), left);
    }
    return largest / 127.0f;
}

static void pack_int8(unsigned char *packed, const float *x, int n) {
    int8_t *bytes = (int8_t *)packed;
    float *scale = (float *)(void *)(packed + int8_columns(n));
    int32_t *offset = (int32_t *)(void *)scale + int8_groups(n);
    memset(bytes + n, 0, int8_columns(n) - (size_t)n);
    for (int g = 0; g < int8_groups(n); g++) {
        const int from = g * INT8_GROUP, count = n - from < INT8_GROUP ? n - from : INT8_GROUP;
        int32_t sum = 0;
        scale[g] = quantise_group(bytes + from, x + from, count);
        for (int i = from; i < from + count; i++) sum += bytes[i];
        offset[g] = -128 * sum;
    }
}

/* 16 rows of one token's result; the last tile may have fewer. */
INLINE void store_tile(const matrix *m, int tile, vf v, float *y) {
    const int row = tile * INT8_ROWS, left = lanes_left(row, m->rows);
    if (m->bias) v = vf_add(v, vf_load_n(m->bias + row, left));
    vf_store_n(y + row, v, left);
}

/* Most tiles of 16 rows at once: a single token is bounded by memory, and reads four streams of weights. */
enum { INT8_STREAMS = 4 };

/* acc[r][t] += one group of weights x activations; w and k walk on. */
INLINE const uint8_t *dot_group(const uint8_t *w, size_t stride, const packed_row *x, size_t k, size_t end,
                                vi acc[][INT8_TOKENS], const int R, const int N) {
    for (; k < end; k += 4, w += 4 * INT8_ROWS) {
        vq wv[INT8_STREAMS];
        UNROLL for (int r = 0; r < R; r++) wv[r] = vq_load(w + (size_t)r * stride);
        UNROLL for (int t = 0; t < N; t++) {
            vi xv = vi_spread(x[t].bytes + k);
            UNROLL for (int r = 0; r < R; r++) acc[r][t] = vi_dot(acc[r][t], wv[r], xv);
        }
    }
    return w;
}

/* R tiles of 16 rows x N tokens. */
INLINE void w8a8_tile(const matrix *m, int tile, const activations *in, int token, float *y, size_t ldy,
                      const int R, const int N) {
    const size_t stride = int8_tile_bytes(m->cols), columns = int8_columns(m->cols);
    const uint8_t *w = (const uint8_t *)m->data + (size_t)tile * stride;
    packed_row x[INT8_TOKENS];
    vf total[INT8_STREAMS][INT8_TOKENS];
    UNROLL for (int t = 0; t < N; t++) {
        x[t] = packed_at(in->packed + (size_t)(token + t) * in->packed_stride, m->cols);
        UNROLL for (int r = 0; r < R; r++) total[r][t] = vf_set1(0);
    }
    for (size_t k = 0, g = 0; k < columns; k += INT8_GROUP, g++) {
        vi acc[INT8_STREAMS][INT8_TOKENS];
        UNROLL for (int t = 0; t < N; t++) UNROLL for (int r = 0; r < R; r++) acc[r][t] =
            vi_start(x[t].offset[g]);
        w = dot_group(w, stride, x, k, k + INT8_GROUP < columns ? k + INT8_GROUP : columns, acc, R, N);
        UNROLL for (int r = 0; r < R; r++) {
            vf scale = vf_load((const float *)(const void *)(w + (size_t)r * stride));
            UNROLL for (int t = 0; t < N; t++) {
                vf both = vf_mul(scale, vf_set1(x[t].scale[g]));
                total[r][t] = vf_fma(vf_from_int(acc[r][t]), both, total[r][t]);
            }
        }
        w += INT8_ROWS * sizeof(float);
    }
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int t = 0; t < N; t++)
            store_tile(m, tile + r, total[r][t], y + (size_t)(token + t) * ldy);
    }
}

/* R tiles against all of the tokens */
INLINE void w8a8_rows(const matrix *m, int tile, const activations *in, int n, float *y, size_t ldy,
                      const int R) {
    int t = 0;
    for (; t + INT8_TOKENS <= n; t += INT8_TOKENS) w8a8_tile(m, tile, in, t, y, ldy, R, INT8_TOKENS);
    for (; INT8_TOKENS > 2 && t + 2 <= n; t += 2) w8a8_tile(m, tile, in, t, y, ldy, R, 2);
    if (t < n) w8a8_tile(m, tile, in, t, y, ldy, R, 1);
}

/* row0 is a multiple of 16. */
static void matmul_w8a8(const matrix *m, int row0, int row1, const activations *in, int n, float *y,
                        size_t ldy) {
    const int end = (row1 + INT8_ROWS - 1) / INT8_ROWS;
    int tile = row0 / INT8_ROWS;
    for (; n == 1 && tile + INT8_STREAMS <= end; tile += INT8_STREAMS) {
        w8a8_tile(m, tile, in, 0, y, ldy, INT8_STREAMS, 1);
    }
    for (; tile + INT8_TILES <= end; tile += INT8_TILES) w8a8_rows(m, tile, in, n, y, ldy, INT8_TILES);
    for (; tile < end; tile++) w8a8_rows(m, tile, in, n, y, ldy, 1);
}

/* One tile of 16 rows x N tokens, f32 activations. */
INLINE void w8a16_tile(const matrix *m, int tile, const float *x, float *y, size_t ldy, const int N) {
    const uint8_t *w = (const uint8_t *)m->data + (size_t)tile * int8_tile_bytes(m->cols);
    const size_t cols = (size_t)m->cols;
    vf total[INT8_TOKENS];
    UNROLL for (int t = 0; t < N; t++) total[t] = vf_set1(0);
    for (size_t k = 0; k < cols;) {
        const size_t end = k + INT8_GROUP < cols ? k + INT8_GROUP : cols;
        vf acc[INT8_TOKENS];
        UNROLL for (int t = 0; t < N; t++) acc[t] = vf_set1(0);
        for (; k < end; w += 4 * INT8_ROWS) {
            vi bytes = vi_load(w);
            for (int j = 0; j < 4 && k < end; j++, k++) {
                vf wv = vf_sub(vf_from_byte(bytes, j), vf_set1(128));
                UNROLL for (int t = 0; t < N; t++) acc[t] =
                    vf_fma(wv, vf_set1(x[(size_t)t * cols + k]), acc[t]);
            }
        }
        vf scale = vf_load((const float *)(const void *)w);
        UNROLL for (int t = 0; t < N; t++) total[t] = vf_fma(acc[t], scale, total[t]);
        w += INT8_ROWS * sizeof(float);
    }
    UNROLL for (int t = 0; t < N; t++) store_tile(m, tile, total[t], y + (size_t)t * ldy);
}

static void matmul_w8a16(const matrix *m, int row0, int row1, const activations *in, int n, float *y,
                         size_t ldy) {
    const size_t cols = (size_t)m->cols;
    for (int tile = row0 / INT8_ROWS; tile * INT8_ROWS < row1; tile++) {
        int t = 0;
        for (; t + INT8_TOKENS <= n; t += INT8_TOKENS) {
            w8a16_tile(m, tile, in->x + (size_t)t * cols, y + (size_t)t * ldy, ldy, INT8_TOKENS);
        }
        for (; t < n; t++) w8a16_tile(m, tile, in->x + (size_t)t * cols, y + (size_t)t * ldy, ldy, 1);
    }
}
