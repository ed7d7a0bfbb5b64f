/* JSON schema to nodes. One pass over the parsed schema makes a node for each subschema that is reached ($ref by pointer, each
 * target once, so recursion becomes a cycle); then the least nesting of each node is found, and what no value fits is known.
 *
 * Kept: type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, minLength,
 * maxLength, pattern, format (those of `formats`), minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (a
 * whole number), anyOf, oneOf (read as anyOf), allOf of one, $ref within the document, true and false.
 * Ignored: annotations, and keywords that JSON Schema does not have. Everything else of JSON Schema is refused by name.
 *
 * Tool calls are compiled here too: the forms of node.h's calls_compile around an object for each schema.
 *
 * All memory is the grammar's arena; the parsed schema is of the call.
 */
#include "engine/grammar/node.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUBSCHEMAS_MAX = 4096,
    NESTING_MAX = 128, /* of the schema's own text, through $ref too */
    LENGTH_MAX = 1 << 20,
    ALTERNATIVES_MAX = 60,
    PATH_MAX_BYTES = 200,
};

/* A subschema and the node that it became. */
typedef struct made {
    const json_t *schema;
    node *node;
} made;

typedef struct compiler {
    const json_t *doc;   /* what $ref points into */
    const char *subject; /* of messages */
    grammar_arena *arena;
    made made[SUBSCHEMAS_MAX];
    int nmade, nesting;
    node *any, *any_object;
    char path[PATH_MAX_BYTES]; /* of the subschema under way, for messages */
    engine_error *err;
} compiler;

static node *compile(compiler *c, const json_t *schema);

static node *refuse(compiler *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static node *refuse(compiler *c, const char *fmt, ...) {
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    engine_fail(c->err, ENGINE_EINVAL, "%s: %s%s%s", c->subject, c->path, c->path[0] ? ": " : "", what);
    return NULL;
}

static node *no_memory(compiler *c) {
    return refuse(c, "the schema is too large");
}

static node *new_node(compiler *c, node_kind kind) {
    node *n = grammar_alloc(c->arena, 1, sizeof *n);
    if (!n) return no_memory(c);
    n->kind = kind;
    return n;
}

/* ---- the place in the schema ---- */

static size_t path_push(compiler *c, const char *part) {
    size_t n = strlen(c->path);
    snprintf(c->path + n, sizeof c->path - n, "%s%.60s", n ? "." : "", part);
    return n;
}

static void path_pop(compiler *c, size_t n) {
    c->path[n] = 0;
}

/* Compiles a member of the schema under way. */
static node *compile_at(compiler *c, const char *part, const json_t *schema) {
    size_t mark = path_push(c, part);
    node *n = compile(c, schema);
    if (n) path_pop(c, mark);
    return n;
}

static node *compile_item(compiler *c, const char *part, size_t i, const json_t *schema) {
    char name[48];
    snprintf(name, sizeof name, "%.16s[%zu]", part, i);
    return compile_at(c, name, schema);
}

/* ---- keywords ---- */

/* Of JSON Schema, and not kept. */
static const char *const refused[] = {
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "not",
    "if",
    "then",
    "else",
    "additionalItems",
    "$dynamicRef",
    "$recursiveRef",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contentEncoding",
    "contentSchema",
    "contentMediaType",
    "extends",
    "disallow",
};

/* Says nothing about the value: uniqueItems: false, patternProperties: {}… */
static bool is_idle(const char *keyword, const json_t *v) {
    if (json_is_false(v))
        return strcmp(keyword, "uniqueItems") == 0 || strncmp(keyword, "unevaluated", 11) == 0;
    if (json_is_object(v) && json_object_size(v) == 0) return strcmp(keyword, "not") != 0;
    if (json_is_integer(v) && json_integer_value(v) == 0) return strcmp(keyword, "minProperties") == 0;
    return strncmp(keyword, "content", 7) == 0 && strcmp(keyword, "contains") != 0 &&
           strcmp(keyword, "contentSchema") != 0;
}

static int check_keywords(compiler *c, const json_t *schema) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *v = json_object_get(schema, refused[i]);
        if (!v || is_idle(refused[i], v)) continue;
        refuse(c, "%s is not supported", refused[i]);
        return -1;
    }
    return 0;
}

/* The first keyword that says something about the value and is not in `but`; NULL: there is none. */
static const char *other_keyword(const json_t *schema, const char *const *but) {
    static const char *const kept[] = {"type",        "enum",
                                       "const",       "properties",
                                       "required",    "items",
                                       "prefixItems", "additionalProperties",
                                       "minItems",    "maxItems",
                                       "minLength",   "maxLength",
                                       "pattern",     "format",
                                       "minimum",     "maximum",
                                       "anyOf",       "exclusiveMinimum",
                                       "multipleOf",  "exclusiveMaximum",
                                       "oneOf",       "allOf",
                                       "$ref"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        bool allowed = !json_object_get(schema, kept[i]);
        for (const char *const *b = but; *b && !allowed; b++) allowed = strcmp(*b, kept[i]) == 0;
        if (!allowed) return kept[i];
    }
    return NULL;
}

static int check_alone(compiler *c, const json_t *schema, const char *keyword, const char *const *but) {
    const char *other = other_keyword(schema, but);
    if (!other) return 0;
    refuse(c, "%s beside %s is not supported", other, keyword);
    return -1;
}

static int get_count(compiler *c, const json_t *schema, const char *name, uint32_t *out) {
    const json_t *v = json_object_get(schema, name);
    if (!v) return 0;
    double x = json_number_value(v);
    if (!json_is_number(v) || x < 0 || x != floor(x)) {
        refuse(c, "%s must be a whole number, 0 or more", name);
        return -1;
    }
    if (x > LENGTH_MAX) {
        refuse(c, "%s is more than %d, which is not supported", name, LENGTH_MAX);
        return -1;
    }
    *out = (uint32_t)x;
    return 0;
}

/* ---- enum and const ---- */

static int compare_literals(const void *a, const void *b) {
    const literal *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static int put_literal(compiler *c, const char *text, size_t n, literal *out) {
    char *copy = grammar_alloc(c->arena, n + 1, 1);
    if (!copy) {
        no_memory(c);
        return -1;
    }
    memcpy(copy, text, n);
    *out = (literal){copy, (uint32_t)n};
    return 0;
}

/* The value as it will be written. */
static int write_value(compiler *c, const json_t *v, literal *out) {
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) {
        refuse(c, "a value cannot be written");
        return -1;
    }
    int rc = put_literal(c, text, strlen(text), out);
    free(text);
    return rc;
}

static bool type_fits(const char *type, const json_t *v) {
    double x = json_number_value(v);
    if (strcmp(type, "string") == 0) return json_is_string(v);
    if (strcmp(type, "number") == 0) return json_is_number(v);
    if (strcmp(type, "integer") == 0) return json_is_number(v) && x == floor(x);
    if (strcmp(type, "boolean") == 0) return json_is_boolean(v);
    if (strcmp(type, "null") == 0) return json_is_null(v);
    if (strcmp(type, "object") == 0) return json_is_object(v);
    return strcmp(type, "array") == 0 && json_is_array(v);
}

/* Does the schema's type, if it has one, let the value in? */
static bool type_allows(const json_t *schema, const json_t *v) {
    const json_t *type = json_object_get(schema, "type"), *one;
    size_t i;
    if (!type) return true;
    if (json_is_string(type)) return type_fits(json_string_value(type), v);
    json_array_foreach(type, i, one) {
        if (json_is_string(one) && type_fits(json_string_value(one), v)) return true;
    }
    return false;
}

static node *compile_values(compiler *c, const json_t *schema, const json_t *const *values, size_t n) {
    node *out = new_node(c, NODE_LITERALS);
    literal *v = out ? grammar_alloc(c->arena, n + 1, sizeof *v) : NULL;
    if (!v) return out ? no_memory(c) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (!type_allows(schema, values[i])) continue;
        if (write_value(c, values[i], &v[out->literals.n++])) return NULL;
    }
    qsort(v, out->literals.n, sizeof *v, compare_literals);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < out->literals.n; i++) {
        if (!kept || compare_literals(&v[kept - 1], &v[i]) != 0) v[kept++] = v[i];
    }
    out->literals.v = v;
    out->literals.n = kept;
    return out;
}

static node *compile_enum(compiler *c, const json_t *schema, const json_t *list) {
    static const char *const with[] = {"enum", "type", NULL};
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0) return refuse(c, "enum must be a list of values");
    if (check_alone(c, schema, "enum", with)) return NULL;
    const json_t **values = calloc(n, sizeof *values);
    if (!values) return no_memory(c);
    for (size_t i = 0; i < n; i++) values[i] = json_array_get(list, i);
    node *out = compile_values(c, schema, values, n);
    free(values);
    return out;
}

static node *compile_const(compiler *c, const json_t *schema, const json_t *value) {
    static const char *const with[] = {"const", "type", NULL};
    if (check_alone(c, schema, "const", with)) return NULL;
    return compile_values(c, schema, &value, 1);
}

static node *compile_words(compiler *c, const char *const *words, uint32_t n) {
    node *out = new_node(c, NODE_LITERALS);
    literal *v = out ? grammar_alloc(c->arena, n, sizeof *v) : NULL;
    if (!v) return out ? no_memory(c) : NULL;
    for (uint32_t i = 0; i < n; i++) v[i] = (literal){words[i], (uint32_t)strlen(words[i])};
    out->literals.v = v;
    out->literals.n = n;
    return out;
}

static node *compile_boolean(compiler *c) {
    static const char *const words[] = {"false", "true"};
    return compile_words(c, words, 2);
}

static node *compile_null(compiler *c) {
    static const char *const words[] = {"null"};
    return compile_words(c, words, 1);
}

/* ---- strings and numbers ---- */

#define DATE_PATTERN "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
#define TIME_PATTERN                                                                                         \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define LABEL "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?"

/* Values that are of the format under every reading of it: days stop at 28. */
static const char *const formats[][2] = {
    {"date", "^" DATE_PATTERN "$"},
    {"time", "^" TIME_PATTERN "$"},
    {"date-time", "^" DATE_PATTERN "T" TIME_PATTERN "$"},
    {"duration", "^P([0-9]{1,4}D(T[0-9]{1,4}[HMS])?|T[0-9]{1,4}[HMS]|[0-9]{1,4}[WMY])$"},
    {"email",
     "^[a-zA-Z0-9_+-]{1,32}(\\.[a-zA-Z0-9_+-]{1,16}){0,2}@" LABEL "(\\." LABEL "){0,2}\\.[a-zA-Z]{2,12}$"},
    {"hostname", "^" LABEL "(\\." LABEL "){0,3}$"},
    {"ipv4", "^(" OCTET "\\.){3}" OCTET "$"},
    {"ipv6", "^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"uri", "^https?://" LABEL "(\\." LABEL "){0,3}(/[a-zA-Z0-9_.~-]{0,32}){0,4}$"},
};

static const char *format_pattern(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i][0], name) == 0) return formats[i][1];
    }
    return NULL;
}

/* *pattern: NULL when any text will do. */
static int find_pattern(compiler *c, const json_t *schema, const char **pattern, size_t *n) {
    const json_t *v = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    *pattern = NULL;
    if (v && !json_is_string(v)) return refuse(c, "pattern must be a string"), -1;
    if (v && format) return refuse(c, "format beside pattern is not supported"), -1;
    if (v) {
        *pattern = json_string_value(v);
        *n = json_string_length(v);
    } else if (format) {
        if (json_is_string(format)) *pattern = format_pattern(json_string_value(format));
        if (!*pattern) {
            refuse(c, "format \"%.40s\" is not supported",
                   json_is_string(format) ? json_string_value(format) : "?");
            return -1;
        }
        *n = strlen(*pattern);
    }
    return 0;
}

static node *compile_string(compiler *c, const json_t *schema) {
    node *out = new_node(c, NODE_STRING);
    const char *pattern;
    size_t n = 0;
    if (!out) return NULL;
    out->string.max = NODE_LENGTH_ANY;
    if (get_count(c, schema, "minLength", &out->string.min)) return NULL;
    if (get_count(c, schema, "maxLength", &out->string.max)) return NULL;
    if (find_pattern(c, schema, &pattern, &n)) return NULL;
    if (out->string.min > out->string.max) out->need = NODE_NEVER;
    if (!pattern || out->need) return out;
    engine_error why = {0};
    if (regex_compile(pattern, n, out->string.min, out->string.max, c->arena, &out->string.dfa, &why))
        return refuse(c, "%s", why.msg);
    if (!out->string.dfa) out->need = NODE_NEVER;
    out->string.min = 0; /* the automaton counts */
    out->string.max = NODE_LENGTH_ANY;
    return out;
}

static int get_bound(compiler *c, const json_t *schema, const char *name, double *out) {
    const json_t *v = json_object_get(schema, name);
    *out = NAN;
    if (!v) return 0;
    if (!json_is_number(v)) return refuse(c, "%s must be a number", name), -1;
    *out = json_number_value(v);
    return 0;
}

static node *compile_number(compiler *c, const json_t *schema, bool integer) {
    number_bounds b = {.integer = integer};
    node *out = new_node(c, NODE_NUMBER);
    if (!out || get_bound(c, schema, "minimum", &b.minimum) || get_bound(c, schema, "maximum", &b.maximum) ||
        get_bound(c, schema, "exclusiveMinimum", &b.exclusive_minimum) ||
        get_bound(c, schema, "exclusiveMaximum", &b.exclusive_maximum) ||
        get_bound(c, schema, "multipleOf", &b.multiple_of)) {
        return NULL;
    }
    if (!isnan(b.multiple_of) &&
        (b.multiple_of != floor(b.multiple_of) || b.multiple_of < 1 || b.multiple_of > 1e15))
        return refuse(c, "multipleOf must be a whole number: others are not supported");
    out->number = number_range_of(&b);
    if (!number_possible(&out->number)) out->need = NODE_NEVER;
    return out;
}

/* ---- any value ---- */

static node *any_value(compiler *c);

static node *any_object(compiler *c) {
    if (c->any_object) return c->any_object;
    node *out = c->any_object = new_node(c, NODE_OBJECT);
    if (out && !(out->object.additional = any_value(c))) return NULL;
    return out;
}

static node *any_array(compiler *c) {
    node *out = new_node(c, NODE_ARRAY);
    if (!out) return NULL;
    out->array.max = NODE_LENGTH_ANY;
    out->array.rest = any_value(c);
    return out->array.rest ? out : NULL;
}

static node *any_value(compiler *c) {
    if (c->any) return c->any;
    node *out = c->any = new_node(c, NODE_UNION);
    const node **v = out ? grammar_alloc(c->arena, 6, sizeof *v) : NULL;
    json_t *nothing = json_object();
    if (!v || !nothing) {
        json_decref(nothing);
        return no_memory(c);
    }
    out->any.v = v;
    out->any.n = 6;
    v[0] = compile_string(c, nothing);
    v[1] = compile_number(c, nothing, false);
    v[2] = compile_boolean(c);
    v[3] = compile_null(c);
    v[4] = any_object(c);
    v[5] = any_array(c);
    json_decref(nothing);
    for (int i = 0; i < 6; i++) {
        if (!v[i]) return NULL;
    }
    return out;
}

/* ---- arrays ---- */

static int compile_first_items(compiler *c, const json_t *list, node *out) {
    size_t n = json_array_size(list), i;
    const json_t *one;
    const node **first = grammar_alloc(c->arena, n + 1, sizeof *first);
    if (!first) return no_memory(c), -1;
    json_array_foreach(list, i, one) {
        first[i] = compile_item(c, "prefixItems", i, one);
        if (!first[i]) return -1;
    }
    out->array.first = first;
    out->array.nfirst = (uint32_t)n;
    return 0;
}

static node *compile_array(compiler *c, const json_t *schema) {
    const json_t *items = json_object_get(schema, "items"), *first = json_object_get(schema, "prefixItems");
    node *out = new_node(c, NODE_ARRAY);
    if (!out) return NULL;
    out->array.max = NODE_LENGTH_ANY;
    if (get_count(c, schema, "minItems", &out->array.min)) return NULL;
    if (get_count(c, schema, "maxItems", &out->array.max)) return NULL;
    if (first && !json_is_array(first)) return refuse(c, "prefixItems must be a list");
    if (json_is_array(items)) return refuse(c, "items as a list is not supported: use prefixItems");
    if (first && compile_first_items(c, first, out)) return NULL;
    if (!json_is_false(items)) {
        /* without a word about further items, a tuple has none */
        out->array.rest = items ? compile_at(c, "items", items) : first ? NULL : any_value(c);
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

static int put_name(compiler *c, const char *name, literal *out) {
    json_t *s = json_string(name);
    literal quoted;
    int rc = s ? write_value(c, s, &quoted) : -1;
    json_decref(s);
    if (rc == 0) *out = (literal){quoted.text + 1, quoted.n - 2};
    return rc;
}

static int put_property(compiler *c, node *out, property *v, const char *name, const node *value,
                        bool required) {
    property *p = &v[out->object.n];
    if (!value || put_name(c, name, &p->name)) return -1;
    p->value = value;
    p->required = required;
    out->object.n++;
    return 0;
}

/* Names that are required but have no schema of their own. */
static int put_required(compiler *c, node *out, property *v, const json_t *required, const json_t *properties,
                        const node *other) {
    size_t i;
    const json_t *one;
    json_array_foreach(required, i, one) {
        if (!json_is_string(one)) return refuse(c, "required must be a list of names"), -1;
        const char *name = json_string_value(one);
        if (json_object_get(properties, name)) continue;
        if (!other) {
            refuse(c, "required names \"%.60s\", which additionalProperties forbids", name);
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
    return compare_literals(&((const named *)a)->name, &((const named *)b)->name);
}

static int sort_names(compiler *c, node *out) {
    uint32_t n = out->object.n, *places = grammar_alloc(c->arena, n + 1, sizeof *places);
    named *v = calloc(n + 1, sizeof *v);
    if (!places || !v) {
        free(v);
        return no_memory(c), -1;
    }
    for (uint32_t i = 0; i < n; i++) v[i] = (named){out->object.v[i].name, i};
    qsort(v, n, sizeof *v, compare_named);
    for (uint32_t i = 0; i < n; i++) places[i] = v[i].at;
    out->object.by_name = places;
    free(v);
    return 0;
}

/* additionalProperties; *other is what a required name without a schema gets, NULL: nothing. */
static int compile_additional(compiler *c, const json_t *schema, node *out, const node **other) {
    const json_t *v = json_object_get(schema, "additionalProperties");
    bool free_form = !json_object_get(schema, "properties") && !json_object_get(schema, "required");
    *other = NULL;
    if (json_is_false(v)) return 0;
    *other = !v || json_is_true(v) ? any_value(c) : compile_at(c, "additionalProperties", v);
    if (!*other) return -1;
    /* unasked for, they would only be noise */
    if (v || free_form) out->object.additional = *other;
    return 0;
}

static node *compile_object(compiler *c, const json_t *schema) {
    json_t *properties = json_object_get(schema, "properties"), *value;
    const json_t *required = json_object_get(schema, "required");
    const char *name;
    const node *other;
    node *out = new_node(c, NODE_OBJECT);
    size_t n = json_object_size(properties) + json_array_size(required);
    property *v = out ? grammar_alloc(c->arena, n + 1, sizeof *v) : NULL;
    if (!v) return out ? no_memory(c) : NULL;
    if (properties && !json_is_object(properties)) return refuse(c, "properties must be an object");
    if (required && !json_is_array(required)) return refuse(c, "required must be a list of names");
    if (json_array_size(required) > SUBSCHEMAS_MAX)
        return refuse(c, "required has more than %d names", SUBSCHEMAS_MAX);
    out->object.v = v;
    if (compile_additional(c, schema, out, &other)) return NULL;
    json_object_foreach(properties, name, value) {
        size_t mark = path_push(c, "properties");
        const node *of = compile_at(c, name, value);
        if (!of || put_property(c, out, v, name, of, is_required(required, name))) return NULL;
        path_pop(c, mark);
    }
    if (put_required(c, out, v, required, properties, other)) return NULL;
    return sort_names(c, out) ? NULL : out;
}

/* ---- types ---- */

static node *compile_type(compiler *c, const char *type, const json_t *schema) {
    if (strcmp(type, "object") == 0) return compile_object(c, schema);
    if (strcmp(type, "array") == 0) return compile_array(c, schema);
    if (strcmp(type, "string") == 0) return compile_string(c, schema);
    if (strcmp(type, "number") == 0) return compile_number(c, schema, false);
    if (strcmp(type, "integer") == 0) return compile_number(c, schema, true);
    if (strcmp(type, "boolean") == 0) return compile_boolean(c);
    if (strcmp(type, "null") == 0) return compile_null(c);
    return refuse(c, "type \"%.40s\" is unknown", type);
}

static node *new_union(compiler *c, size_t n, const node ***v) {
    node *out = new_node(c, NODE_UNION);
    *v = out ? grammar_alloc(c->arena, n + 1, sizeof **v) : NULL;
    if (!*v) return out ? no_memory(c) : NULL;
    if (n > ALTERNATIVES_MAX)
        return refuse(c, "%zu alternatives: at most %d are supported", n, ALTERNATIVES_MAX);
    out->any.v = *v;
    return out;
}

static node *compile_types(compiler *c, const json_t *types, const json_t *schema) {
    const node **v;
    const json_t *one;
    size_t i;
    if (json_array_size(types) == 0) return refuse(c, "type must be a name or a list of names");
    node *out = new_union(c, json_array_size(types), &v);
    if (!out) return NULL;
    json_array_foreach(types, i, one) {
        if (!json_is_string(one)) return refuse(c, "type must be a name or a list of names");
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

static node *compile_union(compiler *c, const json_t *schema, const char *keyword, const json_t *list) {
    const char *const with[] = {keyword, NULL};
    const node **v;
    const json_t *one;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return refuse(c, "%s must be a list of schemas", keyword);
    if (check_alone(c, schema, keyword, with)) return NULL;
    node *out = new_union(c, json_array_size(list), &v);
    if (!out) return NULL;
    json_array_foreach(list, i, one) {
        v[i] = compile_item(c, keyword, i, one);
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

static node *compile_ref(compiler *c, const json_t *schema, const json_t *ref) {
    static const char *const with[] = {"$ref", NULL};
    const char *s = json_string_value(ref);
    if (!s || s[0] != '#') return refuse(c, "$ref must point into this schema: #/…");
    if (check_alone(c, schema, "$ref", with)) return NULL;
    const json_t *at = c->doc;
    for (s++; at && *s == '/';) {
        const char *end = strchrnul(s + 1, '/');
        at = pointer_step(at, s + 1, end);
        s = end;
    }
    if (!at || *s) return refuse(c, "$ref \"%.80s\" points at nothing", json_string_value(ref));
    return compile(c, at);
}

static node *compile_all(compiler *c, const json_t *schema, const json_t *list) {
    static const char *const with[] = {"allOf", NULL};
    if (json_array_size(list) != 1) return refuse(c, "allOf of more than one schema is not supported");
    if (check_alone(c, schema, "allOf", with)) return NULL;
    return compile_item(c, "allOf", 0, json_array_get(list, 0));
}

static node *compile_new(compiler *c, const json_t *schema) {
    const json_t *v, *type = json_object_get(schema, "type");
    if (json_is_true(schema)) return any_value(c);
    if (!json_is_object(schema)) return refuse(c, "a schema must be an object");
    if (check_keywords(c, schema)) return NULL;
    if ((v = json_object_get(schema, "$ref"))) return compile_ref(c, schema, v);
    if ((v = json_object_get(schema, "enum"))) return compile_enum(c, schema, v);
    if ((v = json_object_get(schema, "const"))) return compile_const(c, schema, v);
    if ((v = json_object_get(schema, "anyOf"))) return compile_union(c, schema, "anyOf", v);
    if ((v = json_object_get(schema, "oneOf"))) return compile_union(c, schema, "oneOf", v);
    if ((v = json_object_get(schema, "allOf"))) return compile_all(c, schema, v);
    if (json_is_string(type)) return compile_type(c, json_string_value(type), schema);
    if (type) return compile_types(c, type, schema);
    const char *implied = implied_type(schema);
    return implied ? compile_type(c, implied, schema) : any_value(c);
}

/* A node that stands for another: what a subschema that is still being compiled gets, so that it can refer to itself. */
static node *reserve(compiler *c, const json_t *schema) {
    if (c->nmade == SUBSCHEMAS_MAX) return refuse(c, "the schema has more than %d parts", SUBSCHEMAS_MAX);
    node *n = new_node(c, NODE_UNION);
    const node **v = n ? grammar_alloc(c->arena, 1, sizeof *v) : NULL;
    if (!v) return n ? no_memory(c) : NULL;
    n->any.v = v;
    n->any.n = 1;
    c->made[c->nmade++] = (made){schema, n};
    return n;
}

static node *compile_false(compiler *c) {
    node *n = new_node(c, NODE_UNION);
    return n; /* of nothing */
}

static node *compile(compiler *c, const json_t *schema) {
    if (json_is_false(schema)) return compile_false(c);
    for (int i = 0; i < c->nmade; i++) {
        if (c->made[i].schema == schema) return c->made[i].node;
    }
    if (c->nesting == NESTING_MAX) return refuse(c, "the schema is nested more than %d deep", NESTING_MAX);
    node *n = reserve(c, schema);
    if (!n) return NULL;
    c->nesting++;
    const node *of = compile_new(c, schema);
    c->nesting--;
    if (!of) return NULL;
    *(const node **)n->any.v = of;
    return n;
}

/* ---- what is possible ---- */

/* Every node that can be reached, each once. */
typedef struct node_list {
    node **v;
    size_t n, cap;
} node_list;

static int list_add(node_list *l, const node *of) {
    node *n = (node *)of;
    if (!n || n->listed) return 0;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        node **v = realloc(l->v, cap * sizeof *v);
        if (!v) return -1;
        l->v = v;
        l->cap = cap;
    }
    n->listed = true;
    l->v[l->n++] = n;
    return 0;
}

static int list_children(node_list *l, const node *n) {
    int rc = 0;
    if (n->kind == NODE_ARRAY) {
        for (uint32_t i = 0; i < n->array.nfirst; i++) rc |= list_add(l, n->array.first[i]);
        rc |= list_add(l, n->array.rest);
    } else if (n->kind == NODE_OBJECT) {
        for (uint32_t i = 0; i < n->object.n; i++) rc |= list_add(l, n->object.v[i].value);
        rc |= list_add(l, n->object.additional);
    } else if (n->kind == NODE_UNION) {
        for (uint32_t i = 0; i < n->any.n; i++) rc |= list_add(l, n->any.v[i]);
    } else if (n->kind == NODE_SEQUENCE) {
        for (uint32_t i = 0; i < n->sequence.n; i++) rc |= list_add(l, n->sequence.v[i]);
        rc |= list_add(l, n->sequence.again);
    }
    return rc;
}

static int within(int need) {
    return need >= NODE_NEVER ? NODE_NEVER : need + 1;
}

/* What a node needs, as far as is known of its parts: at first all but leaves seem impossible. */
static int need_of(const node *n) {
    int need = 0;
    if (n->kind == NODE_SEQUENCE) {
        for (uint32_t i = 0; i < n->sequence.n; i++)
            need = n->sequence.v[i]->need > need ? n->sequence.v[i]->need : need;
        return within(need);
    }
    if (n->kind == NODE_UNION) {
        need = NODE_NEVER;
        for (uint32_t i = 0; i < n->any.n; i++) need = n->any.v[i]->need < need ? n->any.v[i]->need : need;
        return need;
    }
    if (n->kind == NODE_ARRAY) {
        for (uint32_t i = 0; i < n->array.min && n->array.min <= n->array.max; i++) {
            const node *item = i < n->array.nfirst ? n->array.first[i] : n->array.rest;
            if (item->need > need) need = item->need;
            if (i >= n->array.nfirst) break;
        }
        return n->array.min > n->array.max ? NODE_NEVER : within(need);
    }
    for (uint32_t i = 0; i < n->object.n; i++) {
        if (n->object.v[i].required && n->object.v[i].value->need > need) need = n->object.v[i].value->need;
    }
    return within(need);
}

static bool is_leaf(const node *n) {
    return n->kind == NODE_LITERALS || n->kind == NODE_STRING || n->kind == NODE_NUMBER ||
           n->kind == NODE_TEXT;
}

static void find_needs(const node_list *l) {
    bool changed = true;
    for (size_t i = 0; i < l->n; i++) {
        node *n = l->v[i];
        if (!is_leaf(n)) n->need = NODE_NEVER;
        if (n->kind == NODE_LITERALS && n->literals.n == 0) n->need = NODE_NEVER;
    }
    while (changed) {
        changed = false;
        for (size_t i = 0; i < l->n; i++) {
            node *n = l->v[i];
            int need = is_leaf(n) ? n->need : need_of(n);
            changed |= need < n->need;
            n->need = need;
        }
    }
}

/* What a value may begin as: the leaves of unions of unions. A union that reaches itself through unions alone would never come
 * to a value. */
typedef struct leaf_count {
    int leaves, unions;
} leaf_count;

static int count_leaves(compiler *c, const node *n, int depth, leaf_count *seen) {
    if (depth > NESTING_MAX || seen->unions > SUBSCHEMAS_MAX)
        return refuse(c, "a $ref leads to itself with nothing between"), -1;
    if (n->kind != NODE_UNION) {
        if (++seen->leaves <= ALTERNATIVES_MAX) return 0;
        return refuse(c, "more than %d alternatives in one place are not supported", ALTERNATIVES_MAX), -1;
    }
    seen->unions++;
    for (uint32_t i = 0; i < n->any.n; i++) {
        if (count_leaves(c, n->any.v[i], depth + 1, seen)) return -1;
    }
    return 0;
}

static int examine(compiler *c, const node *root) {
    node_list all = {0};
    int rc = list_add(&all, root);
    for (size_t i = 0; i < all.n && rc == 0; i++) rc = list_children(&all, all.v[i]);
    if (rc) {
        engine_fail(c->err, ENGINE_ENOMEM, "out of memory for the schema");
    } else {
        for (size_t i = 0; i < all.n && rc == 0; i++) {
            leaf_count seen = {0, 0};
            rc = count_leaves(c, all.v[i], 0, &seen);
        }
        if (rc == 0) find_needs(&all);
    }
    free(all.v);
    return rc;
}

/* ---- tool calls ---- */

static node *compile_text(compiler *c, const json_t *text) {
    node *n = new_node(c, NODE_TEXT);
    if (n && put_literal(c, json_string_value(text), json_string_length(text), &n->text)) return NULL;
    return n;
}

/* Is it an object in every case? */
static bool is_object(const node *n, int depth) {
    if (n->kind != NODE_UNION) return n->kind == NODE_OBJECT;
    for (uint32_t i = 0; i < n->any.n && depth < NESTING_MAX; i++) {
        if (!is_object(n->any.v[i], depth + 1)) return false;
    }
    return n->any.n && depth < NESTING_MAX;
}

/* A call of these tools: an object of the name and, under `key`, the arguments. It stays in `tool` as `kept`, because nodes are
 * told apart by where their schemas lie. */
static node *compile_call(compiler *c, json_t *tool, const char *key, json_t *schema, const char *kept) {
    json_t *call = json_pack("{s:s, s:{s:{s:O}, s:O}, s:[s, s]}", "type", "object", "properties", "name",
                             "enum", json_object_get(tool, "names"), key, schema, "required", "name", key);
    if (!call || json_object_set_new(tool, kept, call)) return no_memory(c);
    c->doc = schema;
    node *n = compile(c, call);
    if (n && !is_object(compile(c, schema), 0)) return refuse(c, "the parameters must be an object");
    return n;
}

static node *compile_any_call(compiler *c, json_t *tool, const char *key) {
    json_t *any = json_pack("{s:s}", "type", "object");
    node *n = any ? compile_call(c, tool, key, any, "any_call") : no_memory(c);
    json_decref(any);
    return n;
}

/* Where the schema need not be kept and cannot be, any object will do. */
static node *compile_tool(compiler *c, json_t *tool, const char *key) {
    json_t *schema = json_object_get(tool, "schema");
    int nesting = c->nesting;
    size_t mark = path_push(c, json_string_value(json_array_get(json_object_get(tool, "names"), 0)));
    size_t inside = strlen(c->path);
    node *n = schema ? compile_call(c, tool, key, schema, "call") : NULL;
    if (!n && schema && json_is_true(json_object_get(tool, "strict"))) return NULL;
    c->nesting = nesting;
    path_pop(c, inside);
    if (!n) n = compile_any_call(c, tool, key);
    if (n) path_pop(c, mark);
    return n;
}

static node *compile_tools(compiler *c, const json_t *tools, const char *key) {
    const node **v;
    size_t i;
    json_t *tool;
    node *out = new_union(c, json_array_size(tools), &v);
    if (!out) return NULL;
    json_array_foreach(tools, i, tool) {
        if (!(v[i] = compile_tool(c, tool, key))) return NULL;
    }
    out->any.n = (uint32_t)i;
    return out;
}

static node *compile_calls(compiler *c, const json_t *spec) {
    const json_t *open = json_object_get(spec, "open"), *shut = json_object_get(spec, "close"),
                 *again = json_object_get(spec, "again");
    node *out = new_node(c, NODE_SEQUENCE);
    const node **v = out ? grammar_alloc(c->arena, 3, sizeof *v) : NULL;
    if (!v) return out ? no_memory(c) : NULL;
    out->sequence.v = v;
    const char *key = json_string_value(json_object_get(spec, "arguments"));
    if (open && !(v[out->sequence.n++] = compile_text(c, open))) return NULL;
    if (!(v[out->sequence.n++] = compile_tools(c, json_object_get(spec, "tools"), key))) return NULL;
    if (shut && !(v[out->sequence.n++] = compile_text(c, shut))) return NULL;
    if (again && !(out->sequence.again = compile_text(c, again))) return NULL;
    return out;
}

/* ---- the whole ---- */

static const node *compile_root(compiler *c, bool calls) {
    const node *root = calls ? compile_calls(c, c->doc) : c->doc ? compile(c, c->doc) : any_object(c);
    if (!root) return NULL;
    c->path[0] = 0;
    if (examine(c, root)) return NULL;
    if (root->need >= NODE_NEVER) return refuse(c, "no value fits the schema");
    if (root->need > NODE_DEPTH_MAX) return refuse(c, "values are nested more than %d deep", NODE_DEPTH_MAX);
    return root;
}

static const node *compile_document(const char *text, size_t n, bool calls, grammar_arena *a,
                                    engine_error *err) {
    compiler *c = calloc(1, sizeof *c);
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
