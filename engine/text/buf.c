/* The growing buffer. Owned by its caller, one thread. */
#include "engine/text/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *text_buf_room(text_buf *b, size_t n) {
    if (b->failed) return NULL;
    if (n <= b->cap - b->len) return b->data + b->len;
    size_t cap = b->cap < 256 ? 256 : b->cap;
    while (cap - b->len < n) {
        if (cap > SIZE_MAX / 2) goto fail;
        cap *= 2;
    }
    char *data = realloc(b->data, cap);
    if (data == NULL) goto fail;
    b->data = data;
    b->cap = cap;
    return b->data + b->len;
fail:
    b->failed = true;
    return NULL;
}

void text_buf_put(text_buf *b, const void *s, size_t n) {
    if (n == 0) return;
    char *to = text_buf_room(b, n);
    if (to == NULL) return;
    memcpy(to, s, n);
    b->len += n;
}

void text_buf_puts(text_buf *b, const char *s) {
    text_buf_put(b, s, strlen(s));
}

void text_buf_printf(text_buf *b, const char *fmt, ...) {
    char line[128];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof line)
        b->failed = true;
    else
        text_buf_put(b, line, (size_t)n);
}

void text_buf_done(text_buf *b) {
    free(b->data);
    *b = (text_buf){0};
}
