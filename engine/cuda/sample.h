/* Drawing a token where its logits are: by temperature, top_k, top_p and min_p the same token that the engine's sampler
 * (engine/sample.h) draws from the same logits. What goes by penalties, masks or log probabilities is drawn there.
 *
 * What the filters leave is found by radix selection over (logit, id), whose histograms are of whole numbers and so the same
 * whichever thread adds first.
 *
 * Launches do not wait; errors are seen by cudaGetLastError.
 */
#ifndef ENGINE_CUDA_SAMPLE_H
#define ENGINE_CUDA_SAMPLE_H

#include "engine/cuda/device.h"

namespace cuda {

constexpr int SAMPLE_CHUNK = 256; /* as the engine's sampler sums */

struct draw_row {
    int vocab;          /* ids below this are drawn; 0: the row is not drawn here */
    float factor;       /* 1 / temperature; 0: the likeliest */
    int top_k;          /* 0: off */
    float top_p, min_p; /* 1, 0: off */
    double u;           /* the random number of this seed and position */
};

struct draw_room {  /* on the device, for each row */
    float *highest; /* [rows][chunks]: logit */
    double *sum;    /* [rows][chunks]: of the weights */
    int chunks;     /* of the longest row */
};

__host__ __device__ constexpr int sample_chunks(int vocab) {
    return (vocab + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK;
}

/* ids[i] of row i of logits [n][stride]; -1 where nothing was asked for, -2 where a logit is not a number. */
void sample_rows(const float *logits, int stride, const draw_row *rows, int n, const draw_room &room,
                 int *ids, cudaStream_t s);

} // namespace cuda

#endif
