/* See validator.h. Each keyword is one function that is true when the value satisfies it or it does not apply. */
#include "validator.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

static const json_t *resolve(const json_t *root, const char *ref) {
    const json_t *at = root;
    char copy[256], *save, *part;

    strncpy(copy, ref + 1, sizeof copy - 1);
    copy[sizeof copy - 1] = 0;
    for (part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        char *w = part;
        for (char *r = part; *r; r++) *w++ = (char)(*r != '~' ? *r : *++r == '1' ? '/' : '~');
        *w = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(part)) : json_object_get(at, part);
    }
    return at;
}

static bool is_type(const char *type, const json_t *v) {
    if (!strcmp(type, "integer"))
        return json_is_integer(v) || (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
    if (!strcmp(type, "number")) return json_is_number(v);
    if (!strcmp(type, "string")) return json_is_string(v);
    if (!strcmp(type, "boolean")) return json_is_boolean(v);
    if (!strcmp(type, "null")) return json_is_null(v);
    if (!strcmp(type, "array")) return json_is_array(v);
    return !strcmp(type, "object") && json_is_object(v);
}

static bool type_ok(const json_t *type, const json_t *v) {
    size_t i;
    const json_t *one;
    if (!type) return true;
    if (json_is_string(type)) return is_type(json_string_value(type), v);
    json_array_foreach(type, i, one) {
        if (is_type(json_string_value(one), v)) return true;
    }
    return false;
}

static bool same(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static bool enum_ok(const json_t *list, const json_t *v) {
    size_t i;
    const json_t *one;
    if (!list) return true;
    json_array_foreach(list, i, one) {
        if (same(one, v)) return true;
    }
    return false;
}

static size_t characters(const json_t *v) {
    size_t n = 0;
    for (const char *s = json_string_value(v); *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static bool matches(const char *regex, const json_t *v) {
    int code;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)regex, strlen(regex), PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    if (!re) abort();
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(re, NULL);
    int rc = pcre2_match(re, (PCRE2_SPTR)json_string_value(v), json_string_length(v), 0, 0, m, NULL);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    return rc > 0;
}

/* What the test schemas name, by other expressions than the engine's. */
static bool format_ok(const char *format, const json_t *v) {
    static const char *const formats[][2] = {
        {"date", "^\\d{4}-\\d\\d-\\d\\d$"},
        {"time", "^\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"},
        {"date-time", "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"},
        {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
        {"ipv4", "^((25[0-5]|(2[0-4]|1?\\d)?\\d)(\\.(?!$)|$)){4}$"},
        {"email", "^[^@\\s]+@[^@\\s]+\\.[^@\\s.]+$"},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!strcmp(formats[i][0], format)) return matches(formats[i][1], v);
    }
    abort();
}

static bool string_ok(const json_t *s, const json_t *v) {
    const json_t *min = json_object_get(s, "minLength"), *max = json_object_get(s, "maxLength"),
                 *pattern = json_object_get(s, "pattern"), *format = json_object_get(s, "format");
    if (!json_is_string(v)) return true;
    if (min && characters(v) < (size_t)json_number_value(min)) return false;
    if (max && characters(v) > (size_t)json_number_value(max)) return false;
    if (pattern && !matches(json_string_value(pattern), v)) return false;
    return !format || format_ok(json_string_value(format), v);
}

static bool number_ok(const json_t *s, const json_t *v) {
    const json_t *b;
    double x = json_number_value(v);
    if (!json_is_number(v)) return true;
    if ((b = json_object_get(s, "minimum")) && x < json_number_value(b)) return false;
    if ((b = json_object_get(s, "maximum")) && x > json_number_value(b)) return false;
    if ((b = json_object_get(s, "exclusiveMinimum")) && x <= json_number_value(b)) return false;
    if ((b = json_object_get(s, "exclusiveMaximum")) && x >= json_number_value(b)) return false;
    return !(b = json_object_get(s, "multipleOf")) || fmod(x, json_number_value(b)) == 0;
}

static bool array_ok(const json_t *s, const json_t *v, const json_t *root) {
    const json_t *min = json_object_get(s, "minItems"), *max = json_object_get(s, "maxItems"),
                 *first = json_object_get(s, "prefixItems"), *items = json_object_get(s, "items"), *one;
    size_t i;
    if (!json_is_array(v)) return true;
    if (min && json_array_size(v) < (size_t)json_number_value(min)) return false;
    if (max && json_array_size(v) > (size_t)json_number_value(max)) return false;
    json_array_foreach(v, i, one) {
        const json_t *of = i < json_array_size(first) ? json_array_get(first, i) : items;
        if (of && !is_valid(of, one, root)) return false;
    }
    return true;
}

static bool object_ok(const json_t *s, const json_t *v, const json_t *root) {
    const json_t *properties = json_object_get(s, "properties"), *required = json_object_get(s, "required"),
                 *additional = json_object_get(s, "additionalProperties"), *one;
    const char *name;
    json_t *member;
    size_t i;
    if (!json_is_object(v)) return true;
    json_array_foreach(required, i, one) {
        if (!json_object_get(v, json_string_value(one))) return false;
    }
    json_object_foreach((json_t *)v, name, member) {
        const json_t *of = json_object_get(properties, name);
        if (!of) of = additional;
        if (of && !is_valid(of, member, root)) return false;
    }
    return true;
}

static int count_valid(const json_t *list, const json_t *v, const json_t *root) {
    size_t i;
    const json_t *one;
    int n = 0;
    json_array_foreach(list, i, one) n += is_valid(one, v, root);
    return n;
}

static bool combinations_ok(const json_t *s, const json_t *v, const json_t *root) {
    const json_t *any = json_object_get(s, "anyOf"), *one = json_object_get(s, "oneOf"),
                 *all = json_object_get(s, "allOf"), *ref = json_object_get(s, "$ref");
    if (any && count_valid(any, v, root) == 0) return false;
    if (one && count_valid(one, v, root) != 1) return false;
    if (all && count_valid(all, v, root) != (int)json_array_size(all)) return false;
    return !ref || is_valid(resolve(root, json_string_value(ref)), v, root);
}

bool is_valid(const json_t *s, const json_t *v, const json_t *root) {
    const json_t *constant = json_object_get(s, "const");
    if (json_is_boolean(s)) return json_is_true(s);
    return type_ok(json_object_get(s, "type"), v) && enum_ok(json_object_get(s, "enum"), v) &&
           (!constant || same(constant, v)) && string_ok(s, v) && number_ok(s, v) && array_ok(s, v, root) &&
           object_ok(s, v, root) && combinations_ok(s, v, root);
}
