/* float16 of the shim: see cuda_runtime.h. The host compiler's _Float16 does the rounding; the way back is what a test does
 * most, and without a call. */
#ifndef SIMT_CUDA_FP16_H
#define SIMT_CUDA_FP16_H

#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
    static float from_bits(uint16_t b) {
        const unsigned sign = (unsigned)(b & 0x8000) << 16, rest = b & 0x7fff;
        if (rest >= 0x7c00) return __uint_as_float(sign | 0x7f800000 | rest << 13); /* infinity, NaN */
        return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 13) * 0x1p112f));
    }
};
static inline float __half2float(__half x) {
    return __half::from_bits(x.bits);
}
static inline __half __float2half_rn(float x) {
    const _Float16 h = (_Float16)x;
    __half out;
    memcpy(&out.bits, &h, sizeof out.bits);
    return out;
}

#endif
