/* y = x . W^T + b on the GPU, for every number of tokens and every format of weights.
 *
 * A weight matrix lies as in the checkpoint, [rows][pitch], its rows padded with zeros to whole units of 128 columns; 8-bit
 * formats have a float scale for each unit of each row beside it. The input has the same pitch, and zeros there too.
 *
 * In 8 bits a product is of weights widened to the activations' type (W8A16), or of activations in the same format (W8A8), on
 * tensor cores for bytes: whole numbers, without rounding, for int8.
 *
 * Batch invariance: an output is summed in one order, whatever the batch. The units are cut into four segments; each is summed
 * from front to back in a chain of tensor-core operations, and the four sums are added in order. For few tokens four warps
 * take a segment each, so that enough loads are under way to keep the memory busy; for many, one warp takes them in turn.
 *
 * Launches belong to the stream's thread and do not wait; errors are seen by cudaGetLastError.
 */
#ifndef ENGINE_CUDA_LINEAR_H
#define ENGINE_CUDA_LINEAR_H

#include "engine/cuda/device.h"

namespace cuda {

constexpr int UNIT = 128; /* columns */

enum class format { stored, int8, fp8 }; /* stored: in the type of the activations */

struct linear {
    format kind;
    int rows, cols, pitch;
    void *weights; /* [rows][pitch] on the device */
    float *scales; /* [rows][pitch / UNIT]; NULL for stored ones */
    float *bias;   /* [rows], or NULL */
};

constexpr int linear_pitch(int cols) {
    return (cols + UNIT - 1) / UNIT * UNIT;
}

/* Activations in an 8-bit format, on the device: their rows are rounded as rows of weights are, each by itself. */
struct rounded {
    uint8_t *bytes; /* [n][pitch], zeros behind a row's end */
    float *scales;  /* [n][pitch / UNIT] */
};

/* y [n][y_stride] = x [n][w.pitch] . w^T + bias. T is the type of the activations. */
template <typename T>
void linear_forward(const linear &w, const T *x, int n, float *y, int y_stride, cudaStream_t s);
/* The same of activations in w's own 8-bit format. */
void linear_forward(const linear &w, const rounded &x, int n, float *y, int y_stride, cudaStream_t s);

/* w's rows [first, first + rows) in the type of the activations: out [rows][pitch]. Of an 8-bit format. */
template <typename T> void linear_widen(const linear &w, int first, int rows, T *out, cudaStream_t s);

/* Rounds rows of floats, halves or bf16 to an 8-bit format: from [rows][cols] to w's rows [first, first + rows). */
template <typename S>
void linear_quantise(const linear &w, int first, const S *from, int rows, cudaStream_t s);
/* The same for `stored`, converting between types where they differ. */
template <typename S, typename T>
void linear_store(const linear &w, int first, const S *from, int rows, cudaStream_t s);

} // namespace cuda

#endif
