/* See elementwise.h. Nothing here is worth more than one pass over its rows. */
#include "engine/cuda/elementwise.h"
#include "engine/cuda/format.h"

namespace cuda {

namespace {

constexpr int THREADS = ROW_THREADS;

/* Over the block, in a fixed order; every thread gets the sum. */
__device__ float block_sum(float x) {
    __shared__ float of_warp[THREADS / 32];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    x = warp_sum(x);
    __syncthreads(); /* the last sum has been read */
    if (!lane) of_warp[warp] = x;
    __syncthreads();
    float sum = of_warp[0];
    for (int i = 1; i < THREADS / 32; i++) sum += of_warp[i];
    return sum;
}

template <typename T> __global__ void embed_rows(linear e, const int *ids, float *x) {
    const size_t row = (size_t)ids[blockIdx.x];
    float *out = x + (size_t)blockIdx.x * (size_t)e.cols;
    for (int i = (int)threadIdx.x; i < e.cols; i += THREADS) out[i] = linear_weight<T>(e, row, i);
}

template <typename T>
__global__ void add_norm_rows(float *x, const float *add, const float *weight, const int *rows, int hidden,
                              float eps, T *out, int pitch) {
    const size_t from = (size_t)(rows ? rows[blockIdx.x] : (int)blockIdx.x) * (size_t)hidden;
    float sum = 0;
    for (int i = (int)threadIdx.x; i < hidden; i += THREADS) {
        float v = x[from + (size_t)i];
        if (add) x[from + (size_t)i] = v = v + add[from + (size_t)i];
        sum = __fmaf_rn(v, v, sum);
    }
    const float scale = 1.0f / sqrtf(block_sum(sum) / (float)hidden + eps);
    T *to = out + (size_t)blockIdx.x * (size_t)pitch;
    for (int i = (int)threadIdx.x; i < hidden; i += THREADS)
        to[i] = narrow<T>(x[from + (size_t)i] * scale * weight[i]);
}

template <typename T> __global__ void gated_rows(const float *gate_up, int width, T *out, int pitch) {
    const float *gate = gate_up + (size_t)blockIdx.x * (size_t)(2 * width), *up = gate + width;
    T *to = out + (size_t)blockIdx.x * (size_t)pitch;
    for (int i = (int)threadIdx.x; i < width; i += THREADS)
        to[i] = narrow<T>(gate[i] / (1.0f + expf(-gate[i])) * up[i]);
}

} // namespace

template <typename T> void embed(const linear &e, const int *ids, int n, float *x, cudaStream_t s) {
    LAUNCH((embed_rows<T>), dim3((unsigned)n), dim3(THREADS), 0, s, e, ids, x);
}

template <typename T>
void add_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden, float eps,
              T *out, int pitch, cudaStream_t s) {
    LAUNCH((add_norm_rows<T>), dim3((unsigned)n), dim3(THREADS), 0, s, x, add, weight, rows, hidden, eps, out,
           pitch);
}

template <typename T> void gated(const float *gate_up, int n, int width, T *out, int pitch, cudaStream_t s) {
    LAUNCH((gated_rows<T>), dim3((unsigned)n), dim3(THREADS), 0, s, gate_up, width, out, pitch);
}

#define INSTANTIATE(T)                                                                                       \
    template void embed<T>(const linear &, const int *, int, float *, cudaStream_t);                         \
    template void add_norm<T>(float *, const float *, const float *, const int *, int, int, float, T *, int, \
                              cudaStream_t);                                                                 \
    template void gated<T>(const float *, int, int, T *, int, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

} // namespace cuda
