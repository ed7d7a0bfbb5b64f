/* Small files that are read whole, and written anew by rename: a reader has the old one or the new one. Blocking. */
#ifndef MR_LEARN_FILES_H
#define MR_LEARN_FILES_H

#include "base/error.h"
#include "base/str.h"

#include <jansson.h>

/* Appends the file's bytes; a file that is not there is an empty one. */
int mr_file_read(const char *path, mr_buf *out, mr_error *err);
int mr_file_write(const char *path, mr_str bytes, mr_error *err);
int mr_file_copy(const char *from, const char *to, mr_error *err);
int mr_folder_make(const char *path, mr_error *err);

/* JSON lines: calls back for each object of the file, until it returns -1. */
int mr_lines_read(const char *path, int (*cb)(void *arg, const json_t *line, mr_error *err), void *arg,
                  mr_error *err);
/* Appends `line` to the bytes of such a file, and takes it over. */
int mr_lines_put(mr_buf *out, json_t *line, mr_error *err);

/* "" where there is no such member, or no text. Borrowed from `line`. */
mr_str mr_line_str(const json_t *line, const char *name);
int64_t mr_line_int(const json_t *line, const char *name);

#endif
