/* The sampler's loops for AVX-512; compiled with those flags, reached only through chunk_ops_select. */
#define CHUNK_OPS chunk_ops_avx512
#include "engine/sample_chunk_body.h"
