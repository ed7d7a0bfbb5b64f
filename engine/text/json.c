/* Look-ups for the tokenizer's reader. Pure functions over a parsed document that the caller owns. */
#include "engine/text/json.h"

int json_get_bool(const json_t *o, const char *key, bool *out, engine_error *err) {
    const json_t *v = json_object_get(o, key);

    if (v == NULL || json_is_null(v)) return 0;
    if (!json_is_boolean(v)) return engine_fail(err, ENGINE_EFORMAT, "\"%s\" must be true or false", key);
    *out = json_is_true(v);
    return 0;
}

int json_get_string(const json_t *o, const char *key, const char **out, engine_error *err) {
    const json_t *v = json_object_get(o, key);

    *out = NULL;
    if (v == NULL || json_is_null(v)) return 0;
    if (!json_is_string(v)) return engine_fail(err, ENGINE_EFORMAT, "\"%s\" must be a string", key);
    *out = json_string_value(v);
    return 0;
}

const char *json_type_of(const json_t *o) {
    return json_string_value(json_object_get(o, "type"));
}
