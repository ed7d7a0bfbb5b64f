/* Drawing a token where its logits are: the same token that the engine's sampler (engine/sample.h) draws from the same logits, with the
 * same penalties and masks. Only where log probabilities are asked for is it drawn there.
 *
 * What the filters leave is found by radix selection over (logit, id), whose histograms are of whole numbers and so the same
 * whichever thread adds first.
 *
 * Launches do not wait; errors are seen by cudaGetLastError.
 */
#ifndef ENGINE_CUDA_SAMPLE_H
#define ENGINE_CUDA_SAMPLE_H

#include "engine/cuda/device.h"

extern "C" {
#include "engine/backend.h"
}

namespace cuda {

constexpr int SAMPLE_CHUNK = 256; /* as the engine's sampler sums */

struct draw_row {
    int vocab;          /* ids below this are drawn; 0: the row is not drawn here */
    float factor;       /* 1 / temperature; 0: the likeliest */
    int top_k;          /* 0: off */
    float top_p, min_p; /* 1, 0: off */
    double u;           /* the random number of this seed and position */
    /* What the logits become first: of draw_changes */
    int first_change, changes;
    float presence, frequency, repetition;
    int coming = -1; /* place of a token that was said once more than the changes know; -1: they know all */
    int mask = -1;   /* all may be drawn */
};

/* On the device, of all rows. */
struct draw_changes {
    const int *tokens; /* of the batch */
    const logit_change *changes;
    const uint64_t *masks; /* [..][words] */
    int words;
};

struct draw_room {  /* on the device, for each row */
    float *highest; /* [rows][chunks]: logit */
    double *sum;    /* [rows][chunks]: of the weights */
    int chunks;     /* of the longest row */
};

__host__ __device__ constexpr int sample_chunks(int vocab) {
    return (vocab + SAMPLE_CHUNK - 1) / SAMPLE_CHUNK;
}

constexpr int mask_words(int vocab) {
    return (vocab + 63) / 64;
}

/* ids[i] of row i of logits [n][stride], or DRAWN_…; logits that are changed stay so. */
void sample_rows(float *logits, int stride, const draw_row *rows, int n, const draw_changes &changes,
                 const draw_room &room, int *ids, cudaStream_t s);

} // namespace cuda

#endif
