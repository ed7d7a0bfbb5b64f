/* From Oniguruma's Ruby syntax to PCRE2's, for patterns compiled with UTF, UCP and MULTILINE. */
#ifndef ENGINE_TEXT_PATTERN_SYNTAX_H
#define ENGINE_TEXT_PATTERN_SYNTAX_H

#include "engine/error.h"
#include "engine/text/buf.h"

/* Appends the translation of s[0..n), valid UTF-8, to out. -1 with err for what cannot be said equally in PCRE2. */
int pattern_translate(const char *s, size_t n, text_buf *out, engine_error *err);

#endif
