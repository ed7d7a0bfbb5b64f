/* What a tokenizer does beside having the right ids. */
#include "text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void piece_of_a_token_is_its_bytes_and_of_an_added_one_its_text(void **state) {
    tokenizer *t = golden_tokenizer("deepseek_llm");
    size_t n;
    bool special;

    (void)state;
    /* a word of the vocabulary, spelled with Ġ for the space */
    const char *piece = tokenizer_piece(t, tokenizer_id(t, "Ġthe"), &n, &special);
    assert_int_equal(n, 4);
    assert_memory_equal(piece, " the", 4);
    assert_false(special);
    piece = tokenizer_piece(t, tokenizer_bos(t), &n, &special);
    assert_int_equal(n, strlen("<｜begin▁of▁sentence｜>"));
    assert_true(special);
    /* DeepSeek's added letters are themselves, not the bytes that they spell */
    piece = tokenizer_piece(t, tokenizer_id(t, "ø"), &n, &special);
    assert_int_equal(n, 2);
    assert_memory_equal(piece, "ø", 2);
    assert_false(special);
    tokenizer_free(t);
}

static void ids_without_a_token_have_no_piece(void **state) {
    tokenizer *t = golden_tokenizer("gpt2");
    size_t n;
    bool special;

    (void)state;
    assert_null(tokenizer_piece(t, -1, &n, &special));
    assert_null(tokenizer_piece(t, tokenizer_vocab(t), &n, &special));
    assert_non_null(tokenizer_piece(t, tokenizer_vocab(t) - 1, &n, &special));
    assert_int_equal(tokenizer_id(t, "no such token"), -1);
    assert_int_equal(tokenizer_id(t, ""), -1);
    tokenizer_free(t);
}

static void begin_and_end_tokens_are_those_of_the_config(void **state) {
    static const struct {
        const char *name, *bos, *eos;
        bool adds;
    } want[] = {
        {"gpt2", NULL, "<|endoftext|>", false},
        {"deepseek_llm", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", true},
        {"qwen2", NULL, "<|im_end|>", false},
        {"llama3", "<|begin_of_text|>", "<|eot_id|>", true},
        {"cl100k", "<|endoftext|>", "<|im_end|>", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        tokenizer *t = golden_tokenizer(want[i].name);
        assert_int_equal(tokenizer_bos(t), want[i].bos ? tokenizer_id(t, want[i].bos) : -1);
        assert_int_equal(tokenizer_eos(t), tokenizer_id(t, want[i].eos));
        assert_true(tokenizer_eos(t) >= 0);
        assert_int_equal(tokenizer_adds_bos(t), want[i].adds);
        tokenizer_free(t);
    }
}

static void encoding_into_too_small_an_array_counts_on_and_writes_no_further(void **state) {
    static const char text[] = "The river <|endoftext|> turns 你好 the wheel.";
    tokenizer *t = golden_tokenizer("gpt2");
    int64_t n;
    int32_t *all = encode(t, text, strlen(text), true, &n), some[64];

    (void)state;
    assert_in_range(n, 10, 63);
    for (int64_t cap = 0; cap < n; cap++) {
        memset(some, 0x7F, sizeof some);
        assert_int_equal(tokenizer_encode(t, text, strlen(text), true, some, (size_t)cap, NULL), n);
        assert_memory_equal(some, all, (size_t)cap * sizeof *some);
        assert_int_equal(some[cap], 0x7F7F7F7F);
    }
    free(all);
    tokenizer_free(t);
}

/* Every added token of every tokenizer, in text of a user. */
static void no_text_of_a_user_becomes_a_control_token(void **state) {
    (void)state;
    for (const char *const *name = golden_names; *name; name++) {
        tokenizer *t = golden_tokenizer(*name);
        for (int32_t id = 0; id < tokenizer_vocab(t); id++) {
            size_t n;
            bool special;
            const char *piece = tokenizer_piece(t, id, &n, &special);
            if (piece == NULL || !special) continue;
            char text[256];
            int len =
                snprintf(text, sizeof text, "%.*s x%.*sy %.*s", (int)n, piece, (int)n, piece, (int)n, piece);
            int64_t count;
            int32_t *ids = encode(t, text, (size_t)len, false, &count);
            for (int64_t i = 0; i < count; i++) assert_int_not_equal(ids[i], id);
            free(ids);
        }
        tokenizer_free(t);
    }
}

/* A vocabulary in which plain text could become a control token by merges, or by being a whole word. */
static void neither_merges_nor_whole_words_make_a_control_token(void **state) {
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"<\":0,\"s\":1,\">\":2,\"<s\":3,\"<"
        "s>\":4,\"e\":5},"
        "\"merges\":[\"< s\",\"<s >\"]},\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}}";
    engine_error err;
    tokenizer *t = parse(json, NULL, &err);
    int32_t ids[8];

    (void)state;
    if (t == NULL) fail_msg("%s", err.msg);
    assert_int_equal(tokenizer_encode(t, "<s>", 3, true, ids, 8, &err), 1);
    assert_int_equal(ids[0], 4);
    assert_int_equal(tokenizer_encode(t, "<s>", 3, false, ids, 8, &err), 2);
    assert_int_equal(ids[0], 3);
    assert_int_equal(ids[1], 2);
    tokenizer_free(t);
}

/* ---- streaming ---- */

static size_t stream(const char *s, size_t n, size_t step, char *out) {
    detok d = {0};
    size_t w = 0;

    for (size_t i = 0; i < n; i += step) {
        size_t len = detok_push(&d, s + i, n - i < step ? n - i : step, out + w);
        /* whatever has come out ends with a whole character */
        detok check = {0};
        char again[256];
        assert_int_equal(detok_push(&check, out + w, len, again), len);
        assert_int_equal(check.npart, 0);
        w += len;
    }
    return w + detok_finish(&d, out + w);
}

static void streaming_never_splits_a_character(void **state) {
    static const char text[] = "aé你😀\xF0\x9F\x98 \xC3(\xFF\xE4\xBD";
    static const char want[] = "aé你😀\uFFFD \uFFFD(\uFFFD\uFFFD";
    char out[256];

    (void)state;
    for (size_t step = 1; step < sizeof text; step++) {
        assert_int_equal(stream(text, sizeof text - 1, step, out), sizeof want - 1);
        assert_memory_equal(out, want, sizeof want - 1);
    }
}

static void streaming_stays_within_the_room_it_asks_for(void **state) {
    char bytes[64], out[DETOK_MAX(64)];
    unsigned seed = 7;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        detok d = {0};
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1103515245u + 12345u;
            bytes[i] = (char)(0x80 | (seed >> 16 & 0x7F));
        }
        size_t n = detok_push(&d, bytes, sizeof bytes, out);
        assert_true(n + detok_finish(&d, out + n) <= sizeof out);
        assert_int_equal(detok_finish(&d, out), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(piece_of_a_token_is_its_bytes_and_of_an_added_one_its_text),
        cmocka_unit_test(ids_without_a_token_have_no_piece),
        cmocka_unit_test(begin_and_end_tokens_are_those_of_the_config),
        cmocka_unit_test(encoding_into_too_small_an_array_counts_on_and_writes_no_further),
        cmocka_unit_test(no_text_of_a_user_becomes_a_control_token),
        cmocka_unit_test(neither_merges_nor_whole_words_make_a_control_token),
        cmocka_unit_test(streaming_never_splits_a_character),
        cmocka_unit_test(streaming_stays_within_the_room_it_asks_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
