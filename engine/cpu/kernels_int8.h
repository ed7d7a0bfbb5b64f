/* The 8-bit kernels, a part of kernels_body.h: weights as quantised and interleaved by matrix.c.
 *
 * W8A8: activations are quantised too, per token and group of columns, and multiplied in whole numbers, which are exact
 * and so the same on every CPU; the sum of a group is scaled and added in f32, group after group.
 * W8A16: the same weights widened to f32, against f32 activations; for accuracy.
 */

/* Returns the scale of n values that become bytes, which have room for whole vectors. */
INLINE float quantise_group(int8_t *bytes, const float *x, int n) {
    vf top = vf_set1(0);
    for (int i = 0; i < n; i += KERNEL_LANES) top = vf_max(top, vf_abs(vf_load_n(x + i, lanes_left(i, n))));
    const float largest = vf_top(top);
    const vf inverse = vf_set1(largest > 0 ? 127.0f / largest : 0);
    for (int i = 0; i < n; i += KERNEL_LANES)
        vf_store_int8(bytes + i, vf_mul(vf_load_n(x + i, lanes_left(i, n)), inverse));
    return largest / 127.0f;
}

static void pack_int8(unsigned char *panel, int place, int width, const float *x, int n, int from, int to) {
    const size_t units = unit_bytes(MATRIX_W8A8, n), across = (size_t)width,
                 skipped = (size_t)(from / INT8_GROUP) * across;
    float *scale = (float *)(void *)(panel + units * across) + place + skipped;
    int32_t *offset =
        (int32_t *)(void *)(panel + units * across) + (size_t)int8_groups(n) * across + place + skipped;
    panel += (size_t)place * UNIT_BYTES + (size_t)from * across;
    for (; from < to; from += INT8_GROUP) {
        const int count = to - from < INT8_GROUP ? to - from : INT8_GROUP;
        int8_t bytes[INT8_GROUP] = {0};
        int32_t sum = 0;
        *scale = quantise_group(bytes, x + from, count);
        for (int i = 0; i < INT8_GROUP; i++) sum += bytes[i];
        *offset = -128 * sum;
        for (int i = 0; i < count; i += UNIT_BYTES, panel += across * UNIT_BYTES)
            memcpy(panel, bytes + i, UNIT_BYTES);
        scale += across;
        offset += across;
    }
}

/* acc[r][t] += one group of weights x activations; w walks on. */
INLINE const uint8_t *dot_group(const uint8_t *w, size_t stride, const int8_t *x, int units, size_t ahead,
                                vi acc[][TILED_TOKENS], const int R, const int N) {
    for (; units > 0; units--, w += TILE_LANES * UNIT_BYTES, x += N * UNIT_BYTES) {
        vq wv[TILED_STREAMS];
        UNROLL for (int r = 0; r < R; r++) {
            wv[r] = vq_load(w + (size_t)r * stride);
            fetch(w + (size_t)r * stride, ahead);
        }
        UNROLL for (int t = 0; t < N; t++) {
            UNROLL for (int r = 0; r < R; r++) acc[r][t] = vi_dot(acc[r][t], wv[r], x + t * UNIT_BYTES);
        }
    }
    return w;
}

/* R tiles of 16 rows x N tokens */
INLINE void w8a8_tile(const matrix *m, int tile, const unsigned char *panel, const float *input, float *y,
                      size_t ldy, size_t ahead, const int R, const int N) {
    (void)input;
    const size_t stride = matrix_tile_bytes(MATRIX_W8A8, m->cols), units = unit_bytes(MATRIX_W8A8, m->cols);
    const uint8_t *w = matrix_tile(m, tile);
    const int8_t *x = (const int8_t *)panel;
    const float *scale = (const float *)(const void *)(panel + units * (size_t)N);
    const int32_t *offset = (const int32_t *)(const void *)scale + int8_groups(m->cols) * N;
    vf total[TILED_STREAMS][TILED_TOKENS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < N; t++) total[r][t] = vf_set1(0);
    for (int left = (int)(units / UNIT_BYTES); left > 0; left -= INT8_GROUP / UNIT_BYTES) {
        const int count = left < INT8_GROUP / UNIT_BYTES ? left : INT8_GROUP / UNIT_BYTES;
        vi acc[TILED_STREAMS][TILED_TOKENS];
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < N; t++) acc[r][t] = vi_start(offset[t]);
        const size_t read = (size_t)(w - (const uint8_t *)matrix_tile(m, tile)),
                     fetched = fetch_near(stride - read, stride, ahead, N);
        w = dot_group(w, stride, x, count, fetched, acc, R, N);
        UNROLL for (int r = 0; r < R; r++) {
            vf ws = vf_load((const float *)(const void *)(w + (size_t)r * stride));
            fetch(w + (size_t)r * stride, fetched);
            UNROLL for (int t = 0; t < N; t++) {
                total[r][t] = vf_fma(vf_from_int(acc[r][t]), vf_mul(ws, vf_set1(scale[t])), total[r][t]);
            }
        }
        w += TILE_LANES * sizeof(float);
        x += (size_t)count * UNIT_BYTES * N;
        scale += N;
        offset += N;
    }
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int t = 0; t < N; t++) store_tile(m, tile + r, total[r][t], y + (size_t)t * ldy);
    }
}

/* The same with f32 activations, one tile at a time */
INLINE void w8a16_tile(const matrix *m, int tile, const unsigned char *panel, const float *x, float *y,
                       size_t ldy, size_t ahead, const int R, const int N) {
    (void)panel;
    (void)R;
    const size_t cols = (size_t)m->cols;
    const uint8_t *w = matrix_tile(m, tile);
    vf total[TILED_TOKENS];
    UNROLL for (int t = 0; t < N; t++) total[t] = vf_set1(0);
    for (size_t k = 0; k < cols;) {
        const size_t end = k + INT8_GROUP < cols ? k + INT8_GROUP : cols;
        vf acc[TILED_TOKENS];
        UNROLL for (int t = 0; t < N; t++) acc[t] = vf_set1(0);
        for (; k < end; w += TILE_LANES * UNIT_BYTES) {
            vi bytes = vi_load(w);
            fetch(w, ahead);
            for (int j = 0; j < UNIT_BYTES && k < end; j++, k++) {
                vf wv = vf_sub(vf_from_byte(bytes, j), vf_set1(128));
                UNROLL for (int t = 0; t < N; t++) acc[t] =
                    vf_fma(wv, vf_set1(x[(size_t)t * cols + k]), acc[t]);
            }
        }
        vf scale = vf_load((const float *)(const void *)w);
        UNROLL for (int t = 0; t < N; t++) total[t] = vf_fma(acc[t], scale, total[t]);
        w += TILE_LANES * sizeof(float);
    }
    UNROLL for (int t = 0; t < N; t++) store_tile(m, tile, total[t], y + (size_t)t * ldy);
}

TILED_MATMUL(w8a8, TILED_STREAMS, TILED_ROWS)
TILED_MATMUL(w8a16, 1, 1)
