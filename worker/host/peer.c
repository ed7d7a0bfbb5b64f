/* See peer.h. */
#include "worker/host/peer.h"

#include "base/main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int mr_peer_init(mr_peer *p, int fd, size_t out_max, mr_error *err) {
    *p = (mr_peer){.fd = fd};
    mr_buf_init(&p->out, out_max);
    p->in = mr_frame_reader_new(err);
    return p->in ? 0 : -1;
}

void mr_peer_done(mr_peer *p) {
    mr_frame_reader_free(p->in);
    mr_buf_done(&p->out);
    *p = (mr_peer){.fd = -1};
}

int mr_peer_flush(mr_peer *p, mr_error *err) {
    size_t sent = 0;
    while (sent < p->out.n) {
        ssize_t n = send(p->fd, p->out.p + sent, p->out.n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            p->gone = true;
            return 0;
        }
        if (n < 0) return mr_fail(err, MR_EIO, "sending to the supervisor: %s", strerror(errno));
        sent += (size_t)n;
    }
    p->out.n -= sent;
    if (sent) memmove(p->out.p, p->out.p + sent, p->out.n);
    return 0;
}

static int take_frames(mr_peer *p, const char *bytes, size_t n, mr_peer_frame_cb *cb, void *arg,
                       mr_error *err) {
    mr_frame f;
    int rc = mr_frame_feed(p->in, bytes, n, err);
    while (rc == 0 && (rc = mr_frame_next(p->in, &f, err)) > 0) rc = cb(arg, &f, err);
    return rc;
}

int mr_peer_read(mr_peer *p, mr_peer_frame_cb *cb, void *arg, mr_error *err) {
    char chunk[65536];
    for (;;) {
        ssize_t n = recv(p->fd, chunk, sizeof(chunk), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            p->gone = true;
            return 0;
        }
        if (n < 0) return mr_fail(err, MR_EIO, "reading from the supervisor: %s", strerror(errno));
        if (take_frames(p, chunk, (size_t)n, cb, arg, err)) return -1;
    }
}

int mr_peer_hello(mr_peer *p, const char *engine, mr_error *err) {
    char name[64];
    mr_frame f = {.type = MR_FRAME_HELLO};
    snprintf(name, sizeof(name), "%s %s", engine, mr_version());
    f.hello = (mr_frame_hello){.protocol = MR_FRAME_PROTOCOL, .pid = getpid(), .engine = mr_str_of(name)};
    return mr_frame_encode(&f, &p->out, err) || mr_peer_flush(p, err) ? -1 : 0;
}

int mr_peer_refuse(mr_peer *p, int64_t id, int status, const char *code, const char *message, mr_error *err) {
    mr_frame f = {.type = MR_FRAME_END};
    f.end = (mr_frame_end){.id = id,
                           .finish = MR_FINISH_ERROR,
                           .text = MR_STR(""),
                           .status = status,
                           .code = mr_str_of(code),
                           .message = mr_str_of(message),
                           .name = MR_STR("")};
    return mr_frame_encode(&f, &p->out, err);
}
