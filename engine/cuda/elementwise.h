/* What stands between the matrix products: embedding, norms, activation. Each works on rows of a batch, one block a row, so a
 * row's result does not depend on the others. Launches do not wait; errors are seen by cudaGetLastError.
 */
#ifndef ENGINE_CUDA_ELEMENTWISE_H
#define ENGINE_CUDA_ELEMENTWISE_H

#include "engine/cuda/linear.h"

namespace cuda {

/* x [n][hidden] = the embeddings' rows `ids`. The embeddings are stored, or the 8-bit head of a model that ties them. */
template <typename T> void embed(const linear &embeddings, const int *ids, int n, float *x, cudaStream_t s);

/* x += add (where not NULL); out = x / rms(x) * weight. x and add [..][hidden], out [n][pitch]. Row i of out is of row
 * rows[i] of x and add, or of row i where rows is NULL. */
template <typename T>
void add_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden, float eps,
              T *out, int pitch, cudaStream_t s);

/* out [n][pitch] = silu(gate) * up, of gate_up [n][2 * width]: gates, then ups */
template <typename T> void gated(const float *gate_up, int n, int width, T *out, int pitch, cudaStream_t s);

} // namespace cuda

#endif
