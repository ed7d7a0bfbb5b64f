/* See bandwidth.h. The threads of a measurement live for it alone, beside an engine that sleeps meanwhile. */
#include "engine/cli/bandwidth.h"

#include "engine/cli/cli.h"
#include "engine/cpu/pool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 4, LANES = 32 };
#define BYTES ((size_t)512 << 20)

struct bandwidth {
    pool *pool;
    int threads;
    uint64_t *data;
    uint64_t sums[1024]; /* so that the reads are not optimised away */
};

bandwidth *bandwidth_new(int threads, engine_error *err) {
    bandwidth *b = calloc(1, sizeof *b);
    if (b) b->data = aligned_alloc(4096, BYTES);
    if (!b || !b->data) {
        bandwidth_free(b);
        engine_fail(err, ENGINE_ENOMEM, "no memory (%zu MB) to measure its bandwidth", BYTES >> 20);
        return NULL;
    }
    memset(b->data, 1, BYTES);
    b->threads = threads;
    b->pool = pool_new(threads, err);
    if (b->pool) return b;
    bandwidth_free(b);
    return NULL;
}

void bandwidth_free(bandwidth *b) {
    if (!b) return;
    pool_free(b->pool);
    free(b->data);
    free(b);
}

static void read_share(void *arg, int thread) {
    bandwidth *b = arg;
    size_t share = BYTES / sizeof *b->data / (size_t)b->threads / LANES * LANES;
    const uint64_t *p = b->data + share * (size_t)thread;
    uint64_t sum[LANES] = {0};
    for (size_t i = 0; i < share; i += LANES) {
        for (int j = 0; j < LANES; j++) sum[j] += p[i + (size_t)j];
    }
    for (int j = 1; j < LANES; j++) sum[0] += sum[j];
    b->sums[thread] += sum[0];
}

double bandwidth_measure(bandwidth *b) {
    double best = 0;
    for (int i = 0; i < PASSES; i++) {
        double t = cli_seconds();
        pool_run(b->pool, read_share, b);
        double rate = (double)BYTES / (cli_seconds() - t);
        if (rate > best) best = rate;
    }
    return best;
}

double bandwidth_buffer(void) {
    return (double)BYTES;
}
