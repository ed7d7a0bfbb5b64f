/* Writes a model's file; see intent_write.h. */
#include "router/intent_write.h"

#include "router/intent_model.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return fsync(fd);
}

int mr_intent_write(const char *path, void *image, mr_error *err) {
    char beside[PATH_MAX];
    mr_intent_header h;
    memcpy(&h, image, sizeof h);
    h.checksum = mr_intent_image_checksum(image, h.bytes);
    memcpy(image, &h, sizeof h);
    if (snprintf(beside, sizeof beside, "%s.new", path) >= (int)sizeof beside) {
        return mr_fail(err, MR_ETOOBIG, "the path of the model is too long");
    }
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return mr_fail(err, MR_EIO, "%s: %s", beside, strerror(errno));
    int rc = write_all(fd, image, h.bytes);
    if (close(fd) < 0) rc = -1;
    if (rc == 0) rc = rename(beside, path);
    if (rc == 0) return 0;
    mr_fail(err, MR_EIO, "%s: %s", beside, strerror(errno));
    unlink(beside);
    return -1;
}
