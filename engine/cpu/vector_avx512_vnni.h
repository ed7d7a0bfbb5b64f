/* The 8-bit products of kernels_int8.h for AVX-512 with VNNI: four products of bytes and their sum in one instruction. */
#ifndef ENGINE_CPU_VECTOR_AVX512_VNNI_H
#define ENGINE_CPU_VECTOR_AVX512_VNNI_H

#include "engine/cpu/vector_avx512.h"

typedef __m512i vq;

static inline vq vq_load(const uint8_t *p) {
    return _mm512_loadu_si512(p);
}

/* The weights are stored 128 too high, as the instruction wants them; what that adds is known per token. */
static inline vi vi_start(int32_t offset) {
    return _mm512_set1_epi32(offset);
}

/* acc[i] += 4 products, of the weights of row i with the same 4 activations for all. Written out because gcc 12 copies the
 * accumulators of a loop full of the intrinsic around, which halves its speed. */
static inline vi vi_dot(vi acc, vq w, const int8_t *four) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const int8_t(*)[4])four));
    return acc;
}

#endif
