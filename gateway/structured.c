/* See structured.h. */
#include "gateway/structured.h"

#include <stdlib.h>
#include <string.h>

static int refuse(mr_api_error *e, const char *param, const char *expected) {
    return mr_refuse(e, 400, "invalid_type", param, "%s: expected %s", param, expected);
}

static int set_format(json_t *chat, const char *type, json_t *schema, mr_api_error *e) {
    json_t *format = json_pack("{s:s, s:o*}", "type", type, "schema", schema);
    if (format && json_object_set_new(chat, "response_format", format) == 0) return 0;
    return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
}

/* The schema travels as text: its members are nobody's business before the engine's. */
static int set_schema(const json_t *format, json_t *chat, mr_api_error *e) {
    const json_t *named = json_object_get(format, "json_schema"), *schema = json_object_get(named, "schema");
    if (!json_is_object(named)) return refuse(e, "response_format.json_schema", "an object with `schema`");
    if (!json_is_object(schema)) return refuse(e, "response_format.json_schema.schema", "a JSON schema");
    char *text = json_dumps(schema, JSON_COMPACT);
    json_t *carried = text ? json_string(text) : NULL;
    free(text);
    if (!carried) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    return set_format(chat, "json_schema", carried, e);
}

int mr_structured_format(const json_t *body, json_t *chat, mr_api_error *e) {
    const json_t *format = json_object_get(body, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!format || json_is_null(format)) return 0;
    if (type && strcmp(type, "json_schema") == 0) return set_schema(format, chat, e);
    if (type && (strcmp(type, "json_object") == 0 || strcmp(type, "text") == 0))
        return set_format(chat, type, NULL, e);
    return mr_refuse(e, 400, "invalid_value", "response_format.type",
                     "response_format.type: expected text, json_object or json_schema");
}
