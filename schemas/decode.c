/* Fills a message's struct from a tree of nodes, by its table. The trees come from codec_msgpack.c and codec_json.c; what
 * is checked, in which words, is the same for both. Memory comes from the caller's arena. No state; any thread. */
#include "schemas/codec_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct decoder {
    const mr_node_ops *ops;
    mr_arena *arena;
    mr_error *err;
} decoder;

static int decode_struct(const decoder *d, const mr_message_def *def, const mr_node *in, void *out,
                         const mr_path *at);

static const char *node_kind_text(const mr_node *in) {
    static const char *const names[] = {
        "null",  "a boolean", "an integer", "an integer past 64 bits", "a number", "a string",
        "bytes", "a list",    "an object",  "an extension type"};
    return names[in->kind];
}

static void type_text(const mr_field *f, char *out, size_t cap) {
    switch (f->type) {
    case MR_T_BOOL: snprintf(out, cap, "a boolean"); break;
    case MR_T_I64: snprintf(out, cap, "an integer"); break;
    case MR_T_F64: snprintf(out, cap, "a number"); break;
    case MR_T_STR:
    case MR_T_ENUM: snprintf(out, cap, "a string"); break;
    case MR_T_BYTES: snprintf(out, cap, "bytes"); break;
    case MR_T_STRUCT: snprintf(out, cap, "an object (%s)", f->sub->name); break;
    case MR_T_I64S: snprintf(out, cap, "a list of integers"); break;
    case MR_T_STRS: snprintf(out, cap, "a list of strings"); break;
    case MR_T_STRUCTS: snprintf(out, cap, "a list of %s", f->sub->name); break;
    }
}

/* Can a node of this kind become this field? Decides between rows of one wire name. */
static bool type_takes(const decoder *d, mr_type type, const mr_node *in) {
    switch (type) {
    case MR_T_BOOL: return in->kind == MR_NODE_BOOL;
    case MR_T_I64: return in->kind == MR_NODE_INT || in->kind == MR_NODE_HUGE || in->kind == MR_NODE_FLOAT;
    case MR_T_F64: return in->kind == MR_NODE_INT || in->kind == MR_NODE_HUGE || in->kind == MR_NODE_FLOAT;
    case MR_T_STR:
    case MR_T_ENUM: return in->kind == MR_NODE_STR;
    case MR_T_BYTES: return in->kind == (d->ops->text_only ? MR_NODE_STR : MR_NODE_BYTES);
    case MR_T_STRUCT: return in->kind == MR_NODE_MAP;
    case MR_T_I64S:
    case MR_T_STRS:
    case MR_T_STRUCTS: return in->kind == MR_NODE_LIST;
    }
    return false;
}

static int fail_room(const decoder *d, const mr_path *at) {
    return mr_fail_at(at, d->err, MR_ETOOBIG, "the message needs more memory than is set aside for one");
}

static int decode_int(const decoder *d, const mr_field *f, const mr_node *in, int64_t *out,
                      const mr_path *at) {
    /* Programs without integers send 100.0; only what has a fraction is refused. 2^63 does not fit. */
    if (in->kind == MR_NODE_FLOAT && in->f == floor(in->f) && fabs(in->f) < 9223372036854775808.0) {
        *out = (int64_t)in->f;
    } else if (in->kind == MR_NODE_INT) {
        *out = in->i;
    } else {
        return mr_fail_at(at, d->err, MR_EINVAL, "expected an integer, found %s", node_kind_text(in));
    }
    return mr_check_int(f, *out, at, d->err);
}

static int decode_num(const decoder *d, const mr_field *f, const mr_node *in, double *out,
                      const mr_path *at) {
    *out = in->kind == MR_NODE_INT ? (double)in->i : in->f;
    return mr_check_num(f, *out, at, d->err);
}

static int copy_str(const decoder *d, mr_str in, mr_str *out, const mr_path *at) {
    *out = mr_arena_str(d->arena, in);
    return out->p ? 0 : fail_room(d, at);
}

static int decode_text(const decoder *d, mr_str in, double min, double max, mr_str *out, const mr_path *at) {
    if (mr_check_text(in, min, max, at, d->err) < 0) return -1;
    return copy_str(d, in, out, at);
}

static int decode_bytes(const decoder *d, const mr_field *f, const mr_node *in, mr_str *out,
                        const mr_path *at) {
    if (!d->ops->text_only) {
        if (mr_check_bytes(in->s.n, f->min, f->max, at, d->err) < 0) return -1;
        return copy_str(d, in->s, out, at);
    }
    /* The text is a third longer than its bytes: refuse a hopeless one before taking memory for it. */
    if (mr_check_bytes(in->s.n, 0, (double)mr_base64_len((size_t)f->max), at, d->err) < 0) return -1;
    char *bytes = mr_arena_alloc(d->arena, in->s.n / 4 * 3 + 1);
    if (!bytes) return fail_room(d, at);
    int64_t n = mr_base64_decode(in->s, bytes);
    if (n < 0) return mr_fail_at(at, d->err, MR_EINVAL, "is not valid base64");
    *out = (mr_str){bytes, (size_t)n};
    return mr_check_bytes((size_t)n, f->min, f->max, at, d->err);
}

static int decode_enum(const decoder *d, const mr_field *f, const mr_node *in, int *out, const mr_path *at) {
    char known[160] = "";
    for (int i = 0; f->names[i]; i++) {
        if (mr_str_eqz(in->s, f->names[i])) {
            *out = i;
            return 0;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i > 0 ? ", " : "", f->names[i]);
    }
    return mr_fail_at(at, d->err, MR_EINVAL, "unknown value, expected one of %s", known);
}

static int decode_item(const decoder *d, const mr_field *f, const mr_node *in, void *out, const mr_path *at) {
    if (f->type == MR_T_STRUCTS) return decode_struct(d, f->sub, in, out, at);
    if (f->type == MR_T_STRS && in->kind == MR_NODE_STR) return decode_text(d, in->s, 0, f->each, out, at);
    if (f->type == MR_T_I64S && in->kind == MR_NODE_INT) {
        *(int64_t *)out = in->i;
        return 0;
    }
    return mr_fail_at(at, d->err, MR_EINVAL, "expected %s, found %s",
                      f->type == MR_T_STRS ? "a string" : "an integer", node_kind_text(in));
}

static int decode_list(const decoder *d, const mr_field *f, const mr_node *in, void *member,
                       const mr_path *at) {
    if (mr_check_count(f, in->n, at, d->err) < 0) return -1;
    size_t size = f->type == MR_T_STRUCTS ? f->sub->size
                  : f->type == MR_T_STRS  ? sizeof(mr_str)
                                          : sizeof(int64_t);
    char *items = mr_arena_alloc(d->arena, in->n * size);
    if (!items && in->n > 0) return fail_room(d, at);
    mr_path here = {.up = at};
    for (; here.index < in->n; here.index++) {
        mr_node item = d->ops->item(in, here.index);
        if (decode_item(d, f, &item, items + here.index * size, &here) < 0) return -1;
    }
    mr_list_put(member, items, in->n);
    return 0;
}

static int decode_value(const decoder *d, const mr_field *f, const mr_node *in, void *member,
                        const mr_path *at) {
    switch (f->type) {
    case MR_T_BOOL: *(bool *)member = in->b; return 0;
    case MR_T_I64: return decode_int(d, f, in, member, at);
    case MR_T_F64: return decode_num(d, f, in, member, at);
    case MR_T_STR: return decode_text(d, in->s, f->min, f->max, member, at);
    case MR_T_BYTES: return decode_bytes(d, f, in, member, at);
    case MR_T_ENUM: return decode_enum(d, f, in, member, at);
    case MR_T_STRUCT: return decode_struct(d, f->sub, in, member, at);
    case MR_T_I64S:
    case MR_T_STRS:
    case MR_T_STRUCTS: return decode_list(d, f, in, member, at);
    }
    return -1;
}

/* The row for this name and kind of value; -1 for an unknown name; -2, with the error said, for a wrong type. */
static int find_row(const decoder *d, const mr_message_def *def, mr_str key, const mr_node *in,
                    const mr_path *at) {
    char expected[120] = "";
    for (int i = 0; i < def->nfields; i++) {
        if (!mr_str_eqz(key, def->fields[i].name)) continue;
        if (type_takes(d, def->fields[i].type, in)) return i;
        size_t n = strlen(expected);
        if (n > 0) n += (size_t)snprintf(expected + n, sizeof expected - n, " or ");
        if (n < sizeof expected) type_text(&def->fields[i], expected + n, sizeof expected - n);
    }
    if (expected[0] == '\0') return -1;
    char name[64];
    mr_str_copy(key, name, sizeof name);
    mr_path here = {.up = at, .name = name};
    mr_fail_at(&here, d->err, MR_EINVAL, "expected %s, found %s", expected, node_kind_text(in));
    return -2;
}

static int decode_entry(const decoder *d, const mr_message_def *def, mr_str key, const mr_node *in, void *out,
                        const mr_path *at) {
    if (in->kind == MR_NODE_NULL) return 0;
    int row = find_row(d, def, key, in, at);
    if (row < 0) return row == -1 ? 0 : -1;
    const mr_field *f = &def->fields[row];
    uint64_t *set = out, bit = UINT64_C(1) << row;
    mr_path here = {.up = at, .name = f->name};
    for (int i = 0; i < def->nfields; i++) {
        if (*set >> i & 1 && strcmp(def->fields[i].name, f->name) == 0) {
            return mr_fail_at(&here, d->err, MR_EINVAL, "is given twice");
        }
    }
    if (decode_value(d, f, in, (char *)out + f->offset, &here) < 0) return -1;
    *set |= bit;
    return 0;
}

/* Looked at before anything else: a newer message may break any other rule of this table. */
static int check_version(const decoder *d, const mr_message_def *def, const mr_node *in) {
    mr_node_iter it = {0};
    mr_str key;
    mr_node value;
    if (strcmp(def->fields[0].name, "v") != 0) return 0;
    while (d->ops->next(in, &it, &key, &value)) {
        if (!mr_str_eqz(key, "v") || value.kind != MR_NODE_INT || value.i <= MR_SCHEMA_VERSION) continue;
        return mr_fail(d->err, MR_EINVAL,
                       "v: version %lld of %s is newer than this program, which knows %d: upgrade it",
                       (long long)value.i, def->name, MR_SCHEMA_VERSION);
    }
    return 0;
}

static int check_required(const decoder *d, const mr_message_def *def, uint64_t set, const mr_path *at) {
    for (int i = 0; i < def->nfields; i++) {
        if (!def->fields[i].required || set >> i & 1) continue;
        mr_path here = {.up = at, .name = def->fields[i].name};
        return mr_fail_at(&here, d->err, MR_EINVAL, "is missing");
    }
    return 0;
}

static int decode_struct(const decoder *d, const mr_message_def *def, const mr_node *in, void *out,
                         const mr_path *at) {
    mr_node_iter it = {0};
    mr_str key;
    mr_node value;
    memset(out, 0, def->size);
    if (in->kind != MR_NODE_MAP) {
        return mr_fail_at(at, d->err, MR_EINVAL, "expected an object (%s), found %s", def->name,
                          node_kind_text(in));
    }
    if (check_version(d, def, in) < 0) return -1;
    while (d->ops->next(in, &it, &key, &value)) {
        if (decode_entry(d, def, key, &value, out, at) < 0) return -1;
    }
    if (check_required(d, def, *(uint64_t *)out, at) < 0) return -1;
    return mr_run_check(def, out, at, d->err);
}

int mr_decode_tree(const mr_message_def *def, const mr_node_ops *ops, const mr_node *root, mr_arena *a,
                   void *out, mr_error *err) {
    decoder d = {.ops = ops, .arena = a, .err = err};
    return decode_struct(&d, def, root, out, NULL);
}
