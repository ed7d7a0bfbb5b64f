/* A growing run of bytes. Zeroed is empty; after a failed allocation it stays `failed` and takes nothing more, so that a
 * writer checks once, at the end. */
#ifndef ENGINE_TEXT_BUF_H
#define ENGINE_TEXT_BUF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct text_buf {
    char *data;
    size_t len, cap;
    bool failed;
} text_buf;

void text_buf_put(text_buf *b, const void *s, size_t n);
void text_buf_puts(text_buf *b, const char *s);
void text_buf_printf(text_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Room for n more bytes at the end, or NULL; the caller adds to len what it wrote. */
char *text_buf_room(text_buf *b, size_t n);
void text_buf_done(text_buf *b);

#endif
