/* See engine_host.h. */
#include "worker/host/engine_host.h"

#include "base/log.h"
#include "worker/host/events.h"
#include "worker/host/peer.h"
#include "worker/host/request.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOAD_US   250000
#define OUT_HIGH  (4u << 20)     /* so much unsent: the supervisor does not read, do not generate more */
#define OUT_MAX   (4 * OUT_HIGH) /* and what one step can add on top */
#define ARENA_MAX (64u << 20)
#define CANARY_ID UINT64_MAX /* ids of submits are below it */

typedef struct engine_host {
    mr_peer peer;
    engine *engine;
    engine_event *events;
    int max_events;
    mr_arena *arena;
    int64_t load_us; /* when the next `load` is due */
    bool draining;   /* no more submits */
} engine_host;

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static int engine_failed(mr_error *err, const engine_error *cause) {
    return mr_fail(err, MR_ESTATE, "%s", cause->msg);
}

/* ---- frames ---- */

/* What the engine says when it refuses a request, for the person who waits. */
static int refuse(engine_host *h, int64_t id, engine_error_code code, const char *why, mr_error *err) {
    switch (code) {
    case ENGINE_EINVAL: return mr_peer_refuse(&h->peer, id, 400, "invalid_request", why, err);
    case ENGINE_ETOOLONG: return mr_peer_refuse(&h->peer, id, 400, "context_length_exceeded", why, err);
    case ENGINE_EBUSY: return mr_peer_refuse(&h->peer, id, 503, "engine_busy", why, err);
    default: return mr_peer_refuse(&h->peer, id, 500, "engine_error", why, err);
    }
}

static int on_submit(engine_host *h, const mr_frame_submit *f, mr_error *err) {
    engine_request request;
    engine_error refused;
    mr_error wrong;
    mr_arena_reset(h->arena);
    if (mr_host_request(f, h->arena, &request, &wrong)) {
        return mr_peer_refuse(&h->peer, f->id, 400, "invalid_request", wrong.msg, err);
    }
    if (engine_submit(h->engine, &request, &refused)) return refuse(h, f->id, refused.code, refused.msg, err);
    return 0;
}

static int on_frame(void *arg, const mr_frame *f, mr_error *err) {
    engine_host *h = arg;
    switch (f->type) {
    case MR_FRAME_SUBMIT: return on_submit(h, &f->submit, err);
    case MR_FRAME_CANCEL: engine_cancel(h->engine, (uint64_t)f->cancel.id); return 0;
    case MR_FRAME_DRAIN: h->draining = true; return 0;
    default: return mr_fail(err, MR_EINVAL, "the supervisor sent a %s frame", mr_frame_name(f->type));
    }
}

/* ---- the loop ---- */

static bool can_step(const engine_host *h) {
    return engine_busy(h->engine) && h->peer.out.n < OUT_HIGH;
}

/* Waits until there is something to do, but not at all while the engine has work. */
static int wait_for_work(engine_host *h, mr_error *err) {
    struct pollfd p = {.fd = h->peer.fd, .events = (short)(POLLIN | (h->peer.out.n ? POLLOUT : 0))};
    int64_t ms = (h->load_us - now_us()) / 1000 + 1;
    int rc = poll(&p, 1, can_step(h) || ms < 0 ? 0 : (int)ms);
    if (rc < 0 && errno != EINTR) return mr_fail(err, MR_EIO, "poll: %s", strerror(errno));
    return 0;
}

static int step(engine_host *h, mr_error *err) {
    engine_error broken;
    int n = engine_step(h->engine, h->events, h->max_events, &broken);
    if (n < 0) return engine_failed(err, &broken);
    for (int i = 0; i < n; i++) {
        if (mr_host_event(h->engine, &h->events[i], h->arena, &h->peer.out, err)) return -1;
    }
    return 0;
}

static int say_load(engine_host *h, mr_error *err) {
    int64_t now = now_us();
    if (now < h->load_us || h->peer.out.n >= OUT_HIGH) return 0;
    h->load_us = now + LOAD_US;
    return mr_host_load(h->engine, &h->peer.out, err);
}

static int serve(engine_host *h, mr_error *err) {
    for (;;) {
        if (wait_for_work(h, err) || mr_peer_read(&h->peer, on_frame, h, err)) return -1;
        if (can_step(h) && step(h, err)) return -1;
        if (say_load(h, err) || mr_peer_flush(&h->peer, err)) return -1;
        if (h->peer.gone) return 0;
        if (h->draining && !engine_busy(h->engine) && !h->peer.out.n) return 0;
    }
}

/* ---- start ---- */

/* Generates one token of an answer: only then is the engine said to be ready. */
static int canary(engine_host *h, mr_error *err) {
    static const engine_message hi = {.role = "user", .content = "Hi", .content_len = 2};
    engine_request r = {.id = CANARY_ID, .messages = &hi, .nmessages = 1};
    engine_error cause;
    int tokens = 0;
    engine_sampling_default(&r.sampling);
    r.sampling.temperature = 0;
    r.sampling.max_tokens = 1;
    r.sampling.ignore_eos = true;
    if (engine_submit(h->engine, &r, &cause)) return engine_failed(err, &cause);
    while (engine_busy(h->engine)) {
        int n = engine_step(h->engine, h->events, h->max_events, &cause);
        if (n < 0) return engine_failed(err, &cause);
        for (int i = 0; i < n; i++) {
            if (h->events[i].error) return mr_fail(err, MR_ESTATE, "%s", h->events[i].error);
            tokens += h->events[i].kind == ENGINE_TOKENS;
        }
    }
    return tokens == 1 ? 0 : mr_fail(err, MR_ESTATE, "the first token was not generated");
}

static int say_ready(engine_host *h, double load_seconds, double token_seconds, mr_error *err) {
    const engine_info *i = engine_describe(h->engine);
    mr_frame f = {.type = MR_FRAME_READY};
    f.ready = (mr_frame_ready){.load_seconds = load_seconds,
                               .first_token_seconds = token_seconds,
                               .model = mr_str_of(i->name),
                               .architecture = mr_str_of(i->architecture),
                               .isa = mr_str_of(i->isa),
                               .parameters = i->parameters,
                               .threads = i->threads,
                               .max_seqs = i->max_seqs,
                               .max_context = i->max_context};
    mr_log(MR_INFO, "engine ready", MR_S("model", i->name), MR_S("architecture", i->architecture),
           MR_S("isa", i->isa), MR_S("template", i->chat_template), MR_I("threads", i->threads),
           MR_I("max_context", i->max_context), MR_I("kv_blocks", i->kv_blocks),
           MR_F("load_seconds", load_seconds), MR_F("first_token_seconds", token_seconds));
    return mr_frame_encode(&f, &h->peer.out, err);
}

static int start_engine(engine_host *h, const engine_options *opt, mr_error *err) {
    engine_error cause;
    int64_t t0 = now_us();
    h->engine = engine_open(opt, &cause);
    if (!h->engine) return engine_failed(err, &cause);
    h->max_events = engine_describe(h->engine)->max_events;
    h->events = calloc((size_t)h->max_events, sizeof(*h->events));
    if (!h->events) return mr_fail(err, MR_ENOMEM, "no memory for %d events", h->max_events);
    int64_t t1 = now_us();
    if (canary(h, err)) return mr_fail_in(err, "first token");
    return say_ready(h, (double)(t1 - t0) / 1e6, (double)(now_us() - t1) / 1e6, err);
}

static int host_init(engine_host *h, int fd, mr_error *err) {
    *h = (engine_host){.arena = mr_arena_new(ARENA_MAX)};
    if (!h->arena) return mr_fail(err, MR_ENOMEM, "out of memory");
    return mr_peer_init(&h->peer, fd, OUT_MAX, err);
}

static void host_done(engine_host *h) {
    engine_close(h->engine);
    free(h->events);
    mr_peer_done(&h->peer);
    mr_arena_free(h->arena);
}

int mr_engine_host_run(const mr_engine_host_options *opt, mr_error *err) {
    engine_host h;
    int rc = host_init(&h, opt->fd, err) || mr_peer_hello(&h.peer, "millrace-engine", err) ||
             start_engine(&h, &opt->engine, err) || serve(&h, err);
    host_done(&h);
    return rc ? -1 : 0;
}
