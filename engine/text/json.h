/* Typed look-ups in a jansson object. A key that is missing or null leaves the default; one of another type is an error. */
#ifndef ENGINE_TEXT_JSON_H
#define ENGINE_TEXT_JSON_H

#include "engine/error.h"

#include <jansson.h>
#include <stdbool.h>

int json_get_bool(const json_t *o, const char *key, bool *out, engine_error *err);
/* Borrowed from the object; NULL when it is not there. */
int json_get_string(const json_t *o, const char *key, const char **out, engine_error *err);
/* The member "type" of an object, or NULL when there is none. */
const char *json_type_of(const json_t *o);

#endif
