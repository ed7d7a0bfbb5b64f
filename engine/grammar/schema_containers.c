/* Arrays, objects, and any value at all. See schema.h. */
#include "engine/grammar/schema.h"

#include <stdlib.h>
#include <string.h>

/* ---- any value ---- */

node *schema_any_object(schema_compiler *c) {
    if (c->any_object) return c->any_object;
    node *out = c->any_object = schema_node(c, NODE_OBJECT);
    if (out && !(out->object.additional = schema_any(c))) return NULL;
    return out;
}

static node *any_array(schema_compiler *c) {
    node *out = schema_node(c, NODE_ARRAY);
    if (!out) return NULL;
    out->array.max = NODE_LENGTH_ANY;
    out->array.rest = schema_any(c);
    return out->array.rest ? out : NULL;
}

node *schema_any(schema_compiler *c) {
    if (c->any) return c->any;
    node *out = c->any = schema_node(c, NODE_UNION);
    const node **v = out ? grammar_alloc(c->arena, 6, sizeof *v) : NULL;
    json_t *nothing = json_object();
    if (!v || !nothing) {
        json_decref(nothing);
        return schema_no_memory(c);
    }
    out->any.v = v;
    out->any.n = 6;
    v[0] = schema_string(c, nothing);
    v[1] = schema_number(c, nothing, false);
    v[2] = schema_boolean(c);
    v[3] = schema_null(c);
    v[4] = schema_any_object(c);
    v[5] = any_array(c);
    json_decref(nothing);
    for (int i = 0; i < 6; i++) {
        if (!v[i]) return NULL;
    }
    return out;
}

/* ---- arrays ---- */

static int compile_first_items(schema_compiler *c, const json_t *list, node *out) {
    size_t n = json_array_size(list), i;
    const json_t *one;
    const node **first = grammar_alloc(c->arena, n + 1, sizeof *first);
    if (!first) return schema_no_memory(c), -1;
    json_array_foreach(list, i, one) {
        first[i] = schema_part_item(c, "prefixItems", i, one);
        if (!first[i]) return -1;
    }
    out->array.first = first;
    out->array.nfirst = (uint32_t)n;
    return 0;
}

node *schema_array(schema_compiler *c, const json_t *schema) {
    const json_t *items = json_object_get(schema, "items"), *first = json_object_get(schema, "prefixItems");
    node *out = schema_node(c, NODE_ARRAY);
    if (!out) return NULL;
    out->array.max = NODE_LENGTH_ANY;
    if (schema_count(c, schema, "minItems", &out->array.min)) return NULL;
    if (schema_count(c, schema, "maxItems", &out->array.max)) return NULL;
    if (first && !json_is_array(first)) return schema_refuse(c, "prefixItems must be a list");
    if (json_is_array(items)) return schema_refuse(c, "items as a list is not supported: use prefixItems");
    if (first && compile_first_items(c, first, out)) return NULL;
    if (!json_is_false(items)) {
        /* without a word about further items, a tuple has none */
        out->array.rest = items ? schema_part_at(c, "items", items) : first ? NULL : schema_any(c);
        if (!out->array.rest && !(first && !items)) return NULL;
    }
    if (!out->array.rest && out->array.nfirst < out->array.max) out->array.max = out->array.nfirst;
    if (out->array.min > out->array.max) out->need = NODE_NEVER;
    return out;
}

/* ---- objects ---- */

static bool is_required(const json_t *required, const char *name) {
    size_t i;
    const json_t *one;
    json_array_foreach(required, i, one) {
        if (json_is_string(one) && strcmp(json_string_value(one), name) == 0) return true;
    }
    return false;
}

static int put_name(schema_compiler *c, const char *name, literal *out) {
    json_t *s = json_string(name);
    literal quoted;
    int rc = s ? schema_put_value(c, s, &quoted) : -1;
    json_decref(s);
    if (rc == 0) *out = (literal){quoted.text + 1, quoted.n - 2};
    return rc;
}

static int put_property(schema_compiler *c, node *out, property *v, const char *name, const node *value,
                        bool required) {
    property *p = &v[out->object.n];
    if (!value || put_name(c, name, &p->name)) return -1;
    p->value = value;
    p->required = required;
    out->object.n++;
    return 0;
}

/* Names that are required but have no schema of their own. */
static int put_required(schema_compiler *c, node *out, property *v, const json_t *required,
                        const json_t *properties, const node *other) {
    size_t i;
    const json_t *one;
    json_array_foreach(required, i, one) {
        if (!json_is_string(one)) return schema_refuse(c, "required must be a list of names"), -1;
        const char *name = json_string_value(one);
        if (json_object_get(properties, name)) continue;
        if (!other) {
            schema_refuse(c, "required names \"%.60s\", which additionalProperties forbids", name);
            return -1;
        }
        if (put_property(c, out, v, name, other, true)) return -1;
    }
    return 0;
}

typedef struct named {
    literal name;
    uint32_t at;
} named;

static int compare_named(const void *a, const void *b) {
    return schema_compare_literals(&((const named *)a)->name, &((const named *)b)->name);
}

static int sort_names(schema_compiler *c, node *out) {
    uint32_t n = out->object.n, *places = grammar_alloc(c->arena, n + 1, sizeof *places);
    named *v = calloc(n + 1, sizeof *v);
    if (!places || !v) {
        free(v);
        return schema_no_memory(c), -1;
    }
    for (uint32_t i = 0; i < n; i++) v[i] = (named){out->object.v[i].name, i};
    qsort(v, n, sizeof *v, compare_named);
    for (uint32_t i = 0; i < n; i++) places[i] = v[i].at;
    out->object.by_name = places;
    free(v);
    return 0;
}

/* additionalProperties; *other is what a required name without a schema gets, NULL: nothing. */
static int compile_additional(schema_compiler *c, const json_t *schema, node *out, const node **other) {
    const json_t *v = json_object_get(schema, "additionalProperties");
    bool free_form = !json_object_get(schema, "properties") && !json_object_get(schema, "required");
    *other = NULL;
    if (json_is_false(v)) return 0;
    *other = !v || json_is_true(v) ? schema_any(c) : schema_part_at(c, "additionalProperties", v);
    if (!*other) return -1;
    /* unasked for, they would only be noise */
    if (v || free_form) out->object.additional = *other;
    return 0;
}

node *schema_object(schema_compiler *c, const json_t *schema) {
    json_t *properties = json_object_get(schema, "properties"), *value;
    const json_t *required = json_object_get(schema, "required");
    const char *name;
    const node *other;
    node *out = schema_node(c, NODE_OBJECT);
    size_t n = json_object_size(properties) + json_array_size(required);
    property *v = out ? grammar_alloc(c->arena, n + 1, sizeof *v) : NULL;
    if (!v) return out ? schema_no_memory(c) : NULL;
    if (properties && !json_is_object(properties)) return schema_refuse(c, "properties must be an object");
    if (required && !json_is_array(required)) return schema_refuse(c, "required must be a list of names");
    if (json_array_size(required) > SCHEMA_PARTS_MAX)
        return schema_refuse(c, "required has more than %d names", SCHEMA_PARTS_MAX);
    out->object.v = v;
    if (compile_additional(c, schema, out, &other)) return NULL;
    json_object_foreach(properties, name, value) {
        size_t mark = schema_enter(c, "properties");
        const node *of = schema_part_at(c, name, value);
        if (!of || put_property(c, out, v, name, of, is_required(required, name))) return NULL;
        schema_leave(c, mark);
    }
    if (put_required(c, out, v, required, properties, other)) return NULL;
    return sort_names(c, out) ? NULL : out;
}
