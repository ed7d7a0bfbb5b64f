/* Weights into the layouts of matrix.h. Quantisation to 8 bits is per row and group of columns, symmetric, to nearest. The same
 * on every CPU. Stateless.
 */
#include "engine/cpu/matrix.h"

#include <string.h>

void matrix_copy_row(const tensor *t, int row, unsigned char *out) {
    const size_t element = dtype_bytes(t->type), bytes = (size_t)t->cols * element;
    const unsigned char *from = t->data;
    memcpy(out + (size_t)row * bytes, from + (size_t)row * (size_t)(t->cols + t->skip) * element, bytes);
}

/* n weights of one row into every 16th unit. Returns their scale. What is stored in 8 bits stays as it is, unless its groups
 * are others. */
static float int8_group(const tensor *t, int64_t row, int k, int n, unsigned char *out) {
    float scale, w[INT8_GROUP];
    int8_t made[INT8_GROUP];
    const int8_t *q = t->type == DTYPE_I8 ? tensor_int8(t, row, k, n, &scale) : NULL;
    if (!q) {
        tensor_read(t, row, k, n, w);
        scale = int8_quantise(w, n, made);
        q = made;
    }
    for (int i = 0; i < n; i++)
        out[i / UNIT_BYTES * TILE_LANES * UNIT_BYTES + i % UNIT_BYTES] = (unsigned char)(q[i] + 128);
    return scale;
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
            if (row < t->rows) scale = int8_group(t, row, k, n, out + r * UNIT_BYTES);
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
        const uint16_t *from = (const uint16_t *)t->data + row * (t->cols + t->skip);
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

static float bf16_float(uint16_t h) {
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

void matrix_tiled_row(const matrix *m, int row, float *out) {
    const unsigned char *at = (const unsigned char *)m->data +
                              (size_t)(row / TILE_LANES) * matrix_tile_bytes(m->format, m->cols) +
                              (size_t)(row % TILE_LANES) * UNIT_BYTES;
    if (m->format == MATRIX_BF16_TILED) {
        const uint16_t *w = (const uint16_t *)(const void *)at;
        for (int i = 0; i < m->cols; i++) out[i] = bf16_float(w[i / 2 * TILE_LANES * 2 + i % 2]);
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
