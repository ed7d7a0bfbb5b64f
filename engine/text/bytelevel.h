/* GPT-2's spelling of bytes as printable characters, in which byte-level BPE vocabularies are written: 0x20 is "Ġ". */
#ifndef ENGINE_TEXT_BYTELEVEL_H
#define ENGINE_TEXT_BYTELEVEL_H

#include <stdbool.h>
#include <stddef.h>

/* Turns spelled text into the bytes it stands for (out takes n bytes). False when a character is not of that alphabet:
 * then the text is no spelling of bytes but itself. */
bool bytelevel_bytes(const char *s, size_t n, char *out, size_t *out_n);

#endif
