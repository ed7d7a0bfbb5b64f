/* Any bytes as text of a user or of a template, through a tokenizer chosen by the first byte. The ids are of the vocabulary,
 * users reach no control token, and streamed back token by token the ids give the text again, repaired where it was no UTF-8. */
#include "engine/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { KINDS = 6 };

/* Those that neither normalize nor strip: their ids hold all of the text. */
static const tokenizer *kind(size_t i) {
    static const char *const names[KINDS] = {"gpt2",   "deepseek_llm", "deepseek_v3",
                                             "llama3", "cl100k",       "o200k"};
    static tokenizer *loaded[KINDS];
    char dir[512];
    engine_error err = {0};

    if (loaded[i]) return loaded[i];
    snprintf(dir, sizeof dir, "%s/%s", GOLDENS, names[i]);
    loaded[i] = tokenizer_load(dir, &err);
    if (!loaded[i]) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    return loaded[i];
}

static void check_piece(const char *piece, bool special, bool parse_special) {
    if (!piece) abort();
    if (special && !parse_special) abort();
}

static size_t stream(const tokenizer *t, const int32_t *ids, size_t n, bool parse_special, char *out,
                     size_t cap) {
    detok d = {0};
    size_t w = 0;

    for (size_t i = 0; i < n; i++) {
        size_t len;
        bool special;
        const char *piece = tokenizer_piece(t, ids[i], &len, &special);
        check_piece(piece, special, parse_special);
        if (cap - w < DETOK_MAX(len)) abort();
        w += detok_push(&d, piece, len, out + w);
    }
    return w + detok_finish(&d, out + w);
}

static void round_trip(const tokenizer *t, const char *text, size_t n, bool parse_special) {
    engine_error err = {0};
    int64_t count = tokenizer_encode(t, text, n, parse_special, NULL, 0, &err);
    if (count < 0 || (uint64_t)count > 3 * n) abort();
    int32_t *ids = malloc(((size_t)count + 1) * sizeof *ids);
    size_t cap = 3 * n + 256 + DETOK_MAX(256);
    char *back = malloc(cap), *want = malloc(DETOK_MAX(n));
    if (!ids || !back || !want) abort();

    if (tokenizer_encode(t, text, n, parse_special, ids, (size_t)count, &err) != count) abort();
    size_t got = stream(t, ids, (size_t)count, parse_special, back, cap);
    detok d = {0};
    size_t expected = detok_push(&d, text, n, want);
    expected += detok_finish(&d, want + expected);
    if (got != expected || memcmp(back, want, got) != 0) abort();
    free(ids);
    free(back);
    free(want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) return 0;
    const tokenizer *t = kind(data[0] % KINDS);
    round_trip(t, (const char *)data + 1, n - 1, false);
    round_trip(t, (const char *)data + 1, n - 1, true);
    return 0;
}
