/* bfloat16 of the shim: see cuda_runtime.h. */
#ifndef SIMT_CUDA_BF16_H
#define SIMT_CUDA_BF16_H

#include "cuda_runtime.h"

struct __nv_bfloat16 {
    uint16_t bits;
    static float from_bits(uint16_t b) { return __uint_as_float((unsigned)b << 16); }
};
static inline float __bfloat162float(__nv_bfloat16 x) {
    return __nv_bfloat16::from_bits(x.bits);
}
/* To nearest, ties to even; NaN stays NaN. */
static inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned u = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

#endif
