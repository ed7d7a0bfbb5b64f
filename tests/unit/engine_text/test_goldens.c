/* The same ids as HuggingFace tokenizers, on every string, for every kind of tokenizer. */
#include "text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_ids(const char *name, size_t line, const json_t *expected, const int32_t *ids, int64_t n) {
    size_t i;
    const json_t *v;

    json_array_foreach(expected, i, v) {
        if ((int64_t)i >= n || json_integer_value(v) != ids[i])
            fail_msg("%s: line %zu of strings.jsonl: token %zu is %d, not %d", name, line, i,
                     (int64_t)i < n ? ids[i] : -1, (int)json_integer_value(v));
    }
    if ((int64_t)i != n) fail_msg("%s: line %zu of strings.jsonl: %d tokens, not %zu", name, line, (int)n, i);
}

static json_t *expectations(const char *name) {
    char file[128];

    snprintf(file, sizeof file, "%s/expected.jsonl", name);
    return golden_lines(file);
}

/* Calls check(tokenizer, name, line, text, n, expected) for all strings and tokenizers. */
static void for_all(void (*check)(const tokenizer *, const char *, size_t, const char *, size_t,
                                  const json_t *)) {
    json_t *strings = golden_lines("strings.jsonl");

    for (const char *const *name = golden_names; *name; name++) {
        tokenizer *t = golden_tokenizer(*name);
        json_t *rows = expectations(*name), *row;
        size_t i, n;
        assert_int_equal(json_array_size(rows), json_array_size(strings));
        json_array_foreach(rows, i, row) {
            char *text = case_text(json_array_get(strings, i), &n);
            check(t, *name, i + 1, text, n, row);
            free(text);
        }
        json_decref(rows);
        tokenizer_free(t);
    }
    json_decref(strings);
}

static void check_ids(const tokenizer *t, const char *name, size_t line, const char *s, size_t n,
                      const json_t *row) {
    int64_t count;
    int32_t *ids = encode(t, s, n, true, &count);

    assert_ids(name, line, json_object_get(row, "ids"), ids, count);
    free(ids);
}

static void check_user_ids(const tokenizer *t, const char *name, size_t line, const char *s, size_t n,
                           const json_t *row) {
    const json_t *user = json_object_get(row, "user");
    int64_t count;
    int32_t *ids = encode(t, s, n, false, &count);

    assert_ids(name, line, user ? user : json_object_get(row, "ids"), ids, count);
    free(ids);
}

static void check_text(const tokenizer *t, const char *name, size_t line, const char *s, size_t n,
                       const json_t *row) {
    const json_t *decoded = json_object_get(row, "decoded");
    int64_t count;
    size_t len;
    int32_t *ids = encode(t, s, n, true, &count);
    char *back = decode(t, ids, count, &len);
    char *repaired = malloc(3 * n + 12);
    detok d = {0};
    size_t want = detok_push(&d, s, n, repaired);

    want += detok_finish(&d, repaired + want);
    const char *expected = decoded ? json_string_value(decoded) : repaired;
    if (decoded) want = json_string_length(decoded);
    if (len != want || memcmp(back, expected, len) != 0)
        fail_msg("%s: line %zu of strings.jsonl comes back as \"%.*s\"", name, line, (int)len, back);
    free(repaired);
    free(back);
    free(ids);
}

static void text_has_the_ids_of_huggingface(void **state) {
    (void)state;
    for_all(check_ids);
}

static void text_of_users_has_the_ids_of_huggingface_without_control_tokens(void **state) {
    (void)state;
    for_all(check_user_ids);
}

static void tokens_give_the_text_back(void **state) {
    (void)state;
    for_all(check_text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_has_the_ids_of_huggingface),
        cmocka_unit_test(text_of_users_has_the_ids_of_huggingface_without_control_tokens),
        cmocka_unit_test(tokens_give_the_text_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
