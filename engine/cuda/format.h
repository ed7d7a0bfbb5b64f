/* The formats of weights and of rounded activations, value by value: for kernels that read and write them. */
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

/* To nearest, ties to even, up to 448. */
__device__ __forceinline__ uint8_t encode_e4m3(float x) {
    const uint8_t sign = x < 0 ? 0x80 : 0;
    const float size = fminf(fabsf(x), 448.0f);
    if (size < 0.015625f) return sign | (uint8_t)__float2int_rn(size * 512.0f); /* subnormal: steps of 2^-9 */
    uint32_t u = __float_as_uint(size);
    u = (u + 0x7ffff + (u >> 20 & 1)) >> 20; /* three bits of mantissa are left */
    return sign | (uint8_t)(u - ((127 - 7) << 3));
}

/* By one warp: the values of a unit, of which lane l has those of columns l, l + 32 and so on, become bytes; the largest gives
 * their scale. */
__device__ __forceinline__ void round_unit(format kind, const float v[UNIT / 32], uint8_t *bytes,
                                           float *scale) {
    const int lane = (int)threadIdx.x % 32;
    float largest = 0;
#pragma unroll
    for (int i = 0; i < UNIT / 32; i++) largest = fmaxf(largest, fabsf(v[i]));
    largest = warp_max(largest);
    const float most = kind == format::int8 ? 127.0f : 448.0f, inverse = largest > 0 ? most / largest : 0;
#pragma unroll
    for (int i = 0; i < UNIT / 32; i++)
        bytes[i * 32 + lane] = kind == format::int8 ? (uint8_t)(int8_t)__float2int_rn(v[i] * inverse)
                                                    : encode_e4m3(v[i] * inverse);
    if (!lane) *scale = largest / most;
}

} // namespace cuda

#endif
