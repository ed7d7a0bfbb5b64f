/* One *.safetensors file: its tensors by name, as views into the mmap'ed bytes.
 *
 * The header is checked whole before anything is used: offsets inside the file, shapes that match the byte counts, no two
 * tensors that share bytes. Immutable after open, so threads may share it.
 */
#ifndef ENGINE_MODEL_SAFETENSORS_H
#define ENGINE_MODEL_SAFETENSORS_H

#include "engine/error.h"

#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct safetensors_entry {
    const char *name;  /* owned by the file */
    const char *dtype; /* as the header says: "F32", "BF16", "I64"… */
    int ndims;
    int64_t dims[SAFETENSORS_MAX_DIMS];
    const unsigned char *data;
    size_t bytes;
} safetensors_entry;

typedef struct safetensors safetensors;

safetensors *safetensors_open(const char *path, engine_error *err);
/* The same over bytes that the caller keeps. */
safetensors *safetensors_parse(const void *data, size_t n, engine_error *err);
void safetensors_close(safetensors *s);

size_t safetensors_count(const safetensors *s);
/* NULL when there is none. */
const safetensors_entry *safetensors_find(const safetensors *s, const char *name);

#endif
