/* Calls into CUDA's libraries as the engine's errors. */
#ifndef ENGINE_CUDA_CHECK_H
#define ENGINE_CUDA_CHECK_H

#include <cuda_runtime.h>

extern "C" {
#include "engine/error.h"
}

namespace cuda {

/* 0, or -1 with err: "what: CUDA's words". Memory that is not there is ENGINE_ENOMEM, all else breaks the engine. */
inline int check(cudaError_t status, const char *what, engine_error *err) {
    if (status == cudaSuccess) return 0;
    const engine_error_code code = status == cudaErrorMemoryAllocation ? ENGINE_ENOMEM : ENGINE_EINTERNAL;
    return engine_fail(err, code, "%s: %s", what, cudaGetErrorString(status));
}

} // namespace cuda

#endif
