/* From a ChatRequest to what the engine is asked. No I/O, no state. */
#ifndef MR_HOST_REQUEST_H
#define MR_HOST_REQUEST_H

#include "engine/engine.h"
#include "worker/frames.h"

/* Everything in *out lies in the arena or in the frame. Fails when the request cannot be served by this engine: the
 * message is for the person who waits. */
int mr_host_request(const mr_frame_submit *f, mr_arena *a, engine_request *out, mr_error *err);

#endif
