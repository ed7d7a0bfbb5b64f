/* millrace-simulated-host: an engine host without an engine, started by millrace-worker with worker.engine = "simulated".
 *
 * A program of its own and not a mode of millrace-engine-host: it links no engine, so it is small enough to run by the
 * dozen, and nobody takes one for the other. It speaks worker/frames.h; engine.h says what it simulates. One thread:
 * it sleeps until the socket has something, a step ends, or `load` is due.
 */
#include "base/main.h"
#include "base/log.h"
#include "worker/host/peer.h"
#include "worker/simulated/engine.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOAD_US  250000
#define OUT_HIGH (4u << 20) /* so much unsent: the supervisor does not read, do not generate more */
#define OUT_MAX  (64u << 20)
#define LEAK_MAX (16u << 10) /* megabytes */

typedef struct host {
    mr_peer peer;
    mr_sim_profile profile;
    mr_sim *sim;
    int64_t start_us, load_us;
    bool ready, draining;
    char *leaked[LEAK_MAX];
    int nleaked;
} host;

typedef struct options {
    int fd;
    const char *profile;
    int64_t max_seqs, max_context;
} options;

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

/* ---- command line ---- */

static const char usage[] =
    "Usage: millrace-simulated-host --fd N [options]\n"
    "Simulates an engine for millrace-worker, which starts it and speaks with it over socket N.\n\n"
    "  --fd N              the socket\n"
    "  --profile FILE      speeds, memory and answers, see ops/profiles (a small computer)\n"
    "  --max-seqs N        sequences that run at once (0: the profile's)\n"
    "  --max-context N     tokens of a sequence, prompt and answer (0: the profile's)\n"
    "  --print-profile     every key of a profile, with its default and meaning\n"
    "  --help, --version\n";

enum { FD, PROFILE, MAX_SEQS, MAX_CONTEXT, PRINT_PROFILE, HELP, VERSION };

static const struct option flags[] = {
    {"fd", required_argument, NULL, FD},
    {"profile", required_argument, NULL, PROFILE},
    {"max-seqs", required_argument, NULL, MAX_SEQS},
    {"max-context", required_argument, NULL, MAX_CONTEXT},
    {"print-profile", no_argument, NULL, PRINT_PROFILE},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {0},
};

static int wrong(const char *what, const char *value) {
    fprintf(stderr, "millrace-simulated-host: %s%s (see --help)\n", what, value);
    return 2;
}

static int count(int64_t most, int64_t *out) {
    char *end;
    errno = 0;
    *out = strtoll(optarg, &end, 10);
    bool ok = !errno && end != optarg && !*end && *out >= 0 && *out <= most;
    return ok ? -1 : wrong("not a number from 0 up, or too large: ", optarg);
}

static int print_profile(void) {
    mr_sim_conf unused;
    const mr_conf_group groups[] = {{"simulated", mr_sim_keys, &unused}, {0}};
    mr_buf out;
    mr_buf_init(&out, 65536);
    mr_conf_print(groups, &out);
    fwrite(out.p, 1, out.n, stdout);
    mr_buf_done(&out);
    return 0;
}

static int set_option(int flag, options *o) {
    int64_t fd;
    int status;
    switch (flag) {
    case FD:
        status = count(INT32_MAX, &fd);
        o->fd = (int)fd;
        return status;
    case PROFILE: o->profile = *optarg ? optarg : NULL; return -1;
    case MAX_SEQS: return count(4096, &o->max_seqs);
    case MAX_CONTEXT: return count(10000000, &o->max_context);
    case PRINT_PROFILE: return print_profile();
    case HELP: fputs(usage, stdout); return 0;
    default: printf("millrace-simulated-host %s\n", mr_version()); return 0;
    }
}

/* -1 to go on, or the exit status. */
static int parse(int argc, char **argv, options *o) {
    int flag;
    opterr = 0;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == '?') return wrong("wrong option: ", argv[optind - 1]);
        int status = set_option(flag, o);
        if (status >= 0) return status;
    }
    if (optind < argc) return wrong("unexpected argument: ", argv[optind]);
    return o->fd < 0 ? wrong("--fd is missing: this program is started by millrace-worker", "") : -1;
}

/* ---- frames ---- */

static int on_submit(host *h, const mr_frame_submit *f, mr_error *err) {
    mr_error refused;
    if (mr_sim_submit(h->sim, f, now_us(), &refused) == 0) return 0;
    const char *code = refused.code == MR_ETOOBIG  ? "context_length_exceeded"
                       : refused.code == MR_ESTATE ? "engine_busy"
                                                   : "invalid_request";
    return mr_peer_refuse(&h->peer, f->id, refused.code == MR_ESTATE ? 503 : 400, code, refused.msg, err);
}

static int on_frame(void *arg, const mr_frame *f, mr_error *err) {
    host *h = arg;
    switch (f->type) {
    case MR_FRAME_SUBMIT: return on_submit(h, &f->submit, err);
    case MR_FRAME_CANCEL: return mr_sim_cancel(h->sim, f->cancel.id, &h->peer.out, err);
    case MR_FRAME_DRAIN: h->draining = true; return 0;
    default: return mr_fail(err, MR_EINVAL, "the supervisor sent a %s frame", mr_frame_name(f->type));
    }
}

/* ---- the loop ---- */

static int say_ready(host *h, mr_error *err) {
    const mr_sim_conf *c = &h->profile.c;
    mr_frame f = {.type = MR_FRAME_READY};
    f.ready = (mr_frame_ready){.load_seconds = c->load_s,
                               .model = mr_str_of(c->name),
                               .architecture = MR_STR("simulated"),
                               .isa = MR_STR("none"),
                               .max_seqs = c->max_seqs,
                               .max_context = c->max_context};
    mr_log(MR_INFO, "simulated engine ready", MR_S("profile", c->name), MR_I("max_seqs", c->max_seqs));
    return mr_frame_encode(&f, &h->peer.out, err);
}

/* Nothing is said before the model has been "loaded" but hello. */
static int say_what_is_due(host *h, int64_t now, mr_error *err) {
    if (now < h->load_us || h->peer.out.n >= OUT_HIGH) return 0;
    h->load_us = now + LOAD_US;
    if (h->ready) return mr_sim_load(h->sim, &h->peer.out, err);
    h->ready = true;
    return say_ready(h, err);
}

/* As a process does that forgets to free: so much by now. */
static void leak(host *h, int64_t now) {
    double want = h->profile.c.leak_mb_per_s * (double)(now - h->start_us) / 1e6;
    while (h->nleaked < want && h->nleaked < (int)LEAK_MAX) {
        char *p = malloc(1 << 20);
        if (!p) return;
        memset(p, 1, 1 << 20);
        h->leaked[h->nleaked++] = p;
    }
}

static int wait_for_work(const host *h, mr_error *err) {
    struct pollfd p = {.fd = h->peer.fd, .events = (short)(POLLIN | (h->peer.out.n ? POLLOUT : 0))};
    int64_t until = h->load_us, due = mr_sim_due(h->sim);
    if (h->peer.out.n < OUT_HIGH && due < until) until = due;
    int64_t us = until - now_us();
    if (us < 0) us = 0;
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    if (ppoll(&p, 1, &t, NULL) < 0 && errno != EINTR)
        return mr_fail(err, MR_EIO, "poll: %s", strerror(errno));
    return 0;
}

/* After what was said before has been sent. */
static void misbehave(host *h) {
    mr_error unused;
    mr_sim_health health = mr_sim_health_now(h->sim);
    if (health == MR_SIM_WELL) return;
    while (!h->peer.gone && h->peer.out.n && mr_peer_flush(&h->peer, &unused) == 0) {
        struct pollfd p = {.fd = h->peer.fd, .events = POLLOUT};
        poll(&p, 1, LOAD_US / 1000);
    }
    raise(health == MR_SIM_CRASHES ? SIGKILL : SIGSTOP);
}

static int serve(host *h, mr_error *err) {
    for (;;) {
        if (wait_for_work(h, err) || mr_peer_read(&h->peer, on_frame, h, err)) return -1;
        int64_t now = now_us();
        if (h->peer.out.n < OUT_HIGH && mr_sim_step(h->sim, now, &h->peer.out, err)) return -1;
        leak(h, now);
        misbehave(h);
        if (say_what_is_due(h, now, err) || mr_peer_flush(&h->peer, err)) return -1;
        if (h->peer.gone) return 0;
        if (h->draining && !mr_sim_busy(h->sim) && !h->peer.out.n) return 0;
    }
}

static int host_init(host *h, const options *o, mr_error *err) {
    if (mr_sim_profile_load(&h->profile, o->profile, err) || mr_peer_init(&h->peer, o->fd, OUT_MAX, err))
        return -1;
    if (o->max_seqs) h->profile.c.max_seqs = o->max_seqs;
    if (o->max_context) h->profile.c.max_context = o->max_context;
    h->start_us = now_us();
    h->load_us = h->start_us + (int64_t)(h->profile.c.load_s * 1e6);
    h->sim = mr_sim_new(&h->profile, err);
    return h->sim ? 0 : -1;
}

static void host_done(host *h) {
    mr_sim_free(h->sim);
    mr_peer_done(&h->peer);
    mr_sim_profile_done(&h->profile);
    while (h->nleaked) free(h->leaked[--h->nleaked]);
}

int main(int argc, char **argv) {
    static host h;
    options o = {.fd = -1};
    mr_error err;
    int status = parse(argc, argv, &o);
    if (status >= 0) return status;
    if (mr_log_init("engine", "auto", MR_INFO, &err)) {
        fprintf(stderr, "millrace-simulated-host: %s\n", err.msg);
        return 1;
    }
    /* Whoever ends a whole group means the supervisor, who then drains this process. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    int rc = host_init(&h, &o, &err) || mr_peer_hello(&h.peer, "millrace-simulated", &err) || serve(&h, &err);
    host_done(&h);
    if (rc) mr_log(MR_ERROR, "simulated engine ends", MR_S("error", err.msg));
    return rc ? 1 : 0;
}
