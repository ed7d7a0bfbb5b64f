/* Kernels for AVX-512 without its dot products of bytes; reached only through kernels_select. */
#include "engine/cpu/vector_avx512.h"

/* 64 bytes of weights, apart in size and sign: there is a product of unsigned with signed bytes only. */
typedef struct vq {
    __m512i size;
    __mmask64 negative;
} vq;

static inline vq vq_load(const uint8_t *p) {
    __m512i w = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)0x80));
    return (vq){_mm512_abs_epi8(w), _mm512_movepi8_mask(w)};
}

static inline vi vi_start(int32_t offset) {
    (void)offset;
    return _mm512_setzero_si512();
}

static inline vi vi_spread(const int8_t *four) {
    int32_t x;
    memcpy(&x, four, sizeof x);
    return _mm512_set1_epi32(x);
}

/* acc[i] += sum of 4 products; 2 * 127 * 127 fits the 16 bits of the first step */
static inline vi vi_dot(vi acc, vq w, const int8_t *four) {
    const vi x = vi_spread(four);
    __m512i sx = _mm512_mask_sub_epi8(x, w.negative, _mm512_setzero_si512(), x);
    __m512i pairs = _mm512_maddubs_epi16(w.size, sx);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

#define KERNELS_TABLE kernels_avx512
#define KERNELS_ISA   "avx512"
#include "engine/cpu/kernels_body.h"
