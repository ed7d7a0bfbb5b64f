/* Regular expressions of tokenizer.json, run by PCRE2.
 *
 * They are written for Oniguruma in its Ruby syntax, which HuggingFace tokenizers uses: ^ and $ mean lines, \h is a hex digit,
 * \s and \w are other sets than PCRE2's, and Unicode is newer. A pattern is translated, and what has no equal
 * translation is refused: a tokenizer that splits nearly right is worse than one that does not load. */
#ifndef ENGINE_TEXT_PATTERN_H
#define ENGINE_TEXT_PATTERN_H

#include "engine/error.h"

#include <stddef.h>

typedef struct pattern pattern; /* immutable, shared by threads */
/* Working memory of one thread's searches, of any pattern. */
typedef struct pattern_work pattern_work;

pattern *pattern_new(const char *regex, size_t n, engine_error *err);
pattern *pattern_new_literal(const char *text, size_t n, engine_error *err);
void pattern_free(pattern *p);

pattern_work *pattern_work_new(engine_error *err);
void pattern_work_free(pattern_work *w);

/* Finds the first match in s[0..n), valid UTF-8, at or after `from`. Returns 1 with its bounds, 0 for none, -1 with err. */
int pattern_find(const pattern *p, pattern_work *w, const char *s, size_t n, size_t from, size_t *start,
                 size_t *end, engine_error *err);

#endif
