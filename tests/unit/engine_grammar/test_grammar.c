/* Whatever is drawn under the masks of a schema is JSON that fits the schema, and what fits it can be drawn. */
#include "grammar_test.h"

#include "validator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWERS = 12, PRINTED = 60, TOKENS_MAX = 600, TEXT_MAX = 1 << 16 };

static uint32_t next_random(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static bool allowed(const uint64_t *mask, int32_t id) {
    return mask[id / 64] >> (id % 64) & 1;
}

static const char *text_of(const words *w, int32_t id, size_t *n) {
    bool special;
    return tokenizer_piece(w->t, id, n, &special);
}

/* Any allowed token, each as likely; with `closing`, rather one that can end something. */
static int32_t draw(const words *w, const uint64_t *mask, bool closing, uint32_t *seed) {
    int32_t chosen = -1;
    uint32_t seen = 0;
    for (int32_t id = 0; id < tokenizer_vocab(w->t); id++) {
        size_t n;
        if (!allowed(mask, id)) continue;
        const char *s = text_of(w, id, &n);
        if (closing && id != w->end && (n == 0 || !strchr("\"}]", s[0]))) continue;
        if (next_random(seed) % ++seen == 0) chosen = id;
    }
    return chosen >= 0 || !closing ? chosen : draw(w, mask, false, seed);
}

/* Writes an answer by chance; true when it came to its end. */
static bool write_answer(const words *w, grammar *g, uint32_t seed, char *text) {
    grammar_cursor *c = grammar_cursor_new(g);
    bool extendable = true, complete = false;
    size_t at = 0;
    for (int i = 0; i < TOKENS_MAX; i++) {
        complete = grammar_cursor_complete(c, &extendable);
        if (complete && !extendable) break;
        bool closing = i > TOKENS_MAX / 3 || next_random(&seed) % 4 == 0;
        int32_t id = draw(w, grammar_cursor_mask(c), closing, &seed);
        if (id < 0) fail_msg("nothing can follow %.*s", (int)at, text);
        size_t n;
        const char *s = text_of(w, id, &n);
        if (id == w->end) break;
        if (at + n >= TEXT_MAX) break;
        if (!grammar_cursor_take(c, s, n)) fail_msg("an allowed token is not taken: %.*s", (int)n, s);
        memcpy(text + at, s, n);
        at += n;
    }
    text[at] = 0;
    complete = grammar_cursor_complete(c, &extendable);
    grammar_cursor_free(c);
    return complete;
}

static void check_answer(const char *name, const json_t *schema, const char *text) {
    json_error_t why;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &why);
    if (!value) fail_msg("%s: %s is no JSON: %s", name, text, why.text);
    if (!is_valid(schema, value, schema)) fail_msg("%s: %s does not fit", name, text);
    json_decref(value);
}

static void for_each_case(void (*check)(const words *, const char *, const json_t *, grammar *)) {
    words w;
    json_t *cases = read_cases(), *one;
    size_t i;
    words_open(&w, "llama3");
    json_array_foreach(cases, i, one) {
        const json_t *schema = json_object_get(one, "schema");
        grammar *g = compile(&w, schema);
        check(&w, json_string_value(json_object_get(one, "name")), one, g);
        grammar_unref(g);
    }
    words_close(&w);
    json_decref(cases);
}

/* For another validator to judge: see tests/golden/grammar/check_answers.py. */
static void print_answers(const words *w, const char *name, const json_t *one, grammar *g) {
    static char text[TEXT_MAX];
    for (uint32_t k = 0; k < PRINTED; k++) {
        if (!write_answer(w, g, k * 104729 + 1, text)) continue;
        json_t *row = json_pack("{s:s, s:O, s:s}", "name", name, "schema", json_object_get(one, "schema"),
                                "answer", text);
        json_dumpf(row, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(row);
    }
}

static void check_answers(const words *w, const char *name, const json_t *one, grammar *g) {
    static char text[TEXT_MAX];
    int ended = 0;
    for (uint32_t k = 0; k < ANSWERS; k++) {
        if (!write_answer(w, g, k * 7919 + 1, text)) continue;
        ended++;
        check_answer(name, json_object_get(one, "schema"), text);
    }
    if (ended < ANSWERS / 2) fail_msg("%s: only %d of %d answers came to an end", name, ended, ANSWERS);
}

static void answers_fit_their_schema(void **state) {
    (void)state;
    for_each_case(check_answers);
}

static void check_values(const words *w, const char *name, const json_t *one, grammar *g) {
    const json_t *v;
    size_t i;
    (void)w;
    json_array_foreach(json_object_get(one, "good"), i, v) {
        char *text = written(v);
        if (!takes(g, text)) fail_msg("%s: %s is not taken", name, text);
        free(text);
    }
    json_array_foreach(json_object_get(one, "bad"), i, v) {
        char *text = written(v);
        if (takes(g, text)) fail_msg("%s: %s is taken", name, text);
        free(text);
    }
}

static void values_that_fit_are_taken_and_others_are_not(void **state) {
    (void)state;
    for_each_case(check_values);
}

/* The mask against the machine itself: each token tried alone. */
static void check_mask(const words *w, grammar *g, const char *text, size_t n) {
    grammar_cursor *c = grammar_cursor_new(g);
    bool extendable;
    assert_true(grammar_cursor_take(c, text, n));
    bool complete = grammar_cursor_complete(c, &extendable);
    size_t bytes = ((size_t)tokenizer_vocab(w->t) + 63) / 64 * 8;
    uint64_t *mask = malloc(bytes);
    memcpy(mask, grammar_cursor_mask(c), bytes);
    grammar_cursor_free(c);
    for (int32_t id = 0; id < tokenizer_vocab(w->t); id++) {
        size_t len;
        bool special;
        const char *s = tokenizer_piece(w->t, id, &len, &special);
        c = grammar_cursor_new(g);
        grammar_cursor_take(c, text, n);
        bool fits = id == w->end ? complete : s && !special && grammar_cursor_take(c, s, len);
        if (fits != allowed(mask, id))
            fail_msg("after %.*s the token \"%.*s\" is %s", (int)n, text, (int)len, s,
                     fits ? "left out" : "let in");
        grammar_cursor_free(c);
    }
    free(mask);
}

static void check_masks(const words *w, const char *name, const json_t *one, grammar *g) {
    static char text[TEXT_MAX];
    (void)name;
    (void)one;
    write_answer(w, g, 77, text);
    size_t n = strlen(text), step = n / 3 + 1;
    for (size_t at = 0; at < n; at += step) check_mask(w, g, text, at);
}

static void a_mask_lets_in_the_tokens_that_can_be_taken_and_no_other(void **state) {
    (void)state;
    for_each_case(check_masks);
}

static void any_object_is_taken_without_a_schema(void **state) {
    words w;
    engine_error err;
    (void)state;
    words_open(&w, "qwen2");
    grammar *g = grammar_new(w.v, NULL, 0, &err);
    assert_true(takes(g, "{}"));
    assert_false(takes(g, "{\"\": 1}"));
    assert_true(takes(g, "{\"a\": [1, 2.5e3, {\"b\": null}], \"c\": \"\\u00e9\\n\"}"));
    assert_true(takes(g, "{\n  \"a\": {\n    \"b\": true\n  }\n}"));
    assert_false(takes(g, "[1]"));
    assert_false(takes(g, "{\"a\"}"));
    assert_false(takes(g, "{\"a\": 01}"));
    assert_false(takes(g, "{\"a\": \"\\ud800\"}"));
    assert_false(takes(g, "{} "));
    grammar_unref(g);
    words_close(&w);
}

static void nesting_ends_before_it_is_too_deep_to_close(void **state) {
    words w;
    engine_error err;
    static char text[TEXT_MAX];
    (void)state;
    words_open(&w, "qwen2");
    grammar *g = try_compile(
        &w,
        "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/a\"}}}}",
        &err);
    grammar_cursor *c = grammar_cursor_new(g);
    int depth = 0;
    while (grammar_cursor_take(c, "[", 1)) depth++;
    assert_int_equal(depth, 64);
    for (; depth > 0; depth--) assert_true(grammar_cursor_take(c, "]", 1));
    bool extendable;
    assert_true(grammar_cursor_complete(c, &extendable));
    assert_false(extendable);
    grammar_cursor_free(c);
    assert_true(write_answer(&w, g, 3, text));
    grammar_unref(g);
    words_close(&w);
}

static void a_schema_that_comes_again_is_not_compiled_again(void **state) {
    static const char schema[] = "{\"type\":\"integer\"}";
    words w;
    engine_error err;
    (void)state;
    words_open(&w, "gpt2");
    grammar_store *s = grammar_store_new(w.v, &err);
    grammar *first = grammar_store_get(s, schema, sizeof schema - 1, &err);
    grammar *any = grammar_store_get(s, NULL, 0, &err),
            *again = grammar_store_get(s, schema, sizeof schema - 1, &err);
    assert_ptr_equal(first, again);
    assert_ptr_not_equal(first, any);
    for (int i = 0; i < 40; i++) {
        char other[64];
        int n = snprintf(other, sizeof other, "{\"type\":\"integer\",\"minimum\":%d}", i);
        grammar_unref(grammar_store_get(s, other, (size_t)n, &err));
    }
    /* pushed out of the store, and still the holder's */
    assert_true(takes(first, "12"));
    grammar_unref(first);
    grammar_unref(again);
    grammar_unref(any);
    grammar_store_free(s);
    words_close(&w);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--print") == 0) {
        for_each_case(print_answers);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_that_fit_are_taken_and_others_are_not),
        cmocka_unit_test(answers_fit_their_schema),
        cmocka_unit_test(a_mask_lets_in_the_tokens_that_can_be_taken_and_no_other),
        cmocka_unit_test(any_object_is_taken_without_a_schema),
        cmocka_unit_test(nesting_ends_before_it_is_too_deep_to_close),
        cmocka_unit_test(a_schema_that_comes_again_is_not_compiled_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
