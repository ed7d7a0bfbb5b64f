/* float16 of the shim: see cuda_runtime.h. The host compiler's _Float16 does the rounding. */
#ifndef SIMT_CUDA_FP16_H
#define SIMT_CUDA_FP16_H

#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
    static float from_bits(uint16_t b) {
        _Float16 h;
        memcpy(&h, &b, sizeof h);
        return (float)h;
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
