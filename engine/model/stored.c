/* Weights in files: 8-bit ones as compressed-tensors names and shapes them, X.weight [rows, cols] in I8 beside X.weight_scale
 * [rows, groups], symmetric.
 */
#include "engine/model/stored.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static int parse_dtype(const char *name, dtype *out) {
    static const char *const names[] = {
        [DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16", [DTYPE_I8] = "I8"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i])) {
            *out = (dtype)i;
            return 0;
        }
    }
    return -1;
}

static int check_aligned(const safetensors_entry *e, dtype type, engine_error *err) {
    if ((uintptr_t)e->data % dtype_bytes(type) == 0) return 0;
    return engine_fail(
        err, ENGINE_EFORMAT,
        "tensor %s is not aligned in its file: save the checkpoint again with safetensors >= 0.3", e->name);
}

/* A scale is one number of the file that can spoil a whole group, so all are looked at. */
static int check_scales(const tensor *t, const char *name, engine_error *err) {
    enum { SOME = 256 };
    float scale[SOME];
    const tensor all = {.data = t->scale, .type = t->scale_type, .rows = 1, .cols = t->rows * t->row_scales};
    for (int64_t at = 0; at < all.cols; at += SOME) {
        const int n = all.cols - at < SOME ? (int)(all.cols - at) : SOME;
        tensor_read(&all, 0, at, n, scale);
        for (int i = 0; i < n; i++) {
            if (scale[i] >= 0 && isfinite(scale[i])) continue;
            return engine_fail(err, ENGINE_EFORMAT, "tensor %s: the scale of row %lld is %g", name,
                               (long long)((at + i) / t->row_scales), (double)scale[i]);
        }
    }
    return 0;
}

static int take_scales(const safetensors_entry *e, const safetensors_entry *s, int group, tensor *t,
                       engine_error *err) {
    if (group < 0 || t->rows == 1) {
        return engine_fail(
            err, ENGINE_EFORMAT,
            "tensor %s is in 8 bits, of which config.json's \"quantization_config\" says nothing", e->name);
    }
    if (!s)
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s is in 8 bits, and has no %s_scale", e->name,
                           e->name);
    t->group = group ? group : t->cols;
    t->row_scales = (t->cols + t->group - 1) / t->group;
    if (parse_dtype(s->dtype, &t->scale_type) || t->scale_type == DTYPE_I8) {
        return engine_fail(err, ENGINE_EFORMAT,
                           "tensor %s has dtype %.20s: scales in F32, F16 and BF16 are read", s->name,
                           s->dtype);
    }
    const bool column = s->ndims == 1 && t->row_scales == 1;
    if (!(s->ndims == 2 && s->dims[1] == t->row_scales) && !column)
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s: a row has %lld scales by config.json, not %lld",
                           s->name, (long long)t->row_scales, (long long)(s->ndims == 2 ? s->dims[1] : 1));
    if (s->dims[0] != t->rows)
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s has scales for %lld rows of %lld", s->name,
                           (long long)s->dims[0], (long long)t->rows);
    t->scale = s->data;
    return check_aligned(s, t->scale_type, err) ? -1 : check_scales(t, s->name, err);
}

int stored_weight(const safetensors_entry *e, const safetensors_entry *scale, int group, tensor *t,
                  engine_error *err) {
    if (parse_dtype(e->dtype, &t->type)) {
        return engine_fail(err, ENGINE_EFORMAT, "tensor %s has dtype %.20s: F32, F16, BF16 and I8 are read",
                           e->name, e->dtype);
    }
    /* a vector has one dimension in the file and one row here */
    bool matrix = t->rows > 1 && e->ndims == 2 && e->dims[0] == t->rows && e->dims[1] == t->cols;
    bool vector = t->rows == 1 && e->ndims == 1 && e->dims[0] == t->cols;
    if (!matrix && !vector) {
        return engine_fail(err, ENGINE_EFORMAT,
                           "tensor %s has %d dimensions, [%lld, %lld], where config.json says %lld x %lld",
                           e->name, e->ndims, (long long)(e->ndims > 0 ? e->dims[0] : 1),
                           (long long)(e->ndims > 1 ? e->dims[1] : 1), (long long)t->rows,
                           (long long)t->cols);
    }
    if (check_aligned(e, t->type, err)) return -1;
    t->data = e->data;
    return t->type == DTYPE_I8 ? take_scales(e, scale, group, t, err) : 0;
}
