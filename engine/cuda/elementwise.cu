/* See elementwise.h. Nothing here is worth more than one pass over its rows. */
#include "engine/cuda/elementwise.h"
#include "engine/cuda/format.h"

namespace cuda {

namespace {

constexpr int THREADS = ROW_THREADS;

/* Over the block, in a fixed order; every thread gets the sum. */
__device__ float block_sum(float x) {
    __shared__ float of_warp[THREADS / 32];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    x = warp_sum(x);
    __syncthreads(); /* the last sum has been read */
    if (!lane) of_warp[warp] = x;
    __syncthreads();
    float sum = of_warp[0];
    for (int i = 1; i < THREADS / 32; i++) sum += of_warp[i];
    return sum;
}

/* Where no token could be drawn, nobody asks for what follows it. */
template <typename T> __global__ void embed_rows(linear e, int *ids, const int *drawn, float *x) {
    const int id = ids[blockIdx.x], known = id < 0 ? max(drawn[-1 - id], 0) : id;
    const size_t row = (size_t)known;
    __syncthreads();
    if (!threadIdx.x) ids[blockIdx.x] = known;
    float *out = x + (size_t)blockIdx.x * (size_t)e.cols;
    for (int i = (int)threadIdx.x; i < e.cols; i += THREADS) out[i] = linear_weight<T>(e, row, i);
}

/* Where rows go: as values, or as bytes, a warp a unit. value(i) is column i of the row. */
template <typename T> struct value_rows {
    T *out;
    int pitch;
    template <typename F> __device__ __forceinline__ void put(int width, F value) const {
        T *to = out + (size_t)blockIdx.x * (size_t)pitch;
        for (int i = (int)threadIdx.x; i < width; i += THREADS) to[i] = narrow<T>(value(i));
    }
};

struct byte_rows {
    format kind;
    rounded out;
    template <typename F> __device__ __forceinline__ void put(int width, F value) const {
        const int units = (width + UNIT - 1) / UNIT, warp = (int)threadIdx.x / 32,
                  lane = (int)threadIdx.x % 32;
        for (int unit = warp; unit < units; unit += THREADS / 32) {
            float v[UNIT / 32];
#pragma unroll
            for (int i = 0; i < UNIT / 32; i++) {
                const int k = unit * UNIT + i * 32 + lane;
                v[i] = k < width ? value(k) : 0;
            }
            const size_t at = (size_t)blockIdx.x * (size_t)units + (size_t)unit;
            round_unit(kind, v, out.bytes + at * UNIT, out.scales + at);
        }
    }
};

template <typename R>
__global__ void add_norm_rows(float *x, const float *add, const float *weight, const int *rows, int hidden,
                              float eps, R out) {
    const size_t from = (size_t)(rows ? rows[blockIdx.x] : (int)blockIdx.x) * (size_t)hidden;
    float sum = 0;
    for (int i = (int)threadIdx.x; i < hidden; i += THREADS) {
        float v = x[from + (size_t)i];
        if (add) x[from + (size_t)i] = v = v + add[from + (size_t)i];
        sum = __fmaf_rn(v, v, sum);
    }
    const float scale = 1.0f / sqrtf(block_sum(sum) / (float)hidden + eps);
    out.put(hidden, [=](int i) { return x[from + (size_t)i] * scale * weight[i]; });
}

template <typename R> __global__ void gated_rows(const float *gate_up, int width, R out) {
    const float *gate = gate_up + (size_t)blockIdx.x * (size_t)(2 * width), *up = gate + width;
    out.put(width, [=](int i) { return gate[i] / (1.0f + expf(-gate[i])) * up[i]; });
}

__global__ void byte_rows_of(const float *x, int width, int pitch, byte_rows out) {
    const float *row = x + (size_t)blockIdx.x * (size_t)pitch;
    out.put(width, [=](int i) { return row[i]; });
}

__global__ void add_parts_of(float *x, const float *parts, size_t n, int ranks) {
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < n; i += gridDim.x * (size_t)THREADS) {
        float sum = parts[i];
        for (int r = 1; r < ranks; r++) sum += parts[(size_t)r * n + i];
        x[i] = sum;
    }
}

} // namespace

template <typename T>
void embed(const linear &e, int *ids, const int *drawn, int n, float *x, cudaStream_t s) {
    LAUNCH((embed_rows<T>), dim3((unsigned)n), dim3(THREADS), 0, s, e, ids, drawn, x);
}

template <typename R>
static void launch_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden,
                        float eps, R out, cudaStream_t s) {
    LAUNCH((add_norm_rows<R>), dim3((unsigned)n), dim3(THREADS), 0, s, x, add, weight, rows, hidden, eps,
           out);
}

template <typename T>
void add_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden, float eps,
              T *out, int pitch, cudaStream_t s) {
    launch_norm(x, add, weight, rows, n, hidden, eps, value_rows<T>{out, pitch}, s);
}

void add_norm(float *x, const float *add, const float *weight, const int *rows, int n, int hidden, float eps,
              format kind, const rounded &out, cudaStream_t s) {
    launch_norm(x, add, weight, rows, n, hidden, eps, byte_rows{kind, out}, s);
}

template <typename R>
static void launch_gated(const float *gate_up, int n, int width, R out, cudaStream_t s) {
    LAUNCH((gated_rows<R>), dim3((unsigned)n), dim3(THREADS), 0, s, gate_up, width, out);
}

template <typename T> void gated(const float *gate_up, int n, int width, T *out, int pitch, cudaStream_t s) {
    launch_gated(gate_up, n, width, value_rows<T>{out, pitch}, s);
}

void gated(const float *gate_up, int n, int width, format kind, const rounded &out, cudaStream_t s) {
    launch_gated(gate_up, n, width, byte_rows{kind, out}, s);
}

void round_rows(const float *x, int n, int width, int pitch, format kind, const rounded &out,
                cudaStream_t s) {
    const byte_rows to = {kind, out};
    LAUNCH(byte_rows_of, dim3((unsigned)n), dim3(THREADS), 0, s, x, width, pitch, to);
}

void add_parts(float *x, const float *parts, size_t n, int ranks, cudaStream_t s) {
    const size_t blocks = (n + THREADS - 1) / THREADS;
    LAUNCH(add_parts_of, dim3((unsigned)(blocks < 1024 ? blocks : 1024)), dim3(THREADS), 0, s, x, parts, n,
           ranks);
}

#define INSTANTIATE(T)                                                                                       \
    template void embed<T>(const linear &, int *, const int *, int, float *, cudaStream_t);                  \
    template void add_norm<T>(float *, const float *, const float *, const int *, int, int, float, T *, int, \
                              cudaStream_t);                                                                 \
    template void gated<T>(const float *, int, int, T *, int, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

} // namespace cuda
