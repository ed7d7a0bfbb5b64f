/* See cublas.h. The library sees matrices by columns: a row of ours is a column of its, so that y = x . w^T becomes
 *
 *     D [rows x n, ld y_stride] = A^T . B   with A [pitch x rows, ld pitch] = w,  B [pitch x n, ld pitch] = x
 *
 * With scales for each 128 columns it wants them by units, for all rows of a matrix one after the other, and rows and tokens in fours.
 *
 * What it chose for a shape is kept, with the descriptors: asking again costs more than a small product.
 */
#include "engine/cuda/cublas.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#if defined(__CUDACC__)
#include <dlfcn.h>
#endif

#include <cstdlib>

namespace cuda {

namespace {

/* ---- the library ---- */

struct library {
    decltype(&cublasLtCreate) create;
    decltype(&cublasLtDestroy) destroy;
    decltype(&cublasLtGetStatusString) status_string;
    decltype(&cublasLtMatmulDescCreate) desc_new;
    decltype(&cublasLtMatmulDescDestroy) desc_free;
    decltype(&cublasLtMatmulDescSetAttribute) desc_set;
    decltype(&cublasLtMatrixLayoutCreate) layout_new;
    decltype(&cublasLtMatrixLayoutDestroy) layout_free;
    decltype(&cublasLtMatmulPreferenceCreate) preference_new;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_free;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    decltype(&cublasLtMatmulAlgoGetHeuristic) choose;
    decltype(&cublasLtMatmul) multiply;
};

#if defined(__CUDACC__)
void *open_library() {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    for (const char *name : names) {
        if (void *l = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return l;
    }
    return nullptr;
}

int load_library(library *lt, engine_error *err) {
    void *l = open_library(); /* stays loaded */
    if (!l)
        return engine_fail(
            err, ENGINE_EINVAL,
            "an engine that is not deterministic multiplies by cuBLASLt: %s (put its folder into "
            "LD_LIBRARY_PATH, or leave the engine deterministic)",
            dlerror());
#define FIND(member, name) (*(void **)&lt->member = dlsym(l, #name))
    const bool all =
        FIND(create, cublasLtCreate) && FIND(destroy, cublasLtDestroy) &&
        FIND(status_string, cublasLtGetStatusString) && FIND(desc_new, cublasLtMatmulDescCreate) &&
        FIND(desc_free, cublasLtMatmulDescDestroy) && FIND(desc_set, cublasLtMatmulDescSetAttribute) &&
        FIND(layout_new, cublasLtMatrixLayoutCreate) && FIND(layout_free, cublasLtMatrixLayoutDestroy) &&
        FIND(preference_new, cublasLtMatmulPreferenceCreate) &&
        FIND(preference_free, cublasLtMatmulPreferenceDestroy) &&
        FIND(preference_set, cublasLtMatmulPreferenceSetAttribute) &&
        FIND(choose, cublasLtMatmulAlgoGetHeuristic) && FIND(multiply, cublasLtMatmul);
#undef FIND
    return all ? 0
               : engine_fail(err, ENGINE_EINVAL, "this cuBLASLt is not one that the engine knows: %s",
                             dlerror());
}
#else /* the shim's, which is linked */
int load_library(library *lt, engine_error *) {
    *lt = {cublasLtCreate,
           cublasLtDestroy,
           cublasLtGetStatusString,
           cublasLtMatmulDescCreate,
           cublasLtMatmulDescDestroy,
           cublasLtMatmulDescSetAttribute,
           cublasLtMatrixLayoutCreate,
           cublasLtMatrixLayoutDestroy,
           cublasLtMatmulPreferenceCreate,
           cublasLtMatmulPreferenceDestroy,
           cublasLtMatmulPreferenceSetAttribute,
           cublasLtMatmulAlgoGetHeuristic,
           cublasLtMatmul};
    return 0;
}
#endif

template <typename T> constexpr cudaDataType_t type_of();
template <> constexpr cudaDataType_t type_of<float>() {
    return CUDA_R_32F;
}
template <> constexpr cudaDataType_t type_of<__half>() {
    return CUDA_R_16F;
}
template <> constexpr cudaDataType_t type_of<__nv_bfloat16>() {
    return CUDA_R_16BF;
}

/* Of cuBLAS 12.9, by number: an older header does not name them, and an older library refuses them. */
constexpr cudaDataType_t E4M3 = (cudaDataType_t)28;
constexpr cublasLtMatmulDescAttributes_t SCALES_OF_A = (cublasLtMatmulDescAttributes_t)17,
                                         SCALES_OF_B = (cublasLtMatmulDescAttributes_t)18,
                                         MODE_OF_A = (cublasLtMatmulDescAttributes_t)31,
                                         MODE_OF_B = (cublasLtMatmulDescAttributes_t)32;
constexpr int32_t EACH_128_COLUMNS = 4;
constexpr int FOURS = 4; /* rows and tokens with such scales */

/* ---- what was chosen ---- */

enum { CHOICES = 512 }; /* shapes of a model times numbers of tokens; the one unused for longest makes room */

struct operation {
    cudaDataType_t type;
    int rows, pitch, tokens, y_stride;
    uint32_t align_w, align_x, align_y; /* bytes, up to 256 */
};

struct choice {
    operation of;
    uint64_t used; /* 0: free */
    bool found;    /* the library can do it */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
};

bool same(const operation &a, const operation &b) {
    return a.type == b.type && a.rows == b.rows && a.pitch == b.pitch && a.tokens == b.tokens &&
           a.y_stride == b.y_stride && a.align_w == b.align_w && a.align_x == b.align_x &&
           a.align_y == b.align_y;
}

uint32_t alignment(const void *p, size_t pitch_bytes) {
    const uintptr_t bits = (uintptr_t)p | pitch_bytes | 256;
    return (uint32_t)(bits & (~bits + 1));
}

} // namespace

struct cublas {
    library lt;
    cublasLtHandle_t handle;
    cublas_room room;
    uint64_t turns;
    choice choices[CHOICES];
};

namespace {

int lt_check(const cublas *c, cublasStatus_t status, const char *what, engine_error *err) {
    if (status == CUBLAS_STATUS_SUCCESS) return 0;
    const engine_error_code code = status == CUBLAS_STATUS_ALLOC_FAILED ? ENGINE_ENOMEM : ENGINE_EINTERNAL;
    return engine_fail(err, code, "%s: cuBLASLt: %s", what, c->lt.status_string(status));
}

void drop_choice(const cublas *c, choice *k) {
    if (k->desc) c->lt.desc_free(k->desc);
    if (k->a) c->lt.layout_free(k->a);
    if (k->b) c->lt.layout_free(k->b);
    if (k->d) c->lt.layout_free(k->d);
    *k = {};
}

int describe(const cublas *c, choice *k, engine_error *err) {
    const operation &o = k->of;
    const cublasOperation_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    const library &lt = c->lt;
    const char *const what = "cannot describe a product";
    const uint64_t rows = (uint64_t)o.rows, pitch = (uint64_t)o.pitch, tokens = (uint64_t)o.tokens;
    if (lt_check(c, lt.desc_new(&k->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), what, err) ||
        lt_check(c, lt.desc_set(k->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), what,
                 err) ||
        lt_check(c, lt.desc_set(k->desc, CUBLASLT_MATMUL_DESC_TRANSB, &plain, sizeof plain), what, err) ||
        lt_check(c, lt.layout_new(&k->a, o.type, pitch, rows, o.pitch), what, err) ||
        lt_check(c, lt.layout_new(&k->b, o.type, pitch, tokens, o.pitch), what, err))
        return -1;
    return lt_check(c, lt.layout_new(&k->d, CUDA_R_32F, rows, tokens, o.y_stride), what, err);
}

int set_preference(const cublas *c, cublasLtMatmulPreference_t p, const operation &o, engine_error *err) {
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } all[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &c->room.work_bytes, sizeof c->room.work_bytes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &o.align_w, sizeof o.align_w},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &o.align_x, sizeof o.align_x},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &o.align_y, sizeof o.align_y},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &o.align_y, sizeof o.align_y},
    };
    for (const auto &a : all) {
        if (lt_check(c, c->lt.preference_set(p, a.name, a.value, a.size), "cannot describe a product", err))
            return -1;
    }
    return 0;
}

/* By units, in the room: first x's, then w's. */
float *scales_of_x(const cublas *c) {
    return (float *)c->room.wide;
}
float *scales_of_w(const cublas *c, const operation &o) {
    const size_t of_x = (size_t)o.tokens * (size_t)(o.pitch / UNIT);
    return scales_of_x(c) + (of_x + 63) / 64 * 64;
}

/* False where the library knows no such scales. */
bool describe_scales(const cublas *c, const choice *k) {
    const float *a = scales_of_w(c, k->of), *b = scales_of_x(c);
    const auto set = c->lt.desc_set;
    return set(k->desc, MODE_OF_A, &EACH_128_COLUMNS, sizeof EACH_128_COLUMNS) == CUBLAS_STATUS_SUCCESS &&
           set(k->desc, MODE_OF_B, &EACH_128_COLUMNS, sizeof EACH_128_COLUMNS) == CUBLAS_STATUS_SUCCESS &&
           set(k->desc, SCALES_OF_A, &a, sizeof a) == CUBLAS_STATUS_SUCCESS &&
           set(k->desc, SCALES_OF_B, &b, sizeof b) == CUBLAS_STATUS_SUCCESS;
}

/* Asks the library; that it has nothing to offer is no error. */
int choose(const cublas *c, choice *k, engine_error *err) {
    cublasLtMatmulPreference_t preference = nullptr;
    cublasLtMatmulHeuristicResult_t best = {};
    int n = 0;
    if (describe(c, k, err)) return -1;
    if (k->of.type == E4M3 && !describe_scales(c, k)) return 0;
    if (lt_check(c, c->lt.preference_new(&preference), "cannot describe a product", err)) return -1;
    int rc = set_preference(c, preference, k->of, err);
    if (!rc) {
        const cublasStatus_t status =
            c->lt.choose(c->handle, k->desc, k->a, k->b, k->d, k->d, preference, 1, &best, &n);
        k->found = status == CUBLAS_STATUS_SUCCESS && n && best.state == CUBLAS_STATUS_SUCCESS;
        k->algo = best.algo;
        if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE)
            rc = lt_check(c, status, "cannot choose a product", err);
    }
    c->lt.preference_free(preference);
    return rc;
}

/* The choice for this shape; NULL with err. */
const choice *choice_of(cublas *c, const operation &o, engine_error *err) {
    choice *oldest = &c->choices[0];
    for (choice &k : c->choices) {
        if (k.used && same(k.of, o)) {
            k.used = ++c->turns;
            return &k;
        }
        if (k.used < oldest->used) oldest = &k;
    }
    drop_choice(c, oldest);
    oldest->of = o;
    if (choose(c, oldest, err)) {
        drop_choice(c, oldest);
        return nullptr;
    }
    oldest->used = ++c->turns;
    return oldest;
}

/* ---- products ---- */

int run(const cublas *c, const choice *k, const void *weights, const void *x, float *y, cudaStream_t s,
        engine_error *err) {
    const float one = 1, zero = 0;
    const cublasStatus_t status =
        c->lt.multiply(c->handle, k->desc, &one, weights, k->a, x, k->b, &zero, y, k->d, y, k->d, &k->algo,
                       c->room.work, c->room.work_bytes, s);
    return lt_check(c, status, "a product failed", err) ? -1 : 1;
}

/* Rows [0, rows) of weights in the type of the activations. */
template <typename T>
int multiply(cublas *c, const T *weights, int rows, int pitch, const T *x, int n, float *y, int y_stride,
             cudaStream_t s, engine_error *err) {
    const operation o = {type_of<T>(),
                         rows,
                         pitch,
                         n,
                         y_stride,
                         alignment(weights, (size_t)pitch * sizeof(T)),
                         alignment(x, (size_t)pitch * sizeof(T)),
                         alignment(y, (size_t)y_stride * sizeof(float))};
    const choice *k = choice_of(c, o, err);
    if (!k) return -1;
    return k->found ? run(c, k, weights, x, y, s, err) : 0;
}

template <typename T>
int multiply_widened(cublas *c, const linear &w, const T *x, int n, float *y, int y_stride, cudaStream_t s,
                     engine_error *err) {
    const size_t fit = c->room.wide_bytes / ((size_t)w.pitch * sizeof(T));
    int most = fit < (size_t)w.rows ? (int)fit : w.rows;
    if (most > 128 && most < w.rows) most -= most % 128; /* pieces begin aligned */
    for (int first = 0; first < w.rows; first += most) {
        const int rows = w.rows - first < most ? w.rows - first : most;
        linear_widen<T>(w, first, rows, (T *)c->room.wide, s);
        const int rc = multiply(c, (const T *)c->room.wide, rows, w.pitch, x, n, y + first, y_stride, s, err);
        if (rc <= 0) return rc;
    }
    return 1;
}

__global__ void add_bias(float *y, int y_stride, const float *bias, int rows) {
    const int i = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (i < rows) y[(size_t)blockIdx.x * (size_t)y_stride + (size_t)i] += bias[i];
}

/* out [units][rows] = scales [rows][units] */
__global__ void turn_scales(const float *scales, int rows, int units, float *out) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x), unit = (int)blockIdx.y;
    if (i < rows)
        out[(size_t)unit * (size_t)rows + (size_t)i] = scales[(size_t)i * (size_t)units + (size_t)unit];
}

void by_units(const float *scales, int rows, int units, float *out, cudaStream_t s) {
    LAUNCH(turn_scales, dim3((unsigned)(rows + 255) / 256, (unsigned)units), dim3(256), 0, s, scales, rows,
           units, out);
}

void put_bias(const linear &w, int n, float *y, int y_stride, cudaStream_t s) {
    if (w.bias)
        LAUNCH(add_bias, dim3((unsigned)n, (unsigned)(w.rows + 255) / 256), dim3(256), 0, s, y, y_stride,
               w.bias, w.rows);
}

/* Of tokens in fours. */
int multiply_scaled(cublas *c, const linear &w, const rounded &x, int n, float *y, int y_stride,
                    cudaStream_t s, engine_error *err) {
    const int units = w.pitch / UNIT;
    const operation o = {E4M3,
                         w.rows,
                         w.pitch,
                         n,
                         y_stride,
                         alignment(w.weights, (size_t)w.pitch),
                         alignment(x.bytes, (size_t)w.pitch),
                         alignment(y, (size_t)y_stride * sizeof(float))};
    float *const of_w = scales_of_w(c, o);
    const size_t used =
        (size_t)((unsigned char *)(of_w + (size_t)w.rows * (size_t)units) - (unsigned char *)c->room.wide);
    if (used > c->room.wide_bytes) return 0;
    const choice *k = choice_of(c, o, err);
    if (!k) return -1;
    if (!k->found) return 0;
    by_units(x.scales, n, units, scales_of_x(c), s);
    by_units(w.scales, w.rows, units, of_w, s);
    return run(c, k, w.weights, x.bytes, y, s, err);
}

} // namespace

cublas *cublas_new(const cublas_room &room, engine_error *err) {
    cublas *c = (cublas *)calloc(1, sizeof *c);
    if (!c) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory");
        return nullptr;
    }
    c->room = room;
    if (!load_library(&c->lt, err) &&
        !lt_check(c, c->lt.create(&c->handle), "cannot begin with cuBLASLt", err))
        return c;
    free(c);
    return nullptr;
}

void cublas_free(cublas *c) {
    if (!c) return;
    for (choice &k : c->choices) drop_choice(c, &k);
    c->lt.destroy(c->handle);
    free(c);
}

template <typename T>
int cublas_forward(cublas *c, const linear &w, const T *x, int n, float *y, int y_stride, cudaStream_t s,
                   engine_error *err) {
    if (w.kind != format::stored && n < WIDEN_TOKENS) return 0;
    const int rc = w.kind == format::stored
                       ? multiply(c, (const T *)w.weights, w.rows, w.pitch, x, n, y, y_stride, s, err)
                       : multiply_widened(c, w, x, n, y, y_stride, s, err);
    if (rc == 1) put_bias(w, n, y, y_stride, s);
    return rc;
}

int cublas_forward(cublas *c, const linear &w, const rounded &x, int n, float *y, int y_stride,
                   cudaStream_t s, engine_error *err) {
    const int fours = n / FOURS * FOURS, units = w.pitch / UNIT;
    if (w.kind != format::fp8 || n < WIDEN_TOKENS || w.rows % FOURS) return 0;
    const int rc = multiply_scaled(c, w, x, fours, y, y_stride, s, err);
    if (rc != 1) return rc;
    put_bias(w, fours, y, y_stride, s);
    const rounded rest = {x.bytes + (size_t)fours * (size_t)w.pitch,
                          x.scales + (size_t)fours * (size_t)units};
    if (n > fours) linear_forward(w, rest, n - fours, y + (size_t)fours * (size_t)y_stride, y_stride, s);
    return 1;
}

} // namespace cuda

#else /* a toolkit without it: such an engine is deterministic */

namespace cuda {

cublas *cublas_new(const cublas_room &, engine_error *err) {
    engine_fail(err, ENGINE_EINVAL,
                "an engine that is not deterministic multiplies by cuBLASLt, and this one was built without: "
                "build it "
                "where there is a cublasLt.h, or leave it deterministic");
    return nullptr;
}
void cublas_free(cublas *) {}
template <typename T>
int cublas_forward(cublas *, const linear &, const T *, int, float *, int, cudaStream_t, engine_error *) {
    return 0;
}
int cublas_forward(cublas *, const linear &, const rounded &, int, float *, int, cudaStream_t,
                   engine_error *) {
    return 0;
}

} // namespace cuda

#endif

namespace cuda {

#define INSTANTIATE(T)                                                                                       \
    template int cublas_forward<T>(cublas *, const linear &, const T *, int, float *, int, cudaStream_t,     \
                                   engine_error *);
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)

} // namespace cuda
