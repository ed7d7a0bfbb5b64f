/* Unicode normalization as HuggingFace tokenizers does it. */
#ifndef ENGINE_TEXT_NORMALIZE_H
#define ENGINE_TEXT_NORMALIZE_H

#include "engine/error.h"
#include "engine/text/buf.h"

#include <stddef.h>

typedef enum { NORMALIZE_NONE, NORMALIZE_NFC, NORMALIZE_NFKC } normalize_form;

/* Normalizes valid UTF-8. Returns 1 with the result in out, 0 when the text already is in that form (out is not touched:
 * use the text itself), -1 with err. Linear in n, also for long runs of combining marks. */
int normalize(normalize_form form, const char *s, size_t n, text_buf *out, engine_error *err);

#endif
