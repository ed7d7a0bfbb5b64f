/* See self.h. */
#include "ops/cli/self.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int folder(char out[MR_PATH_MAX], mr_error *err) {
    ssize_t n = readlink("/proc/self/exe", out, MR_PATH_MAX - 1);
    if (n < 0) return mr_fail(err, MR_EIO, "/proc/self/exe cannot be read: %s", strerror(errno));
    out[n] = '\0';
    char *slash = strrchr(out, '/');
    if (slash) *slash = '\0';
    return 0;
}

static int join(char out[MR_PATH_MAX], const char *dir, const char *between, const char *name, mr_error *err) {
    int n = snprintf(out, MR_PATH_MAX, "%s%s%s", dir, between, name);
    return n < MR_PATH_MAX ? 0 : mr_fail(err, MR_EINVAL, "the path of %s is too long", name);
}

int mr_self_sibling(const char *name, char out[MR_PATH_MAX], mr_error *err) {
    char dir[MR_PATH_MAX];
    if (folder(dir, err) != 0) return -1;
    return join(out, dir, "/millrace-", name, err);
}

int mr_self_source(const char *name, char out[MR_PATH_MAX], mr_error *err) {
    char dir[MR_PATH_MAX];
    const char *home = getenv("MILLRACE_HOME");
    if (!home && folder(dir, err) != 0) return -1;
    if (join(out, home ? home : dir, home ? "/" : "/../../../", name, err) != 0) return -1;
    if (access(out, F_OK) == 0) return 0;
    return mr_fail(err, MR_ENOTFOUND, "%s is not there; set MILLRACE_HOME to the folder of Millrace's sources", out);
}
