/* Which keywords there are: those that are kept, those that say nothing, and those that are refused. See schema.h. */
#include "engine/grammar/schema.h"

#include <math.h>
#include <string.h>

enum { LENGTH_MAX = 1 << 20 };

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

int schema_check_keywords(schema_compiler *c, const json_t *schema) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *v = json_object_get(schema, refused[i]);
        if (!v || is_idle(refused[i], v)) continue;
        schema_refuse(c, "%s is not supported", refused[i]);
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

int schema_check_alone(schema_compiler *c, const json_t *schema, const char *keyword,
                       const char *const *but) {
    const char *other = other_keyword(schema, but);
    if (!other) return 0;
    schema_refuse(c, "%s beside %s is not supported", other, keyword);
    return -1;
}

int schema_count(schema_compiler *c, const json_t *schema, const char *name, uint32_t *out) {
    const json_t *v = json_object_get(schema, name);
    if (!v) return 0;
    double x = json_number_value(v);
    if (!json_is_number(v) || x < 0 || x != floor(x)) {
        schema_refuse(c, "%s must be a whole number, 0 or more", name);
        return -1;
    }
    if (x > LENGTH_MAX) {
        schema_refuse(c, "%s is more than %d, which is not supported", name, LENGTH_MAX);
        return -1;
    }
    *out = (uint32_t)x;
    return 0;
}
