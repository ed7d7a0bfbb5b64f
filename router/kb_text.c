/* Normal form and features of the knowledge base's texts, by utf8proc. See kb_text.h. */
#include "router/kb_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool is_apostrophe(utf8proc_int32_t c) {
    return c == '\'' || c == 0x2019 || c == 0x02BC;
}

static bool belongs_to_words(utf8proc_int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO);
}

/* Scripts whose words are not set apart by spaces, or (Hangul) carry endings that hide the word. */
static bool is_dense(utf8proc_int32_t c) {
    static const utf8proc_int32_t ranges[][2] = {
        {0x0E00, 0x0EFF}, {0x1000, 0x109F}, {0x1100, 0x11FF}, {0x1780, 0x17FF},
        {0x2E80, 0x9FFF}, {0xAC00, 0xD7FF}, {0xF900, 0xFAFF}, {0x20000, 0x3FFFF},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    }
    return false;
}

/* The code point at s.p + at; its length, at least 1 so that a walk always ends. */
static size_t code_point(mr_str s, size_t at, utf8proc_int32_t *c) {
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s.p + at, (utf8proc_ssize_t)(s.n - at), c);
    if (n > 0) return (size_t)n;
    *c = ' ';
    return 1;
}

static void put_words(mr_str folded, mr_buf *out) {
    size_t start = out->n, n;
    bool gap = false;
    for (size_t at = 0; at < folded.n; at += n) {
        utf8proc_int32_t c;
        n = code_point(folded, at, &c);
        if (is_apostrophe(c)) continue;
        if (!belongs_to_words(c)) {
            gap = true;
            continue;
        }
        if (gap && out->n > start) mr_buf_put(out, " ", 1);
        gap = false;
        mr_buf_put(out, folded.p + at, n);
    }
}

int mr_kb_normalize(mr_str text, mr_buf *out, mr_error *err) {
    utf8proc_uint8_t *folded = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.p, (utf8proc_ssize_t)text.n, &folded,
                                      UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE |
                                          UTF8PROC_CASEFOLD | UTF8PROC_IGNORE);
    if (n < 0) return mr_fail(err, MR_EINVAL, "the text cannot be normalised: %s", utf8proc_errmsg(n));
    put_words((mr_str){(const char *)folded, (size_t)n}, out);
    free(folded);
    return out->failed ? mr_fail(err, MR_ETOOBIG, "the text is too long to be a question") : 0;
}

static void word_features(mr_str norm, mr_kb_feature_cb *cb, void *arg) {
    size_t word = 0, before = 0, n; /* starts of the word, and of the dense character before this one */
    bool in_word = false, after_dense = false;
    for (size_t at = 0; at < norm.n; at += n) {
        utf8proc_int32_t c;
        n = code_point(norm, at, &c);
        bool dense = is_dense(c), plain = !dense && c != ' ';
        if (in_word && !plain) cb(arg, MR_KB_WORD, (mr_str){norm.p + word, at - word});
        if (plain && !in_word) word = at;
        if (dense) cb(arg, MR_KB_WORD, (mr_str){norm.p + at, n});
        if (dense && after_dense) cb(arg, MR_KB_WORD, (mr_str){norm.p + before, at + n - before});
        in_word = plain;
        after_dense = dense;
        before = at;
    }
    if (in_word) cb(arg, MR_KB_WORD, (mr_str){norm.p + word, norm.n - word});
}

static void trigram_features(mr_str norm, mr_kb_feature_cb *cb, void *arg) {
    size_t starts[2] = {0, 0}, n; /* of the two characters before this one */
    int seen = 0;
    for (size_t at = 0; at < norm.n; at += n) {
        utf8proc_int32_t c;
        n = code_point(norm, at, &c);
        if (seen >= 2) cb(arg, MR_KB_TRIGRAM, (mr_str){norm.p + starts[0], at + n - starts[0]});
        starts[0] = starts[1];
        starts[1] = at;
        seen++;
    }
}

void mr_kb_features(mr_str norm, mr_kb_feature_cb *cb, void *arg) {
    word_features(norm, cb, arg);
    trigram_features(norm, cb, arg);
}
