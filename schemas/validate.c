/* Checks of values against their table rows, with errors that name the path. Decoding runs them on what comes in, before
 * it allocates; mr_validate walks a struct that was built in C. No state; any thread. */
#include "schemas/codec_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The path as text, outermost first; what does not fit is cut. */
static void path_text(const mr_path *at, char *out, size_t cap) {
    if (!at) return;
    path_text(at->up, out, cap);
    size_t n = strlen(out);
    if (!at->name) {
        snprintf(out + n, cap - n, "[%u]", at->index);
    } else {
        snprintf(out + n, cap - n, "%s%s", n > 0 ? "." : "", at->name);
    }
}

int mr_fail_at(const mr_path *at, mr_error *err, enum mr_error_code code, const char *fmt, ...) {
    char path[120] = "", what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    path_text(at, path, sizeof path);
    return mr_fail(err, code, "%s%s%s", path, path[0] ? ": " : "", what);
}

int mr_run_check(const mr_message_def *def, const void *msg, const mr_path *at, mr_error *err) {
    mr_error why;
    if (!def->check || def->check(msg, &why) == 0) return 0;
    return mr_fail_at(at, err, why.code, "%s", why.msg);
}

int mr_check_int(const mr_field *f, int64_t v, const mr_path *at, mr_error *err) {
    if ((double)v >= f->min && (double)v <= f->max) return 0;
    return mr_fail_at(at, err, MR_EINVAL, "%lld is out of range, expected an integer from %.16g to %.16g",
                      (long long)v, f->min, f->max);
}

int mr_check_num(const mr_field *f, double v, const mr_path *at, mr_error *err) {
    if (isfinite(v) && v >= f->min && v <= f->max) return 0;
    return mr_fail_at(at, err, MR_EINVAL, "%g is out of range, expected a number from %.16g to %.16g", v,
                      f->min, f->max);
}

int mr_check_count(const mr_field *f, uint64_t n, const mr_path *at, mr_error *err) {
    if ((double)n > f->max) {
        return mr_fail_at(at, err, MR_ETOOBIG, "%llu entries are too many, at most %.0f are allowed",
                          (unsigned long long)n, f->max);
    }
    if ((double)n >= f->min) return 0;
    return mr_fail_at(at, err, MR_EINVAL, "%llu entries are too few, at least %.0f needed",
                      (unsigned long long)n, f->min);
}

int mr_check_bytes(size_t n, double min, double max, const mr_path *at, mr_error *err) {
    if ((double)n > max)
        return mr_fail_at(at, err, MR_ETOOBIG, "%zu bytes is too long, at most %.0f are allowed", n, max);
    if ((double)n >= min) return 0;
    if (n == 0) return mr_fail_at(at, err, MR_EINVAL, "must not be empty");
    return mr_fail_at(at, err, MR_EINVAL, "%zu bytes is too short, at least %.0f needed", n, min);
}

int mr_check_text(mr_str s, double min, double max, const mr_path *at, mr_error *err) {
    if (mr_check_bytes(s.n, min, max, at, err) < 0) return -1;
    if (mr_str_is_utf8(s)) return 0;
    return mr_fail_at(at, err, MR_EINVAL, "is not valid UTF-8");
}

mr_any_list mr_list_get(const void *member) {
    mr_any_list l;
    memcpy(&l, member, sizeof l);
    return l;
}

void mr_list_put(void *member, void *v, uint32_t n) {
    mr_any_list l = {.v = v, .n = n};
    memcpy(member, &l, sizeof l);
}

static int validate_struct(const mr_message_def *def, const void *msg, const mr_path *at, mr_error *err);

static int validate_enum(const mr_field *f, int v, const mr_path *at, mr_error *err) {
    for (int i = 0; f->names[i]; i++) {
        if (i == v) return 0;
    }
    return mr_fail_at(at, err, MR_EINVAL, "%d is no value of this field", v);
}

static int validate_list(const mr_field *f, const void *member, const mr_path *at, mr_error *err) {
    mr_any_list l = mr_list_get(member);
    if (mr_check_count(f, l.n, at, err) < 0) return -1;
    mr_path item = {.up = at};
    for (; item.index < l.n && f->type != MR_T_I64S; item.index++) {
        int rc;
        if (f->type == MR_T_STRS) {
            rc = mr_check_text(((const mr_str *)l.v)[item.index], 0, f->each, &item, err);
        } else {
            rc = validate_struct(f->sub, (const char *)l.v + item.index * f->sub->size, &item, err);
        }
        if (rc < 0) return -1;
    }
    return 0;
}

static int validate_value(const mr_field *f, const void *member, const mr_path *at, mr_error *err) {
    switch (f->type) {
    case MR_T_BOOL: return 0;
    case MR_T_I64: return mr_check_int(f, *(const int64_t *)member, at, err);
    case MR_T_F64: return mr_check_num(f, *(const double *)member, at, err);
    case MR_T_STR: return mr_check_text(*(const mr_str *)member, f->min, f->max, at, err);
    case MR_T_BYTES: return mr_check_bytes(((const mr_str *)member)->n, f->min, f->max, at, err);
    case MR_T_ENUM: return validate_enum(f, *(const int *)member, at, err);
    case MR_T_STRUCT: return validate_struct(f->sub, member, at, err);
    case MR_T_I64S:
    case MR_T_STRS:
    case MR_T_STRUCTS: return validate_list(f, member, at, err);
    }
    return mr_fail_at(at, err, MR_EINVAL, "has a type that its table does not know");
}

/* Two rows of one wire name stand side by side in the table; at most one of them may be there. */
static bool given_twice(const mr_message_def *def, uint64_t set, int i) {
    return i > 0 && set >> (i - 1) & 1 && strcmp(def->fields[i - 1].name, def->fields[i].name) == 0;
}

static int validate_struct(const mr_message_def *def, const void *msg, const mr_path *at, mr_error *err) {
    uint64_t set = mr_present(def, msg);
    for (int i = 0; i < def->nfields; i++) {
        const mr_field *f = &def->fields[i];
        mr_path here = {.up = at, .name = f->name};
        if (!(set >> i & 1)) {
            if (f->required) return mr_fail_at(&here, err, MR_EINVAL, "is missing");
            continue;
        }
        if (given_twice(def, set, i))
            return mr_fail_at(&here, err, MR_EINVAL, "is given twice, in two forms");
        if (validate_value(f, (const char *)msg + f->offset, &here, err) < 0) return -1;
    }
    return mr_run_check(def, msg, at, err);
}

int mr_validate(const mr_message_def *def, const void *msg, mr_error *err) {
    return validate_struct(def, msg, NULL, err);
}
