/* Matrix products by cuBLASLt, for engines that need not give the same bits in every batch (backend_options.any_order): the
 * library chooses tiles and the order of sums by the number of tokens.
 *
 * Stored weights are multiplied as they lie. 8-bit ones are first widened to the type of the activations, some rows at a
 * time, which pays from WIDEN_TOKENS up; fewer tokens read the weights once and are linear_forward's. Weights and activations in e4m3
 * are multiplied as they are, from as many tokens up, where library and GPU know a scale for each 128 columns of both: cuBLAS
 * 12.9 and sm_90. Of whole numbers the library knows one scale a matrix.
 *
 * The library is loaded when it is first needed; an engine that is deterministic needs none. One device, one host thread.
 */
#ifndef ENGINE_CUDA_CUBLAS_H
#define ENGINE_CUDA_CUBLAS_H

#include "engine/cuda/linear.h"

extern "C" {
#include "engine/error.h"
}

namespace cuda {

constexpr int WIDEN_TOKENS = 64;

/* On the device, of the caller. */
struct cublas_room {
    void *work; /* the library's own */
    size_t work_bytes;
    void *wide; /* widened rows, of any matrix one fits; or scales. NULL where no weights are of 8 bits */
    size_t wide_bytes;
};

struct cublas;
cublas *cublas_new(const cublas_room &room, engine_error *err);
void cublas_free(cublas *c);

/* As linear_forward: 1. 0 where nothing was done, because these products are not the library's, or it has no way to compute
 * them: then linear_forward has. -1 with err. */
template <typename T>
int cublas_forward(cublas *c, const linear &w, const T *x, int n, float *y, int y_stride, cudaStream_t s,
                   engine_error *err);
/* The same of activations in w's own 8-bit format. */
int cublas_forward(cublas *c, const linear &w, const rounded &x, int n, float *y, int y_stride,
                   cudaStream_t s, engine_error *err);

} // namespace cuda

#endif
