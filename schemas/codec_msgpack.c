/* msgpack in and out, through msgpack-c. No state; any thread.
 *
 * msgpack-c believes the sizes that the input states: five bytes that announce an array of 2^32 - 1 entries make it
 * ask for 64 GB, and nesting makes it fail without a word. So the input is walked first, without allocating: it must be
 * complete, at most SCAN_DEPTH deep and SCAN_OBJECTS large. What passes costs 24 bytes an object.
 */
#include "schemas/codec_internal.h"

#include <msgpack.h>

enum { SCAN_DEPTH = 16, SCAN_OBJECTS = 1 << 20 };

typedef struct scan {
    const unsigned char *p;
    size_t n, at;
} scan;

/* Big-endian number of `width` bytes at the cursor. */
static bool scan_number(scan *s, size_t width, uint64_t *out) {
    if (s->n - s->at < width) return false;
    *out = 0;
    while (width-- > 0) *out = *out << 8 | s->p[s->at++];
    return true;
}

static bool scan_skip(scan *s, uint64_t n) {
    if (s->n - s->at < n) return false;
    s->at += n;
    return true;
}

/* A length of `width` bytes, then that many bytes and `more`. */
static bool scan_sized(scan *s, size_t width, uint64_t more) {
    uint64_t n;
    return scan_number(s, width, &n) && scan_skip(s, n + more);
}

static bool scan_container(scan *s, size_t width, unsigned each, uint64_t *children) {
    if (!scan_number(s, width, children)) return false;
    *children *= each;
    return true;
}

/* One object's head and, unless it is a container, all of it. */
static bool scan_object(scan *s, uint64_t *children) {
    uint64_t b;
    *children = 0;
    if (!scan_number(s, 1, &b)) return false;
    if (b <= 0x7f || b >= 0xe0) return true;
    if (b <= 0x8f) return *children = 2 * (b & 15), true;
    if (b <= 0x9f) return *children = b & 15, true;
    if (b <= 0xbf) return scan_skip(s, b & 31);
    switch (b) {
    case 0xc0:
    case 0xc2:
    case 0xc3: return true;
    case 0xc4:
    case 0xc5:
    case 0xc6: return scan_sized(s, (size_t)1 << (b - 0xc4), 0);
    case 0xc7:
    case 0xc8:
    case 0xc9: return scan_sized(s, (size_t)1 << (b - 0xc7), 1);
    case 0xca: return scan_skip(s, 4);
    case 0xcb: return scan_skip(s, 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf: return scan_skip(s, UINT64_C(1) << (b - 0xcc));
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: return scan_skip(s, UINT64_C(1) << (b - 0xd0));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return scan_skip(s, 1 + (UINT64_C(1) << (b - 0xd4)));
    case 0xd9:
    case 0xda:
    case 0xdb: return scan_sized(s, (size_t)1 << (b - 0xd9), 0);
    case 0xdc:
    case 0xdd: return scan_container(s, (size_t)2 << (b - 0xdc), 1, children);
    case 0xde:
    case 0xdf: return scan_container(s, (size_t)2 << (b - 0xde), 2, children);
    default: return false; /* 0xc1, which msgpack never uses */
    }
}

static bool begins_a_map(mr_str in) {
    unsigned char b = in.n > 0 ? (unsigned char)in.p[0] : 0;
    return (b >= 0x80 && b <= 0x8f) || b == 0xde || b == 0xdf;
}

static int scan_input(mr_str in, mr_error *err) {
    if (in.n == 0) return mr_fail(err, MR_EINVAL, "the message is empty");
    if (!begins_a_map(in)) return mr_fail(err, MR_EINVAL, "neither a msgpack map nor a JSON object");
    scan s = {(const unsigned char *)in.p, in.n, 0};
    uint64_t left[SCAN_DEPTH + 1] = {1}, children; /* objects still to come at each depth */
    int depth = 0, objects = 0;
    while (depth >= 0) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        left[depth]--;
        if (!scan_object(&s, &children) || children > s.n - s.at) {
            return mr_fail(err, MR_EINVAL, "not msgpack, or cut short, at byte %zu of %zu", s.at, s.n);
        }
        if (++objects > SCAN_OBJECTS) {
            return mr_fail(err, MR_ETOOBIG, "more than %d values in one message", SCAN_OBJECTS);
        }
        if (children == 0) continue;
        if (depth == SCAN_DEPTH)
            return mr_fail(err, MR_ETOOBIG, "nested more than %d levels deep", SCAN_DEPTH);
        left[++depth] = children;
    }
    if (s.at == s.n) return 0;
    return mr_fail(err, MR_EINVAL, "%zu bytes after the end of the message", s.n - s.at);
}

static mr_node node_of(const msgpack_object *o) {
    mr_node n = {.kind = MR_NODE_OTHER, .tree = o};
    switch (o->type) {
    case MSGPACK_OBJECT_NIL: n.kind = MR_NODE_NULL; break;
    case MSGPACK_OBJECT_BOOLEAN: n.kind = MR_NODE_BOOL, n.b = o->via.boolean; break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        n.kind = o->via.u64 <= INT64_MAX ? MR_NODE_INT : MR_NODE_HUGE;
        n.i = (int64_t)o->via.u64;
        n.f = (double)o->via.u64;
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: n.kind = MR_NODE_INT, n.i = o->via.i64; break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64: n.kind = MR_NODE_FLOAT, n.f = o->via.f64; break;
    case MSGPACK_OBJECT_STR: n.kind = MR_NODE_STR, n.s = (mr_str){o->via.str.ptr, o->via.str.size}; break;
    case MSGPACK_OBJECT_BIN: n.kind = MR_NODE_BYTES, n.s = (mr_str){o->via.bin.ptr, o->via.bin.size}; break;
    case MSGPACK_OBJECT_ARRAY: n.kind = MR_NODE_LIST, n.n = o->via.array.size; break;
    case MSGPACK_OBJECT_MAP: n.kind = MR_NODE_MAP, n.n = o->via.map.size; break;
    case MSGPACK_OBJECT_EXT: break;
    }
    return n;
}

static mr_node msgpack_item(const mr_node *list, uint32_t i) {
    return node_of(&((const msgpack_object *)list->tree)->via.array.ptr[i]);
}

static bool msgpack_next(const mr_node *map, mr_node_iter *it, mr_str *key, mr_node *value) {
    const msgpack_object_map *m = &((const msgpack_object *)map->tree)->via.map;
    for (; it->i < m->size; it->i++) {
        const msgpack_object_kv *kv = &m->ptr[it->i];
        if (kv->key.type != MSGPACK_OBJECT_STR) continue;
        *key = (mr_str){kv->key.via.str.ptr, kv->key.via.str.size};
        *value = node_of(&kv->val);
        it->i++;
        return true;
    }
    return false;
}

int mr_unpack(const mr_message_def *def, mr_str in, mr_arena *a, void *out, mr_error *err) {
    static const mr_node_ops ops = {.item = msgpack_item, .next = msgpack_next};
    if (scan_input(in, err) < 0) return -1;
    msgpack_unpacked tree;
    msgpack_unpacked_init(&tree);
    int rc;
    if (msgpack_unpack_next(&tree, in.p, in.n, NULL) != MSGPACK_UNPACK_SUCCESS) {
        rc = mr_fail(err, MR_ENOMEM, "msgpack-c could not unpack %zu bytes, no memory?", in.n);
    } else {
        mr_node root = node_of(&tree.data);
        rc = mr_decode_tree(def, &ops, &root, a, out, err);
    }
    msgpack_unpacked_destroy(&tree);
    return rc;
}

static int write_buf(void *data, const char *p, size_t n) {
    mr_buf *b = data;
    mr_buf_put(b, p, n);
    return b->failed ? -1 : 0;
}

static void pack_struct(msgpack_packer *pk, const mr_message_def *def, const void *msg);

static void pack_text(msgpack_packer *pk, mr_str s) {
    msgpack_pack_str(pk, s.n);
    msgpack_pack_str_body(pk, s.p, s.n);
}

static void pack_list(msgpack_packer *pk, const mr_field *f, const void *member) {
    mr_any_list l = mr_list_get(member);
    msgpack_pack_array(pk, l.n);
    for (uint32_t i = 0; i < l.n; i++) {
        switch (f->type) {
        case MR_T_I64S: msgpack_pack_int64(pk, ((const int64_t *)l.v)[i]); break;
        case MR_T_STRS: pack_text(pk, ((const mr_str *)l.v)[i]); break;
        default: pack_struct(pk, f->sub, (const char *)l.v + i * f->sub->size); break;
        }
    }
}

static void pack_value(msgpack_packer *pk, const mr_field *f, const void *member) {
    const mr_str *s = member;
    switch (f->type) {
    case MR_T_BOOL: *(const bool *)member ? msgpack_pack_true(pk) : msgpack_pack_false(pk); break;
    case MR_T_I64: msgpack_pack_int64(pk, *(const int64_t *)member); break;
    case MR_T_F64: msgpack_pack_double(pk, *(const double *)member); break;
    case MR_T_STR: pack_text(pk, *s); break;
    case MR_T_BYTES: msgpack_pack_bin(pk, s->n), msgpack_pack_bin_body(pk, s->p, s->n); break;
    case MR_T_ENUM: pack_text(pk, mr_str_of(f->names[*(const int *)member])); break;
    case MR_T_STRUCT: pack_struct(pk, f->sub, member); break;
    case MR_T_I64S:
    case MR_T_STRS:
    case MR_T_STRUCTS: pack_list(pk, f, member); break;
    }
}

static void pack_struct(msgpack_packer *pk, const mr_message_def *def, const void *msg) {
    uint64_t set = mr_present(def, msg);
    msgpack_pack_map(pk, (size_t)__builtin_popcountll(set));
    for (int i = 0; i < def->nfields; i++) {
        const mr_field *f = &def->fields[i];
        if (!(set >> i & 1)) continue;
        pack_text(pk, mr_str_of(f->name));
        pack_value(pk, f, (const char *)msg + f->offset);
    }
}

int mr_pack(const mr_message_def *def, const void *msg, mr_buf *out, mr_error *err) {
    if (mr_validate(def, msg, err) < 0) return mr_fail_in(err, "%s", def->name);
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_buf);
    pack_struct(&pk, def, msg);
    if (!out->failed) return 0;
    return mr_fail(err, MR_ETOOBIG, "%s: larger than the %zu bytes that a record may have", def->name,
                   out->max);
}
