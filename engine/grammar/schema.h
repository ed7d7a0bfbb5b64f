/* What the files share that compile schemas into nodes (node.h has what others see). Each knows only those below it, and
 * schema_part, by which a part compiles the parts in it:
 *
 *     schema.c              a document; a part by its type, $ref and combinations
 *     schema_calls.c        tool calls around schemas
 *     schema_needs.c        what is possible, once all nodes are there
 *     schema_containers.c   arrays, objects, any value
 *     schema_values.c       enum and const, strings, numbers
 *     schema_keywords.c     which keywords there are
 *     schema_build.c        messages, the place in the schema, new nodes
 *
 * What returns a node returns NULL when it has refused, what returns an int -1: the message is in c->err then.
 */
#ifndef ENGINE_GRAMMAR_SCHEMA_H
#define ENGINE_GRAMMAR_SCHEMA_H

#include "engine/grammar/node.h"

#include <jansson.h>

enum {
    SCHEMA_PARTS_MAX = 4096,
    SCHEMA_NESTING_MAX = 128, /* of the schema's own text, through $ref too */
    SCHEMA_ALTERNATIVES_MAX = 60,
    SCHEMA_PATH_MAX = 200,
};

/* A subschema and the node that it became. */
typedef struct schema_made {
    const json_t *schema;
    node *node;
} schema_made;

typedef struct schema_compiler {
    const json_t *doc;   /* what $ref points into */
    const char *subject; /* of messages */
    grammar_arena *arena;
    schema_made made[SCHEMA_PARTS_MAX];
    int nmade, nesting;
    node *any, *any_object;
    char path[SCHEMA_PATH_MAX]; /* of the subschema under way, for messages */
    engine_error *err;
} schema_compiler;

/* ---- schema_build.c ---- */

node *schema_refuse(schema_compiler *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));  /* NULL */
node *schema_no_memory(schema_compiler *c); /* NULL */
node *schema_node(schema_compiler *c, node_kind kind);
node *schema_union(schema_compiler *c, size_t n, const node ***v); /* of none yet; room for n in *v */
/* What is under way now is this part of what was; leave with what enter returned. */
size_t schema_enter(schema_compiler *c, const char *part);
void schema_leave(schema_compiler *c, size_t mark);
int schema_put_literal(schema_compiler *c, const char *text, size_t n, literal *out);
int schema_put_value(schema_compiler *c, const json_t *v, literal *out); /* as it will be written */
int schema_compare_literals(const void *a, const void *b);               /* of qsort */

/* ---- schema_keywords.c ---- */

int schema_check_keywords(schema_compiler *c, const json_t *schema);
/* Nothing but `but` (up to NULL) says something about the value. */
int schema_check_alone(schema_compiler *c, const json_t *schema, const char *keyword, const char *const *but);
int schema_count(schema_compiler *c, const json_t *schema, const char *name,
                 uint32_t *out); /* as it was: none */

/* ---- schema_values.c ---- */

node *schema_enum(schema_compiler *c, const json_t *schema, const json_t *list);
node *schema_const(schema_compiler *c, const json_t *schema, const json_t *value);
node *schema_string(schema_compiler *c, const json_t *schema);
node *schema_number(schema_compiler *c, const json_t *schema, bool integer);
node *schema_boolean(schema_compiler *c);
node *schema_null(schema_compiler *c);

/* ---- schema_containers.c ---- */

node *schema_array(schema_compiler *c, const json_t *schema);
node *schema_object(schema_compiler *c, const json_t *schema);
node *schema_any(schema_compiler *c);
node *schema_any_object(schema_compiler *c);

/* ---- schema.c ---- */

/* A subschema: the same node for the same one. */
node *schema_part(schema_compiler *c, const json_t *schema);
/* A member of the schema under way, and an item of a list in it. */
node *schema_part_at(schema_compiler *c, const char *part, const json_t *schema);
node *schema_part_item(schema_compiler *c, const char *part, size_t i, const json_t *schema);

/* ---- schema_needs.c ---- */

/* Finds the need of every node that can be reached. */
int schema_examine(schema_compiler *c, const node *root);

/* ---- schema_calls.c ---- */

node *schema_calls(schema_compiler *c, const json_t *spec);

#endif
