/* UTF-8, one character at a time. */
#ifndef ENGINE_TEXT_UTF8_H
#define ENGINE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT     "\xEF\xBF\xBD" /* U+FFFD */
#define UTF8_REPLACEMENT_LEN 3

typedef enum {
    UTF8_WHOLE,   /* a character of *len bytes, its code point in *c */
    UTF8_PARTIAL, /* the n bytes may become a character when more follow */
    UTF8_BAD,     /* *len bytes can never become one: they stand for one U+FFFD */
} utf8_kind;

/* Looks at the first character of s[0..n), n > 0. Bad bytes are grouped as Unicode recommends and as Python and Rust do
 * (a maximal subpart of a character is replaced as a whole). */
utf8_kind utf8_next(const char *s, size_t n, uint32_t *c, size_t *len);

/* Length of the longest prefix that is valid UTF-8. */
size_t utf8_valid_prefix(const char *s, size_t n);
/* Copies s to out with U+FFFD for what is not UTF-8; out takes at least 3 * n bytes. Returns the length. */
size_t utf8_repair(const char *s, size_t n, char *out);
/* Writes c (not a surrogate, below 0x110000) and returns its length, 1 to 4. */
size_t utf8_put(uint32_t c, char out[4]);

/* Code point of the valid character that starts at s, and that ends before s. */
uint32_t utf8_first(const char *s, const char *end, size_t *len);
uint32_t utf8_last(const char *begin, const char *s, size_t *len);

bool utf8_is_space(uint32_t c); /* White_Space */

#endif
