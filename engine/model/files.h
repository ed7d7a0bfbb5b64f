/* Small helpers over the files of a checkpoint folder. */
#ifndef ENGINE_MODEL_FILES_H
#define ENGINE_MODEL_FILES_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { CHECKPOINT_PATH_MAX = 4096 };

/* out = dir/name, or name where dir is NULL. Fails when it does not fit. */
int checkpoint_path(char out[CHECKPOINT_PATH_MAX], const char *dir, const char *name, engine_error *err);
bool checkpoint_has(const char *dir, const char *name);
/* The whole file, zero-terminated, *n without the zero; to be freed by the caller. NULL with err. */
char *checkpoint_read(const char *dir, const char *name, size_t max, size_t *n, engine_error *err);

#endif
