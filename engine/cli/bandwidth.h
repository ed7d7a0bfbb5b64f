/* What the memory can deliver: decoding one sequence reads every weight once a token, so this is its ceiling. */
#ifndef ENGINE_CLI_BANDWIDTH_H
#define ENGINE_CLI_BANDWIDTH_H

#include "engine/error.h"

typedef struct bandwidth bandwidth;

/* Takes a buffer much larger than the caches. */
bandwidth *bandwidth_new(int threads, engine_error *err);
void bandwidth_free(bandwidth *b);
/* Bytes a second that the threads read together: the best of a few passes, about 0.2 s. */
double bandwidth_measure(bandwidth *b);
/* The buffer, which is in the process's peak RSS. */
double bandwidth_buffer(void);

#endif
