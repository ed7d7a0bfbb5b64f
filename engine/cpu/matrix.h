/* A weight matrix as the kernels read it.
 *
 * A format is a layout of the weights with its own matmul kernel in every ISA's table. The stored formats are views into
 * the checkpoint's mapping, row-major [rows, cols].
 */
#ifndef ENGINE_CPU_MATRIX_H
#define ENGINE_CPU_MATRIX_H

#include "engine/model/model.h"

typedef enum { MATRIX_F32, MATRIX_F16, MATRIX_BF16, MATRIX_FORMATS } matrix_format;

typedef struct matrix {
    matrix_format format;
    int rows, cols;
    const void *data;
    const float *bias; /* [rows], or NULL */
} matrix;

#endif
