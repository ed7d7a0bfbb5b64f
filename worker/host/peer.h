/* The supervisor as an engine host sees it: frames over a socket, without blocking.
 *
 * What is to be said is encoded into `out`; mr_peer_flush sends what the socket takes now. `gone` turns true when the other
 * end is closed: nobody is left to answer, and the host ends. One thread.
 */
#ifndef MR_HOST_PEER_H
#define MR_HOST_PEER_H

#include "worker/frames.h"

typedef struct mr_peer {
    int fd; /* not owned */
    mr_frame_reader *in;
    mr_buf out; /* not yet sent */
    bool gone;
} mr_peer;

/* 0, or -1 and err when the host cannot go on. */
typedef int mr_peer_frame_cb(void *arg, const mr_frame *f, mr_error *err);

int mr_peer_init(mr_peer *p, int fd, size_t out_max, mr_error *err);
void mr_peer_done(mr_peer *p); /* also of one that is all zeros */

int mr_peer_flush(mr_peer *p, mr_error *err);
/* Hands on every frame that has come. */
int mr_peer_read(mr_peer *p, mr_peer_frame_cb *cb, void *arg, mr_error *err);
/* The first frame of every host. engine: its name, to which the version is added. */
int mr_peer_hello(mr_peer *p, const char *engine, mr_error *err);
/* Says the end of a request that was not begun. */
int mr_peer_refuse(mr_peer *p, int64_t id, int status, const char *code, const char *message, mr_error *err);

#endif
