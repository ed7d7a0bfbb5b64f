/* What this machine can do at best, measured beside what the engine does: the memory's read bandwidth, which bounds decoding
 * one sequence (it reads every weight once a token), and the multiplier's speed, which bounds prefill.
 */
#ifndef ENGINE_CLI_CEILINGS_H
#define ENGINE_CLI_CEILINGS_H

#include "engine/error.h"

typedef struct ceilings ceilings;

/* Takes a buffer much larger than the caches. isa as in engine_options. */
ceilings *ceilings_new(int threads, const char *isa, engine_error *err);
void ceilings_free(ceilings *c);

/* Bytes a second that the threads read together: the best of a few passes, about 0.1 s. */
double ceilings_read(ceilings *c);
/* Operations a second (a multiplication and an addition are two) of all threads: the best of a few passes. bf16 is 0 where
 * the instruction set does not multiply it. */
double ceilings_int8(ceilings *c);
double ceilings_bf16(ceilings *c);

/* The buffer, which is in the process's peak RSS. */
double ceilings_buffer(void);

#endif
