/* From the engine's events to frames. No I/O. */
#ifndef MR_HOST_EVENTS_H
#define MR_HOST_EVENTS_H

#include "engine/engine.h"
#include "worker/frames.h"

/* Appends the event's frame to out; the arena is scratch and is reset. */
int mr_host_event(const engine *e, const engine_event *ev, mr_arena *a, mr_buf *out, mr_error *err);

int mr_host_load(const engine *e, mr_buf *out, mr_error *err);

#endif
