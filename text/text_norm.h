/* The normal form of text, the same for the knowledge base, for intents and for whatever else compares what
 * people type.
 *
 * Folded text is Unicode NFKC with case folded, full and half width made one, traditional Chinese characters made
 * simplified ones (han_fold.def), and without what cannot be seen (zero-width characters, soft hyphens). Words
 * form is folded text of which letters, marks and digits stay; apostrophes go, everything else becomes one space.
 * Pure functions; any thread.
 */
#ifndef MR_TEXT_NORM_H
#define MR_TEXT_NORM_H

#include "base/error.h"
#include "base/str.h"

/* Append the text (UTF-8) in the form of their name. */
int mr_text_fold(mr_str text, mr_buf *out, mr_error *err);
int mr_text_words(mr_str text, mr_buf *out, mr_error *err);

/* The code point at s.p + at; its length, at least 1 so that a walk always ends. */
size_t mr_text_char(mr_str s, size_t at, int32_t *c);

/* The simplified form of a Chinese character, or the character itself. */
int32_t mr_text_fold_han(int32_t c);

/* Scripts whose words are not set apart by spaces, or (Hangul) carry endings that hide the word. */
bool mr_text_is_dense(int32_t c);

#endif
