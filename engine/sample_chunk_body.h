/* The loops of sample_chunk.h, written in lanes for the compiler to vectorise; included by the file of each instruction set,
 * which names the table CHUNK_OPS.
 */
#include "engine/sample_chunk.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };

static float scan(const float *x, int n, float *bad) {
    float m[LANES], b[LANES] = {0};
    for (int j = 0; j < LANES; j++) m[j] = -INFINITY;
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
        for (int j = 0; j < LANES; j++) b[j] += x[i + j] * 0.0f;
    }
    for (; i < n; i++) {
        m[0] = x[i] > m[0] ? x[i] : m[0];
        b[0] += x[i] * 0.0f;
    }
    for (int j = 0; j < LANES; j++) {
        m[0] = m[j] > m[0] ? m[j] : m[0];
        *bad += b[j];
    }
    return m[0];
}

/* exp(x) for x <= 0, to about 2 units in the last place; 0 below -87. Our own, so that it vectorises, and is the same whatever
 * the C library. */
static inline float exp_down(float x) {
    float in = x < -87.0f ? -87.0f : x;
    float shifted = in * 1.44269504f + 12582912.0f; /* the sum's low bits are the nearest integer */
    float n = shifted - 12582912.0f;
    float r = in - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23; /* 2^n */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return x < -87.0f ? 0.0f : p * scale;
}

static double sum_of(const float *x, int n) {
    double s[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int j = 0; j < LANES; j++) s[j] += (double)x[i + j];
    }
    for (; i < n; i++) s[0] += (double)x[i];
    for (int j = 1; j < LANES; j++) s[0] += s[j];
    return s[0];
}

static double weigh(float *w, const float *x, int n, float best, float factor) {
    for (int i = 0; i < n; i++) w[i] = exp_down((x[i] - best) * factor);
    return sum_of(w, n);
}

const chunk_ops CHUNK_OPS = {scan, weigh};
