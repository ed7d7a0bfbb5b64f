/* The engine host as a child process. See host.h.
 *
 * Death is seen by the pidfd, not by SIGCHLD: it names one process, and needs no handler that the whole program shares.
 */
#include "worker/host.h"

#include "base/log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WATCH_MS      100
#define BACKOFF_FIRST 100
#define BACKOFF_MOST  10000
#define BACKOFF_READY 400      /* the most for one that had become ready: requests wait for it */
#define LOOP          8        /* so many short lives in a row are a crash loop */
#define LONG_LIFE_US  10000000 /* one that was ready for so long died of something new: no backoff */
#define GOODBYE_MS    1000
#define HOST_FD       3 /* the socket's number in the child */

typedef enum { WAITING, STARTING, LOADING, READY, DYING, STATES } host_state;
static const char *const state_names[STATES] = {
    [WAITING] = "waiting", [STARTING] = "starting", [LOADING] = "loading",
    [READY] = "ready",     [DYING] = "dying",
};

struct mr_host {
    mr_host_options opt;
    mr_loop *loop;
    mr_timer *watch;
    mr_frame_reader *reader;
    mr_buf out;

    host_state state;
    char why[500]; /* the reason of the last change */
    pid_t pid;
    int pidfd;
    struct event *gone;       /* on pidfd */
    struct bufferevent *io;   /* NULL while dying or waiting */
    int64_t heard_us;         /* last frame, or start */
    int64_t ready_us;         /* since when, for the backoff; 0: not yet */
    int64_t start_at_us;      /* WAITING: not before */
    int64_t kill_at_us;       /* DYING: if it is not gone by then */
    int failures;             /* in a row, without a long life between */
    uint64_t starts, planned; /* planned: those of them that mr_host_end asked for */
    bool pid_written;
    bool last; /* no other one is started after it */
};

static void set_state(mr_host *h, host_state s, const char *why) {
    mr_log(s == DYING ? MR_WARN : MR_INFO, "engine host", MR_S("from", state_names[h->state]),
           MR_S("to", state_names[s]), MR_I("pid", h->pid), MR_S("reason", why));
    h->state = s;
    if (why != h->why) snprintf(h->why, sizeof(h->why), "%s", why);
}

/* ---- dying ---- */

/* Kill it and drop the socket; it is buried when the pidfd says that it is gone. */
static void put_down(mr_host *h, const char *why) {
    if (h->state == DYING || h->state == WAITING) return;
    bool was_ready = h->state == READY;
    char reason[sizeof(h->why)];
    snprintf(reason, sizeof(reason), "%s", why);
    kill(h->pid, SIGKILL);
    if (h->io) bufferevent_free(h->io);
    h->io = NULL;
    if (was_ready && mr_mono_us() - h->ready_us > LONG_LIFE_US) h->failures = 0;
    h->failures++;
    set_state(h, DYING, reason);
    h->kill_at_us = mr_mono_us();
    if (was_ready) h->opt.lost(h->opt.arg, reason);
}

void mr_host_fail(mr_host *h, const char *why) {
    put_down(h, why);
}

void mr_host_proved(mr_host *h) {
    h->failures = 0;
}

/* A closed socket ends it; it gets some time for that, as a model that large may need to be let go of. */
void mr_host_end(mr_host *h, bool again, const char *why) {
    h->last = !again;
    if (h->last) h->pid_written = false; /* its successor's is in the file by now */
    h->failures = 0;
    if (h->state == WAITING || h->state == DYING) return;
    bufferevent_free(h->io);
    h->io = NULL;
    h->planned += again;
    h->kill_at_us = mr_mono_us() + GOODBYE_MS * INT64_C(1000);
    set_state(h, DYING, why);
}

bool mr_host_gone(const mr_host *h) {
    return h->last && h->state == WAITING;
}

bool mr_host_looping(const mr_host *h) {
    bool long_lived = h->state == READY && mr_mono_us() - h->ready_us > LONG_LIFE_US;
    return h->failures >= LOOP && !long_lived;
}

static int backoff_ms(const mr_host *h) {
    int ms = 0, most = h->ready_us && h->failures < LOOP ? BACKOFF_READY : BACKOFF_MOST;
    if (h->failures > 1) ms = BACKOFF_FIRST << (h->failures - 2 < 7 ? h->failures - 2 : 7);
    return ms < most ? ms : most;
}

static void describe_death(int status, char *out, size_t cap) {
    if (WIFSIGNALED(status)) {
        snprintf(out, cap, "the engine host died of signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    } else {
        snprintf(out, cap, "the engine host ended with status %d; its log says why", WEXITSTATUS(status));
    }
}

static void forget_process(mr_host *h) {
    if (h->gone) event_free(h->gone);
    if (h->pidfd >= 0) close(h->pidfd);
    h->gone = NULL;
    h->pidfd = -1;
    h->pid = 0;
    if (h->pid_written) unlink(h->opt.pid_file);
    h->pid_written = false;
}

static void on_watch(void *arg);

static void on_gone(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    mr_host *h = arg;
    int status;
    char why[200];
    if (waitpid(h->pid, &status, WNOHANG) <= 0) return;
    describe_death(status, why, sizeof(why));
    put_down(h, why);
    int wait = backoff_ms(h);
    h->start_at_us = mr_mono_us() + wait * INT64_C(1000);
    forget_process(h);
    mr_log(MR_INFO, "engine host is gone", MR_S("end", why), MR_I("restart_in_ms", h->last ? -1 : wait));
    set_state(h, WAITING, h->why);
    if (mr_host_looping(h))
        mr_log(MR_ERROR, "engine hosts die again and again", MR_I("in_a_row", h->failures),
               MR_S("last", why));
    if (wait == 0) on_watch(h);
}

/* ---- frames ---- */

/* Only of one that is ready: another one may still be at work when it is started. */
static void write_pid_file(mr_host *h) {
    FILE *f = h->opt.pid_file ? fopen(h->opt.pid_file, "we") : NULL;
    bool ok = f && fprintf(f, "%d\n", (int)h->pid) > 0;
    if (f && fclose(f) != 0) ok = false;
    h->pid_written = ok;
    if (h->opt.pid_file && !ok) {
        mr_log(MR_WARN, "pid file not written", MR_S("file", h->opt.pid_file),
               MR_S("error", strerror(errno)));
    }
}

static void on_frame(mr_host *h, const mr_frame *f) {
    h->heard_us = mr_mono_us();
    if (f->type == MR_FRAME_HELLO && h->state == STARTING) {
        if (f->hello.protocol != MR_FRAME_PROTOCOL) {
            put_down(
                h,
                "it speaks another version of the frame protocol: install worker and engine host together");
            return;
        }
        set_state(h, LOADING, "the model is being loaded");
    } else if (f->type == MR_FRAME_READY && h->state == LOADING) {
        h->ready_us = h->heard_us;
        set_state(h, READY, "a token was generated");
        write_pid_file(h);
        h->opt.ready(h->opt.arg, &f->ready);
    } else if (h->state == READY) {
        h->opt.frame(h->opt.arg, f);
    } else {
        put_down(h, "it sent frames before hello and ready");
    }
}

static void on_read(struct bufferevent *io, void *arg) {
    mr_host *h = arg;
    struct evbuffer *in = bufferevent_get_input(io);
    char chunk[16384];
    mr_frame f;
    mr_error err;
    /* a callback may put the host down: its socket is gone then */
    while (h->io == io && evbuffer_get_length(in) > 0) {
        int n = evbuffer_remove(in, chunk, sizeof(chunk));
        int rc = mr_frame_feed(h->reader, chunk, (size_t)n, &err);
        while (rc == 0 && h->io == io) {
            rc = mr_frame_next(h->reader, &f, &err);
            if (rc <= 0) break;
            on_frame(h, &f);
            rc = 0;
        }
        if (rc < 0) put_down(h, err.msg);
    }
}

static void on_event(struct bufferevent *io, short what, void *arg) {
    (void)io;
    (void)what;
    put_down(arg, "it closed its socket");
}

/* ---- starting ---- */

/* After fork: only async-signal-safe calls, because other threads (Kafka's) may have held locks. */
static void child(const mr_host *h, int fd, pid_t parent, char *const argv[]) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* Ctrl-C is for the supervisor, who drains */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, 0);
    if (fd == HOST_FD ? fcntl(fd, F_SETFD, 0) : dup2(fd, HOST_FD) < 0) _exit(126);
    close_range(HOST_FD + 1, ~0U, 0);
    execv(h->opt.argv[0], argv);
    static const char said[] =
        "millrace-worker: the engine host could not be started: check worker.engine_host\n";
    if (write(2, said, sizeof(said) - 1) < 0) _exit(127);
    _exit(127);
}

static char **make_argv(const mr_host *h) {
    int n = 0;
    while (h->opt.argv[n]) n++;
    char **argv = calloc((size_t)n + 3, sizeof(*argv));
    if (!argv) return NULL;
    memcpy(argv, h->opt.argv, (size_t)n * sizeof(*argv));
    argv[n] = "--fd";
    argv[n + 1] = "3";
    return argv;
}

static int start_process(mr_host *h, int fd, mr_error *err) {
    char **argv = make_argv(h);
    if (!argv) return mr_fail(err, MR_ENOMEM, "out of memory");
    pid_t parent = getpid();
    h->pid = fork();
    if (h->pid == 0) child(h, fd, parent, argv);
    free(argv);
    if (h->pid < 0) {
        h->pid = 0;
        return mr_fail(err, MR_EIO, "fork: %s", strerror(errno));
    }
    h->starts++;
    h->pidfd = pidfd_open(h->pid, 0);
    if (h->pidfd >= 0) h->gone = event_new(mr_loop_base(h->loop), h->pidfd, EV_READ | EV_PERSIST, on_gone, h);
    if (h->gone && event_add(h->gone, NULL) == 0) return 0;
    mr_fail(err, MR_EIO, "the engine host cannot be watched (pidfd_open: %s)", strerror(errno));
    kill(h->pid, SIGKILL);
    waitpid(h->pid, NULL, 0);
    forget_process(h);
    return -1;
}

static int listen_to(mr_host *h, int fd, mr_error *err) {
    h->io = bufferevent_socket_new(mr_loop_base(h->loop), fd, BEV_OPT_CLOSE_ON_FREE);
    if (!h->io) {
        close(fd);
        return mr_fail(err, MR_ENOMEM, "out of memory");
    }
    bufferevent_setcb(h->io, on_read, NULL, on_event, h);
    bufferevent_enable(h->io, EV_READ | EV_WRITE);
    mr_frame_reader_reset(h->reader);
    return 0;
}

static int start(mr_host *h, mr_error *err) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return mr_fail(err, MR_EIO, "socketpair: %s", strerror(errno));
    }
    evutil_make_socket_nonblocking(pair[0]);
    int rc = start_process(h, pair[1], err);
    close(pair[1]);
    if (rc) {
        close(pair[0]);
        return -1;
    }
    if (listen_to(h, pair[0], err)) {
        kill(h->pid, SIGKILL); /* and try again when it is gone */
        set_state(h, DYING, err->msg);
        return 0;
    }
    h->ready_us = 0;
    h->heard_us = mr_mono_us();
    set_state(h, STARTING, h->starts > 1 ? h->why : "first start");
    return 0;
}

/* ---- watching ---- */

static void watch_silence(mr_host *h, int64_t now) {
    char why[120];
    int limit = h->state == READY ? h->opt.step_timeout_ms : h->opt.start_timeout_ms;
    if (now - h->heard_us < limit * INT64_C(1000)) return;
    snprintf(why, sizeof(why), "it was silent for %d ms while %s", limit, state_names[h->state]);
    put_down(h, why);
}

static void on_watch(void *arg) {
    mr_host *h = arg;
    mr_error err;
    int64_t now = mr_mono_us();
    if (h->last && h->state == WAITING) return;
    if (h->state == DYING && now >= h->kill_at_us) kill(h->pid, SIGKILL);
    if (h->state == WAITING && now >= h->start_at_us && start(h, &err) != 0) {
        h->start_at_us = now + BACKOFF_MOST * INT64_C(1000);
        set_state(h, WAITING, err.msg);
    } else if (h->io) {
        watch_silence(h, now);
    }
}

/* ---- the rest ---- */

mr_host *mr_host_new(const mr_host_options *opt, mr_loop *l, mr_error *err) {
    mr_host *h = calloc(1, sizeof(*h));
    if (!h) {
        mr_fail(err, MR_ENOMEM, "out of memory for the engine host");
        return NULL;
    }
    *h = (mr_host){.opt = *opt, .loop = l, .pidfd = -1};
    mr_buf_init(&h->out, MR_FRAME_MAX + 16);
    h->reader = mr_frame_reader_new(err);
    if (h->reader) h->watch = mr_timer_new(l, WATCH_MS, on_watch, h, err);
    if (h->watch && start(h, err) == 0) return h;
    mr_host_free(h);
    return NULL;
}

static void say_goodbye(mr_host *h) {
    mr_error err;
    mr_frame f = {.type = MR_FRAME_DRAIN};
    f.drain.limit_ms = GOODBYE_MS;
    struct pollfd gone = {.fd = h->pidfd, .events = POLLIN};
    bool asked = h->state == READY && mr_host_send(h, &f, &err) == 0 &&
                 evbuffer_write(bufferevent_get_output(h->io), bufferevent_getfd(h->io)) > 0;
    if (!asked || poll(&gone, 1, GOODBYE_MS) <= 0) kill(h->pid, SIGKILL);
    waitpid(h->pid, NULL, 0);
    if (h->io) bufferevent_free(h->io);
}

void mr_host_free(mr_host *h) {
    if (!h) return;
    mr_timer_free(h->watch);
    if (h->pid > 0) say_goodbye(h);
    forget_process(h);
    mr_frame_reader_free(h->reader);
    mr_buf_done(&h->out);
    free(h);
}

int mr_host_send(mr_host *h, const mr_frame *f, mr_error *err) {
    if (h->state != READY) return mr_fail(err, MR_ESTATE, "the engine host is not ready: %s", h->why);
    mr_buf_clear(&h->out);
    if (mr_frame_encode(f, &h->out, err)) return -1;
    if (bufferevent_write(h->io, h->out.p, h->out.n) != 0) return mr_fail(err, MR_ENOMEM, "out of memory");
    return 0;
}

bool mr_host_ready(const mr_host *h) {
    return h->state == READY;
}
const char *mr_host_why(const mr_host *h) {
    return h->why;
}
int mr_host_pid(const mr_host *h) {
    return h->pid;
}
uint64_t mr_host_restarts(const mr_host *h) {
    uint64_t after_deaths = h->planned + 1;
    return h->starts > after_deaths ? h->starts - after_deaths : 0;
}
