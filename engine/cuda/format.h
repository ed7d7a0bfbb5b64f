/* The formats of weights, value by value: for kernels that read them. */
#ifndef ENGINE_CUDA_FORMAT_H
#define ENGINE_CUDA_FORMAT_H

#include "engine/cuda/linear.h"

namespace cuda {

/* The value of a byte, without its unit's scale. */
template <format F> __device__ __forceinline__ float decode(uint32_t byte);
template <> __device__ __forceinline__ float decode<format::int8>(uint32_t byte) {
    return (float)(int8_t)byte;
}
/* e4m3's exponent and mantissa are those of a half, 2^8 too small. Exact, subnormals included. */
template <> __device__ __forceinline__ float decode<format::fp8>(uint32_t byte) {
    const uint16_t bits = (uint16_t)((byte & 0x80) << 8 | (byte & 0x7f) << 7);
    __half h;
    memcpy(&h, &bits, sizeof h);
    return __half2float(h) * 256.0f;
}

/* One weight of a matrix whose activations are of type T. */
template <typename T> __device__ __forceinline__ float linear_weight(const linear &w, size_t row, int k) {
    const size_t at = row * (size_t)w.pitch + (size_t)k;
    if (w.kind == format::stored) return widen(((const T *)w.weights)[at]);
    const uint32_t byte = ((const uint8_t *)w.weights)[at];
    const float value = w.kind == format::int8 ? decode<format::int8>(byte) : decode<format::fp8>(byte);
    return value * w.scales[row * (size_t)(w.pitch / UNIT) + (size_t)(k / UNIT)];
}

} // namespace cuda

#endif
