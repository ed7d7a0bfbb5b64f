/* The sampler's two loops over a piece of the vocabulary, for the best instruction set that the CPU has.
 *
 * All of them compute the same, bit for bit: the sums of 16 lanes in a fixed order, and no fused multiply-add.
 */
#ifndef ENGINE_SAMPLE_CHUNK_H
#define ENGINE_SAMPLE_CHUNK_H

typedef struct chunk_ops {
    /* The highest of x[0..n). *bad becomes NaN for ever when one is not a finite number. */
    float (*scan)(const float *x, int n, float *bad);
    /* w = exp((x - best) * factor), where best is not below any x; returns their sum. */
    double (*weigh)(float *w, const float *x, int n, float best, float factor);
} chunk_ops;

const chunk_ops *chunk_ops_select(void);

extern const chunk_ops chunk_ops_generic, chunk_ops_avx2, chunk_ops_avx512;

#endif
