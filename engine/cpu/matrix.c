/* Weights into the layouts of matrix.h. Quantisation to 8 bits is per row and group of columns, symmetric, to nearest. The same on every CPU. Stateless.
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

static float element(const tensor *t, size_t i) {
    switch (t->type) {
    case DTYPE_F32: return ((const float *)t->data)[i];
    case DTYPE_F16: return f16_float(((const uint16_t *)t->data)[i]);
    case DTYPE_BF16: return bits_float((uint32_t)((const uint16_t *)t->data)[i] << 16);
    }
    return 0;
}

/* n weights of one row into every 16th place of 4 bytes. Returns their scale. */
static float quantise_group(const tensor *t, size_t at, int n, unsigned char *out) {
    float w[INT8_GROUP], largest = 0;
    for (int i = 0; i < n; i++) {
        w[i] = element(t, at + (size_t)i);
        largest = fmaxf(largest, fabsf(w[i]));
    }
    const float inverse = largest > 0 ? 127.0f / largest : 0;
    for (int i = 0; i < n; i++) {
        out[i / 4 * INT8_ROWS * 4 + i % 4] = (unsigned char)(128 + (int)rintf(w[i] * inverse));
    }
    return largest / 127.0f;
}

void matrix_copy_row(const tensor *t, int row, unsigned char *out) {
    const size_t element = dtype_bytes(t->type), bytes = (size_t)t->cols * element;
    const unsigned char *from = t->data;
    memcpy(out + (size_t)row * bytes, from + (size_t)row * (size_t)(t->cols + t->skip) * element, bytes);
}

void int8_quantise_tile(const tensor *t, int tile, unsigned char *out) {
    const int cols = (int)t->cols;
    out += (size_t)tile * int8_tile_bytes(cols);
    for (int k = 0; k < cols; k += INT8_GROUP) {
        const int n = cols - k < INT8_GROUP ? cols - k : INT8_GROUP;
        const size_t bytes = int8_columns(n) * INT8_ROWS;
        memset(out, 128, bytes);
        for (int r = 0; r < INT8_ROWS; r++) {
            const int64_t row = (int64_t)tile * INT8_ROWS + r;
            float scale = 0;
            if (row < t->rows)
                scale = quantise_group(t, (size_t)(row * (t->cols + t->skip) + k), n, out + r * 4);
            memcpy(out + bytes + (size_t)r * sizeof scale, &scale, sizeof scale);
        }
        out += bytes + INT8_ROWS * sizeof(float);
    }
}
