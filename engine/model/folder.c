/* See folder.h. */
#include "engine/model/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Calls `each` with every name in the folder; stops at what is not 0. */
static int each_file(const char *dir, int (*each)(const char *path), engine_error *err) {
    char path[CHECKPOINT_PATH_MAX];
    DIR *d = opendir(dir);
    if (!d) return engine_fail(err, ENGINE_EIO, "cannot open %s: %s", dir, strerror(errno));
    int rc = 0;
    for (const struct dirent *e; rc == 0 && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        rc = checkpoint_path(path, dir, e->d_name, err) ? -1 : each(path);
    }
    closedir(d);
    return rc;
}

static int is_no_file(const char *path) {
    struct stat st;
    return lstat(path, &st) || !(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode));
}

static int check_replaced(const char *from, const char *to, engine_error *err) {
    struct stat a, b;
    if (stat(from, &a) == 0 && stat(to, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return engine_fail(err, ENGINE_EINVAL, "%s and %s are the same folder", from, to);
    if (checkpoint_has(to, "config.json") && each_file(to, is_no_file, err) == 0) return 0;
    return engine_fail(err, ENGINE_EINVAL, "%s is not a checkpoint folder: it is not replaced", to);
}

/* Trailing slashes would put the new folder into the old one. */
static int beside(const char *to, const char *what, char dir[CHECKPOINT_PATH_MAX], engine_error *err) {
    size_t n = strlen(to);
    while (n > 1 && to[n - 1] == '/') n--;
    if (snprintf(dir, CHECKPOINT_PATH_MAX, "%.*s.%s-XXXXXX", (int)n, to, what) < CHECKPOINT_PATH_MAX)
        return 0;
    return engine_fail(err, ENGINE_EINVAL, "the path %.100s… is too long", to);
}

int folder_begin(const char *from, const char *to, bool replace, char dir[CHECKPOINT_PATH_MAX],
                 engine_error *err) {
    struct stat st;
    if (lstat(to, &st) == 0) {
        if (!replace)
            return engine_fail(err, ENGINE_EINVAL, "%s exists: remove it, or replace it with --force", to);
        if (check_replaced(from, to, err)) return -1;
    }
    if (beside(to, "partial", dir, err)) return -1;
    if (!mkdtemp(dir)) return engine_fail(err, ENGINE_EIO, "cannot make %s: %s", dir, strerror(errno));
    return chmod(dir, 0755) ? engine_fail(err, ENGINE_EIO, "%s: %s", dir, strerror(errno)) : 0;
}

int folder_put(const char *dir, const char *name, const void *data, size_t n, engine_error *err) {
    char path[CHECKPOINT_PATH_MAX];
    if (checkpoint_path(path, dir, name, err)) return -1;
    FILE *f = fopen(path, "wbxe");
    if (!f) return engine_fail(err, ENGINE_EIO, "cannot make %s: %s", path, strerror(errno));
    int bad = fwrite(data, 1, n, f) != n || fflush(f) || fsync(fileno(f));
    bad |= fclose(f) != 0;
    return bad ? engine_fail(err, ENGINE_EIO, "cannot write %s: %s", path, strerror(errno)) : 0;
}

static int sync_folder(const char *dir, engine_error *err) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int bad = fd < 0 || fsync(fd);
    if (fd >= 0) close(fd);
    return bad ? engine_fail(err, ENGINE_EIO, "%s: %s", dir, strerror(errno)) : 0;
}

int folder_commit(const char *dir, const char *to, engine_error *err) {
    char old[CHECKPOINT_PATH_MAX];
    struct stat st;
    const bool there = lstat(to, &st) == 0;
    if (sync_folder(dir, err) || beside(to, "old", old, err)) return -1;
    if (there && (!mkdtemp(old) || rename(to, old)))
        return engine_fail(err, ENGINE_EIO, "cannot move %s away: %s", to, strerror(errno));
    if (rename(dir, to)) {
        engine_fail(err, ENGINE_EIO, "cannot move %s to %s: %s", dir, to, strerror(errno));
        if (there) rename(old, to);
        return -1;
    }
    return there ? folder_remove(old, err) : 0;
}

int folder_remove(const char *dir, engine_error *err) {
    if (each_file(dir, unlink, err) == 0 && rmdir(dir) == 0) return 0;
    return engine_fail(err, ENGINE_EIO, "cannot remove %s: %s", dir, strerror(errno));
}
