/* Makes a checkpoint folder so that it is either whole or not there. One thread. */
#ifndef ENGINE_MODEL_FOLDER_H
#define ENGINE_MODEL_FOLDER_H

#include "engine/error.h"
#include "engine/model/files.h"

/* Makes an empty folder beside `to` and gives its path. Refuses a `to` that is there, unless `replace` is set and it is a
 * checkpoint: files beside a config.json, no folders; and one that is the folder `from`. */
int folder_begin(const char *from, const char *to, bool replace, char dir[CHECKPOINT_PATH_MAX],
                 engine_error *err);
/* A file of the folder, on the disk when it returns. */
int folder_put(const char *dir, const char *name, const void *data, size_t n, engine_error *err);
/* Moves the folder to its place, and removes what was there. */
int folder_commit(const char *dir, const char *to, engine_error *err);
/* Removes a folder of files. */
int folder_remove(const char *dir, engine_error *err);

#endif
