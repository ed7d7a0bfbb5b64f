/* See up_parts.h. */
#include "ops/cli/up_parts.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PARTS_MAX     40
#define PATH_SIZE     4096
#define TICK_MS       100
#define STEADY_US     30000000 /* a part that ran this long starts its count of deaths anew */
#define HOPELESS      3
#define PROBE_S       2
#define BACKOFF_MS    200
#define BACKOFF_TO_MS 5000

struct mr_parts {
    mr_loop *loop;
    char state[PATH_SIZE];
    bool echo;
    mr_parts_events events;
    mr_part v[PARTS_MAX];
    bool probing[PARTS_MAX];
    int n;
    struct event *on_child;
    mr_timer *tick;
    bool stopping, said_stopped;
    int stop_rank;
};

/* ---- files ---- */

static void pid_path(const mr_parts *p, const mr_part *part, char out[PATH_SIZE]) {
    snprintf(out, PATH_SIZE, "%.*s/%s.pid", PATH_SIZE - 64, p->state, part->name);
}

static void write_pid(const mr_parts *p, const mr_part *part) {
    char path[PATH_SIZE];
    pid_path(p, part, path);
    FILE *f = fopen(path, "w");
    if (!f || fprintf(f, "%d\n", part->pid) < 0) fprintf(stderr, "up: %s: %s\n", path, strerror(errno));
    if (f) fclose(f);
}

static void remove_pid(const mr_parts *p, const mr_part *part) {
    char path[PATH_SIZE];
    pid_path(p, part, path);
    unlink(path);
}

static int open_log(const mr_parts *p, const mr_part *part, mr_error *err) {
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "%.*s/log/%s.log", PATH_SIZE - 64, p->state, part->name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) mr_fail(err, MR_EIO, "%s cannot be written: %s", path, strerror(errno));
    return fd;
}

/* ---- output ---- */

static void echo_line(mr_part *part) {
    printf("%-8s | %.*s\n", part->name, part->nline, part->line);
    part->nline = 0;
}

static void echo_text(mr_part *part, const char *text, ssize_t n) {
    for (ssize_t i = 0; i < n; i++) {
        if (text[i] == '\n' || part->nline == (int)sizeof(part->line)) echo_line(part);
        if (text[i] != '\n') part->line[part->nline++] = text[i];
    }
    fflush(stdout);
}

static void close_output(mr_part *part) {
    if (part->readable) event_free(part->readable);
    if (part->output >= 0) close(part->output);
    part->readable = NULL;
    part->output = -1;
}

static void on_output(evutil_socket_t fd, short what, void *arg) {
    mr_parts *p = arg;
    char text[4096];
    (void)what;
    for (int i = 0; i < p->n; i++) {
        mr_part *part = &p->v[i];
        if (part->output != fd) continue;
        ssize_t n = read(fd, text, sizeof(text));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) {
            close_output(part);
            return;
        }
        /* a full disk must not stop the pipeline: then the log has a hole */
        if (write(part->log_fd, text, (size_t)n) < 0 && p->echo) fprintf(stderr, "up: %s\n", strerror(errno));
        if (p->echo) echo_text(part, text, n);
        return;
    }
}

void mr_parts_echo(mr_parts *p, bool echo) {
    p->echo = echo;
}

/* ---- starting ---- */

mr_part *mr_parts_add(mr_parts *p, const char *name) {
    if (p->n == PARTS_MAX) return NULL;
    mr_part *part = &p->v[p->n++];
    *part = (mr_part){.output = -1, .log_fd = -1, .stop_s = 5};
    snprintf(part->name, sizeof(part->name), "%s", name);
    return part;
}

int mr_part_arg(mr_part *part, mr_error *err, const char *fmt, ...) {
    int n = 0;
    va_list ap;
    while (part->argv[n]) n++;
    if (n == MR_PART_ARGS - 1) return mr_fail(err, MR_ETOOBIG, "too many arguments for %s", part->name);
    va_start(ap, fmt);
    int len = vasprintf(&part->argv[n], fmt, ap);
    va_end(ap);
    if (len >= 0) return 0;
    part->argv[n] = NULL;
    return mr_fail(err, MR_ENOMEM, "out of memory while starting %s", part->name);
}

/* In the child, between fork and exec: only calls that are safe there. */
static void become(const mr_part *part, int output, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1); /* died before the line above */
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0) _exit(126);
    execvp(part->argv[0], part->argv);
    static const char sorry[] = "cannot be executed: ";
    const char *why = strerror(errno);
    if (write(2, sorry, sizeof(sorry) - 1) < 0 || write(2, why, strlen(why)) < 0) _exit(126);
    _exit(127);
}

static int watch_output(mr_parts *p, mr_part *part, mr_error *err) {
    part->readable = event_new(mr_loop_base(p->loop), part->output, EV_READ | EV_PERSIST, on_output, p);
    if (part->readable && event_add(part->readable, NULL) == 0) return 0;
    return mr_fail(err, MR_ENOMEM, "out of memory while starting %s", part->name);
}

int mr_parts_start(mr_parts *p, mr_part *part, mr_error *err) {
    int pipe_fd[2];
    if (part->log_fd < 0 && (part->log_fd = open_log(p, part, err)) < 0) return -1;
    if (pipe2(pipe_fd, O_CLOEXEC) != 0)
        return mr_fail(err, MR_EIO, "no pipe for %s: %s", part->name, strerror(errno));
    fcntl(pipe_fd[0], F_SETFL, O_NONBLOCK);
    close_output(part);
    pid_t self = getpid();
    part->pid = fork();
    if (part->pid == 0) become(part, pipe_fd[1], self);
    close(pipe_fd[1]);
    if (part->pid < 0) {
        part->pid = 0;
        close(pipe_fd[0]);
        return mr_fail(err, MR_EIO, "%s cannot be started: %s", part->name, strerror(errno));
    }
    part->output = pipe_fd[0];
    part->started_us = mr_mono_us();
    write_pid(p, part);
    return watch_output(p, part, err);
}

/* ---- dying and starting again ---- */

static mr_part *find_pid(mr_parts *p, pid_t pid) {
    for (int i = 0; i < p->n; i++) {
        if (p->v[i].pid == pid) return &p->v[i];
    }
    return NULL;
}

static void start_again(evutil_socket_t fd, short what, void *arg) {
    mr_parts *p = arg;
    mr_error err;
    (void)fd, (void)what;
    for (int i = 0; i < p->n; i++) {
        mr_part *part = &p->v[i];
        if (part->pid != 0 || !part->again || evtimer_pending(part->again, NULL) || p->stopping) continue;
        if (mr_parts_start(p, part, &err) != 0) fprintf(stderr, "up: %s\n", err.msg);
    }
}

static void schedule(mr_parts *p, mr_part *part) {
    int ms = BACKOFF_MS;
    for (int i = 1; i < part->deaths && ms < BACKOFF_TO_MS; i++) ms *= 2;
    struct timeval wait = {ms / 1000, ms % 1000 * 1000};
    if (!part->again) part->again = evtimer_new(mr_loop_base(p->loop), start_again, p);
    if (!part->again || evtimer_add(part->again, &wait) != 0) {
        fprintf(stderr, "up: out of memory; %s stays down\n", part->name);
        return;
    }
    printf("up: %s is started again in %.1f s\n", part->name, ms / 1000.0);
    fflush(stdout);
}

static void on_end(mr_parts *p, mr_part *part, int status) {
    remove_pid(p, part);
    part->pid = 0;
    if (p->stopping) {
        printf("up: %s has stopped\n", part->name);
        fflush(stdout);
        return;
    }
    if (WIFSIGNALED(status)) {
        printf("up: %s was ended by signal %d (%s)\n", part->name, WTERMSIG(status),
               strsignal(WTERMSIG(status)));
    } else {
        printf("up: %s ended with status %d\n", part->name, WEXITSTATUS(status));
    }
    fflush(stdout);
    part->deaths = mr_mono_us() - part->started_us > STEADY_US ? 1 : part->deaths + 1;
    if (!part->ready && part->deaths >= HOPELESS) {
        p->events.on_hopeless(p->events.arg, part);
    } else {
        schedule(p, part);
    }
}

static void on_child(evutil_socket_t sig, short what, void *arg) {
    mr_parts *p = arg;
    int status;
    pid_t pid;
    (void)sig, (void)what;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        mr_part *part = find_pid(p, pid);
        if (part) on_end(p, part, status);
    }
}

/* ---- readiness ---- */

static bool listens(int port) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool yes = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
    close(fd);
    return yes;
}

typedef struct probe {
    mr_parts *p;
    int part;
    struct evhttp_connection *conn;
} probe;

static void free_probe(evutil_socket_t fd, short what, void *arg) {
    probe *q = arg;
    (void)fd, (void)what;
    evhttp_connection_free(q->conn);
    free(q);
}

static void on_probe(struct evhttp_request *req, void *arg) {
    probe *q = arg;
    if (req && evhttp_request_get_response_code(req) == 200) q->p->v[q->part].ready = true;
    q->p->probing[q->part] = false;
    /* not from inside the connection's own callback */
    event_base_once(mr_loop_base(q->p->loop), -1, EV_TIMEOUT, free_probe, q, NULL);
}

static void ask(mr_parts *p, int i) {
    probe *q = calloc(1, sizeof(*q));
    if (!q) return;
    *q = (probe){
        p, i, evhttp_connection_base_new(mr_loop_base(p->loop), NULL, "127.0.0.1", (uint16_t)p->v[i].port)};
    struct evhttp_request *req = q->conn ? evhttp_request_new(on_probe, q) : NULL;
    if (!req) {
        if (q->conn) evhttp_connection_free(q->conn);
        free(q);
        return;
    }
    evhttp_connection_set_timeout(q->conn, PROBE_S);
    evhttp_add_header(evhttp_request_get_output_headers(req), "Host", "127.0.0.1");
    p->probing[i] = true;
    evhttp_make_request(q->conn, req, EVHTTP_REQ_GET, "/readyz");
}

bool mr_parts_ready(mr_parts *p, const char **waiting_for) {
    bool all = true;
    for (int i = 0; i < p->n; i++) {
        mr_part *part = &p->v[i];
        if (part->ready) continue;
        if (part->probe_tcp) {
            part->ready = part->pid > 0 && listens(part->port);
        } else if (!p->probing[i]) {
            ask(p, i);
        }
        if (part->ready) continue;
        if (all) *waiting_for = part->name;
        all = false;
    }
    return all;
}

/* ---- stopping ---- */

static int lowest_rank(const mr_parts *p) {
    int rank = -1;
    for (int i = 0; i < p->n; i++) {
        if (p->v[i].pid > 0 && (rank < 0 || p->v[i].stop_rank < rank)) rank = p->v[i].stop_rank;
    }
    return rank;
}

static void stop_rank(mr_parts *p, int rank) {
    p->stop_rank = rank;
    for (int i = 0; i < p->n; i++) {
        mr_part *part = &p->v[i];
        if (part->pid <= 0 || part->stop_rank != rank) continue;
        kill(part->pid, SIGTERM);
        part->stop_by_us = mr_mono_us() + part->stop_s * 1000000LL;
    }
}

static void on_tick(void *arg) {
    mr_parts *p = arg;
    if (!p->stopping || p->said_stopped) return;
    int rank = lowest_rank(p);
    if (rank < 0) {
        p->said_stopped = true;
        p->events.on_stopped(p->events.arg);
        return;
    }
    if (rank != p->stop_rank) stop_rank(p, rank);
    for (int i = 0; i < p->n; i++) {
        mr_part *part = &p->v[i];
        if (part->pid > 0 && part->stop_by_us > 0 && mr_mono_us() > part->stop_by_us)
            kill(part->pid, SIGKILL);
    }
}

void mr_parts_stop(mr_parts *p) {
    if (p->stopping) {
        for (int i = 0; i < p->n; i++) {
            if (p->v[i].pid > 0) kill(p->v[i].pid, SIGKILL);
        }
        return;
    }
    p->stopping = true;
    p->stop_rank = -1;
    on_tick(p);
}

/* ---- */

mr_parts *mr_parts_new(mr_loop *l, const char *state, bool echo, const mr_parts_events *events,
                       mr_error *err) {
    mr_parts *p = calloc(1, sizeof(*p));
    if (!p) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    p->loop = l;
    p->echo = echo;
    p->events = *events;
    snprintf(p->state, sizeof(p->state), "%s", state);
    p->on_child = evsignal_new(mr_loop_base(l), SIGCHLD, on_child, p);
    p->tick = mr_timer_new(l, TICK_MS, on_tick, p, err);
    if (p->tick && p->on_child && event_add(p->on_child, NULL) == 0) return p;
    mr_fail(err, MR_ENOMEM, "out of memory while watching processes");
    mr_parts_free(p);
    return NULL;
}

static void free_part(mr_parts *p, mr_part *part) {
    if (part->pid > 0) {
        kill(part->pid, SIGKILL);
        waitpid(part->pid, NULL, 0);
        remove_pid(p, part);
    }
    close_output(part);
    if (part->again) event_free(part->again);
    if (part->log_fd >= 0) close(part->log_fd);
    for (int i = 0; part->argv[i]; i++) free(part->argv[i]);
}

void mr_parts_free(mr_parts *p) {
    if (!p) return;
    for (int i = 0; i < p->n; i++) free_part(p, &p->v[i]);
    if (p->on_child) event_free(p->on_child);
    mr_timer_free(p->tick);
    free(p);
}
