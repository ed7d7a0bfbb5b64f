/* JSON as Python's json.dumps(…, ensure_ascii=False) writes it: what `tojson` in a chat template gives, and so what models have
 * seen. Appends to a buffer, whose `failed` says when memory ran out. No state. */
#ifndef ENGINE_TEXT_PYJSON_H
#define ENGINE_TEXT_PYJSON_H

#include "engine/text/buf.h"

#include <jansson.h>

/* indent: blanks a level, on lines of their own; 0: all on one line. */
void pyjson_put(text_buf *b, const json_t *v, int indent);
void pyjson_put_string(text_buf *b, const char *s, size_t n);

#endif
