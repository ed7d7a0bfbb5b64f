/* See include/cublasLt.h. */
#include "cublasLt.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"

#include <cmath>
#include <cstdio>

struct simt_lt_handle {
    int unused;
};
struct simt_lt_desc {
    cublasOperation_t of_a, of_b;
    int32_t mode_a, mode_b;
    const float *scales_a, *scales_b;
};
struct simt_lt_layout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct simt_lt_preference {
    uint64_t workspace;
    uint32_t align[4]; /* a, b, c, d */
};
/* What an algorithm was chosen for. */
struct simt_lt_algo {
    uint64_t m, n, k, workspace;
    uint32_t align[4];
};
static_assert(sizeof(simt_lt_algo) <= sizeof(cublasLtMatmulAlgo_t), "fits");

thread_local simt_lt_counts simt_lt;

static cublasStatus_t refuse(const char *why) {
    fprintf(stderr, "cublasLt of the shim: %s\n", why);
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = new simt_lt_handle{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_INVALID_VALUE ? "an invalid value" : "another error";
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t, cudaDataType_t scale) {
    if (scale != CUDA_R_32F) return refuse("scales are floats");
    *d = new simt_lt_desc{};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t size) {
    const struct {
        cublasLtMatmulDescAttributes_t name;
        void *to;
        size_t size;
    } all[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &d->of_a, sizeof d->of_a},
               {CUBLASLT_MATMUL_DESC_TRANSB, &d->of_b, sizeof d->of_b},
               {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &d->mode_a, sizeof d->mode_a},
               {CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &d->mode_b, sizeof d->mode_b},
               {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &d->scales_a, sizeof d->scales_a},
               {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &d->scales_b, sizeof d->scales_b}};
    if (simt_lt.old && name >= CUBLASLT_MATMUL_DESC_A_SCALE_MODE) return CUBLAS_STATUS_INVALID_VALUE;
    for (const auto &a : all) {
        if (a.name != name) continue;
        if (a.size != size) return refuse("an attribute of another size");
        memcpy(a.to, value, size);
        return CUBLAS_STATUS_SUCCESS;
    }
    return refuse("an unknown attribute");
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    if (ld < (int64_t)rows) return refuse("columns overlap");
    *l = new simt_lt_layout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = new simt_lt_preference{0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t size) {
    const bool room = name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (size != (room ? sizeof p->workspace : sizeof p->align[0]))
        return refuse("an attribute of another size");
    if (room)
        memcpy(&p->workspace, value, size);
    else
        memcpy(&p->align[name - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
    return CUBLAS_STATUS_SUCCESS;
}

static uint64_t rows_of(cublasOperation_t op, const simt_lt_layout *l) {
    return op == CUBLAS_OP_T ? l->cols : l->rows;
}
static uint64_t cols_of(cublasOperation_t op, const simt_lt_layout *l) {
    return op == CUBLAS_OP_T ? l->rows : l->cols;
}

static bool fits(const simt_lt_desc *d, const simt_lt_layout *a, const simt_lt_layout *b,
                 const simt_lt_layout *c, const simt_lt_layout *out) {
    return rows_of(d->of_a, a) == out->rows && cols_of(d->of_b, b) == out->cols &&
           cols_of(d->of_a, a) == rows_of(d->of_b, b) && c->rows == out->rows && c->cols == out->cols &&
           a->type == b->type && out->type == CUDA_R_32F;
}

/* What scales for each 128 columns ask for: cuBLAS's documentation, "128-element 1D and 128x128 2D block scaling". */
static bool scales_fit(const simt_lt_desc *d, const simt_lt_layout *a, const simt_lt_layout *out) {
    const int32_t mode = a->type == CUDA_R_8F_E4M3 ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F : 0;
    if (d->mode_a != mode || d->mode_b != mode) return false;
    return !mode || (d->scales_a && d->scales_b &&
                     ((uintptr_t)d->scales_a | (uintptr_t)d->scales_b) % 16 == 0 && d->of_a == CUBLAS_OP_T &&
                     d->of_b == CUBLAS_OP_N && out->rows % 4 == 0 && out->cols % 4 == 0 && a->ld % 16 == 0);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found) {
    simt_lt.chosen++;
    *found = 0;
    if (wanted < 1 || !fits(d, a, b, c, out)) return refuse("matrices that do not fit together");
    if (!scales_fit(d, a, out)) return refuse("scales that do not fit the matrices");
    if (out->rows == (uint64_t)simt_lt.refused_rows) return CUBLAS_STATUS_NOT_SUPPORTED;
    simt_lt_algo algo = {out->rows, out->cols, cols_of(d->of_a, a), p->workspace, {}};
    memcpy(algo.align, p->align, sizeof algo.align);
    results[0] = {};
    memcpy(&results[0].algo, &algo, sizeof algo);
    results[0].workspaceSize = p->workspace;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static float value_of_e4m3(uint8_t byte) {
    const int exponent = byte >> 3 & 15, fraction = byte & 7;
    const float size = exponent ? ldexpf((float)(8 + fraction), exponent - 10) : ldexpf((float)fraction, -9);
    return byte & 0x80 ? -size : size;
}

static float element(const simt_lt_layout *l, const void *p, uint64_t row, uint64_t col) {
    const size_t at = (size_t)col * (size_t)l->ld + (size_t)row;
    if (l->type == CUDA_R_8F_E4M3) return value_of_e4m3(((const uint8_t *)p)[at]);
    return l->type == CUDA_R_16F    ? __half2float(((const __half *)p)[at])
           : l->type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)p)[at])
                                    : ((const float *)p)[at];
}

static bool aligned(const void *p, const simt_lt_layout *l, uint32_t to) {
    const size_t size = l->type == CUDA_R_32F ? 4 : l->type == CUDA_R_8F_E4M3 ? 1 : 2;
    return to >= size && ((uintptr_t)p | (size_t)l->ld * size) % to == 0;
}

/* Of the product's element (i, j), in column k; scales lie by rows of a and columns of b, for 128 k after 128. */
static float scale(const simt_lt_desc &d, const simt_lt_layout &out, uint64_t i, uint64_t j, uint64_t k) {
    return d.mode_a ? d.scales_a[k / 128 * out.rows + i] * d.scales_b[k / 128 * out.cols + j] : 1;
}

static void multiply(const simt_lt_desc &d, const void *a, const simt_lt_layout &la, const void *b,
                     const simt_lt_layout &lb, float *out, const simt_lt_layout &lout) {
    const uint64_t inner = cols_of(d.of_a, &la);
    for (uint64_t j = 0; j < lout.cols; j++)
        for (uint64_t i = 0; i < lout.rows; i++) {
            float sum = 0;
            for (uint64_t k = 0; k < inner; k++)
                sum += (d.of_a == CUBLAS_OP_T ? element(&la, a, k, i) : element(&la, a, i, k)) *
                       (d.of_b == CUBLAS_OP_T ? element(&lb, b, j, k) : element(&lb, b, k, j)) *
                       scale(d, lout, i, j, k);
            out[(size_t)j * (size_t)lout.ld + (size_t)i] = sum;
        }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
                              const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *out,
                              cublasLtMatrixLayout_t lout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t s) {
    simt_lt_algo of;
    memcpy(&of, algo, sizeof of);
    simt_lt.multiplied++;
    if (!fits(d, la, lb, lc, lout) || of.m != lout->rows || of.n != lout->cols ||
        of.k != cols_of(d->of_a, la))
        return refuse("an algorithm of other matrices");
    if (*(const float *)alpha != 1 || *(const float *)beta != 0) return refuse("only plain products");
    if (!aligned(a, la, of.align[0]) || !aligned(b, lb, of.align[1]) || !aligned(c, lc, of.align[2]) ||
        !aligned(out, lout, of.align[3]))
        return refuse("a buffer is less aligned than was said");
    if (workspace_bytes < of.workspace) return refuse("less workspace than was said");
    const simt_lt_desc how = *d;
    const simt_lt_layout of_a = *la, of_b = *lb, of_out = *lout;
    simt::enqueue(s, [=] {
        memset(workspace, 0xaa, workspace_bytes);
        multiply(how, a, of_a, b, of_b, (float *)out, of_out);
    });
    return CUBLAS_STATUS_SUCCESS;
}
