/* Shared by the test programs of engine/text. */
#include "text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const golden_names[] = {"gpt2",   "deepseek_llm", "deepseek_v3", "qwen2",     "llama3",
                                    "cl100k", "o200k",        "strips",      "behaviors", NULL};

tokenizer *golden_tokenizer(const char *name) {
    char dir[256];
    engine_error err = {0};

    snprintf(dir, sizeof dir, "%s/%s", GOLDENS, name);
    tokenizer *t = tokenizer_load(dir, &err);
    if (t == NULL) fail_msg("%s", err.msg);
    return t;
}

static FILE *open_golden(const char *file) {
    char path[256];

    snprintf(path, sizeof path, "%s/%s", GOLDENS, file);
    FILE *f = fopen(path, "r");
    if (f == NULL) fail_msg("%s is missing", path);
    return f;
}

json_t *golden_lines(const char *file) {
    FILE *f = open_golden(file);
    json_t *all = json_array(), *one;

    while ((one = json_loadf(f, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL)) != NULL)
        json_array_append_new(all, one);
    fclose(f);
    assert_true(json_array_size(all) > 0);
    return all;
}

json_t *golden_value(const char *file) {
    FILE *f = open_golden(file);
    json_t *v = json_loadf(f, JSON_ALLOW_NUL, NULL);

    fclose(f);
    assert_non_null(v);
    return v;
}

static char *from_hex(const char *hex, size_t *n) {
    char *out = malloc(strlen(hex) / 2 + 1);
    unsigned byte;

    for (*n = 0; sscanf(hex, "%2x", &byte) == 1; hex += 2) out[(*n)++] = (char)byte;
    return out;
}

char *case_text(const json_t *c, size_t *n) {
    const json_t *text = json_object_get(c, "text"), *repeat = json_object_get(c, "repeat");

    if (text == NULL) return from_hex(json_string_value(json_object_get(c, "hex")), n);
    size_t one = json_string_length(text), times = repeat ? (size_t)json_integer_value(repeat) : 1;
    char *out = malloc(one * times + 1);
    for (size_t i = 0; i < times; i++) memcpy(out + i * one, json_string_value(text), one);
    *n = one * times;
    return out;
}

int32_t *encode(const tokenizer *t, const char *s, size_t n, bool parse_special, int64_t *count) {
    engine_error err = {0};

    *count = tokenizer_encode(t, s, n, parse_special, NULL, 0, &err);
    if (*count < 0) fail_msg("%s", err.msg);
    int32_t *ids = malloc((size_t)(*count + 1) * sizeof *ids);
    assert_int_equal(tokenizer_encode(t, s, n, parse_special, ids, (size_t)*count, &err), *count);
    return ids;
}

char *decode(const tokenizer *t, const int32_t *ids, int64_t n, size_t *len) {
    detok d = {0};
    size_t cap = 16, piece_len;
    bool special;
    char *out = malloc(cap);

    *len = 0;
    for (int64_t i = 0; i <= n; i++) {
        const char *piece = i < n ? tokenizer_piece(t, ids[i], &piece_len, &special) : "";
        assert_non_null(piece);
        if (i == n) piece_len = 0;
        while (cap - *len < DETOK_MAX(piece_len)) out = realloc(out, cap *= 2);
        *len += i < n ? detok_push(&d, piece, piece_len, out + *len) : detok_finish(&d, out + *len);
    }
    return out;
}

tokenizer *parse(const char *json, const char *config, engine_error *err) {
    *err = (engine_error){0};
    return tokenizer_parse(json, strlen(json), config, config ? strlen(config) : 0, err);
}
