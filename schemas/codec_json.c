/* JSON in and out, through jansson. No state; any thread. */
#include "schemas/codec_internal.h"

#include <stdlib.h>
#include <string.h>

static mr_node node_of(const json_t *j) {
    mr_node n = {.kind = MR_NODE_NULL, .tree = j};
    switch (json_typeof(j)) {
    case JSON_NULL: break;
    case JSON_TRUE: n.b = true; /* fall through */
    case JSON_FALSE: n.kind = MR_NODE_BOOL; break;
    case JSON_INTEGER: n.kind = MR_NODE_INT, n.i = json_integer_value(j); break;
    case JSON_REAL: n.kind = MR_NODE_FLOAT, n.f = json_real_value(j); break;
    case JSON_STRING:
        n.kind = MR_NODE_STR;
        n.s = (mr_str){json_string_value(j), json_string_length(j)};
        break;
    case JSON_ARRAY: n.kind = MR_NODE_LIST, n.n = (uint32_t)json_array_size(j); break;
    case JSON_OBJECT: n.kind = MR_NODE_MAP, n.n = (uint32_t)json_object_size(j); break;
    }
    return n;
}

static mr_node json_item(const mr_node *list, uint32_t i) {
    return node_of(json_array_get(list->tree, i));
}

static bool json_next(const mr_node *map, mr_node_iter *it, mr_str *key, mr_node *value) {
    /* jansson's iterators take the object without const, and leave it alone. */
    json_t *object = (json_t *)map->tree;
    it->at = it->i++ == 0 ? json_object_iter(object) : json_object_iter_next(object, it->at);
    if (!it->at) return false;
    *key = mr_str_of(json_object_iter_key(it->at));
    *value = node_of(json_object_iter_value(it->at));
    return true;
}

int mr_from_json(const mr_message_def *def, const json_t *in, mr_arena *a, void *out, mr_error *err) {
    static const mr_node_ops ops = {.item = json_item, .next = json_next, .text_only = true};
    mr_node root = node_of(in);
    return mr_decode_tree(def, &ops, &root, a, out, err);
}

static json_t *json_of_struct(const mr_message_def *def, const void *msg);

static json_t *json_of_bytes(mr_str s) {
    size_t n = mr_base64_len(s.n);
    char *text = malloc(n + 1);
    if (!text) return NULL;
    mr_base64_encode(s, text);
    json_t *j = json_stringn_nocheck(text, n);
    free(text);
    return j;
}

static json_t *json_of_item(const mr_field *f, const void *items, uint32_t i) {
    switch (f->type) {
    case MR_T_I64S: return json_integer(((const int64_t *)items)[i]);
    case MR_T_STRS: return json_stringn_nocheck(((const mr_str *)items)[i].p, ((const mr_str *)items)[i].n);
    default: return json_of_struct(f->sub, (const char *)items + i * f->sub->size);
    }
}

static json_t *json_of_list(const mr_field *f, const void *member) {
    mr_any_list l = mr_list_get(member);
    json_t *j = json_array();
    for (uint32_t i = 0; j && i < l.n; i++) {
        if (json_array_append_new(j, json_of_item(f, l.v, i)) < 0) {
            json_decref(j);
            j = NULL;
        }
    }
    return j;
}

static json_t *json_of_value(const mr_field *f, const void *member) {
    const mr_str *s = member;
    switch (f->type) {
    case MR_T_BOOL: return json_boolean(*(const bool *)member);
    case MR_T_I64: return json_integer(*(const int64_t *)member);
    case MR_T_F64: return json_real(*(const double *)member);
    case MR_T_STR: return json_stringn_nocheck(s->n ? s->p : "", s->n);
    case MR_T_BYTES: return json_of_bytes(*s);
    case MR_T_ENUM: return json_string(f->names[*(const int *)member]);
    case MR_T_STRUCT: return json_of_struct(f->sub, member);
    case MR_T_I64S:
    case MR_T_STRS:
    case MR_T_STRUCTS: return json_of_list(f, member);
    }
    return NULL;
}

static json_t *json_of_struct(const mr_message_def *def, const void *msg) {
    uint64_t set = mr_present(def, msg);
    json_t *j = json_object();
    for (int i = 0; j && i < def->nfields; i++) {
        const mr_field *f = &def->fields[i];
        if (!(set >> i & 1)) continue;
        if (json_object_set_new_nocheck(j, f->name, json_of_value(f, (const char *)msg + f->offset)) < 0) {
            json_decref(j);
            j = NULL;
        }
    }
    return j;
}

json_t *mr_to_json(const mr_message_def *def, const void *msg, mr_error *err) {
    if (mr_validate(def, msg, err) < 0) return NULL;
    json_t *j = json_of_struct(def, msg);
    if (!j) mr_fail(err, MR_ENOMEM, "no memory to write a %s as JSON", def->name);
    return j;
}

/* jansson quotes the input, and cuts the quotation without regard for characters; errors go into records, as text. */
static void keep_ascii(char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text > '~') *text = '?';
    }
}

static int decode_json(const mr_message_def *def, mr_str in, mr_arena *a, void *out, mr_error *err) {
    json_error_t why;
    json_t *j = json_loadb(in.p, in.n, JSON_REJECT_DUPLICATES, &why);
    if (!j) {
        keep_ascii(why.text);
        return mr_fail(err, MR_EINVAL, "invalid JSON at line %d, column %d: %s", why.line, why.column,
                       why.text);
    }
    int rc = mr_from_json(def, j, a, out, err);
    json_decref(j);
    return rc;
}

int mr_decode(const mr_message_def *def, mr_str in, mr_str content_type, mr_arena *a, void *out,
              mr_error *err) {
    static const char json[] = "application/json";
    bool says_json = content_type.n >= sizeof json - 1 && memcmp(content_type.p, json, sizeof json - 1) == 0;
    if (says_json || (in.n > 0 && in.p[0] == '{')) return decode_json(def, in, a, out, err);
    return mr_unpack(def, in, a, out, err);
}
