/* Values without parts: enum and const, strings, numbers. See schema.h. */
#include "engine/grammar/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- enum and const ---- */

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

static node *compile_values(schema_compiler *c, const json_t *schema, const json_t *const *values, size_t n) {
    node *out = schema_node(c, NODE_LITERALS);
    literal *v = out ? grammar_alloc(c->arena, n + 1, sizeof *v) : NULL;
    if (!v) return out ? schema_no_memory(c) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (!type_allows(schema, values[i])) continue;
        if (schema_put_value(c, values[i], &v[out->literals.n++])) return NULL;
    }
    qsort(v, out->literals.n, sizeof *v, schema_compare_literals);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < out->literals.n; i++) {
        if (!kept || schema_compare_literals(&v[kept - 1], &v[i]) != 0) v[kept++] = v[i];
    }
    out->literals.v = v;
    out->literals.n = kept;
    return out;
}

node *schema_enum(schema_compiler *c, const json_t *schema, const json_t *list) {
    static const char *const with[] = {"enum", "type", NULL};
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0) return schema_refuse(c, "enum must be a list of values");
    if (schema_check_alone(c, schema, "enum", with)) return NULL;
    const json_t **values = calloc(n, sizeof *values);
    if (!values) return schema_no_memory(c);
    for (size_t i = 0; i < n; i++) values[i] = json_array_get(list, i);
    node *out = compile_values(c, schema, values, n);
    free(values);
    return out;
}

node *schema_const(schema_compiler *c, const json_t *schema, const json_t *value) {
    static const char *const with[] = {"const", "type", NULL};
    if (schema_check_alone(c, schema, "const", with)) return NULL;
    return compile_values(c, schema, &value, 1);
}

static node *compile_words(schema_compiler *c, const char *const *words, uint32_t n) {
    node *out = schema_node(c, NODE_LITERALS);
    literal *v = out ? grammar_alloc(c->arena, n, sizeof *v) : NULL;
    if (!v) return out ? schema_no_memory(c) : NULL;
    for (uint32_t i = 0; i < n; i++) v[i] = (literal){words[i], (uint32_t)strlen(words[i])};
    out->literals.v = v;
    out->literals.n = n;
    return out;
}

node *schema_boolean(schema_compiler *c) {
    static const char *const words[] = {"false", "true"};
    return compile_words(c, words, 2);
}

node *schema_null(schema_compiler *c) {
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
static int find_pattern(schema_compiler *c, const json_t *schema, const char **pattern, size_t *n) {
    const json_t *v = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    *pattern = NULL;
    if (v && !json_is_string(v)) return schema_refuse(c, "pattern must be a string"), -1;
    if (v && format) return schema_refuse(c, "format beside pattern is not supported"), -1;
    if (v) {
        *pattern = json_string_value(v);
        *n = json_string_length(v);
    } else if (format) {
        if (json_is_string(format)) *pattern = format_pattern(json_string_value(format));
        if (!*pattern) {
            schema_refuse(c, "format \"%.40s\" is not supported",
                          json_is_string(format) ? json_string_value(format) : "?");
            return -1;
        }
        *n = strlen(*pattern);
    }
    return 0;
}

node *schema_string(schema_compiler *c, const json_t *schema) {
    node *out = schema_node(c, NODE_STRING);
    const char *pattern;
    size_t n = 0;
    if (!out) return NULL;
    out->string.max = NODE_LENGTH_ANY;
    if (schema_count(c, schema, "minLength", &out->string.min)) return NULL;
    if (schema_count(c, schema, "maxLength", &out->string.max)) return NULL;
    if (find_pattern(c, schema, &pattern, &n)) return NULL;
    if (out->string.min > out->string.max) out->need = NODE_NEVER;
    if (!pattern || out->need) return out;
    engine_error why = {0};
    if (regex_compile(pattern, n, out->string.min, out->string.max, c->arena, &out->string.dfa, &why))
        return schema_refuse(c, "%s", why.msg);
    if (!out->string.dfa) out->need = NODE_NEVER;
    out->string.min = 0; /* the automaton counts */
    out->string.max = NODE_LENGTH_ANY;
    return out;
}

static int get_bound(schema_compiler *c, const json_t *schema, const char *name, double *out) {
    const json_t *v = json_object_get(schema, name);
    *out = NAN;
    if (!v) return 0;
    if (!json_is_number(v)) return schema_refuse(c, "%s must be a number", name), -1;
    *out = json_number_value(v);
    return 0;
}

node *schema_number(schema_compiler *c, const json_t *schema, bool integer) {
    number_bounds b = {.integer = integer};
    node *out = schema_node(c, NODE_NUMBER);
    if (!out || get_bound(c, schema, "minimum", &b.minimum) || get_bound(c, schema, "maximum", &b.maximum) ||
        get_bound(c, schema, "exclusiveMinimum", &b.exclusive_minimum) ||
        get_bound(c, schema, "exclusiveMaximum", &b.exclusive_maximum) ||
        get_bound(c, schema, "multipleOf", &b.multiple_of)) {
        return NULL;
    }
    if (!isnan(b.multiple_of) &&
        (b.multiple_of != floor(b.multiple_of) || b.multiple_of < 1 || b.multiple_of > 1e15))
        return schema_refuse(c, "multipleOf must be a whole number: others are not supported");
    out->number = number_range_of(&b);
    if (!number_possible(&out->number)) out->need = NODE_NEVER;
    return out;
}
