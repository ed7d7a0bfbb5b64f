/* cuda.h of an engine that was built without a CUDA toolkit. */
#include "engine/cuda/cuda.h"

static int absent(engine_error *err) {
    return engine_fail(
        err, ENGINE_EINVAL,
        "this engine was built without CUDA: build it where nvcc is found (ops/cuda-toolkit.sh fetches one)");
}

backend *backend_open_cuda(const model *m, const backend_options *opt, engine_error *err) {
    (void)m, (void)opt;
    absent(err);
    return NULL;
}

backend *backend_open_cuda_ranks(const model *m, const backend_options *opt, int ranks, engine_error *err) {
    (void)m, (void)opt, (void)ranks;
    absent(err);
    return NULL;
}

int backend_measure_cuda(const model *m, const backend_options *opt, backend_memory *out, engine_error *err) {
    (void)m, (void)opt, (void)out;
    return absent(err);
}

int cuda_devices(void) {
    return 0;
}

size_t cuda_free_memory(void) {
    return 0;
}
