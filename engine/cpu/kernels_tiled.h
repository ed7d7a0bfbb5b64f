/* How the kernels of tiled formats walk; a part of kernels_body.h.
 *
 * A format gives the kernel of R tiles of 16 rows x N tokens, with R and N constant so that its accumulators live in
 * registers. TILED_MATMUL makes an instance of it for each N, and the matmul over them: every weight comes from memory once
 * for a block of tokens, and the walk does not change what is added to what in which order.
 *
 * While R tiles are multiplied, what comes after is fetched into L2, line by line at the pace of the multiplication: a tile is too
 * short for the CPU's own prefetchers, which have to find each new stream. With several tokens that is the R tiles after these. The
 * last tiles fetch from the thread's next matmul, so that memory has something to do while the threads wait for each other.
 */

/* 16 rows of one token's result; the last tile may have fewer. */
INLINE void store_tile(const matrix *m, int tile, vf v, float *y) {
    const int row = tile * TILE_LANES, left = lanes_left(row, m->rows);
    if (m->bias) v = vf_add(v, vf_load_n(m->bias + row, left));
    vf_store_n(y + row, v, left);
}

/* A single token is bounded by memory, and reads two streams of weights; with more tokens, the including file says how many
 * tiles (TILED_ROWS) and tokens (TILED_TOKENS) its registers hold. */
enum { TILED_STREAMS = 2 };

/* Tiles [tile, end) against one panel, of as many tokens as the instance is for; x and y begin with its first token. `next` is
 * what is read after them, or NULL. */
typedef void tile_run(const matrix *m, int tile, int end, const unsigned char *panel, const float *x,
                      float *y, size_t ldy, const unsigned char *next);

/* From an address in a tile to the same place in what is read next; a number, for the two are not of one object. */
INLINE size_t fetch_distance(const matrix *m, int tile, const unsigned char *next) {
    return next ? (size_t)((uintptr_t)next - (uintptr_t)matrix_tile(m, tile)) : 0;
}

/* For a single token, which waits for nothing but memory: as far ahead in each stream as memory takes to answer. Fetched a whole
 * tile ahead, lines come in an order that quick memory is a sixth slower at. */
enum { FETCH_AHEAD = (INT8_GROUP / UNIT_BYTES + 1) * TILE_LANES * UNIT_BYTES };

/* The same from a place in a tile with `left` bytes to the tile's end: a little ahead in the tile, and from near its end into what
 * is read next. */
INLINE size_t fetch_near(size_t left, size_t tile_bytes, size_t distance, const int N) {
    if (N > 1) return distance;
    if (left > FETCH_AHEAD) return FETCH_AHEAD;
    return distance ? distance - tile_bytes + FETCH_AHEAD : 0;
}

INLINE void fetch(const unsigned char *w, size_t distance) {
    __builtin_prefetch((const void *)((uintptr_t)w + distance), 0, 2);
}

/* Tokens whose panels stay in L3 while the weights stream past, in whole panels. Panels are read in order, which the CPU sees coming;
 * a block that fits L2 has the weights come from memory more often, which costs a tenth where rows are long. */
static int tiled_block(const activations *in) {
    const int fit = (int)((4 << 20) / in->packed_bytes) / TILED_TOKENS;
    return (fit < 2 ? 2 : fit) * TILED_TOKENS;
}

/* row0 is a multiple of 16. */
static void tiled_matmul(tile_run *const *run, const matrix *m, int row0, int row1, const activations *in,
                         int n, float *y, size_t ldy) {
    const int begin = row0 / TILE_LANES, end = (row1 + TILE_LANES - 1) / TILE_LANES, block = tiled_block(in);
    const size_t cols = (size_t)m->cols;
    if (n <= TILED_TOKENS) {
        run[n](m, begin, end, in->packed, in->x, y, ldy, in->next);
        return;
    }
    for (int first = 0; first < n; first += block) {
        const int last = n - first < block ? n : first + block;
        for (int tile = begin; tile < end; tile += TILED_ROWS) {
            const int stop = end - tile < TILED_ROWS ? end : tile + TILED_ROWS;
            const unsigned char *next = stop < end ? matrix_tile(m, stop) : in->next;
            for (int t = first; t < last; t += TILED_TOKENS) {
                const int width = last - t < TILED_TOKENS ? last - t : TILED_TOKENS;
                run[width](m, tile, stop, in->packed + (size_t)t * in->packed_bytes, in->x + (size_t)t * cols,
                           y + (size_t)t * ldy, ldy, t == first ? next : NULL);
            }
        }
    }
}

/* The rows of y lie far apart, and a store that misses the cache takes long: all are fetched while the sums are made. */
INLINE void fetch_outputs(float *y, size_t ldy, int tile, const int N) {
    UNROLL for (int t = 0; t < N; t++) __builtin_prefetch(y + (size_t)t * ldy + (size_t)tile * TILE_LANES, 1);
}

#define TILE_INSTANCE(name, n, most)                                                                         \
    static void name##_##n(const matrix *m, int tile, int end, const unsigned char *panel, const float *x,   \
                           float *y, size_t ldy, const unsigned char *next) {                                \
        for (; tile + (most) <= end; tile += (most)) {                                                       \
            const unsigned char *then = tile + (most) < end ? matrix_tile(m, tile + (most)) : next;          \
            for (int r = 0; r < (most); r++) fetch_outputs(y, ldy, tile + r, n);                             \
            name##_tile(m, tile, panel, x, y, ldy, fetch_distance(m, tile, then), most, n);                  \
        }                                                                                                    \
        for (; (most) > 1 && tile < end; tile++) {                                                           \
            const unsigned char *then = tile + 1 < end ? matrix_tile(m, tile + 1) : next;                    \
            name##_tile(m, tile, panel, x, y, ldy, fetch_distance(m, tile, then), 1, n);                     \
        }                                                                                                    \
    }
#define TILE_INSTANCES_4(name, single, most)                                                                 \
    TILE_INSTANCE(name, 1, single)                                                                           \
    TILE_INSTANCE(name, 2, most)                                                                             \
    TILE_INSTANCE(name, 3, most)                                                                             \
    TILE_INSTANCE(name, 4, most)
#define TILE_LIST_4(name) NULL, name##_1, name##_2, name##_3, name##_4
#if TILED_TOKENS == 8
#define TILE_INSTANCES(name, single, most)                                                                   \
    TILE_INSTANCES_4(name, single, most)                                                                     \
    TILE_INSTANCE(name, 5, most)                                                                             \
    TILE_INSTANCE(name, 6, most)                                                                             \
    TILE_INSTANCE(name, 7, most)                                                                             \
    TILE_INSTANCE(name, 8, most)
#define TILE_LIST(name) TILE_LIST_4(name), name##_5, name##_6, name##_7, name##_8
#else
#define TILE_INSTANCES TILE_INSTANCES_4
#define TILE_LIST      TILE_LIST_4
#endif

/* `single` tiles at once for one token, `most` for more */
#define TILED_MATMUL(name, single, most)                                                                     \
    TILE_INSTANCES(name, single, most)                                                                       \
    static void matmul_##name(const matrix *m, int row0, int row1, const activations *in, int n, float *y,   \
                              size_t ldy) {                                                                  \
        static tile_run *const run[] = {TILE_LIST(name)};                                                    \
        tiled_matmul(run, m, row0, row1, in, n, y, ldy);                                                     \
    }
