/* The arithmetic of a forward pass, one table per instruction set.
 *
 * Every kernel's result for a token is bitwise the same whatever else is in the call: sums run over the inner dimension in
 * 16 lanes that are folded in one fixed tree, whatever the tile. The tables differ in rounding only (fused or not).
 */
#ifndef ENGINE_CPU_KERNELS_H
#define ENGINE_CPU_KERNELS_H

#include "engine/cpu/kv_layout.h"
#include "engine/cpu/matrix.h"
#include "engine/error.h"

#include <stddef.h>
#include <stdint.h>

enum {
    KERNEL_LANES = 16, /* sizes in the KV cache are multiples of it */
    ATTEND_ROWS = 8,   /* most query rows in one call of attend */
};

/* Attention of a few query rows (heads of a group, and neighbouring tokens) that share one KV head of one sequence. */
typedef struct attend_args {
    const kv_layout *kv;
    const unsigned char *head; /* this head in physical block 0 */
    const int32_t *blocks;
    int rows;
    const float *q[ATTEND_ROWS]; /* [head_dim] each */
    float *out[ATTEND_ROWS];
    int limit[ATTEND_ROWS]; /* positions it sees, >= 1, not decreasing */
    float scale;
    float *scores; /* [ATTEND_ROWS][scores_stride] of scratch */
    size_t scores_stride;
} attend_args;

/* The input of a matmul: rows of f32, and for tiled formats the same packed, in panels of as many tokens as a kernel takes at
 * once (the last panel is of what is left). A panel has for each unit (matrix.h) 4 bytes of each of its tokens, side by side;
 * then, for 8 bits, for each group the scale of each token, and likewise what the weights' offset of 128 adds to its sum. */
typedef struct activations {
    const float *x;              /* [ntokens, cols] */
    const unsigned char *packed; /* the panel that begins with token t is at t * packed_bytes */
    size_t packed_bytes;         /* of a token: matrix_packed_bytes() */
    const unsigned char
        *next; /* weights that this thread reads after these, to be fetched meanwhile; NULL: none */
} activations;

typedef void matmul_kernel(const matrix *w, int row0, int row1, const activations *in, int ntokens, float *y,
                           size_t y_stride);

typedef struct kernels {
    const char *isa;
    /* y[t][r] = x[t] . w[r] + bias[r] for rows row0 <= r < row1; NULL where another format does it better */
    matmul_kernel *matmul[MATRIX_FORMATS];
    /* columns [from, to) of the n activations of one token into its place among `width` in a panel; from is a multiple of
     * INT8_GROUP, and to as well or n; NULL where matmul reads f32 */
    void (*pack[MATRIX_FORMATS])(unsigned char *panel, int place, int width, const float *x, int n, int from,
                                 int to);
    int panel_tokens;
    /* out[0..n) = a row of weights in f32 */
    void (*widen)(float *out, const void *row, dtype type, int n);
    /* x += add (where not NULL); out = x / rms(x) * w */
    void (*add_rmsnorm)(float *out, float *x, const float *add, const float *w, int n, float eps);
    /* rotates the pairs (i, i + half) */
    void (*rope)(float *x, const float *cos, const float *sin, int half);
    /* gate = silu(gate) * up */
    void (*swiglu)(float *gate, const float *up, int n);
    /* k and v of one token into a slot of its block */
    void (*kv_put)(const kv_layout *kv, unsigned char *head, int slot, const float *k, const float *v);
    void (*attend)(const attend_args *a);
    /* To measure ceilings with: reads n bytes, a multiple of 64, in order; and rounds of nothing but the multiplication of a
     * tiled format, whose operations are returned (0 where there is none). */
    void (*probe_read)(const void *p, size_t n);
    double (*probe_multiply)(matrix_format f, int rounds);
} kernels;

/* The best table for this CPU, or the one named. NULL with err when it is unknown or the CPU lacks it. */
const kernels *kernels_select(const char *isa, engine_error *err);

extern const kernels kernels_generic;
#if defined(__x86_64__)
extern const kernels kernels_avx2, kernels_avx512, kernels_avx512_vnni, kernels_avx512_bf16;
#endif

#endif
