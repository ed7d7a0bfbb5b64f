/* Normal form by utf8proc and the table of Chinese characters. See text_norm.h. */
#include "text/text_norm.h"

#include <stdlib.h>
#include <utf8proc.h>

enum { ASCII_MAX = 2048 }; /* bytes of a text that is folded without a buffer of its own */

typedef struct han_pair {
    uint16_t traditional, simplified;
} han_pair;

static const han_pair han_pairs[] = {
#include "text/han_fold.def"
};

static bool is_apostrophe(int32_t c) {
    return c == '\'' || c == 0x2019 || c == 0x02BC;
}

static bool belongs_to_words(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO);
}

bool mr_text_is_dense(int32_t c) {
    static const int32_t ranges[][2] = {
        {0x0E00, 0x0EFF}, {0x1000, 0x109F}, {0x1100, 0x11FF}, {0x1780, 0x17FF},
        {0x2E80, 0x9FFF}, {0xAC00, 0xD7FF}, {0xF900, 0xFAFF}, {0x20000, 0x3FFFF},
    };
    if (c < ranges[0][0]) return false;
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    }
    return false;
}

size_t mr_text_char(mr_str s, size_t at, int32_t *c) {
    unsigned char first = (unsigned char)s.p[at];
    if (first < 0x80) {
        *c = first;
        return 1;
    }
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s.p + at, (utf8proc_ssize_t)(s.n - at), c);
    if (n > 0) return (size_t)n;
    *c = ' ';
    return 1;
}

static int by_traditional(const void *key, const void *pair) {
    int32_t c = *(const int32_t *)key, t = ((const han_pair *)pair)->traditional;
    return (c > t) - (c < t);
}

int32_t mr_text_fold_han(int32_t c) {
    if (c < 0x3400 || c > 0xFFFF) return c;
    const han_pair *p =
        bsearch(&c, han_pairs, sizeof han_pairs / sizeof han_pairs[0], sizeof han_pairs[0], by_traditional);
    return p ? p->simplified : c;
}

/* `from` is the UTF-8 of `c` as it stands in the text. */
static void put_char(mr_buf *out, int32_t c, mr_str from) {
    utf8proc_uint8_t bytes[4];
    int32_t folded = mr_text_fold_han(c);
    if (folded == c) {
        mr_buf_put(out, from.p, from.n);
    } else {
        mr_buf_put(out, bytes, (size_t)utf8proc_encode_char(folded, bytes));
    }
}

static void put_all(mr_str folded, mr_buf *out) {
    size_t n;
    for (size_t at = 0; at < folded.n; at += n) {
        int32_t c;
        n = mr_text_char(folded, at, &c);
        put_char(out, c, (mr_str){folded.p + at, n});
    }
}

static void put_words(mr_str folded, mr_buf *out) {
    size_t start = out->n, n;
    bool gap = false;
    for (size_t at = 0; at < folded.n; at += n) {
        int32_t c;
        n = mr_text_char(folded, at, &c);
        if (is_apostrophe(c)) continue;
        if (!belongs_to_words(c)) {
            gap = true;
            continue;
        }
        if (gap && out->n > start) mr_buf_put(out, " ", 1);
        gap = false;
        put_char(out, c, (mr_str){folded.p + at, n});
    }
}

static int room_left(const mr_buf *out, mr_error *err) {
    if (!out->failed) return 0;
    return mr_fail(err, MR_ETOOBIG, "the text in normal form is longer than %zu bytes", out->max);
}

/* The normal form of ASCII is its small letters, for which nothing has to be decomposed. False: there is more in the text. */
static bool fold_ascii(mr_str text, char out[ASCII_MAX]) {
    if (text.n > ASCII_MAX) return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x80) return false;
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    return true;
}

static int fold_into(mr_str text, mr_buf *out, void (*put)(mr_str folded, mr_buf *out), mr_error *err) {
    char plain[ASCII_MAX];
    utf8proc_uint8_t *folded = NULL;
    utf8proc_ssize_t n;
    if (fold_ascii(text, plain)) {
        put((mr_str){plain, text.n}, out);
        return room_left(out, err);
    }
    n = utf8proc_map((const utf8proc_uint8_t *)text.p, (utf8proc_ssize_t)text.n, &folded,
                     UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD |
                         UTF8PROC_IGNORE);
    if (n < 0) return mr_fail(err, MR_EINVAL, "the text cannot be normalised: %s", utf8proc_errmsg(n));
    put((mr_str){(const char *)folded, (size_t)n}, out);
    free(folded);
    return room_left(out, err);
}

int mr_text_fold(mr_str text, mr_buf *out, mr_error *err) {
    return fold_into(text, out, put_all, err);
}

int mr_text_words(mr_str text, mr_buf *out, mr_error *err) {
    return fold_into(text, out, put_words, err);
}
