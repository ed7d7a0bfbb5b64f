/* Cuts text into the pieces inside of which BPE merges: the pre_tokenizer of tokenizer.json. */
#ifndef ENGINE_TEXT_PRETOKENIZE_H
#define ENGINE_TEXT_PRETOKENIZE_H

#include "engine/error.h"

#include <jansson.h>
#include <stddef.h>

typedef struct pretokenizer pretokenizer; /* immutable, shared by threads */

/* Reads Sequence, Split, Digits and ByteLevel, which must be there and be the last: its bytes are what BPE works on. */
pretokenizer *pretokenizer_new(const json_t *spec, engine_error *err);
void pretokenizer_free(pretokenizer *p);

/* Takes one piece, in the order of the text; -1 with err stops. */
typedef int (*piece_fn)(void *ctx, const char *s, size_t n, engine_error *err);

/* s[0..n) is valid UTF-8. Pieces are borrowed for the call. */
int pretokenizer_run(const pretokenizer *p, const char *s, size_t n, piece_fn fn, void *ctx,
                     engine_error *err);

#endif
