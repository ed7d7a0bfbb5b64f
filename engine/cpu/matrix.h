/* A weight matrix as the kernels read it.
 *
 * A format is a layout of the weights with its own matmul kernel in every ISA's table. The stored formats are views into
 * the checkpoint's mapping, row-major [rows, cols]. The 8-bit ones are quantised when the backend opens; both have the same
 * layout and differ in what happens to the activations.
 */
#ifndef ENGINE_CPU_MATRIX_H
#define ENGINE_CPU_MATRIX_H

#include "engine/model/model.h"

typedef enum { MATRIX_F32, MATRIX_F16, MATRIX_BF16, MATRIX_W8A8, MATRIX_W8A16, MATRIX_FORMATS } matrix_format;

typedef struct matrix {
    matrix_format format;
    int rows, cols;
    const void *data;
    const float *bias; /* [rows], or NULL */
} matrix;

/* The 8-bit layout: tiles of 16 rows; in a tile, groups of columns; in a group, for each 4 columns 16 rows x 4 bytes
 * (weights plus 128), so that one vector of 64 bytes feeds 16 outputs; after the group, 16 scales in f32. A matmul reads it
 * from front to back. Missing rows and columns are zeros. */
enum { INT8_ROWS = 16, INT8_GROUP = 128 };

static inline int int8_groups(int cols) {
    return (cols + INT8_GROUP - 1) / INT8_GROUP;
}
static inline int int8_tiles(int rows) {
    return (rows + INT8_ROWS - 1) / INT8_ROWS;
}
static inline size_t int8_columns(int cols) {
    return (size_t)(cols + 3) / 4 * 4;
}
static inline size_t int8_tile_bytes(int cols) {
    return INT8_ROWS * (int8_columns(cols) + (size_t)int8_groups(cols) * sizeof(float));
}
/* A row of quantised activations: bytes, scales and offsets, in whole cache lines. */
static inline size_t int8_packed_bytes(int cols) {
    return (int8_columns(cols) + (size_t)int8_groups(cols) * (sizeof(float) + sizeof(int32_t)) + 63) / 64 *
           64;
}

/* Copies one row of a stored matrix into its place in out, where rows lie together. */
void matrix_copy_row(const tensor *t, int row, unsigned char *out);
/* Quantises one tile of a stored matrix into its place in out, the whole new matrix. Tiles may be done at the same time. */
void int8_quantise_tile(const tensor *t, int tile, unsigned char *out);

#endif
