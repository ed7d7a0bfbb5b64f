/* See ceilings.h. The threads of a measurement live for it alone, beside an engine that sleeps meanwhile. */
#include "engine/cli/ceilings.h"

#include "engine/cli/cli.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/pool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A pass of reading is about as long as a step of decoding: the two are compared, and others disturb both alike. */
enum { PASSES = 3, READS = 4, ROUNDS = 200000 };
#define BYTES ((size_t)256 << 20)

struct ceilings {
    pool *pool;
    const kernels *k;
    int threads;
    unsigned char *data;
    matrix_format format;    /* of the multiplication that is measured */
    double operations[1024]; /* of each thread */
};

ceilings *ceilings_new(int threads, const char *isa, engine_error *err) {
    ceilings *c = calloc(1, sizeof *c);
    if (c) c->data = aligned_alloc((size_t)2 << 20, BYTES);
    if (!c || !c->data) {
        ceilings_free(c);
        engine_fail(err, ENGINE_ENOMEM, "no memory (%zu MB) to measure its bandwidth", BYTES >> 20);
        return NULL;
    }
    madvise(c->data, BYTES, MADV_HUGEPAGE);
    memset(c->data, 1, BYTES);
    c->threads = threads;
    c->k = kernels_select(isa, err);
    c->pool = c->k ? pool_new(threads, err) : NULL;
    if (c->pool) return c;
    ceilings_free(c);
    return NULL;
}

void ceilings_free(ceilings *c) {
    if (!c) return;
    pool_free(c->pool);
    free(c->data);
    free(c);
}

static void read_share(void *arg, int thread) {
    const ceilings *c = arg;
    const size_t share = BYTES / (size_t)c->threads / 4096 * 4096;
    c->k->probe_read(c->data + share * (size_t)thread, share);
}

double ceilings_read(ceilings *c) {
    double best = 0;
    for (int i = 0; i < PASSES; i++) {
        const double t = cli_seconds();
        for (int k = 0; k < READS; k++) pool_run(c->pool, read_share, c);
        const double rate = (double)BYTES * READS / (cli_seconds() - t);
        if (rate > best) best = rate;
    }
    return best;
}

static void multiply(void *arg, int thread) {
    ceilings *c = arg;
    c->operations[thread] = c->k->probe_multiply(c->format, ROUNDS);
}

static double multiply_rate(ceilings *c, matrix_format format) {
    double best = 0;
    c->format = format;
    for (int i = 0; i < 4 * PASSES; i++) {
        double sum = 0;
        const double t = cli_seconds();
        pool_run(c->pool, multiply, c);
        const double seconds = cli_seconds() - t;
        for (int k = 0; k < c->threads; k++) sum += c->operations[k];
        if (sum / seconds > best) best = sum / seconds;
    }
    return best;
}

double ceilings_int8(ceilings *c) {
    return multiply_rate(c, MATRIX_W8A8);
}
double ceilings_bf16(ceilings *c) {
    return multiply_rate(c, MATRIX_BF16_TILED);
}

double ceilings_buffer(void) {
    return (double)BYTES;
}
