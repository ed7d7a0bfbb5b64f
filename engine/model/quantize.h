/* Quantises a checkpoint ahead of time, from one folder into another.
 *
 * The new checkpoint's matrices are in 8 bits, in the layout of compressed-tensors (stored.h), and bitwise what the engine
 * makes of the old one's at open with weights "int8"; embeddings that are not the head too, norms and biases stay as they
 * are. Tensors the model does not use are left out. Memory: one row, and the scales of one matrix.
 *
 * The folder is made under another name beside its place, and moved there when all of it is on the disk.
 */
#ifndef ENGINE_MODEL_QUANTIZE_H
#define ENGINE_MODEL_QUANTIZE_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct quantize_options {
    const char *from, *to;
    bool replace;      /* a checkpoint that is at `to` already */
    bool whole_rows;   /* one scale a row, which more programs read, in place of one for each 128 columns */
    bool keep_head;    /* as it is */
    bool a16;          /* meant for activations that are not rounded ("int8-a16") */
    size_t file_bytes; /* a file of weights ends before it exceeds this, tensors whole; 0: 5 GB */
    /* After each piece. False ends the work, which then fails with nothing left behind. */
    bool (*progress)(void *arg, size_t done, size_t total);
    void *arg;
} quantize_options;

typedef struct quantize_result {
    size_t bytes_before, bytes_after; /* of weights */
    int files;
} quantize_result;

int quantize_checkpoint(const quantize_options *opt, quantize_result *result, engine_error *err);

#endif
