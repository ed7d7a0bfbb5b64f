/* The engine host: the process that owns the engine, and speaks worker/frames.h with its supervisor over a socket pair.
 *
 * One thread: it reads frames between steps, steps while there is something to generate, and sleeps in poll() otherwise.
 * Every 250 ms it says `load`, from the same loop, so that a hang shows. It holds nothing that must survive it: when
 * it dies, the supervisor hands the unfinished requests to the next one.
 */
#ifndef MR_ENGINE_HOST_H
#define MR_ENGINE_HOST_H

#include "base/error.h"
#include "engine/engine.h"

typedef struct mr_engine_host_options {
    int fd; /* the socket; closed by the caller */
    engine_options engine;
} mr_engine_host_options;

/* Says hello, loads the model, proves it by a token, says ready, and serves. Returns 0 when the supervisor is gone or
 * has drained it, -1 when it cannot go on. */
int mr_engine_host_run(const mr_engine_host_options *opt, mr_error *err);

#endif
