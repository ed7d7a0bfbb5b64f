/* The sampler's loops for any CPU, and the choice among all. */
#define CHUNK_OPS chunk_ops_generic
#include "engine/sample_chunk_body.h"

const chunk_ops *chunk_ops_select(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        return &chunk_ops_avx512;
    if (__builtin_cpu_supports("avx2")) return &chunk_ops_avx2;
#endif
    return &chunk_ops_generic;
}
