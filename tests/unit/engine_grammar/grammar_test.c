/* See grammar_test.h. */
#include "grammar_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *piece(void *owner, int32_t id, size_t *n, bool *special) {
    return tokenizer_piece(owner, id, n, special);
}

void words_open(words *w, const char *name) {
    char dir[256];
    engine_error err = {0};
    snprintf(dir, sizeof dir, "%s/%s", TOKENIZERS, name);
    w->t = tokenizer_load(dir, &err);
    if (!w->t) fail_msg("%s", err.msg);
    w->end = tokenizer_eos(w->t);
    w->v = grammar_vocab_new(tokenizer_vocab(w->t), piece, w->t, &w->end, 1, &err);
    if (!w->v) fail_msg("%s", err.msg);
}

void words_close(words *w) {
    grammar_vocab_free(w->v);
    tokenizer_free(w->t);
}

json_t *read_cases(void) {
    FILE *f = fopen(SCHEMAS, "r");
    json_t *all = json_array(), *one;
    if (!f) fail_msg("%s is missing", SCHEMAS);
    while ((one = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) json_array_append_new(all, one);
    fclose(f);
    assert_true(json_array_size(all) >= 100);
    return all;
}

grammar *try_compile(const words *w, const char *schema, engine_error *err) {
    *err = (engine_error){0};
    return grammar_new(w->v, schema, strlen(schema), err);
}

grammar *compile(const words *w, const json_t *schema) {
    engine_error err;
    char *text = json_dumps(schema, JSON_ENCODE_ANY);
    grammar *g = try_compile(w, text, &err);
    if (!g) fail_msg("%s: %s", text, err.msg);
    free(text);
    return g;
}

bool takes(grammar *g, const char *text) {
    grammar_cursor *c = grammar_cursor_new(g);
    bool extendable;
    bool taken = grammar_cursor_take(c, text, strlen(text)) && grammar_cursor_complete(c, &extendable);
    grammar_cursor_free(c);
    return taken;
}

char *written(const json_t *value) {
    return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12));
}
