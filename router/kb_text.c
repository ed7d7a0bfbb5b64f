/* Tokens of the knowledge base's texts. See kb_text.h. */
#include "router/kb_text.h"

#include "schemas/hash.h"
#include "text/text_norm.h"
#include "text/text_stem.h"

#include <string.h>

uint32_t mr_kb_token_hash(mr_str token) {
    uint64_t h = mr_text_hash_feed(mr_text_hash_init(), token);
    uint32_t folded = (uint32_t)(h ^ h >> 32);
    return folded ? folded : 1;
}

/* `padded` is a word with a space before and behind it. */
static int trigrams(mr_str padded, mr_kb_token_cb *cb, void *arg) {
    char token[1 + 3 * 4] = {MR_KB_TRIGRAM_MARK};
    size_t starts[2] = {0, 0}, n; /* of the two characters before this one */
    int seen = 0;
    for (size_t at = 0; at < padded.n; at += n) {
        int32_t c;
        n = mr_text_char(padded, at, &c);
        if (seen++ >= 2) {
            size_t bytes = at + n - starts[0];
            memcpy(token + 1, padded.p + starts[0], bytes);
            int rc = cb(arg, (mr_str){token, 1 + bytes});
            if (rc != 0) return rc;
        }
        starts[0] = starts[1];
        starts[1] = at;
    }
    return 0;
}

static int word_tokens(mr_str word, mr_kb_token_cb *cb, void *arg) {
    char stem[MR_TEXT_STEM_MAX], padded[MR_KB_QUESTION_MAX + 2];
    int rc = cb(arg, mr_text_stem(word, stem));
    if (rc != 0 || word.n > MR_KB_QUESTION_MAX) return rc;
    padded[0] = padded[word.n + 1] = ' ';
    memcpy(padded + 1, word.p, word.n);
    return trigrams((mr_str){padded, word.n + 2}, cb, arg);
}

int mr_kb_tokens(mr_str words, mr_kb_token_cb *cb, void *arg) {
    size_t word = 0, before = 0, n; /* starts of the word, and of the dense character before this one */
    bool in_word = false, after_dense = false;
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < words.n; at += n) {
        int32_t c;
        n = mr_text_char(words, at, &c);
        bool dense = mr_text_is_dense(c), plain = !dense && c != ' ';
        if (in_word && !plain) rc = word_tokens((mr_str){words.p + word, at - word}, cb, arg);
        if (plain && !in_word) word = at;
        if (rc == 0 && dense) rc = cb(arg, (mr_str){words.p + at, n});
        if (rc == 0 && dense && after_dense) rc = cb(arg, (mr_str){words.p + before, at + n - before});
        in_word = plain;
        after_dense = dense;
        before = at;
    }
    if (rc == 0 && in_word) rc = word_tokens((mr_str){words.p + word, words.n - word}, cb, arg);
    return rc;
}
