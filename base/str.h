/* Strings with a length, growing buffers, and arenas.
 *
 * mr_str  borrows: who gave it says how long it lives. It may hold NUL bytes; text from an arena or a literal is
 *         NUL-terminated as well, so `.p` of such a string can go to printf.
 * mr_buf  owns: mr_buf_done frees. Growing past `max` (set at init, so no buffer is unbounded) sets `failed`
 *         and later writes are ignored: check once, at the end.
 * mr_arena owns everything allocated from it until mr_arena_reset or _done: one arena a message or request.
 * None of them is thread-safe; each belongs to one thread at a time.
 */
#ifndef MR_STR_H
#define MR_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mr_str {
    const char *p;
    size_t n;
} mr_str;

#define MR_STR(lit) ((mr_str){(lit), sizeof(lit) - 1})
#define MR_FMT(s)   (int)(s).n, (s).p /* for "%.*s" */

mr_str mr_str_of(const char *z); /* of a C string; NULL gives an empty one */
bool mr_str_eq(mr_str a, mr_str b);
bool mr_str_eqz(mr_str a, const char *z);
void mr_str_copy(mr_str s, char *out, size_t cap); /* as a C string; what does not fit is cut */
/* Hexadecimal, lower case: 2 * n digits and a NUL; what a digit is worth, or -1. */
void mr_hex(const unsigned char *bytes, size_t n, char *out);
int mr_hex_digit(char c);
bool mr_str_is_utf8(mr_str s);                     /* strict: no overlong forms, no surrogates */
size_t mr_str_utf8_char(mr_str s); /* bytes of the first character; 0 when there is none or it is malformed */

/* "Did you mean …?": starts as {0}; best stays NULL while nothing is near enough to be meant. */
typedef struct mr_nearest {
    const char *best; /* borrowed from the candidates */
    int distance;
} mr_nearest;
void mr_nearest_try(mr_nearest *n, const char *word, const char *candidate);

typedef struct mr_buf {
    char *p;
    size_t n, cap, max;
    bool failed;
} mr_buf;

void mr_buf_init(mr_buf *b, size_t max);
void mr_buf_done(mr_buf *b);
void mr_buf_clear(mr_buf *b); /* keeps the memory, forgets content and failure */
void mr_buf_put(mr_buf *b, const void *p, size_t n);
void mr_buf_puts(mr_buf *b, const char *z);
void mr_buf_printf(mr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
mr_str mr_buf_str(const mr_buf *b); /* borrowed until the next write */

typedef struct mr_arena mr_arena;

/* max: bytes that may be taken from the system in all; past it mr_arena_alloc returns NULL. */
mr_arena *mr_arena_new(size_t max);
void mr_arena_free(mr_arena *a);
void mr_arena_reset(mr_arena *a);
void *mr_arena_alloc(mr_arena *a, size_t n); /* zeroed, 16-byte aligned */
mr_str mr_arena_str(mr_arena *a, mr_str s);  /* a NUL-terminated copy; .p is NULL when out of room */

#endif
