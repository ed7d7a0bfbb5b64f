/* The engine host as a child process: started, watched, replaced.
 *
 * It is started at once and again whenever it dies, hangs (no frame for step_timeout_ms while ready, start_timeout_ms
 * before) or speaks nonsense: it is then killed, the owner hears `lost`, and a new one follows when the old one is gone
 * (it may hold GPUs until then), after a backoff if it did not live long. Several short lives in a row, none of which
 * was proved useful, are a crash loop: the backoff grows, and mr_host_looping says so until one lives long. It never outlives this process.
 *
 * Everything belongs to the loop's thread; frames are borrowed until the callback returns. Callbacks may send, but
 * must not free the host.
 */
#ifndef MR_HOST_H
#define MR_HOST_H

#include "base/loop.h"
#include "worker/frames.h"

typedef struct mr_host mr_host;

typedef struct mr_host_options {
    const char *const *argv; /* program and arguments, without --fd; ends with NULL; borrowed */
    const char *pid_file;    /* names it while it is ready; NULL: none */
    int step_timeout_ms, start_timeout_ms;
    void (*ready)(void *arg, const mr_frame_ready *f);
    void (*frame)(void *arg, const mr_frame *f); /* tokens, end, load */
    void (*lost)(void *arg, const char *why);    /* all that was submitted is gone; called only after ready */
    void *arg;
} mr_host_options;

mr_host *mr_host_new(const mr_host_options *opt, mr_loop *l, mr_error *err);
/* Asks it to end, kills it if it does not within a second. */
void mr_host_free(mr_host *h);

/* Nothing runs in it any more: ends it without `lost`, and starts a new one at once when `again`; else it is over with
 * this mr_host when mr_host_gone says so. */
void mr_host_end(mr_host *h, bool again, const char *why);
bool mr_host_gone(const mr_host *h);
/* It has done what it is for: what it may die of now is no crash loop. */
void mr_host_proved(mr_host *h);
/* It does not do what it should: as if it hung. */
void mr_host_fail(mr_host *h, const char *why);

/* Only while ready. Too large a frame is an error; a broken socket is heard of by `lost`. */
int mr_host_send(mr_host *h, const mr_frame *f, mr_error *err);
bool mr_host_ready(const mr_host *h);
/* Why it is not ready, for /readyz. */
const char *mr_host_why(const mr_host *h);
/* It died again and again, and none has lived long since. */
bool mr_host_looping(const mr_host *h);
int mr_host_pid(const mr_host *h); /* 0: none now */
/* After deaths: not those by mr_host_end. */
uint64_t mr_host_restarts(const mr_host *h);

#endif
