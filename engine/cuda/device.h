/* What the kernels of this folder are written in: CUDA, with names for what they share. The same sources compile for a host
 * through the shim in tests/simt, so a kernel uses nothing of the device language that the shim lacks, and starts by LAUNCH.
 *
 * The types of activations (and of the KV cache) are float, __half and __nv_bfloat16, the `T` of the templates. Sums are
 * always in float. Half types are multiplied by tensor cores, sixteen rows at a time; float, which is there to be compared
 * with other implementations, by plain arithmetic.
 */
#ifndef ENGINE_CUDA_DEVICE_H
#define ENGINE_CUDA_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#if defined(__CUDACC__)
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                                     \
    (kernel)<<<grid, block, shared, stream>>>(__VA_ARGS__)
#else
#define LAUNCH(kernel, grid, block, shared, stream, ...)                                                     \
    simt::launch(grid, block, shared, stream, [=] { (kernel)(__VA_ARGS__); })
#endif

namespace cuda {

constexpr unsigned FULL = 0xffffffffu; /* all lanes of a warp */

/* Threads of a block that works on a row of the batch. A fibre costs more than a thread, and a test's rows are short. */
#if defined(__CUDACC__)
constexpr int ROW_THREADS = 256;
#else
constexpr int ROW_THREADS = 64;
#endif

__device__ __forceinline__ float widen(float x) {
    return x;
}
__device__ __forceinline__ float widen(__half x) {
    return __half2float(x);
}
__device__ __forceinline__ float widen(__nv_bfloat16 x) {
    return __bfloat162float(x);
}

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) {
    return x;
}
template <> __device__ __forceinline__ __half narrow<__half>(float x) {
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

/* Two values side by side in a register, the first in the lower half, as fragments want them. */
template <typename T> __device__ __forceinline__ uint32_t pair(float first, float second) {
    const T a = narrow<T>(first), b = narrow<T>(second);
    uint16_t low, high;
    memcpy(&low, &a, sizeof low);
    memcpy(&high, &b, sizeof high);
    return (uint32_t)high << 16 | low;
}

/* Adds over the lanes of a warp; every lane gets the sum. The order is a fixed tree. */
#if defined(__CUDACC__)
__device__ __forceinline__ float warp_sum(float x) {
    for (int offset = 16; offset; offset /= 2) x += __shfl_xor_sync(FULL, x, offset);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset; offset /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, offset));
    return x;
}
#else
static inline float warp_sum(float x) {
    return simt_fold(x, [](float a, float b) { return a + b; });
}
static inline float warp_max(float x) {
    return simt_fold(x, [](float a, float b) { return fmaxf(a, b); });
}
#endif

/* d[16 x 8] += a[16 x 16] b[16 x 8] by one warp. With g = lane / 4 and c = lane % 4 a lane holds
 *     a: rows g (0, 2) and g + 8 (1, 3), k = 2c and 2c + 1 (0, 1) and the same + 8 (2, 3)
 *     b: column g, k = 2c and 2c + 1 (0) and the same + 8 (1)
 *     d: row g (0, 1) and g + 8 (2, 3), columns 2c and 2c + 1
 * A sum over k may take its terms in any order as long as a and b agree, so the kernels here give lane c of a quad the k that
 * lie together in memory: see linear.cu. */
#if defined(__CUDACC__)
__device__ __forceinline__ void mma(__nv_bfloat16, float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma(__half, float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
template <typename T> static inline void mma(T, float d[4], const uint32_t a[4], const uint32_t b[2]) {
    simt_mma<T>(d, a, b);
}
#endif

} // namespace cuda

#endif
