/* What a schema is compiled into, between schema.c, which builds it, and machine.c, which reads along it. Nodes are immutable
 * once built, and lie in the grammar's arena; they may form cycles ($ref). */
#ifndef ENGINE_GRAMMAR_NODE_H
#define ENGINE_GRAMMAR_NODE_H

#include "engine/grammar/number.h"
#include "engine/grammar/regex.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NODE_DEPTH_MAX = 64,       /* containers within each other in an answer */
    NODE_NEVER = 1 << 20,      /* need of a node that no value fits */
    NODE_LENGTH_ANY = 1 << 30, /* a maximum that is none */
};

typedef enum {
    NODE_UNSET,
    NODE_LITERALS,
    NODE_STRING,
    NODE_NUMBER,
    NODE_ARRAY,
    NODE_OBJECT,
    NODE_UNION,
    NODE_TEXT,     /* the markup around a tool call: just these bytes, without blanks before them… */
    NODE_SEQUENCE, /* …one part after the other */
} node_kind;

typedef struct node node;

/* Bytes as they stand in JSON. */
typedef struct literal {
    const char *text;
    uint32_t n;
} literal;

typedef struct property {
    literal name; /* escaped, without its quotes */
    const node *value;
    bool required;
} property;

struct node {
    node_kind kind;
    bool listed; /* while schema_needs.c goes over all nodes */
    int need;    /* containers that the least nested value opens; NODE_NEVER: there is no value */
    union {
        struct {
            const literal *v; /* sorted */
            uint32_t n;
        } literals;
        struct {
            uint32_t min, max;    /* characters; counted by the automaton where there is one */
            const regex_dfa *dfa; /* NULL: any */
        } string;
        number_range number;
        struct {
            const node *const *first; /* items that have a schema of their own, by place */
            uint32_t nfirst;
            const node *rest; /* all others; NULL: there are none */
            uint32_t min, max;
        } array;
        struct {
            const property *v; /* in the order in which they are written */
            uint32_t n;
            const uint32_t *by_name; /* their places, sorted by name */
            const node *additional;  /* NULL: there are none */
        } object;
        struct {
            const node *const *v;
            uint32_t n;
        } any;
        literal text;
        struct {
            const node *const *v; /* texts and objects: a number would not know its end */
            uint32_t n;
            const node *again; /* a text that may follow, and after which it all comes again; NULL: it ends */
        } sequence;
    };
};

/* Memory of one grammar: allocated in small pieces, freed at once. */
typedef struct grammar_arena {
    struct arena_chunk *chunks;
    size_t left, total;
    size_t work; /* steps taken to build automata: limited, because other answers wait meanwhile */
} grammar_arena;

/* Zeroed memory, or NULL when there is none left or the grammar would be too large. */
void *grammar_alloc(grammar_arena *a, size_t n, size_t size);
void grammar_arena_done(grammar_arena *a);

/* The root of a schema's nodes, or NULL with err. schema: NULL: any JSON object. */
const node *schema_compile(const char *schema, size_t n, grammar_arena *a, engine_error *err);
/* The same for tool calls, see grammar_store_calls. */
const node *calls_compile(const char *spec, size_t n, grammar_arena *a, engine_error *err);

#endif
