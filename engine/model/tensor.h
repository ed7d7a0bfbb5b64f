/* A weight as it is stored: a view of rows of numbers, in floating point or in 8 bits with scales.
 *
 * Stateless; views borrow what they show.
 */
#ifndef ENGINE_MODEL_TENSOR_H
#define ENGINE_MODEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

typedef enum { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8 } dtype;
static inline size_t dtype_bytes(dtype type) {
    return type == DTYPE_F32 ? 4 : type == DTYPE_I8 ? 1 : 2;
}

typedef struct tensor {
    const void *data; /* borrowed from the model */
    dtype type;
    int64_t rows, cols; /* a vector has rows = 1 */
    int64_t skip;       /* elements between two rows: 0 but in a slice of columns (shard.h) */
    /* I8 only: a weight is its number times the scale of its row and group of columns */
    const void *scale; /* [rows, row_scales] */
    dtype scale_type;
    int64_t row_scales, group; /* of the whole matrix: scales of a row, and columns that share one */
    int64_t first_col;         /* of a slice of columns, in the whole matrix */
} tensor;

/* Columns that have a scale in common where we quantise, except at the end of a row. */
enum { INT8_GROUP = 128 };

/* Scales of a row that the view's columns need */
static inline int64_t tensor_scales(const tensor *t) {
    return t->type == DTYPE_I8 ? (t->first_col + t->cols - 1) / t->group - t->first_col / t->group + 1 : 0;
}
/* With scales */
static inline size_t tensor_bytes(const tensor *t) {
    return (size_t)(t->rows * t->cols) * dtype_bytes(t->type) +
           (size_t)(t->rows * tensor_scales(t)) * dtype_bytes(t->scale_type);
}

/* n weights of a row from a column on, as floats */
void tensor_read(const tensor *t, int64_t row, int64_t col, int n, float *out);
/* I8: do these columns of a row have one scale? Then it, and where their numbers begin. */
const int8_t *tensor_int8(const tensor *t, int64_t row, int64_t col, int n, float *scale);

/* Symmetric, to nearest, the same on every CPU: q[i] = w[i] / scale, from -127 to 127. Returns the scale. */
float int8_quantise(const float *w, int n, int8_t *q);

#endif
