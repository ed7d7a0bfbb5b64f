/* JSON schema to nodes. One pass over the parsed schema makes a node for each subschema that is reached ($ref by pointer, each
 * target once, so recursion becomes a cycle); then the least nesting of each node is found, and what no value fits is known.
 *
 * Kept: type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, minLength,
 * maxLength, pattern, format (those of `formats`), minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (a
 * whole number), anyOf, oneOf (read as anyOf), allOf of one, $ref within the document, true and false.
 * Ignored: annotations, and keywords that JSON Schema does not have. Everything else of JSON Schema is refused by name.
 *
 * schema.h tells what is in which file.
 *
 * All memory is the grammar's arena; the parsed schema is of the call.
 */
#include "engine/grammar/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Compiles a member of the schema under way. */
node *schema_part_at(schema_compiler *c, const char *part, const json_t *schema) {
    size_t mark = schema_enter(c, part);
    node *n = schema_part(c, schema);
    if (n) schema_leave(c, mark);
    return n;
}

node *schema_part_item(schema_compiler *c, const char *part, size_t i, const json_t *schema) {
    char name[48];
    snprintf(name, sizeof name, "%.16s[%zu]", part, i);
    return schema_part_at(c, name, schema);
}

/* ---- types ---- */

static node *compile_type(schema_compiler *c, const char *type, const json_t *schema) {
    if (strcmp(type, "object") == 0) return schema_object(c, schema);
    if (strcmp(type, "array") == 0) return schema_array(c, schema);
    if (strcmp(type, "string") == 0) return schema_string(c, schema);
    if (strcmp(type, "number") == 0) return schema_number(c, schema, false);
    if (strcmp(type, "integer") == 0) return schema_number(c, schema, true);
    if (strcmp(type, "boolean") == 0) return schema_boolean(c);
    if (strcmp(type, "null") == 0) return schema_null(c);
    return schema_refuse(c, "type \"%.40s\" is unknown", type);
}

static node *compile_types(schema_compiler *c, const json_t *types, const json_t *schema) {
    const node **v;
    const json_t *one;
    size_t i;
    if (json_array_size(types) == 0) return schema_refuse(c, "type must be a name or a list of names");
    node *out = schema_union(c, json_array_size(types), &v);
    if (!out) return NULL;
    json_array_foreach(types, i, one) {
        if (!json_is_string(one)) return schema_refuse(c, "type must be a name or a list of names");
        v[i] = compile_type(c, json_string_value(one), schema);
        if (!v[i]) return NULL;
    }
    out->any.n = (uint32_t)i;
    return out;
}

/* The type that the keywords speak of, where none is named. */
static const char *implied_type(const json_t *schema) {
    static const char *const signs[][2] = {{"properties", "object"},
                                           {"required", "object"},
                                           {"additionalProperties", "object"},
                                           {"items", "array"},
                                           {"prefixItems", "array"},
                                           {"minItems", "array"},
                                           {"maxItems", "array"},
                                           {"pattern", "string"},
                                           {"format", "string"},
                                           {"minLength", "string"},
                                           {"maxLength", "string"},
                                           {"minimum", "number"},
                                           {"maximum", "number"},
                                           {"multipleOf", "number"},
                                           {"exclusiveMinimum", "number"},
                                           {"exclusiveMaximum", "number"}};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (json_object_get(schema, signs[i][0])) return signs[i][1];
    }
    return NULL;
}

/* ---- combinations ---- */

static node *compile_union(schema_compiler *c, const json_t *schema, const char *keyword,
                           const json_t *list) {
    const char *const with[] = {keyword, NULL};
    const node **v;
    const json_t *one;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return schema_refuse(c, "%s must be a list of schemas", keyword);
    if (schema_check_alone(c, schema, keyword, with)) return NULL;
    node *out = schema_union(c, json_array_size(list), &v);
    if (!out) return NULL;
    json_array_foreach(list, i, one) {
        v[i] = schema_part_item(c, keyword, i, one);
        if (!v[i]) return NULL;
    }
    out->any.n = (uint32_t)i;
    return out;
}

/* A member by one part of a JSON pointer, which ends at `end`. */
static const json_t *pointer_step(const json_t *at, const char *s, const char *end) {
    char part[256];
    size_t n = 0;
    for (; s < end; s++) {
        if (n + 1 >= sizeof part) return NULL;
        bool escaped = *s == '~' && s + 1 < end;
        part[n++] = (char)(!escaped ? *s : *++s == '1' ? '/' : '~');
    }
    part[n] = 0;
    if (json_is_array(at)) return json_array_get(at, (size_t)strtoul(part, NULL, 10));
    return json_object_get(at, part);
}

static node *compile_ref(schema_compiler *c, const json_t *schema, const json_t *ref) {
    static const char *const with[] = {"$ref", NULL};
    const char *s = json_string_value(ref);
    if (!s || s[0] != '#') return schema_refuse(c, "$ref must point into this schema: #/…");
    if (schema_check_alone(c, schema, "$ref", with)) return NULL;
    const json_t *at = c->doc;
    for (s++; at && *s == '/';) {
        const char *end = strchrnul(s + 1, '/');
        at = pointer_step(at, s + 1, end);
        s = end;
    }
    if (!at || *s) return schema_refuse(c, "$ref \"%.80s\" points at nothing", json_string_value(ref));
    return schema_part(c, at);
}

static node *compile_all(schema_compiler *c, const json_t *schema, const json_t *list) {
    static const char *const with[] = {"allOf", NULL};
    if (json_array_size(list) != 1) return schema_refuse(c, "allOf of more than one schema is not supported");
    if (schema_check_alone(c, schema, "allOf", with)) return NULL;
    return schema_part_item(c, "allOf", 0, json_array_get(list, 0));
}

static node *compile_new(schema_compiler *c, const json_t *schema) {
    const json_t *v, *type = json_object_get(schema, "type");
    if (json_is_true(schema)) return schema_any(c);
    if (!json_is_object(schema)) return schema_refuse(c, "a schema must be an object");
    if (schema_check_keywords(c, schema)) return NULL;
    if ((v = json_object_get(schema, "$ref"))) return compile_ref(c, schema, v);
    if ((v = json_object_get(schema, "enum"))) return schema_enum(c, schema, v);
    if ((v = json_object_get(schema, "const"))) return schema_const(c, schema, v);
    if ((v = json_object_get(schema, "anyOf"))) return compile_union(c, schema, "anyOf", v);
    if ((v = json_object_get(schema, "oneOf"))) return compile_union(c, schema, "oneOf", v);
    if ((v = json_object_get(schema, "allOf"))) return compile_all(c, schema, v);
    if (json_is_string(type)) return compile_type(c, json_string_value(type), schema);
    if (type) return compile_types(c, type, schema);
    const char *implied = implied_type(schema);
    return implied ? compile_type(c, implied, schema) : schema_any(c);
}

/* A node that stands for another: what a subschema that is still being compiled gets, so that it can refer to itself. */
static node *reserve(schema_compiler *c, const json_t *schema) {
    if (c->nmade == SCHEMA_PARTS_MAX)
        return schema_refuse(c, "the schema has more than %d parts", SCHEMA_PARTS_MAX);
    node *n = schema_node(c, NODE_UNION);
    const node **v = n ? grammar_alloc(c->arena, 1, sizeof *v) : NULL;
    if (!v) return n ? schema_no_memory(c) : NULL;
    n->any.v = v;
    n->any.n = 1;
    c->made[c->nmade++] = (schema_made){schema, n};
    return n;
}

static node *compile_false(schema_compiler *c) {
    node *n = schema_node(c, NODE_UNION);
    return n; /* of nothing */
}

node *schema_part(schema_compiler *c, const json_t *schema) {
    if (json_is_false(schema)) return compile_false(c);
    for (int i = 0; i < c->nmade; i++) {
        if (c->made[i].schema == schema) return c->made[i].node;
    }
    if (c->nesting == SCHEMA_NESTING_MAX)
        return schema_refuse(c, "the schema is nested more than %d deep", SCHEMA_NESTING_MAX);
    node *n = reserve(c, schema);
    if (!n) return NULL;
    c->nesting++;
    const node *of = compile_new(c, schema);
    c->nesting--;
    if (!of) return NULL;
    *(const node **)n->any.v = of;
    return n;
}

/* ---- the whole ---- */

static const node *compile_root(schema_compiler *c, bool calls) {
    const node *root = calls    ? schema_calls(c, c->doc)
                       : c->doc ? schema_part(c, c->doc)
                                : schema_any_object(c);
    if (!root) return NULL;
    c->path[0] = 0;
    if (schema_examine(c, root)) return NULL;
    if (root->need >= NODE_NEVER) return schema_refuse(c, "no value fits the schema");
    if (root->need > NODE_DEPTH_MAX)
        return schema_refuse(c, "values are nested more than %d deep", NODE_DEPTH_MAX);
    return root;
}

static const node *compile_document(const char *text, size_t n, bool calls, grammar_arena *a,
                                    engine_error *err) {
    schema_compiler *c = calloc(1, sizeof *c);
    json_error_t why;
    json_t *doc = NULL;
    const node *root = NULL;

    if (!c) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory for the schema");
        return NULL;
    }
    c->arena = a;
    c->err = err;
    c->subject = calls ? "tools" : "json_schema";
    if (text) doc = json_loadb(text, n, JSON_DECODE_ANY, &why);
    c->doc = doc;
    if (text && !doc)
        engine_fail(err, ENGINE_EINVAL, "%s: the schema is not valid JSON: %s", c->subject, why.text);
    else
        root = compile_root(c, calls);
    json_decref(doc);
    free(c);
    return root;
}

const node *schema_compile(const char *schema, size_t n, grammar_arena *a, engine_error *err) {
    return compile_document(schema, n, false, a, err);
}

const node *calls_compile(const char *spec, size_t n, grammar_arena *a, engine_error *err) {
    return compile_document(spec, n, true, a, err);
}
