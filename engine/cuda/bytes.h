/* Products of bytes by one warp: d[16 x 8] += a[16 x 32] b[32 x 8]. As the mma of device.h, but that a register holds four k:
 *     a: rows g (0, 2) and g + 8 (1, 3), k = 4c to 4c + 3 (0, 1) and the same + 16 (2, 3)
 *     b: column g, k = 4c to 4c + 3 (0) and the same + 16 (1)
 * int8 has tensor cores from sm_80 on. e4m3 has them from sm_89 on, but for sm_90, where this instruction widens to halves, which
 * hold it exactly; on sm_80 we do.
 */
#ifndef ENGINE_CUDA_BYTES_H
#define ENGINE_CUDA_BYTES_H

#include "engine/cuda/format.h"

#include <type_traits>

namespace cuda {

/* Of products of this format: whole numbers are summed as such. */
template <format F> using byte_sum = typename std::conditional<F == format::int8, int, float>::type;

template <typename T, format F> __device__ __forceinline__ void decode_word(uint32_t word, uint32_t out[2]) {
    out[0] = pair<T>(decode<F>(word & 0xff), decode<F>(word >> 8 & 0xff));
    out[1] = pair<T>(decode<F>(word >> 16 & 0xff), decode<F>(word >> 24));
}

#if defined(__CUDACC__)
template <format F>
__device__ __forceinline__ void mma_bytes(int d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <format F>
__device__ __forceinline__ void mma_bytes(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if __CUDA_ARCH__ >= 890
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int half = 0; half < 2; half++) {
        uint32_t upper[2], lower[2], column[2];
        decode_word<__half, F>(a[2 * half], upper);
        decode_word<__half, F>(a[2 * half + 1], lower);
        decode_word<__half, F>(b[half], column);
        const uint32_t rows[4] = {upper[0], lower[0], upper[1], lower[1]};
        mma(__half{}, d, rows, column);
    }
#endif
}
#else
template <format F, typename D>
static inline void mma_bytes(D d[4], const uint32_t a[4], const uint32_t b[2]) {
    simt_mma_bytes(d, a, b, [](uint32_t byte) { return decode<F>(byte); });
}
#endif

} // namespace cuda

#endif
