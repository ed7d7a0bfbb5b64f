/* Kernels for AVX-512 with VNNI and BF16: two products of bf16 and their sum in one instruction. Reached only through
 * kernels_select.
 */
#include "engine/cpu/vector_avx512_vnni.h"

/* acc[i] += two products; w is 16 pairs, x one pair for all. Subnormal numbers count as zero. Written out for the same reason
 * as vi_dot. */
static inline vf vf_dot_bf16(vf acc, vi w, const unsigned char *pair) {
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const unsigned char(*)[4])pair));
    return acc;
}

#define KERNELS_HAVE_BF16
#define KERNELS_TABLE kernels_avx512_bf16
#define KERNELS_ISA   "avx512-bf16"
#include "engine/cpu/kernels_body.h"
