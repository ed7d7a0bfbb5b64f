/* Kernels in portable C: vectors of 16 floats that the compiler maps to whatever the CPU has (SSE2, NEON, …). Also the
 * reference that the others are tested against.
 */
#include "engine/cpu/kernels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

typedef float vf __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));
typedef int8_t vb __attribute__((vector_size(16)));

#define TILE_ROWS    2
#define TILE_TOKENS  2
#define TILED_TOKENS 4
#define TILED_ROWS   1
#define ATTEND_TILE  4
#define ATTEND_SUMS  4

#define KEEP_INT(v)  __asm__ volatile("" : "+m"(v))

static inline vf vf_set1(float a) {
    return a - (vf){0};
}

static inline vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vf_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

static inline vf vf_load_n(const float *p, int n) {
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void vf_store_n(float *p, vf v, int n) {
    memcpy(p, &v, (size_t)n * sizeof *p);
}

static inline vh vh_load_n(const uint16_t *p, int n) {
    vh v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline vf vf_from_bf16(vh h) {
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

/* Exponent and mantissa moved into place and rescaled by 2^112, which also gets subnormals right; all ones stay all ones. */
static inline vf vf_from_f16(vh h) {
    vu u = __builtin_convertvector(h, vu);
    vf v = (vf)((u & 0x7fff) << 13) * vf_set1(0x1p112f);
    vu special = (vu)((u & 0x7c00) == 0x7c00) & 0x7f800000;
    return (vf)((vu)v | special | (u & 0x8000) << 16);
}

/* To nearest, ties to even; the weights and activations of a model are finite. */
static inline vh vf_to_bf16(vf v) {
    vu u = (vu)v;
    return __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, vh);
}

static inline vf vf_load_bf16(const uint16_t *p) {
    return vf_from_bf16(vh_load_n(p, 16));
}
static inline vf vf_load_bf16_n(const uint16_t *p, int n) {
    return vf_from_bf16(vh_load_n(p, n));
}
static inline vf vf_load_f16(const uint16_t *p) {
    return vf_from_f16(vh_load_n(p, 16));
}
static inline vf vf_load_f16_n(const uint16_t *p, int n) {
    return vf_from_f16(vh_load_n(p, n));
}

static inline void vf_store_bf16(uint16_t *p, vf v) {
    vh h = vf_to_bf16(v);
    memcpy(p, &h, sizeof h);
}

static inline vf vf_add(vf a, vf b) {
    return a + b;
}
static inline vf vf_sub(vf a, vf b) {
    return a - b;
}
static inline vf vf_mul(vf a, vf b) {
    return a * b;
}
static inline vf vf_div(vf a, vf b) {
    return a / b;
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return a * b + c;
}

static inline vf vf_max(vf a, vf b) {
    vi m = a > b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
}

static inline vf vf_min(vf a, vf b) {
    vi m = a < b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
}

/* a * 2^n, n whole and in the range of normal numbers */
static inline vf vf_scale2(vf a, vf n) {
    return a * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
}

static inline float vf_sum(vf v) {
    float a[16];
    vf_store(a, v);
    for (int w = 8; w; w /= 2) {
        for (int i = 0; i < w; i++) a[i] += a[i + w];
    }
    return a[0];
}

static inline float vf_top(vf v) {
    float a[16];
    vf_store(a, v);
    for (int i = 1; i < 16; i++) a[0] = a[i] > a[0] ? a[i] : a[0];
    return a[0];
}

static inline vf vf_abs(vf v) {
    return (vf)((vu)v & 0x7fffffff);
}
static inline vf vf_from_int(vi v) {
    return __builtin_convertvector(v, vf);
}

/* To whole numbers, ties to even, by way of 1.5 * 2^23, as bytes. The values are within -127 .. 127. */
static inline void vf_store_int8(int8_t *p, vf v) {
    const vf magic = vf_set1(12582912.0f);
    vi whole = __builtin_convertvector((v + magic) - magic, vi);
    for (int i = 0; i < 16; i++) p[i] = (int8_t)whole[i];
}

static inline vf vf_load_int8(const int8_t *p) {
    vb v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vf);
}

static inline vi vi_load(const void *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Of 16 pairs of bf16, the first of each, the second; and the pairs with nothing for the second. */
static inline vf vf_low_bf16(vi v) {
    return (vf)((vu)v << 16);
}
static inline vf vf_high_bf16(vi v) {
    return (vf)((vu)v & 0xffff0000);
}
static inline vi vi_low_halves(vi v) {
    return v & 0xffff;
}

/* Byte j of each 32-bit lane, as a number */
static inline vf vf_from_byte(vi v, int j) {
    return __builtin_convertvector((vi)((vu)v >> (8 * j) & 0xff), vf);
}

typedef vi vq;

static inline vq vq_load(const uint8_t *p) {
    return vi_load(p);
}

static inline vi vi_start(int32_t offset) {
    return offset - (vi){0};
}

/* Four activations to every lane, the first in the lowest byte whatever the byte order. */
static inline vi vi_spread(const int8_t *four) {
    uint32_t x = 0;
    for (int j = 3; j >= 0; j--) x = x << 8 | (uint8_t)four[j];
    return (vi)(x - (vu){0});
}

/* acc[i] += sum of 4 products, the weights still 128 too high */
static inline vi vi_dot(vi acc, vq w, const int8_t *four) {
    const vi x = vi_spread(four);
    for (int j = 0; j < 4; j++) {
        vi xj = (x << (24 - 8 * j)) >> 24;
        acc += (vi)((vu)w >> (8 * j) & 0xff) * xj;
    }
    return acc;
}

#define KERNELS_TABLE kernels_generic
#define KERNELS_ISA   "generic"
#include "engine/cpu/kernels_body.h"
