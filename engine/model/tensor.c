/* Weights as floats, and floats as 8 bits. */
#include "engine/model/tensor.h"

#include <math.h>
#include <string.h>

static float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Finite ones: exponent and mantissa moved into place and rescaled, which gets subnormals right. */
static float f16_float(uint16_t h) {
    float f = bits_float((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;
    return h & 0x8000 ? -f : f;
}

static void widen(const void *data, dtype type, size_t at, int n, float *out) {
    if (type == DTYPE_F32) memcpy(out, (const float *)data + at, (size_t)n * sizeof *out);
    const uint16_t *h = (const uint16_t *)data + at;
    for (int i = 0; type == DTYPE_F16 && i < n; i++) out[i] = f16_float(h[i]);
    for (int i = 0; type == DTYPE_BF16 && i < n; i++) out[i] = bits_float((uint32_t)h[i] << 16);
}

static size_t place(const tensor *t, int64_t row, int64_t col) {
    return (size_t)(row * (t->cols + t->skip) + col);
}

static float scale_at(const tensor *t, int64_t row, int64_t group) {
    float scale;
    widen(t->scale, t->scale_type, (size_t)(row * t->row_scales + group), 1, &scale);
    return scale;
}

const int8_t *tensor_int8(const tensor *t, int64_t row, int64_t col, int n, float *scale) {
    const int64_t first = (t->first_col + col) / t->group, last = (t->first_col + col + n - 1) / t->group;
    if (first != last) return NULL;
    *scale = scale_at(t, row, first);
    return (const int8_t *)t->data + place(t, row, col);
}

void tensor_read(const tensor *t, int64_t row, int64_t col, int n, float *out) {
    if (t->type != DTYPE_I8) {
        widen(t->data, t->type, place(t, row, col), n, out);
        return;
    }
    const int8_t *q = (const int8_t *)t->data + place(t, row, col);
    for (int i = 0; i < n;) {
        const int64_t group = (t->first_col + col + i) / t->group;
        const int64_t left = (group + 1) * t->group - (t->first_col + col);
        const float scale = scale_at(t, row, group);
        for (const int end = left < n ? (int)left : n; i < end; i++) out[i] = scale * (float)q[i];
    }
}

float int8_quantise(const float *w, int n, int8_t *q) {
    float largest = 0;
    for (int i = 0; i < n; i++) {
        const float size = fabsf(w[i]);
        largest = size > largest ? size : largest;
    }
    const float inverse = largest > 0 ? 127.0f / largest : 0;
    /* adding and taking away 1.5 * 2^23 rounds to a whole number, ties to even */
    for (int i = 0; i < n; i++) q[i] = (int8_t)(int)(w[i] * inverse + 12582912.0f - 12582912.0f);
    return largest / 127.0f;
}
