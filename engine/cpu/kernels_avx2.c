/* Kernels for AVX2 with FMA and F16C; compiled with those flags, reached only through kernels_select. A vector of 16 is a
 * pair of registers, so its sums are those of AVX-512 bit for bit.
 */
#include "engine/cpu/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef struct vf {
    __m256 lo, hi;
} vf;

typedef struct vi {
    __m256i lo, hi;
} vi;

#define TILE_ROWS    2
#define TILE_TOKENS  2
#define TILED_TOKENS 4
#define TILED_ROWS   1
#define ATTEND_TILE  4
#define ATTEND_SUMS  4

#define KEEP_INT(v)  __asm__ volatile("" : "+x"((v).lo), "+x"((v).hi))

static inline vf vf_set1(float a) {
    return (vf){_mm256_set1_ps(a), _mm256_set1_ps(a)};
}
static inline vf vf_load(const float *p) {
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void vf_store(float *p, vf v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}

static inline vf vf_load_n(const float *p, int n) {
    float a[16] = {0};
    memcpy(a, p, (size_t)n * sizeof *p);
    return vf_load(a);
}

static inline void vf_store_n(float *p, vf v, int n) {
    float a[16];
    vf_store(a, v);
    memcpy(p, a, (size_t)n * sizeof *p);
}

static inline __m256 widen_bf16(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline vf vf_load_bf16(const uint16_t *p) {
    const __m128i *h = (const __m128i *)p;
    return (vf){widen_bf16(_mm_loadu_si128(h)), widen_bf16(_mm_loadu_si128(h + 1))};
}

static inline vf vf_load_f16(const uint16_t *p) {
    const __m128i *h = (const __m128i *)p;
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}

static inline vf vf_load_bf16_n(const uint16_t *p, int n) {
    uint16_t a[16] = {0};
    memcpy(a, p, (size_t)n * sizeof *p);
    return vf_load_bf16(a);
}

static inline vf vf_load_f16_n(const uint16_t *p, int n) {
    uint16_t a[16] = {0};
    memcpy(a, p, (size_t)n * sizeof *p);
    return vf_load_f16(a);
}

/* To nearest, ties to even */
static inline __m256i round_bf16(__m256 v) {
    __m256i u = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}

static inline void vf_store_bf16(uint16_t *p, vf v) {
    /* packus works within 128-bit halves, so the quarters are put back in order */
    __m256i h = _mm256_permute4x64_epi64(_mm256_packus_epi32(round_bf16(v.lo), round_bf16(v.hi)), 0xd8);
    _mm256_storeu_si256((__m256i *)(void *)p, h);
}

static inline vf vf_add(vf a, vf b) {
    return (vf){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
static inline vf vf_sub(vf a, vf b) {
    return (vf){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
static inline vf vf_mul(vf a, vf b) {
    return (vf){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
static inline vf vf_div(vf a, vf b) {
    return (vf){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
static inline vf vf_max(vf a, vf b) {
    return (vf){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
static inline vf vf_min(vf a, vf b) {
    return (vf){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline vf vf_fma(vf a, vf b, vf c) {
    return (vf){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

/* a * 2^n, n whole and in the range of normal numbers */
static inline __m256 scale2(__m256 a, __m256 n) {
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

static inline vf vf_scale2(vf a, vf n) {
    return (vf){scale2(a.lo, n.lo), scale2(a.hi, n.hi)};
}

static inline float vf_sum(vf v) {
    __m256 a = _mm256_add_ps(v.lo, v.hi);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline float vf_top(vf v) {
    __m256 a = _mm256_max_ps(v.lo, v.hi);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline vf vf_from_int(vi v) {
    return (vf){_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)};
}

static inline vf vf_abs(vf v) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vf){_mm256_andnot_ps(sign, v.lo), _mm256_andnot_ps(sign, v.hi)};
}

/* To whole numbers, ties to even, as bytes. The values are within -127 .. 127. */
static inline void vf_store_int8(int8_t *p, vf v) {
    int32_t a[16];
    _mm256_storeu_si256((__m256i *)a, _mm256_cvtps_epi32(v.lo));
    _mm256_storeu_si256((__m256i *)(a + 8), _mm256_cvtps_epi32(v.hi));
    for (int i = 0; i < 16; i++) p[i] = (int8_t)a[i];
}

static inline vf vf_load_int8(const int8_t *p) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    return (vf){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v)))};
}

static inline vi vi_load(const void *p) {
    return (vi){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)};
}

/* Of 16 pairs of bf16, the first of each, the second; and the pairs with nothing for the second. */
static inline vf vf_low_bf16(vi v) {
    return (vf){_mm256_castsi256_ps(_mm256_slli_epi32(v.lo, 16)),
                _mm256_castsi256_ps(_mm256_slli_epi32(v.hi, 16))};
}
static inline vf vf_high_bf16(vi v) {
    const __m256i low = _mm256_set1_epi32(0xffff);
    return (vf){_mm256_castsi256_ps(_mm256_andnot_si256(low, v.lo)),
                _mm256_castsi256_ps(_mm256_andnot_si256(low, v.hi))};
}
static inline vi vi_low_halves(vi v) {
    const __m256i low = _mm256_set1_epi32(0xffff);
    return (vi){_mm256_and_si256(v.lo, low), _mm256_and_si256(v.hi, low)};
}

static inline __m256 byte_of(__m256i v, int j) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v, j * 8), _mm256_set1_epi32(0xff)));
}

/* Byte j of each 32-bit lane, as a number */
static inline vf vf_from_byte(vi v, int j) {
    return (vf){byte_of(v.lo, j), byte_of(v.hi, j)};
}

/* 64 bytes of weights with their sizes: there is a product of unsigned with signed bytes only. */
typedef struct vq {
    vi w, size;
} vq;

static inline vq vq_load(const uint8_t *p) {
    const __m256i offset = _mm256_set1_epi8((char)0x80);
    vi w = vi_load(p);
    w = (vi){_mm256_xor_si256(w.lo, offset), _mm256_xor_si256(w.hi, offset)};
    return (vq){w, {_mm256_abs_epi8(w.lo), _mm256_abs_epi8(w.hi)}};
}

static inline vi vi_start(int32_t offset) {
    (void)offset;
    return (vi){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

/* acc[i] += sum of 4 products; 2 * 127 * 127 fits the 16 bits of the first step */
static inline __m256i dot(__m256i acc, __m256i size, __m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline vi vi_spread(const int8_t *four) {
    int32_t x;
    memcpy(&x, four, sizeof x);
    return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

static inline vi vi_dot(vi acc, vq w, const int8_t *four) {
    const vi x = vi_spread(four);
    return (vi){dot(acc.lo, w.size.lo, w.w.lo, x.lo), dot(acc.hi, w.size.hi, w.w.hi, x.hi)};
}

#define KERNELS_TABLE kernels_avx2
#define KERNELS_ISA   "avx2"
#include "engine/cpu/kernels_body.h"
