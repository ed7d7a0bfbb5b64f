/* A weight matrix as the kernels read it.
 *
 * A format is a layout of the weights with its own matmul kernel in the ISAs' tables. The stored formats are row-major
 * [rows, cols], mostly views into the checkpoint's mapping. The tiled ones are made when the backend opens: bf16 rearranged,
 * without loss, for CPUs that multiply it; and the 8-bit ones, which share a layout and differ in what happens to the
 * activations.
 *
 * Tiles are of 16 rows. In a tile, for each unit of 4 bytes of columns (2 of bf16, 4 of int8) 16 rows x 4 bytes, so that one
 * vector of 64 bytes feeds 16 outputs. The 8-bit weights are stored plus 128, and in groups of columns, after each of which
 * stand its 16 scales in f32. A matmul reads a matrix from front to back. Missing rows and columns are zeros.
 */
#ifndef ENGINE_CPU_MATRIX_H
#define ENGINE_CPU_MATRIX_H

#include "engine/model/model.h"

typedef enum {
    MATRIX_F32,
    MATRIX_F16,
    MATRIX_BF16,
    MATRIX_BF16_TILED,
    MATRIX_W8A8,
    MATRIX_W8A16,
    MATRIX_FORMATS
} matrix_format;

typedef struct matrix {
    matrix_format format;
    int rows, cols;
    const void *data;
    const float *bias; /* [rows], or NULL */
} matrix;

enum { TILE_LANES = 16, UNIT_BYTES = 4 };

static inline bool matrix_is_int8(matrix_format f) {
    return f == MATRIX_W8A8 || f == MATRIX_W8A16;
}
static inline bool matrix_is_tiled(matrix_format f) {
    return f == MATRIX_BF16_TILED || matrix_is_int8(f);
}
static inline int matrix_tiles(int rows) {
    return (rows + TILE_LANES - 1) / TILE_LANES;
}
static inline int int8_groups(int cols) {
    return (cols + INT8_GROUP - 1) / INT8_GROUP;
}
/* Of one row, without scales */
static inline size_t unit_bytes(matrix_format f, int cols) {
    const int in_unit = f == MATRIX_BF16_TILED ? 2 : 4;
    return (size_t)((cols + in_unit - 1) / in_unit) * UNIT_BYTES;
}
static inline size_t matrix_tile_bytes(matrix_format f, int cols) {
    const size_t scales = f == MATRIX_BF16_TILED ? 0 : (size_t)int8_groups(cols) * sizeof(float);
    return TILE_LANES * (unit_bytes(f, cols) + scales);
}
static inline const unsigned char *matrix_tile(const matrix *m, int tile) {
    return (const unsigned char *)m->data + (size_t)tile * matrix_tile_bytes(m->format, m->cols);
}
/* Of one token of activations in its panel (kernels.h): units, and for 8 bits scales and offsets */
static inline size_t matrix_packed_bytes(matrix_format f, int cols) {
    const size_t group = sizeof(float) + sizeof(int32_t);
    return unit_bytes(f, cols) + (f == MATRIX_BF16_TILED ? 0 : (size_t)int8_groups(cols) * group);
}

/* Copies one row of a stored matrix into its place in out, where rows lie together. */
void matrix_copy_row(const tensor *t, int row, unsigned char *out);
/* Makes one tile of a stored matrix in its place in out, the whole new matrix. Tiles may be done at the same time. */
void matrix_make_tile(const tensor *t, matrix_format f, int tile, unsigned char *out);
/* One row of a tiled matrix back to floats. */
void matrix_tiled_row(const matrix *m, int row, float *out);

#endif
