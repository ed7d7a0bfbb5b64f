/* The event loop of a process: libevent, signals and timers.
 *
 * One thread runs the loop and every callback; nothing here is thread-safe.
 * From mr_loop_on_drain on, SIGTERM and SIGINT call on_drain once: stop taking work, finish what runs, then call mr_loop_stop. A second
 * signal, or `drain_limit_ms` passing, stops the loop at once (mr_loop_run then returns 1).
 * SIGPIPE is ignored.
 */
#ifndef MR_LOOP_H
#define MR_LOOP_H

#include "base/error.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct mr_loop mr_loop;
typedef struct mr_timer mr_timer;
typedef void mr_loop_cb(void *arg);

mr_loop *mr_loop_new(mr_error *err);
void mr_loop_free(mr_loop *l);
struct event_base *mr_loop_base(mr_loop *l);

void mr_loop_on_drain(mr_loop *l, int drain_limit_ms, mr_loop_cb *cb, void *arg);
bool mr_loop_draining(const mr_loop *l);
/* Begin the drain as a signal would (used by tests, and by a part whose own failure must end the process). */
void mr_loop_drain(mr_loop *l);
void mr_loop_stop(mr_loop *l);
int mr_loop_run(mr_loop *l); /* 0 after a clean stop, 1 when cut short */

/* Repeats every `ms` until freed. */
mr_timer *mr_timer_new(mr_loop *l, int ms, mr_loop_cb *cb, void *arg, mr_error *err);
void mr_timer_free(mr_timer *t);

int64_t mr_now_ms(void);  /* unix time */
int64_t mr_mono_us(void); /* monotonic, for durations */

#endif
