/* The features of a message; see intent_text.h. */
#include "router/intent_text.h"

#include "text/text_norm.h"

#include <string.h>

enum {
    RUN_MAX = 5,
    EDGE = 1,       /* the token before the first and after the last word */
    DIGITS_MAX = 7, /* numbers of so many digits, and of more, are alike */
};

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

static void add(mr_intent_features *out, uint64_t h, mr_intent_kind kind, uint32_t mask) {
    h = (h ^ h >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    uint32_t hash = (uint32_t)(h >> 32 & ~UINT64_C(1)) | (uint32_t)kind;
    if (hash == 0) hash = 2;
    uint32_t i = hash >> 1 & mask;
    while (out->slots[i] != 0 && out->v[out->slots[i] - 1].hash != hash) i = (i + 1) & mask;
    if (out->slots[i] != 0) {
        out->v[out->slots[i] - 1].times++;
    } else if (out->n < MR_INTENT_FEATURES_MAX) {
        out->v[out->n++] = (mr_intent_feature){hash, 1};
        out->slots[i] = (uint16_t)out->n;
    }
}

/* A word in the making; one of digits alone is a number. */
typedef struct word {
    uint64_t hash; /* 0: none has begun */
    int digits, others;
} word;

/* `before` are the last token and the one ahead of it. */
static void add_token(mr_intent_features *out, uint64_t token, uint64_t before[2], uint32_t mask) {
    add(out, token, MR_INTENT_WORD, mask);
    add(out, mix(mix(2, before[0]), token), MR_INTENT_WORD, mask);
    if (out->words > 0) add(out, mix(mix(7, before[1]), token), MR_INTENT_WORD, mask);
    before[1] = before[0];
    before[0] = token;
    out->words++;
}

/* Which number it is matters least of all, so beside others it is one of so many digits. */
static void add_word(mr_intent_features *out, word *w, uint64_t before[2], uint32_t mask) {
    uint64_t token = w->hash;
    if (w->digits > 0 && w->others == 0) {
        add(out, w->hash, MR_INTENT_WORD, mask);
        token = mix(13, (uint64_t)(w->digits < DIGITS_MAX ? w->digits : DIGITS_MAX));
    }
    add_token(out, token, before, mask);
    *w = (word){0};
}

static void grow_word(word *w, int32_t c) {
    bool digit = c >= '0' && c <= '9';
    w->hash = mix(w->hash ? w->hash : 3, (uint64_t)c);
    w->digits += digit;
    w->others += !digit;
}

/* `c` are n code points, with a space at each end. */
static void add_words(const int32_t *c, int n, mr_intent_features *out, uint32_t mask) {
    uint64_t before[2] = {EDGE, EDGE};
    word w = {0};
    for (int i = 0; i < n; i++) {
        bool dense = mr_text_is_dense(c[i]);
        if ((dense || c[i] == ' ') && w.hash) add_word(out, &w, before, mask);
        if (dense) {
            add_token(out, mix(3, (uint64_t)c[i]), before, mask);
        } else if (c[i] != ' ') {
            grow_word(&w, c[i]);
        }
    }
    add(out, mix(mix(2, before[0]), EDGE), MR_INTENT_WORD, mask);
}

static void add_runs(const int32_t *c, int n, mr_intent_features *out, uint32_t mask) {
    for (int i = 0; i < n; i++) {
        uint64_t h = 5;
        for (int k = 0; k < RUN_MAX && i + k < n; k++) {
            h = mix(h, (uint64_t)c[i + k]);
            if (k > 0 || c[i] != ' ') add(out, h, MR_INTENT_RUN, mask);
            if (k > 0 && c[i + k] == ' ') break;
        }
    }
}

void mr_intent_features_of(mr_str words, mr_intent_features *out) {
    int32_t c[MR_INTENT_TEXT_MAX + 2];
    int n = 0;
    uint32_t slots = 64;
    out->n = out->words = 0;
    if (words.n > MR_INTENT_TEXT_MAX) words.n = MR_INTENT_TEXT_MAX;
    if (words.n == 0) return;
    c[n++] = ' ';
    for (size_t at = 0; at < words.n;) at += mr_text_char(words, at, &c[n++]);
    c[n++] = ' ';
    /* Only as many slots as this text needs, so that few have to be cleared. */
    while (slots < 16 * (uint32_t)n) slots *= 2;
    memset(out->slots, 0, slots * sizeof out->slots[0]);
    add_words(c, n, out, slots - 1);
    add_runs(c, n, out, slots - 1);
}
