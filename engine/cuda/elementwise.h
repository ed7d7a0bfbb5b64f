/* What stands between the matrix products: embedding, norms, activation, rounding, sums of ranks. Each works on rows of a batch, one block a row,
 * so a row's result does not depend on the others. Launches do not wait; errors are seen by cudaGetLastError.
 *
 * What is the next product's input comes in the type of the activations, or rounded to an 8-bit format in the same pass.
 */
#ifndef ENGINE_CUDA_ELEMENTWISE_H
#define ENGINE_CUDA_ELEMENTWISE_H

#include "engine/cuda/linear.h"

namespace cuda {

/* x [n][hidden] = the embeddings' rows `ids`. The embeddings are stored, or the 8-bit head of a model that ties them. An id below 0
 * becomes the token that was drawn in row -1 - id of the pass before. */
template <typename T>
void embed(const linear &embeddings, int *ids, const int *drawn, int n, float *x, cudaStream_t s);

/* x += add (where not NULL); out = x / rms(x) * weight. x and add [..][hidden], out [n][pitch]. Row i of out is of row
 * rows[i] of x and add, or of row i where rows is NULL. */
template <typename T>
void add_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden, float eps,
              T *out, int pitch, cudaStream_t s);
void add_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden, float eps,
              format kind, const rounded &out, cudaStream_t s);

/* out [n][pitch] = silu(gate) * up, of gate_up [n][2 * width]: gates, then ups */
template <typename T> void gated(const float *gate_up, int n, int width, T *out, int pitch, cudaStream_t s);
void gated(const float *gate_up, int n, int width, format kind, const rounded &out, cudaStream_t s);

/* out = x [n][pitch], of which the first `width` of a row are read */
void round_rows(const float *x, int n, int width, int pitch, format kind, const rounded &out, cudaStream_t s);

/* x [n] = the sum of parts [ranks][n], by rank */
void add_parts(float *x, const float *parts, size_t n, int ranks, cudaStream_t s);

} // namespace cuda

#endif
