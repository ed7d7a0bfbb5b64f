/* How the knowledge base reads text: the tokens by which two texts are compared.
 *
 * Of a text in words form (text_norm.h) these are: the stems (text_stem.h) of its words; in scripts written without
 * spaces (Chinese, Japanese, Thai…) and in Korean every character and every pair of neighbours; and of other words the
 * trigrams with a space at either end, which forgive a typo or an ending. A trigram begins with MR_KB_TRIGRAM_MARK.
 * Pure functions; any thread.
 */
#ifndef MR_KB_TEXT_H
#define MR_KB_TEXT_H

#include "base/str.h"

#define MR_KB_QUESTION_MAX 1000 /* bytes; what is longer is no routine question */
#define MR_KB_TOKENS_MAX                                                                                     \
    (2 * MR_KB_QUESTION_MAX + 8) /* a byte begins at most a word or pair, and a trigram */
#define MR_KB_TRIGRAM_MARK '~'   /* no word has it */

/* Returns 0 to go on. */
typedef int mr_kb_token_cb(void *arg, mr_str token);

/* Calls back for each token, repeated ones included; a token is there only during the call. What the callback returns
 * ends it, and is returned. */
int mr_kb_tokens(mr_str words, mr_kb_token_cb *cb, void *arg);

/* 32 bits that stand for a token; never 0. */
uint32_t mr_kb_token_hash(mr_str token);

static inline bool mr_kb_is_trigram(mr_str token) {
    return token.n > 0 && token.p[0] == MR_KB_TRIGRAM_MARK;
}

#endif
