/* What the tests of engine/text share: the golden files, read with jansson, and text in and out. Paths are relative to the
 * repository root, where ctest runs. */
#ifndef TESTS_ENGINE_TEXT_H
#define TESTS_ENGINE_TEXT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/text/tokenizer.h"

#define GOLDENS "tests/golden/tokenizer"

extern const char *const golden_names[]; /* the tokenizers, NULL at the end */

tokenizer *golden_tokenizer(const char *name);
/* A file with a JSON value a line, as an array; of one value, that value. */
json_t *golden_lines(const char *file);
json_t *golden_value(const char *file);
/* The bytes of a case of strings.jsonl; to be freed. */
char *case_text(const json_t *c, size_t *n);

/* Encodes into an array that the caller frees; fails the test on an error. */
int32_t *encode(const tokenizer *t, const char *s, size_t n, bool parse_special, int64_t *count);
/* Text of the tokens as the engine streams it; to be freed. */
char *decode(const tokenizer *t, const int32_t *ids, int64_t n, size_t *len);

/* A tokenizer from JSON text, with the error of a refusal in err. */
tokenizer *parse(const char *json, const char *config, engine_error *err);

#endif
