/* Paths and small text files of a checkpoint folder. Called while a model opens; buffers belong to the caller. */
#include "engine/model/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int checkpoint_path(char out[CHECKPOINT_PATH_MAX], const char *dir, const char *name, engine_error *err) {
    int n = snprintf(out, CHECKPOINT_PATH_MAX, "%s%s%s", dir ? dir : "", dir ? "/" : "", name);
    if (n < 0 || n >= CHECKPOINT_PATH_MAX)
        return engine_fail(err, ENGINE_EINVAL, "the path of %s is too long", name);
    return 0;
}

bool checkpoint_has(const char *dir, const char *name) {
    char path[CHECKPOINT_PATH_MAX];
    return !checkpoint_path(path, dir, name, NULL) && !access(path, F_OK);
}

static char *read_stream(FILE *f, size_t max, size_t *n, engine_error *err) {
    struct stat st;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) {
        engine_fail(err, ENGINE_EIO, "it is not a regular file");
        return NULL;
    }
    if (st.st_size < 0 || (unsigned long long)st.st_size > max) {
        engine_fail(err, ENGINE_EFORMAT, "it is larger than %zu bytes", max);
        return NULL;
    }
    char *text = malloc((size_t)st.st_size + 1);
    if (!text) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return NULL;
    }
    *n = fread(text, 1, (size_t)st.st_size, f);
    text[*n] = 0;
    if (!ferror(f)) return text;
    engine_fail(err, ENGINE_EIO, "cannot read it: %s", strerror(errno));
    free(text);
    return NULL;
}

char *checkpoint_read(const char *dir, const char *name, size_t max, size_t *n, engine_error *err) {
    char path[CHECKPOINT_PATH_MAX];
    if (checkpoint_path(path, dir, name, err)) return NULL;
    char *text = NULL;
    FILE *f = fopen(path, "re");
    if (f) {
        text = read_stream(f, max, n, err);
        fclose(f);
    } else {
        engine_fail(err, ENGINE_EIO, "cannot open it: %s", strerror(errno));
    }
    if (!text) engine_fail_in(err, "%s", path);
    return text;
}
