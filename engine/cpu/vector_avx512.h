/* The vector of kernels_body.h for AVX-512 (F, BW, VL, DQ). Included by the files that are compiled with those flags. */
#ifndef ENGINE_CPU_VECTOR_AVX512_H
#define ENGINE_CPU_VECTOR_AVX512_H

#include "engine/cpu/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef __m512 vf;
typedef __m512i vi;

/* 24 accumulators, 4 rows of weights and a vector of x fill the 32 registers */
#define TILE_ROWS     4
#define TILE_TOKENS   6
#define TILED_TOKENS  8
#define TILED_ROWS    2
#define ATTEND_TILE   8
#define ATTEND_SUMS   16

#define KEEP_INT(v)   __asm__ volatile("" : "+v"(v))
#define KEEP_FLOAT(v) __asm__ volatile("" : "+v"(v))

static inline __mmask16 first(int n) {
    return (__mmask16)((1u << n) - 1);
}

static inline vf vf_set1(float a) {
    return _mm512_set1_ps(a);
}
static inline vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
static inline vf vf_load_n(const float *p, int n) {
    return _mm512_maskz_loadu_ps(first(n), p);
}
static inline void vf_store_n(float *p, vf v, int n) {
    _mm512_mask_storeu_ps(p, first(n), v);
}

static inline vf vf_from_bf16(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline vf vf_load_bf16(const uint16_t *p) {
    return vf_from_bf16(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vf_load_bf16_n(const uint16_t *p, int n) {
    return vf_from_bf16(_mm256_maskz_loadu_epi16(first(n), p));
}
static inline vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vf_load_f16_n(const uint16_t *p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
}

/* To nearest, ties to even, without the BF16 extension */
static inline void vf_store_bf16(uint16_t *p, vf v) {
    __m512i u = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    u = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16)));
}

static inline vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
static inline vf vf_scale2(vf a, vf n) {
    return _mm512_scalef_ps(a, n);
}

static inline float vf_sum(vf v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline float vf_top(vf v) {
    return _mm512_reduce_max_ps(v);
}

static inline vf vf_from_int(vi v) {
    return _mm512_cvtepi32_ps(v);
}

/* To whole numbers, ties to even, as bytes. The values are within -127 .. 127. */
static inline void vf_store_int8(int8_t *p, vf v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

static inline vf vf_abs(vf v) {
    return _mm512_abs_ps(v);
}

/* Byte j of each 32-bit lane, as a number */
static inline vf vf_from_byte(vi v, int j) {
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)j * 8), _mm512_set1_epi32(0xff)));
}

static inline vf vf_load_int8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

static inline vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}

/* Of 16 pairs of bf16, the first of each, the second; and the pairs with nothing for the second. */
static inline vf vf_low_bf16(vi v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
static inline vf vf_high_bf16(vi v) {
    return _mm512_castsi512_ps(_mm512_andnot_si512(_mm512_set1_epi32(0xffff), v));
}
static inline vi vi_low_halves(vi v) {
    return _mm512_and_si512(v, _mm512_set1_epi32(0xffff));
}

#endif
