/* Kernels for AVX-512 with VNNI: four products of bytes and their sum in one instruction. Reached only through
 * kernels_select.
 */
#include "engine/cpu/vector_avx512.h"

typedef __m512i vq;

static inline vq vq_load(const uint8_t *p) {
    return _mm512_loadu_si512(p);
}

/* The weights are stored 128 too high, as the instruction wants them; what that adds is known per token. */
static inline vi vi_start(int32_t offset) {
    return _mm512_set1_epi32(offset);
}

static inline vi vi_dot(vi acc, vq w, vi x) {
    return _mm512_dpbusd_epi32(acc, w, x);
}

static inline vi vi_spread(const int8_t *four) {
    int32_t x;
    memcpy(&x, four, sizeof x);
    return _mm512_set1_epi32(x);
}

#define KERNELS_TABLE kernels_avx512_vnni
#define KERNELS_ISA   "avx512-vnni"
#include "engine/cpu/kernels_body.h"
