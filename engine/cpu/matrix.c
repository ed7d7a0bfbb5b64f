/* Weights into the layouts of matrix.h. Quantisation to 8 bits is per row and group of columns, symmetric, to nearest. The same
 * on every CPU. Stateless.
 */
#include "engine/cpu/matrix.h"

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

void matrix_copy_row(const tensor *t, int row, unsigned char *out) {
    const size_t element = dtype_bytes(t->type), bytes = (size_t)t->cols * element;
    const unsigned char *from = t->data;
    memcpy(out + (size_t)row * bytes, from + (size_t)row * (size_t)(t->cols + t->skip) * element, bytes);
}

/* n elements from `at` as floats */
static void widen(const tensor *t, size_t at, int n, float *out) {
    switch (t->type) {
    case DTYPE_F32: memcpy(out, (const float *)t->data + at, (size_t)n * sizeof *out); break;
    case DTYPE_F16:
        for (int i = 0; i < n; i++) out[i] = f16_float(((const uint16_t *)t->data)[at + (size_t)i]);
        break;
    case DTYPE_BF16:
        for (int i = 0; i < n; i++)
            out[i] = bits_float((uint32_t)((const uint16_t *)t->data)[at + (size_t)i] << 16);
        break;
    }
}

/* n weights of one row into every 16th unit. Returns their scale. */
static float quantise_group(const tensor *t, size_t at, int n, unsigned char *out) {
    float w[INT8_GROUP], largest = 0;
    widen(t, at, n, w);
    for (int i = 0; i < n; i++) {
        const float size = fabsf(w[i]);
        largest = size > largest ? size : largest;
    }
    const float inverse = largest > 0 ? 127.0f / largest : 0;
    unsigned char q[INT8_GROUP];
    /* adding and taking away 1.5 * 2^23 rounds to a whole number, ties to even */
    for (int i = 0; i < n; i++)
        q[i] = (unsigned char)(128 + (int)(w[i] * inverse + 12582912.0f - 12582912.0f));
    for (int i = 0; i < n; i++) out[i / UNIT_BYTES * TILE_LANES * UNIT_BYTES + i % UNIT_BYTES] = q[i];
    return largest / 127.0f;
}

static size_t row_start(const tensor *t, int64_t row) {
    return (size_t)(row * (t->cols + t->skip));
}

static void quantise_tile(const tensor *t, int tile, unsigned char *out) {
    const int cols = (int)t->cols;
    for (int k = 0; k < cols; k += INT8_GROUP) {
        const int n = cols - k < INT8_GROUP ? cols - k : INT8_GROUP;
        const size_t bytes = unit_bytes(MATRIX_W8A8, n) * TILE_LANES;
        memset(out, 128, bytes);
        for (int r = 0; r < TILE_LANES; r++) {
            const int64_t row = (int64_t)tile * TILE_LANES + r;
            float scale = 0;
            if (row < t->rows)
                scale = quantise_group(t, row_start(t, row) + (size_t)k, n, out + r * UNIT_BYTES);
            memcpy(out + bytes + (size_t)r * sizeof scale, &scale, sizeof scale);
        }
        out += bytes + TILE_LANES * sizeof(float);
    }
}

static void rearrange_tile(const tensor *t, int tile, unsigned char *out) {
    const size_t cols = (size_t)t->cols;
    memset(out, 0, matrix_tile_bytes(MATRIX_BF16_TILED, (int)cols));
    for (int r = 0; r < TILE_LANES; r++) {
        const int64_t row = (int64_t)tile * TILE_LANES + r;
        if (row >= t->rows) return;
        const uint16_t *from = (const uint16_t *)t->data + row_start(t, row);
        uint16_t *to = (uint16_t *)(void *)out + r * 2;
        for (size_t i = 0; i < cols; i++) to[i / 2 * TILE_LANES * 2 + i % 2] = from[i];
    }
}

void matrix_make_tile(const tensor *t, matrix_format f, int tile, unsigned char *out) {
    out += (size_t)tile * matrix_tile_bytes(f, (int)t->cols);
    if (f == MATRIX_BF16_TILED)
        rearrange_tile(t, tile, out);
    else
        quantise_tile(t, tile, out);
}

void matrix_tiled_row(const matrix *m, int row, float *out) {
    const unsigned char *at = (const unsigned char *)m->data +
                              (size_t)(row / TILE_LANES) * matrix_tile_bytes(m->format, m->cols) +
                              (size_t)(row % TILE_LANES) * UNIT_BYTES;
    if (m->format == MATRIX_BF16_TILED) {
        const uint16_t *w = (const uint16_t *)(const void *)at;
        for (int i = 0; i < m->cols; i++)
            out[i] = bits_float((uint32_t)w[i / 2 * TILE_LANES * 2 + i % 2] << 16);
        return;
    }
    for (int k = 0; k < m->cols; k += INT8_GROUP) {
        const int n = m->cols - k < INT8_GROUP ? m->cols - k : INT8_GROUP;
        const size_t bytes = unit_bytes(m->format, n) * TILE_LANES;
        float scale;
        memcpy(&scale, at + bytes, sizeof scale);
        for (int i = 0; i < n; i++) {
            out[k + i] = scale * (float)(at[i / UNIT_BYTES * TILE_LANES * UNIT_BYTES + i % UNIT_BYTES] - 128);
        }
        at += bytes + TILE_LANES * sizeof(float);
    }
}
