/* What the tests of engine/grammar share: a tokenizer's vocabulary, schemas, and answers written by chance. */
#ifndef TESTS_GRAMMAR_TEST_H
#define TESTS_GRAMMAR_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/grammar/grammar.h"
#include "engine/text/tokenizer.h"

#define TOKENIZERS "tests/golden/tokenizer"
#define SCHEMAS    "tests/golden/grammar/schemas.jsonl"

typedef struct words {
    tokenizer *t;
    grammar_vocab *v;
    int32_t end; /* of an answer */
} words;

void words_open(words *w, const char *tokenizer_name);
void words_close(words *w);

/* The cases of SCHEMAS, each {name, schema, good, bad}. */
json_t *read_cases(void);
grammar *compile(const words *w, const json_t *schema);
/* The same, or NULL with err. */
grammar *try_compile(const words *w, const char *schema, engine_error *err);

/* Is the whole text a value of the grammar? */
bool takes(grammar *g, const char *text);
/* As the engine writes a value. */
char *written(const json_t *value);

#endif
