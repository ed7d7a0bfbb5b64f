/* The sampler's loops for AVX2; compiled with those flags, reached only through chunk_ops_select. */
#define CHUNK_OPS chunk_ops_avx2
#include "engine/sample_chunk_body.h"
