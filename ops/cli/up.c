/* `millrace up`: a whole pipeline on this machine, from nothing to a streamed answer, until Ctrl-C.
 *
 * One thread, one loop. A timer drives the phases: servers (broker, Redis) -> topics and knowledge base -> Millrace's own
 * processes -> ready -> one chat is shown -> running. Whatever goes wrong on the way stops everything that was started.
 * With --detach all of this happens in a process of its own session, and the first process waits for one byte that says
 * how it went.
 */
#include "ops/cli/up.h"
#include "base/log.h"
#include "base/main.h"
#include "ops/cli/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICK_MS  50
#define DRAIN_MS 180000
#define QUESTION "What is Millrace?"
#define LOG_TAIL 4096

typedef enum { SERVERS, OWN, CHAT, RUNNING, STOPPING } phase;

typedef struct up {
    mr_up_options *o;
    mr_up_plan plan;
    mr_loop *loop;
    mr_parts *parts;
    mr_timer *tick;
    struct event *hangup;
    mr_up_demo *demo;
    phase phase;
    const char *waiting_for;
    int64_t started_us;
    int pid_fd;    /* DIR/up.pid, locked while we live */
    int status_fd; /* with --detach: where the first process waits; else -1 */
    bool failed;
} up;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("up: ", stdout);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
    fflush(stdout);
}

/* ---- command line ---- */

static void print_help(void) {
    printf("millrace up: runs a whole pipeline on this machine: broker, Redis, gateway, router, workers.\n\n"
           "Usage: millrace up [OPTIONS]     (ops/up.sh builds it first)\n\n"
           "  --port N             the gateway's port (8080); all other ports are free ones\n"
           "  --model DIR          a HuggingFace checkpoint folder (the demo model)\n"
           "  --engine KIND        real, or simulated: made-up text at the speed of --profile (real)\n"
           "  --profile FILE       what the simulated engine is like (ops/profiles/laptop.conf)\n"
           "  --workers N          how many workers (1)\n"
           "  --threads N          compute threads of each engine (all CPUs)\n"
           "  --kafka              a real single-node Apache Kafka in place of the embedded broker\n"
           "  --brokers HOST:PORT  your Kafka\n"
           "  --redis HOST:PORT    your Redis\n"
           "  --state DIR          configuration, logs, pids and data (./var)\n"
           "  --detach             return when it is ready; ops/down.sh --state DIR stops it\n");
}

static int number(const char *flag, const char *text, int min, int max, int *out, mr_error *err) {
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < min || n > max) {
        return mr_fail(err, MR_EINVAL, "%s is '%.50s', expected a number from %d to %d", flag, text, min,
                       max);
    }
    *out = (int)n;
    return 0;
}

static int path(const char *flag, const char *text, char out[MR_PATH_MAX], mr_error *err) {
    int n = snprintf(out, MR_PATH_MAX, "%s", text);
    return n > 0 && n < MR_PATH_MAX ? 0 : mr_fail(err, MR_EINVAL, "%s needs the path of a folder", flag);
}

static int address(const char *flag, const char *text, const char **out, mr_error *err) {
    const char *colon = strrchr(text, ':');
    int port;
    if (!colon || colon == text || strlen(text) >= MR_UP_NAME_MAX) {
        return mr_fail(err, MR_EINVAL, "%s is '%.100s', expected HOST:PORT", flag, text);
    }
    if (number("the port", colon + 1, 1, 65535, &port, err) != 0) return -1;
    *out = text;
    return 0;
}

static int engine(mr_up_options *o, const char *text, mr_error *err) {
    o->simulated = strcmp(text, "simulated") == 0;
    if (o->simulated || strcmp(text, "real") == 0) return 0;
    return mr_fail(err, MR_EINVAL, "--engine is '%.50s', expected real or simulated", text);
}

static int take_value(mr_up_options *o, const char *flag, const char *value, mr_error *err) {
    if (strcmp(flag, "--state") == 0) return path(flag, value, o->state, err);
    if (strcmp(flag, "--model") == 0) return path(flag, value, o->model, err);
    if (strcmp(flag, "--profile") == 0) return path(flag, value, o->profile, err);
    if (strcmp(flag, "--engine") == 0) return engine(o, value, err);
    if (strcmp(flag, "--port") == 0) return number(flag, value, 1, 65535, &o->port, err);
    if (strcmp(flag, "--workers") == 0) return number(flag, value, 1, MR_UP_WORKERS_MAX, &o->workers, err);
    if (strcmp(flag, "--threads") == 0) return number(flag, value, 1, 4096, &o->threads, err);
    if (strcmp(flag, "--brokers") == 0) return address(flag, value, &o->brokers, err);
    return address(flag, value, &o->redis, err);
}

static bool takes_value(const char *flag) {
    static const char *const flags[] = {"--state",   "--model",   "--engine",  "--profile", "--port",
                                        "--workers", "--threads", "--brokers", "--redis"};
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
        if (strcmp(flag, flags[i]) == 0) return true;
    }
    return false;
}

static int unknown(const char *flag, mr_error *err) {
    static const char *const flags[] = {"--state", "--model",   "--engine",  "--profile",
                                        "--port",  "--workers", "--threads", "--brokers",
                                        "--redis", "--kafka",   "--detach",  "--help"};
    mr_nearest near = {0};
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) mr_nearest_try(&near, flag, flags[i]);
    return mr_fail(err, MR_EINVAL,
                   near.best ? "unknown option '%.50s' (did you mean %s?)" : "unknown option '%.50s'", flag,
                   near.best);
}

static int read_options(int argc, char **argv, mr_up_options *o, mr_error *err) {
    for (int i = 1; i < argc; i++) {
        char flag[32];
        const char *equals = strchr(argv[i], '=');
        snprintf(flag, sizeof(flag), "%.*s", equals ? (int)(equals - argv[i]) : (int)strlen(argv[i]),
                 argv[i]);
        if (takes_value(flag)) {
            const char *value = equals ? equals + 1 : argv[++i];
            if (!value) return mr_fail(err, MR_EINVAL, "%s needs a value", flag);
            if (take_value(o, flag, value, err) != 0) return -1;
        } else if (strcmp(argv[i], "--kafka") == 0) {
            o->kafka = true;
        } else if (strcmp(argv[i], "--detach") == 0) {
            o->detach = true;
        } else {
            return unknown(argv[i], err);
        }
    }
    if (*o->profile && !o->simulated) {
        return mr_fail(err, MR_EINVAL, "--profile is for --engine simulated");
    }
    if (*o->model && o->simulated) {
        return mr_fail(err, MR_EINVAL,
                       "--model is for the real engine: --engine simulated reads no checkpoint");
    }
    if (o->kafka && o->brokers) {
        return mr_fail(err, MR_EINVAL, "--kafka starts a Kafka and --brokers names yours: give one of them");
    }
    return 0;
}

/* ---- one pipeline a folder ---- */

static int lock_state(up *u, mr_error *err) {
    char file[MR_PATH_MAX + 16], pid[16] = "";
    snprintf(file, sizeof(file), "%s/up.pid", u->o->state);
    u->pid_fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (u->pid_fd < 0) return mr_fail(err, MR_EIO, "%s: %s", file, strerror(errno));
    if (flock(u->pid_fd, LOCK_EX | LOCK_NB) == 0) return 0;
    ssize_t n = read(u->pid_fd, pid, sizeof(pid) - 1);
    if (n > 0) pid[strcspn(pid, "\n")] = '\0';
    return mr_fail(
        err, MR_ESTATE,
        "a pipeline runs in %s already (process %s); stop it with ops/down.sh --state %s, or choose "
        "another folder with --state",
        u->o->state, pid, u->o->state);
}

static int write_pid(const up *u, mr_error *err) {
    if (ftruncate(u->pid_fd, 0) == 0 && dprintf(u->pid_fd, "%d\n", (int)getpid()) > 0) return 0;
    return mr_fail(err, MR_EIO, "%s/up.pid: %s", u->o->state, strerror(errno));
}

static void unlock_state(up *u) {
    char file[MR_PATH_MAX + 16];
    snprintf(file, sizeof(file), "%s/up.pid", u->o->state);
    unlink(file);
    close(u->pid_fd);
}

/* ---- detaching ---- */

/* Tells the first process how it went, and leaves its terminal. */
static void report(up *u, unsigned char status) {
    char file[MR_PATH_MAX + 16];
    if (u->status_fd < 0) return;
    snprintf(file, sizeof(file), "%s/log/up.log", u->o->state);
    fflush(stdout);
    int log = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644),
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(log >= 0 ? log : null, 1);
    dup2(log >= 0 ? log : null, 2);
    if (log >= 0) close(log);
    if (null >= 0) close(null);
    if (write(u->status_fd, &status, 1) != 1) say("nobody waits for the report any more");
    close(u->status_fd);
    u->status_fd = -1;
}

/* In the first process: waits for the other one's report. */
static int wait_for_report(int fd) {
    unsigned char status = 1;
    ssize_t n;
    do n = read(fd, &status, 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    return n == 1 ? status : 1;
}

static pid_t detached; /* for the signal handler of the first process */

static void hand_on(int sig) {
    kill(detached, sig);
}

/* Goes on in a process of its own session: 0 there, 1 and the exit status in the first process, -1 and err on failure. */
static int detach(up *u, int *status, mr_error *err) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return mr_fail(err, MR_EIO, "no pipe: %s", strerror(errno));
    fflush(stdout);
    detached = fork();
    if (detached < 0) return mr_fail(err, MR_EIO, "no process: %s", strerror(errno));
    if (detached > 0) {
        signal(SIGINT, hand_on);
        signal(SIGTERM, hand_on);
        close(fds[1]);
        *status = wait_for_report(fds[0]);
        return 1;
    }
    close(fds[0]);
    setsid();
    u->status_fd = fds[1];
    return 0;
}

/* ---- phases ---- */

static void stop(up *u) {
    if (u->phase != STOPPING) say("stopping");
    u->phase = STOPPING;
    mr_up_demo_free(u->demo);
    u->demo = NULL;
    mr_parts_echo(u->parts, !u->o->detach);
    mr_parts_stop(u->parts);
}

static void fail(up *u, const mr_error *err) {
    if (u->phase == STOPPING) return;
    u->failed = true;
    say("%s", err->msg);
    stop(u);
}

static void show_how_to_ask(const up *u) {
    say("ready in %.1f s: http://127.0.0.1:%d (Kafka at %s, Redis at %s, state in %s)",
        (double)(mr_mono_us() - u->started_us) / 1e6, u->o->port, u->plan.brokers, u->plan.redis,
        u->o->state);
    printf(
        "\n  curl -N http://127.0.0.1:%d/v1/chat/completions -H 'content-type: application/json' \\\n"
        "    -d '{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"" QUESTION
        "\"}]}'\n"
        "  millrace status --config %s\n\n",
        u->o->port, u->plan.model_name, u->plan.config);
    fflush(stdout);
}

static void go_on_running(up *u) {
    u->phase = RUNNING;
    if (u->o->detach) {
        say("it runs in the background; ops/down.sh --state %s stops it", u->o->state);
        report(u, 0);
        return;
    }
    mr_parts_echo(u->parts, true);
    say("Ctrl-C stops it; what follows are the logs, which are in %s/log too", u->o->state);
}

static void on_chat(void *arg, const mr_error *why) {
    up *u = arg;
    mr_error err;
    mr_up_demo_free(u->demo);
    u->demo = NULL;
    printf("\n\n");
    if (!why) {
        go_on_running(u);
        return;
    }
    mr_fail(&err, MR_EIO, "the first chat failed: %s; see the logs in %s/log", why->msg, u->o->state);
    fail(u, &err);
}

static void start_chat(up *u) {
    mr_error err;
    show_how_to_ask(u);
    if (u->o->detach) {
        go_on_running(u);
        return;
    }
    u->phase = CHAT;
    mr_parts_echo(u->parts, false);
    printf("  > " QUESTION "\n  ");
    fflush(stdout);
    u->demo = mr_up_demo_start(u->loop, u->o->port, u->plan.model_name, QUESTION, on_chat, u, &err);
    if (!u->demo) fail(u, &err);
}

static void start_own(up *u) {
    mr_error err;
    u->phase = OWN;
    u->waiting_for = NULL;
    if (mr_up_prepare(&u->plan, &err) != 0 || mr_up_start_millrace(&u->plan, u->parts, &err) != 0)
        fail(u, &err);
}

static void on_tick(void *arg) {
    up *u = arg;
    const char *waiting_for = NULL;
    if (u->phase != SERVERS && u->phase != OWN) return;
    if (mr_parts_ready(u->parts, &waiting_for)) {
        if (u->phase == SERVERS) {
            start_own(u);
        } else {
            start_chat(u);
        }
    } else if (waiting_for != u->waiting_for) {
        say("waiting for %s (%s/log/%s.log)", waiting_for, u->o->state, waiting_for);
        u->waiting_for = waiting_for;
    }
}

/* ---- what the parts and signals tell ---- */

static void on_drain(void *arg) {
    stop(arg);
}

static void on_stopped(void *arg) {
    up *u = arg;
    say("all has stopped");
    mr_loop_stop(u->loop);
}

/* The terminal was closed; with --detach there was none to begin with. */
static void on_hangup(evutil_socket_t sig, short what, void *arg) {
    up *u = arg;
    (void)sig, (void)what;
    if (!u->o->detach) mr_loop_drain(u->loop);
}

/* The end of its log says more than we can. */
static void show_log(const up *u, const char *name) {
    char file[MR_PATH_MAX + 64], text[LOG_TAIL];
    snprintf(file, sizeof(file), "%s/log/%s.log", u->o->state, name);
    FILE *f = fopen(file, "re");
    if (!f) return;
    if (fseek(f, -LOG_TAIL, SEEK_END) != 0) rewind(f);
    size_t n = fread(text, 1, sizeof(text), f);
    fwrite(text, 1, n, stdout);
    fclose(f);
}

static void on_hopeless(void *arg, const mr_part *part) {
    up *u = arg;
    mr_error err;
    if (u->phase == STOPPING) return;
    if (u->o->detach) show_log(u, part->name);
    mr_fail(&err, MR_ESTATE, "%s does not start; its log is %s/log/%s.log", part->name, u->o->state,
            part->name);
    fail(u, &err);
}

/* ---- */

static int run(up *u, mr_error *err) {
    const mr_parts_events events = {.on_stopped = on_stopped, .on_hopeless = on_hopeless, .arg = u};
    int rc = -1;
    u->started_us = mr_mono_us();
    u->loop = mr_loop_new(err);
    if (!u->loop) return -1;
    u->parts = mr_parts_new(u->loop, u->o->state, !u->o->detach, &events, err);
    if (!u->parts) goto out;
    mr_loop_on_drain(u->loop, DRAIN_MS, on_drain, u);
    u->tick = mr_timer_new(u->loop, TICK_MS, on_tick, u, err);
    u->hangup = evsignal_new(mr_loop_base(u->loop), SIGHUP, on_hangup, u);
    if (u->hangup) evsignal_add(u->hangup, NULL); /* without it a closed terminal ends us less gently */
    if (!u->tick || write_pid(u, err) != 0 || mr_up_start_servers(&u->plan, u->parts, err) != 0) goto out;
    rc = mr_loop_run(u->loop);
    if (u->failed) rc = 1;
out:
    mr_up_demo_free(u->demo);
    mr_timer_free(u->tick);
    if (u->hangup) event_free(u->hangup);
    mr_parts_free(u->parts);
    mr_loop_free(u->loop);
    return rc;
}

int cmd_up(int argc, char **argv) {
    mr_up_options o = {.port = 8080, .workers = 1, .state = "var"};
    up u = {.o = &o, .status_fd = -1};
    mr_error err;
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help();
        return 0;
    }
    if (read_options(argc, argv, &o, &err) != 0) {
        fprintf(stderr, "millrace up: %s. Try millrace up --help.\n", err.msg);
        return 2;
    }
    if (mr_log_init("up", "plain", MR_WARN, &err) != 0 || mr_up_plan_check(&u.plan, &o, &err) != 0 ||
        mr_up_state_make(&o, &err) != 0 || lock_state(&u, &err) != 0) {
        goto fail;
    }
    int status = 1, rc = o.detach ? detach(&u, &status, &err) : 0;
    if (rc > 0) return status;
    if (rc == 0) rc = mr_up_plan_make(&u.plan, &err);
    if (rc == 0) rc = run(&u, &err);
    unlock_state(&u);
    if (rc < 0) goto fail;
    report(&u, (unsigned char)rc);
    return rc;
fail:
    fprintf(stderr, "millrace up: %s\n", err.msg);
    report(&u, 1);
    return 1;
}
