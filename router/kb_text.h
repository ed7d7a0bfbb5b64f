/* How the knowledge base reads text: one normal form, and the features by which two texts are compared.
 *
 * Normal form is the words form of text_norm.h. Features: the words; in scripts written without spaces (Chinese,
 * Japanese, Thai…) and in Korean every character and every pair of neighbours; and all trigrams of characters, which
 * forgive a typo or an ending.
 * Pure functions; any thread.
 */
#ifndef MR_KB_TEXT_H
#define MR_KB_TEXT_H

#include "base/str.h"

#define MR_KB_QUESTION_MAX 1000 /* bytes; what is longer is no routine question */

typedef enum { MR_KB_WORD, MR_KB_TRIGRAM } mr_kb_feature_kind;

typedef void mr_kb_feature_cb(void *arg, mr_kb_feature_kind kind, mr_str feature);

/* Calls back for each feature of a text in normal form, repeated ones included; features borrow from `norm`. */
void mr_kb_features(mr_str norm, mr_kb_feature_cb *cb, void *arg);

#endif
