/* See files.h. */
#include "ops/learn/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 30 };

static int fail_at(mr_error *err, const char *path) {
    return mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
}

int mr_file_read(const char *path, mr_buf *out, mr_error *err) {
    char block[65536];
    size_t n;
    FILE *in = fopen(path, "re");
    if (!in) return errno == ENOENT ? 0 : fail_at(err, path);
    while ((n = fread(block, 1, sizeof block, in)) > 0) mr_buf_put(out, block, n);
    int rc = ferror(in) ? fail_at(err, path) : 0;
    fclose(in);
    if (rc == 0 && out->failed) rc = mr_fail(err, MR_ETOOBIG, "%s: the file is too large", path);
    return rc;
}

static int write_all(int fd, mr_str bytes) {
    while (bytes.n > 0) {
        ssize_t k = write(fd, bytes.p, bytes.n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return -1;
        bytes.p += k;
        bytes.n -= (size_t)k;
    }
    return fsync(fd);
}

int mr_file_write(const char *path, mr_str bytes, mr_error *err) {
    char beside[PATH_MAX];
    if (snprintf(beside, sizeof beside, "%s.new", path) >= (int)sizeof beside) {
        return mr_fail(err, MR_ETOOBIG, "the path is too long: %.100s…", path);
    }
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return fail_at(err, beside);
    int rc = write_all(fd, bytes);
    if (close(fd) < 0) rc = -1;
    if (rc == 0) rc = rename(beside, path);
    if (rc == 0) return 0;
    fail_at(err, beside);
    unlink(beside);
    return -1;
}

int mr_file_copy(const char *from, const char *to, mr_error *err) {
    mr_buf b;
    mr_buf_init(&b, FILE_MAX);
    int rc = mr_file_read(from, &b, err);
    if (rc == 0 && b.n == 0) rc = mr_fail(err, MR_ENOTFOUND, "%s: there is nothing in it", from);
    if (rc == 0) rc = mr_file_write(to, mr_buf_str(&b), err);
    mr_buf_done(&b);
    return rc;
}

int mr_folder_make(const char *path, mr_error *err) {
    if (mkdir(path, 0755) == 0 || errno == EEXIST) return 0;
    return fail_at(err, path);
}

/* ---- lines ---- */

static int read_line(mr_str line, int (*cb)(void *arg, const json_t *line, mr_error *err), void *arg,
                     mr_error *err) {
    json_error_t why;
    json_t *j = json_loadb(line.p, line.n, 0, &why);
    int rc = json_is_object(j) ? cb(arg, j, err)
                               : mr_fail(err, MR_EINVAL, "the line is no JSON object: repair or delete it");
    json_decref(j);
    return rc;
}

int mr_lines_read(const char *path, int (*cb)(void *arg, const json_t *line, mr_error *err), void *arg,
                  mr_error *err) {
    mr_buf b;
    mr_buf_init(&b, FILE_MAX);
    int rc = mr_file_read(path, &b, err), number = 1;
    for (const char *p = b.p, *end = p + b.n; rc == 0 && p < end; number++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        if (n > 0) rc = read_line((mr_str){p, n}, cb, arg, err);
        if (rc < 0) mr_fail_in(err, "%s:%d", path, number);
        p += n + 1;
    }
    mr_buf_done(&b);
    return rc;
}

int mr_lines_put(mr_buf *out, json_t *line, mr_error *err) {
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!text) return mr_fail(err, MR_ENOMEM, "no memory for a line of JSON");
    mr_buf_puts(out, text);
    mr_buf_puts(out, "\n");
    free(text);
    return out->failed ? mr_fail(err, MR_ETOOBIG, "a file would be too large") : 0;
}

mr_str mr_line_str(const json_t *line, const char *name) {
    const json_t *v = json_object_get(line, name);
    return json_is_string(v) ? (mr_str){json_string_value(v), json_string_length(v)} : MR_STR("");
}

int64_t mr_line_int(const json_t *line, const char *name) {
    return json_integer_value(json_object_get(line, name));
}
