/* What the machine can do at best, a part of kernels_body.h: the same loads and multiplications as the matmuls, and nothing else.
 * KEEP makes the compiler believe that a vector is used.
 */

static void probe_read(const void *p, size_t n) {
    const unsigned char *at = p;
    vi v[4];
    for (size_t i = 0; i + 4 * TILE_LANES * UNIT_BYTES <= n; i += 4 * TILE_LANES * UNIT_BYTES) {
        UNROLL for (int j = 0; j < 4; j++) {
            v[j] = vi_load(at + i + (size_t)j * TILE_LANES * UNIT_BYTES);
            KEEP_INT(v[j]);
        }
    }
}

/* As many chains of sums as a full tile has */
enum { PROBE_CHAINS = TILED_ROWS * TILED_TOKENS };

static double probe_int8(int rounds) {
    static const uint8_t w[TILE_LANES * UNIT_BYTES];
    static const int8_t x[UNIT_BYTES];
    const vq weights = vq_load(w);
    vi acc[PROBE_CHAINS];
    UNROLL for (int c = 0; c < PROBE_CHAINS; c++) acc[c] = vi_start(0);
    for (int i = 0; i < rounds; i++) {
        UNROLL for (int c = 0; c < PROBE_CHAINS; c++) acc[c] = vi_dot(acc[c], weights, x);
        UNROLL for (int c = 0; c < PROBE_CHAINS; c++) KEEP_INT(acc[c]);
    }
    return 2.0 * TILE_LANES * UNIT_BYTES * PROBE_CHAINS * rounds;
}

#ifdef KERNELS_HAVE_BF16
static double probe_bf16(int rounds) {
    static const unsigned char w[TILE_LANES * UNIT_BYTES], x[UNIT_BYTES];
    const vi weights = vi_load(w);
    vf acc[PROBE_CHAINS];
    UNROLL for (int c = 0; c < PROBE_CHAINS; c++) acc[c] = vf_set1(0);
    for (int i = 0; i < rounds; i++) {
        UNROLL for (int c = 0; c < PROBE_CHAINS; c++) acc[c] = vf_dot_bf16(acc[c], weights, x);
        UNROLL for (int c = 0; c < PROBE_CHAINS; c++) KEEP_FLOAT(acc[c]);
    }
    return 2.0 * TILE_LANES * 2 * PROBE_CHAINS * rounds;
}
#endif

static double probe_multiply(matrix_format f, int rounds) {
#ifdef KERNELS_HAVE_BF16
    if (f == MATRIX_BF16_TILED) return probe_bf16(rounds);
#endif
    return f == MATRIX_W8A8 ? probe_int8(rounds) : 0;
}
