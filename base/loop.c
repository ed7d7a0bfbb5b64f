/* The event loop (see loop.h). All of it runs on the loop's thread; the loop owns its events, a timer's owner the timer. */
#include "base/loop.h"

#include "base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct mr_loop {
    struct event_base *base;
    struct event *sigterm, *sigint;
    struct event *drain, *drain_limit;
    int drain_limit_ms;
    mr_loop_cb *on_drain;
    void *on_drain_arg;
    bool draining, stopped, cut_short;
};

struct mr_timer {
    struct event *ev;
    mr_loop_cb *cb;
    void *arg;
};

int64_t mr_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t mr_mono_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static struct timeval ms_timeval(int ms) {
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
}

static void cut_short(mr_loop *l, const char *why) {
    mr_log(MR_WARN, why);
    l->cut_short = true;
    mr_loop_stop(l);
}

static void on_signal(evutil_socket_t signal_number, short what, void *arg) {
    mr_loop *l = arg;
    (void)what;
    if (l->draining) {
        cut_short(l, "stopping at once: second signal");
        return;
    }
    mr_log(MR_INFO, "draining", MR_S("signal", strsignal((int)signal_number)));
    mr_loop_drain(l);
}

static void on_drain_limit(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    cut_short(arg, "stopping at once: the drain took too long");
}

static void on_drain_begin(evutil_socket_t fd, short what, void *arg) {
    mr_loop *l = arg;
    (void)fd, (void)what;
    if (!l->on_drain) {
        mr_loop_stop(l);
        return;
    }
    struct timeval limit = ms_timeval(l->drain_limit_ms);
    event_add(l->drain_limit, &limit);
    l->on_drain(l->on_drain_arg);
}

/* By libevent's default clock, which moves every few milliseconds only, a timer that is due is met by polling each millisecond
 * until the clock has moved: most of what an idle process did. */
static struct event_base *new_base(void) {
    struct event_config *c = event_config_new();
    if (!c) return NULL;
    struct event_base *base =
        event_config_set_flag(c, EVENT_BASE_FLAG_PRECISE_TIMER) == 0 ? event_base_new_with_config(c) : NULL;
    event_config_free(c);
    return base;
}

mr_loop *mr_loop_new(mr_error *err) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error as a full disk is, and not the end */
    mr_loop *l = calloc(1, sizeof(*l));
    if (!l) goto fail;
    l->base = new_base();
    if (!l->base) goto fail;
    l->drain = event_new(l->base, -1, 0, on_drain_begin, l);
    l->drain_limit = event_new(l->base, -1, 0, on_drain_limit, l);
    if (!l->drain || !l->drain_limit) goto fail;
    return l;
fail:
    mr_fail(err, MR_ENOMEM, "the event loop could not be created: out of memory or file descriptors");
    mr_loop_free(l);
    return NULL;
}

static void free_event(struct event *ev) {
    if (ev) event_free(ev);
}

void mr_loop_free(mr_loop *l) {
    if (!l) return;
    free_event(l->sigterm);
    free_event(l->sigint);
    free_event(l->drain);
    free_event(l->drain_limit);
    if (l->base) event_base_free(l->base);
    free(l);
}

struct event_base *mr_loop_base(mr_loop *l) {
    return l->base;
}

void mr_loop_on_drain(mr_loop *l, int drain_limit_ms, mr_loop_cb *cb, void *arg) {
    l->on_drain = cb;
    l->on_drain_arg = arg;
    l->drain_limit_ms = drain_limit_ms;
    if (l->sigterm) return;
    l->sigterm = evsignal_new(l->base, SIGTERM, on_signal, l);
    l->sigint = evsignal_new(l->base, SIGINT, on_signal, l);
    bool ok = l->sigterm && l->sigint && event_add(l->sigterm, NULL) == 0 && event_add(l->sigint, NULL) == 0;
    /* without the handlers a signal still ends the process, only less gently */
    if (!ok) mr_log(MR_ERROR, "signals cannot be handled: SIGTERM will end this process without a drain");
}

bool mr_loop_draining(const mr_loop *l) {
    return l->draining;
}

void mr_loop_drain(mr_loop *l) {
    if (l->draining) return;
    l->draining = true;
    /* from the loop, not from here: the caller may be in the middle of what the drain will tear down */
    event_active(l->drain, EV_TIMEOUT, 0);
}

void mr_loop_stop(mr_loop *l) {
    l->stopped = true;
    event_base_loopbreak(l->base);
}

int mr_loop_run(mr_loop *l) {
    /* libevent forgets a break that came before the loop ran */
    if (!l->stopped) event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
    l->stopped = false;
    return l->cut_short ? 1 : 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    mr_timer *t = arg;
    (void)fd, (void)what;
    t->cb(t->arg); /* may free t */
}

mr_timer *mr_timer_new(mr_loop *l, int ms, mr_loop_cb *cb, void *arg, mr_error *err) {
    struct timeval every = ms_timeval(ms);
    mr_timer *t = calloc(1, sizeof(*t));
    if (!t) goto fail;
    *t = (mr_timer){.cb = cb, .arg = arg};
    t->ev = event_new(l->base, -1, EV_PERSIST, on_timer, t);
    if (!t->ev || event_add(t->ev, &every) != 0) goto fail;
    return t;
fail:
    mr_fail(err, MR_ENOMEM, "a timer could not be created: out of memory");
    mr_timer_free(t);
    return NULL;
}

void mr_timer_free(mr_timer *t) {
    if (!t) return;
    free_event(t->ev);
    free(t);
}
