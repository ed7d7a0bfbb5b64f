/* A JSON schema validator of the tests' own, by the letter of the specification and with nothing of engine/grammar in it: the
 * engine's answers are judged by it. */
#ifndef TESTS_VALIDATOR_H
#define TESTS_VALIDATOR_H

#include <jansson.h>
#include <stdbool.h>

/* Does the value fit the schema? root: the document that $ref points into. */
bool is_valid(const json_t *schema, const json_t *value, const json_t *root);

#endif
