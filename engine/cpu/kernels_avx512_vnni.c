/* Kernels for AVX-512 with VNNI. Reached only through kernels_select. */
#include "engine/cpu/vector_avx512_vnni.h"

#define KERNELS_TABLE kernels_avx512_vnni
#define KERNELS_ISA   "avx512-vnni"
#include "engine/cpu/kernels_body.h"
