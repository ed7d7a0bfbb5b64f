/* Tool calls: the markup of a model's calls around an object for each tool's schema. See schema.h. */
#include "engine/grammar/schema.h"

#include <string.h>

static node *compile_text(schema_compiler *c, const json_t *text) {
    node *n = schema_node(c, NODE_TEXT);
    if (n && schema_put_literal(c, json_string_value(text), json_string_length(text), &n->text)) return NULL;
    return n;
}

/* Is it an object in every case? */
static bool is_object(const node *n, int depth) {
    if (n->kind != NODE_UNION) return n->kind == NODE_OBJECT;
    for (uint32_t i = 0; i < n->any.n && depth < SCHEMA_NESTING_MAX; i++) {
        if (!is_object(n->any.v[i], depth + 1)) return false;
    }
    return n->any.n && depth < SCHEMA_NESTING_MAX;
}

/* A call of these tools: an object of the name and, under `key`, the arguments. It stays in `tool` as `kept`, because nodes are
 * told apart by where their schemas lie. */
static node *compile_call(schema_compiler *c, json_t *tool, const char *key, json_t *schema,
                          const char *kept) {
    json_t *call = json_pack("{s:s, s:{s:{s:O}, s:O}, s:[s, s]}", "type", "object", "properties", "name",
                             "enum", json_object_get(tool, "names"), key, schema, "required", "name", key);
    if (!call || json_object_set_new(tool, kept, call)) return schema_no_memory(c);
    c->doc = schema;
    node *n = schema_part(c, call);
    if (n && !is_object(schema_part(c, schema), 0))
        return schema_refuse(c, "the parameters must be an object");
    return n;
}

static node *compile_any_call(schema_compiler *c, json_t *tool, const char *key) {
    json_t *any = json_pack("{s:s}", "type", "object");
    node *n = any ? compile_call(c, tool, key, any, "any_call") : schema_no_memory(c);
    json_decref(any);
    return n;
}

/* Where the schema need not be kept and cannot be, any object will do. */
static node *compile_tool(schema_compiler *c, json_t *tool, const char *key) {
    json_t *schema = json_object_get(tool, "schema");
    int nesting = c->nesting;
    size_t mark = schema_enter(c, json_string_value(json_array_get(json_object_get(tool, "names"), 0)));
    size_t inside = strlen(c->path);
    node *n = schema ? compile_call(c, tool, key, schema, "call") : NULL;
    if (!n && schema && json_is_true(json_object_get(tool, "strict"))) return NULL;
    c->nesting = nesting;
    schema_leave(c, inside);
    if (!n) n = compile_any_call(c, tool, key);
    if (n) schema_leave(c, mark);
    return n;
}

static node *compile_tools(schema_compiler *c, const json_t *tools, const char *key) {
    const node **v;
    size_t i;
    json_t *tool;
    node *out = schema_union(c, json_array_size(tools), &v);
    if (!out) return NULL;
    json_array_foreach(tools, i, tool) {
        if (!(v[i] = compile_tool(c, tool, key))) return NULL;
    }
    out->any.n = (uint32_t)i;
    return out;
}

node *schema_calls(schema_compiler *c, const json_t *spec) {
    const json_t *open = json_object_get(spec, "open"), *shut = json_object_get(spec, "close"),
                 *again = json_object_get(spec, "again");
    node *out = schema_node(c, NODE_SEQUENCE);
    const node **v = out ? grammar_alloc(c->arena, 3, sizeof *v) : NULL;
    if (!v) return out ? schema_no_memory(c) : NULL;
    out->sequence.v = v;
    const char *key = json_string_value(json_object_get(spec, "arguments"));
    if (open && !(v[out->sequence.n++] = compile_text(c, open))) return NULL;
    if (!(v[out->sequence.n++] = compile_tools(c, json_object_get(spec, "tools"), key))) return NULL;
    if (shut && !(v[out->sequence.n++] = compile_text(c, shut))) return NULL;
    if (again && !(out->sequence.again = compile_text(c, again))) return NULL;
    return out;
}
