/* The features of a message; see intent_text.h. */
#include "router/intent_text.h"

#include "text/text_norm.h"

#include <string.h>

enum { RUN_MAX = 5, EDGE = 1 /* the token before the first and after the last word */ };

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

/* `before` are the last word and the one ahead of it. */
static void add_word(mr_intent_features *out, uint64_t word, uint64_t before[2], uint32_t mask) {
    add(out, word, MR_INTENT_WORD, mask);
    add(out, mix(mix(2, before[0]), word), MR_INTENT_WORD, mask);
    if (out->words > 0) add(out, mix(mix(7, before[1]), word), MR_INTENT_WORD, mask);
    before[1] = before[0];
    before[0] = word;
    out->words++;
}

/* `c` are n code points, with a space at each end. */
static void add_words(const int32_t *c, int n, mr_intent_features *out, uint32_t mask) {
    uint64_t word = 0, before[2] = {EDGE, EDGE}; /* word 0: not within one */
    for (int i = 0; i < n; i++) {
        bool dense = mr_text_is_dense(c[i]);
        if ((dense || c[i] == ' ') && word) {
            add_word(out, word, before, mask);
            word = 0;
        }
        if (dense) {
            add_word(out, mix(3, (uint64_t)c[i]), before, mask);
        } else if (c[i] != ' ') {
            word = mix(word ? word : 3, (uint64_t)c[i]);
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
