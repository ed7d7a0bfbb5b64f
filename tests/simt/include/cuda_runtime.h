/* The part of the CUDA runtime and of its device language that engine/cuda uses, for a host compiler: so that the same
 * sources run, block by block and thread by thread, on a machine without a GPU, under AddressSanitizer.
 *
 * Memory of "the device" is the process's own. A stream is done when a call on it returns. Threads of a block are fibres
 * that run until they reach a barrier (__syncthreads) or an operation of their warp; a barrier that some threads never reach
 * ends the program with a message, as it would hang a GPU. A captured graph is the list of what was launched, to be run
 * again. Several host threads may be several devices: all state is a thread's own.
 *
 * Arithmetic is IEEE float with the fused operations that the source names; tensor-core instructions are plain loops
 * (simt_mma).
 */
#ifndef SIMT_CUDA_RUNTIME_H
#define SIMT_CUDA_RUNTIME_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

/* ---- the language ---- */

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __restrict__ __restrict

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

struct simt_stream;

namespace simt {
struct place {
    dim3 thread, block, block_dim, grid_dim;
};
extern __thread place here; /* not thread_local: that is a call in every use */

void launch(dim3 grid, dim3 block, size_t shared_bytes, simt_stream *stream, std::function<void()> body);
/* Work of a library's own in the stream. */
void enqueue(simt_stream *stream, std::function<void()> work);
void *dynamic_shared();
void sync_block();
/* Every thread of the warp gives 64 bits, and gets those of all 32 until its next such call. */
const uint64_t *exchange(uint64_t mine);
/* The same of one mma: the numbers in a[4] and b[2] of every lane, up to four to a register. */
struct fragments {
    float a[4][4], b[2][4];
};
const fragments *exchange_fragments(const fragments &mine);
inline unsigned lane() {
    return (here.thread.x + here.block_dim.x * (here.thread.y + here.block_dim.y * here.thread.z)) % 32;
}
} // namespace simt

#define threadIdx       (simt::here.thread)
#define blockIdx        (simt::here.block)
#define blockDim        (simt::here.block_dim)
#define gridDim         (simt::here.grid_dim)
#define __syncthreads() simt::sync_block()
#define __syncwarp(...) ((void)simt::exchange(0))

template <typename T> static inline T simt_shuffle(T v, unsigned from) {
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 64 bits");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    const uint64_t *all = simt::exchange(bits);
    T out;
    memcpy(&out, &all[from % 32], sizeof out);
    return out;
}
template <typename T> static inline T __shfl_xor_sync(unsigned, T v, int mask) {
    return simt_shuffle(v, simt::lane() ^ (unsigned)mask);
}
template <typename T> static inline T __shfl_sync(unsigned, T v, int lane) {
    return simt_shuffle(v, (unsigned)lane);
}
template <typename T> static inline T __shfl_down_sync(unsigned, T v, unsigned delta) {
    const unsigned lane = simt::lane();
    return simt_shuffle(v, lane + delta < 32 ? lane + delta : lane);
}
template <typename T> static inline T __shfl_up_sync(unsigned, T v, unsigned delta) {
    const unsigned lane = simt::lane();
    return simt_shuffle(v, lane >= delta ? lane - delta : lane);
}
static inline unsigned __ballot_sync(unsigned, int predicate) {
    const uint64_t *all = simt::exchange(predicate != 0);
    unsigned mask = 0;
    for (unsigned i = 0; i < 32; i++) mask |= (unsigned)all[i] << i;
    return mask;
}

/* What five __shfl_xor_sync from 16 down to 1 fold, in the same order, with one exchange. */
template <typename F> static inline float simt_fold(float x, F fold) {
    uint64_t bits = 0;
    float v[32];
    memcpy(&bits, &x, sizeof x);
    const uint64_t *all = simt::exchange(bits);
    for (unsigned i = 0; i < 32; i++) memcpy(&v[i], &all[i], sizeof v[i]);
    for (unsigned n = 16; n; n /= 2)
        for (unsigned i = 0; i < n; i++) v[i] = fold(v[i], v[i + n]);
    return v[0];
}

/* Blocks run one after another, and a fibre is not interrupted. */
template <typename T> static inline T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
template <typename T> static inline T atomicMax(T *p, T v) {
    T old = *p;
    if (v > old) *p = v;
    return old;
}
static inline void __threadfence() {}

static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline int min(int a, int b) {
    return a < b ? a : b;
}
static inline int max(int a, int b) {
    return a > b ? a : b;
}
static inline int __float2int_rn(float x) {
    return (int)lrintf(x);
}
static inline unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
template <typename T> static inline T __ldg(const T *p) {
    return *p;
}
template <typename T> static inline T __ldcs(const T *p) {
    return *p;
}

/* ---- the runtime ---- */

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNoDevice = 100,
    cudaErrorNotReady = 600
} cudaError_t;
typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
typedef struct simt_graph *cudaGraph_t;
typedef struct simt_graph *cudaGraphExec_t;
typedef enum {
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
} cudaMemcpyKind;
typedef enum { cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed } cudaStreamCaptureMode;
typedef enum {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor
} cudaDeviceAttr;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize } cudaFuncAttribute;

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int multiProcessorCount, major, minor;
};

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e);
template <typename F> static inline cudaError_t cudaFuncSetAttribute(F *, cudaFuncAttribute, int) {
    return cudaSuccess;
}
/* Bytes that cudaMalloc has given out and not got back: tests count them. */
size_t simt_device_bytes();

/* mma.sync.m16n8k16 with f32 accumulators: d[16 x 8] += a[16 x 16] b[16 x 8], in the fragments that PTX documents. */
template <typename H> static inline void simt_mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    simt::fragments mine;
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) mine.a[i][h] = H::from_bits((uint16_t)(a[i] >> 16 * h));
    for (int i = 0; i < 2; i++)
        for (int h = 0; h < 2; h++) mine.b[i][h] = H::from_bits((uint16_t)(b[i] >> 16 * h));
    const simt::fragments *all = simt::exchange_fragments(mine);
    const unsigned g = simt::lane() / 4, c = simt::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        const simt::fragments *row = &all[g * 4], *col = &all[(2 * c + i % 2) * 4];
        float sum = d[i];
        for (unsigned k = 0; k < 16; k++)
            sum += row[k % 8 / 2].a[i / 2 + k / 8 * 2][k % 2] * col[k % 8 / 2].b[k / 8][k % 2];
        d[i] = sum;
    }
}

/* mma.sync.m16n8k32 of bytes, likewise: value(byte) is what a byte stands for; sums are of d's type. */
template <typename D, typename F>
static inline void simt_mma_bytes(D d[4], const uint32_t a[4], const uint32_t b[2], F value) {
    simt::fragments mine;
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < 4; i++) mine.a[i][j] = value(a[i] >> 8 * j & 0xff);
        for (int i = 0; i < 2; i++) mine.b[i][j] = value(b[i] >> 8 * j & 0xff);
    }
    const simt::fragments *all = simt::exchange_fragments(mine);
    const unsigned g = simt::lane() / 4, c = simt::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        const simt::fragments *row = &all[g * 4], *col = &all[(2 * c + i % 2) * 4];
        D sum = d[i];
        for (unsigned k = 0; k < 32; k++)
            sum += (D)(row[k % 16 / 4].a[i / 2 + k / 16 * 2][k % 4] * col[k % 16 / 4].b[k / 16][k % 4]);
        d[i] = sum;
    }
}

#endif
