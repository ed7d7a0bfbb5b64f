/* Threads that run one job together, with a barrier inside it.
 *
 * The caller of pool_run is thread 0 of the job. Waiting spins for some microseconds and then sleeps in the kernel, so an
 * idle pool costs nothing and an oversubscribed machine is not held up by spinners.
 */
#ifndef ENGINE_CPU_POOL_H
#define ENGINE_CPU_POOL_H

#include "engine/error.h"

typedef struct pool pool;
typedef void pool_job(void *arg, int thread);

pool *pool_new(int threads, engine_error *err);
void pool_free(pool *p);
int pool_threads(const pool *p);

/* Runs job(arg, 0..threads-1) and returns when all have returned. One caller at a time. */
void pool_run(pool *p, pool_job *job, void *arg);
/* From inside a job, by every thread of it: nobody goes on before all have come. */
void pool_barrier(pool *p);

#endif
