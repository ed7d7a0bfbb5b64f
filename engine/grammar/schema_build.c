/* Messages, places in the schema, new nodes and their literals. See schema.h. */
#include "engine/grammar/schema.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

node *schema_refuse(schema_compiler *c, const char *fmt, ...) {
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    engine_fail(c->err, ENGINE_EINVAL, "%s: %s%s%s", c->subject, c->path, c->path[0] ? ": " : "", what);
    return NULL;
}

node *schema_no_memory(schema_compiler *c) {
    return schema_refuse(c, "the schema is too large");
}

node *schema_node(schema_compiler *c, node_kind kind) {
    node *n = grammar_alloc(c->arena, 1, sizeof *n);
    if (!n) return schema_no_memory(c);
    n->kind = kind;
    return n;
}

node *schema_union(schema_compiler *c, size_t n, const node ***v) {
    node *out = schema_node(c, NODE_UNION);
    *v = out ? grammar_alloc(c->arena, n + 1, sizeof **v) : NULL;
    if (!*v) return out ? schema_no_memory(c) : NULL;
    if (n > SCHEMA_ALTERNATIVES_MAX)
        return schema_refuse(c, "%zu alternatives: at most %d are supported", n, SCHEMA_ALTERNATIVES_MAX);
    out->any.v = *v;
    return out;
}

/* ---- the place in the schema ---- */

size_t schema_enter(schema_compiler *c, const char *part) {
    size_t n = strlen(c->path);
    snprintf(c->path + n, sizeof c->path - n, "%s%.60s", n ? "." : "", part);
    return n;
}

void schema_leave(schema_compiler *c, size_t n) {
    c->path[n] = 0;
}

/* ---- literals ---- */

int schema_compare_literals(const void *a, const void *b) {
    const literal *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

int schema_put_literal(schema_compiler *c, const char *text, size_t n, literal *out) {
    char *copy = grammar_alloc(c->arena, n + 1, 1);
    if (!copy) {
        schema_no_memory(c);
        return -1;
    }
    memcpy(copy, text, n);
    *out = (literal){copy, (uint32_t)n};
    return 0;
}

/* The value as it will be written. */
int schema_put_value(schema_compiler *c, const json_t *v, literal *out) {
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) {
        schema_refuse(c, "a value cannot be written");
        return -1;
    }
    int rc = schema_put_literal(c, text, strlen(text), out);
    free(text);
    return rc;
}
