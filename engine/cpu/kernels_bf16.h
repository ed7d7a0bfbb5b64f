/* The kernels of bf16 in tiles, a part of kernels_body.h for CPUs that multiply bf16. Activations are rounded to bf16 too, as
 * the reference does; sums are in f32, one chain per output from the first column to the last.
 */

static void pack_bf16(unsigned char *panel, int place, int width, const float *x, int n, int from, int to) {
    (void)n;
    panel += (size_t)place * UNIT_BYTES + (size_t)from / 2 * UNIT_BYTES * (size_t)width;
    for (int i = from; i < to; i += KERNEL_LANES) {
        const int left = lanes_left(i, to);
        uint16_t narrow[KERNEL_LANES];
        vf_store_bf16(narrow, vf_load_n(x + i, left));
        for (int j = 0; j < left; j += 2, panel += (size_t)width * UNIT_BYTES)
            memcpy(panel, narrow + j, UNIT_BYTES);
    }
}

/* acc[r][t] += a part of the columns of the weights x activations; w and x walk on. */
INLINE void dot_pairs(const uint8_t *w, size_t stride, const unsigned char *x, size_t bytes, size_t ahead,
                      vf acc[][TILED_TOKENS], const int R, const int N) {
    for (; bytes > 0; bytes -= TILE_LANES * UNIT_BYTES) {
        vi wv[TILED_STREAMS];
        UNROLL for (int r = 0; r < R; r++) {
            wv[r] = vi_load(w + (size_t)r * stride);
            fetch(w + (size_t)r * stride, ahead);
        }
        UNROLL for (int t = 0; t < N; t++) {
            UNROLL for (int r = 0; r < R; r++) {
                acc[r][t] = vf_dot_bf16(acc[r][t], wv[r], x + t * UNIT_BYTES);
            }
        }
        w += TILE_LANES * UNIT_BYTES;
        x += N * UNIT_BYTES;
    }
}

enum { BF16_PART = 32 * TILE_LANES * UNIT_BYTES };

/* R tiles of 16 rows x N tokens */
INLINE void bf16_tiled_tile(const matrix *m, int tile, const unsigned char *x, const float *input, float *y,
                            size_t ldy, size_t ahead, const int R, const int N) {
    (void)input;
    const size_t stride = matrix_tile_bytes(MATRIX_BF16_TILED, m->cols);
    const uint8_t *w = matrix_tile(m, tile);
    vf acc[TILED_STREAMS][TILED_TOKENS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < N; t++) acc[r][t] = vf_set1(0);
    for (size_t left = stride; left > 0;) {
        const size_t part = left < BF16_PART ? left : BF16_PART;
        dot_pairs(w, stride, x, part, fetch_near(left, stride, ahead, N), acc, R, N);
        w += part;
        x += part / TILE_LANES * N;
        left -= part;
    }
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int t = 0; t < N; t++) store_tile(m, tile + r, acc[r][t], y + (size_t)t * ldy);
    }
}

TILED_MATMUL(bf16_tiled, TILED_STREAMS, TILED_ROWS)
