/* Properties of characters, and where the tables of our libraries and those of the reference (HuggingFace tokenizers) differ.
 *
 * PCRE2 10.42 knows Unicode 14; the reference's regexes know 16, and models were trained with what they do: an emoji of 2022
 * is a symbol there. The reference's normalizers are the other way round: older than utf8proc, they leave later characters
 * alone. */
#ifndef ENGINE_TEXT_UNICODE_H
#define ENGINE_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Scripts whose newer characters are known: the only ones that can be asked for. */
bool unicode_has_script(const char *name);
/* Calls fn with each range of characters of a general category ("L", "Lu"…) or script that PCRE2 may not know yet. */
void unicode_newer(const char *of, void (*fn)(void *ctx, uint32_t lo, uint32_t hi), void *ctx);
/* True for a character that normalization leaves as it is, and that stops composition and reordering across it. */
bool unicode_unnormalized(uint32_t c);

/* \w as the reference's added tokens see it: letters, marks, digits, connectors, joiners. */
bool unicode_is_word(uint32_t c);

#endif
