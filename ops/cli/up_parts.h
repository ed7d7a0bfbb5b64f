/* The processes of a local pipeline: started, watched, started again when they die, stopped in order.
 *
 * All of it belongs to the loop's thread. Each process has a process group of its own, so that a Ctrl-C at the terminal
 * reaches `millrace up` alone and the order of stopping is kept; and it gets SIGTERM from the kernel when `millrace up`
 * dies. Its output goes to STATE/log/<name>.log and, in the foreground, to the terminal with its name before each line;
 * its process id is in STATE/<name>.pid while it runs.
 */
#ifndef MR_CLI_UP_PARTS_H
#define MR_CLI_UP_PARTS_H

#include "base/error.h"
#include "base/loop.h"

#include <stdbool.h>

#define MR_PART_ARGS 24

typedef struct mr_part {
    char name[32];
    char *argv[MR_PART_ARGS]; /* owned; NULL-terminated */
    int port;                 /* of its /readyz; or, with `probe_tcp`, the one it listens on */
    bool probe_tcp;
    int stop_rank; /* parts with a lower rank are stopped before those with a higher one */
    int stop_s;    /* seconds it gets to drain */
    /* what follows belongs to up_parts.c */
    int pid;
    int output; /* read end of its stdout and stderr */
    struct event *readable, *again;
    int log_fd;
    char line[1024];
    int nline;
    int deaths;
    int64_t started_us, stop_by_us;
    bool ready;
} mr_part;

typedef struct mr_parts mr_parts;

typedef struct mr_parts_events {
    void (*on_stopped)(void *arg);                       /* after mr_parts_stop: all have ended */
    void (*on_hopeless)(void *arg, const mr_part *part); /* ended again and again before it was ever ready */
    void *arg;
} mr_parts_events;

mr_parts *mr_parts_new(mr_loop *l, const char *state, bool echo, const mr_parts_events *events,
                       mr_error *err);
void mr_parts_free(mr_parts *p); /* kills what still runs */

void mr_parts_echo(mr_parts *p, bool echo); /* output to the terminal too; logs get it always */

/* A new part; fill in what mr_part says, add its arguments, then start it. NULL when there are too many. */
mr_part *mr_parts_add(mr_parts *p, const char *name);
int mr_part_arg(mr_part *part, mr_error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int mr_parts_start(mr_parts *p, mr_part *part, mr_error *err);

/* Asks every started part whether it is ready (connects to its port, or GET /readyz); true when all have said so once. The name
 * of one that has not is put in *waiting_for. Does not block: the answers come to the loop. */
bool mr_parts_ready(mr_parts *p, const char **waiting_for);

void mr_parts_stop(mr_parts *p); /* in the order of their ranks; a second call kills */

#endif
