/* Features of the knowledge base's texts. See kb_text.h. */
#include "router/kb_text.h"

#include "text/text_norm.h"

static void word_features(mr_str norm, mr_kb_feature_cb *cb, void *arg) {
    size_t word = 0, before = 0, n; /* starts of the word, and of the dense character before this one */
    bool in_word = false, after_dense = false;
    for (size_t at = 0; at < norm.n; at += n) {
        int32_t c;
        n = mr_text_char(norm, at, &c);
        bool dense = mr_text_is_dense(c), plain = !dense && c != ' ';
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
        int32_t c;
        n = mr_text_char(norm, at, &c);
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
