/* NFC and NFKC: utf8proc decomposes and composes; the ordering of marks between is ours, because utf8proc's is quadratic
 * and the text is anyone's. Pure functions, any thread; the working memory is of one call. */
#include "engine/text/normalize.h"

#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

#include <stdlib.h>
#include <utf8proc.h>

/* The longest decomposition of one character is 18 code points (U+FDFA). */
#define DECOMPOSED_MAX 32

/* Code points between two characters that nothing combines across. */
struct segment {
    utf8proc_int32_t *cp;
    size_t n, cap;
};

/* Characters that are in NFC whatever stands beside them, as long as their neighbours are such ones too. */
static bool is_inert(normalize_form form, uint32_t c) {
    if (c < 0x80) return true;
    if (form == NORMALIZE_NFKC) return c >= 0x4E00 && c <= 0x9FFF;
    return c < 0x300 || (c >= 0x2010 && c <= 0x2027) || (c >= 0x3000 && c <= 0x3029) ||
           (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A1 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) ||
           (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xFF01 && c <= 0xFFEF);
}

static bool is_normal(normalize_form form, const char *s, size_t n) {
    size_t len;

    for (size_t at = 0; at < n; at += len)
        if (!is_inert(form, utf8_first(s + at, s + n, &len))) return false;
    return true;
}

static int combining_class(utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
}

static int compare_keys(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Stable sort by combining class of a run of marks: the key is (class, place, code point). */
static int order_run(utf8proc_int32_t *cp, size_t n) {
    uint64_t *keys = malloc(n * sizeof *keys);
    if (keys == NULL) return -1;
    for (size_t i = 0; i < n; i++)
        keys[i] = (uint64_t)combining_class(cp[i]) << 56 | (uint64_t)i << 21 | (uint64_t)cp[i];
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n; i++) cp[i] = (utf8proc_int32_t)(keys[i] & 0x1FFFFF);
    free(keys);
    return 0;
}

static int order_marks(utf8proc_int32_t *cp, size_t n) {
    for (size_t i = 0, end; i < n; i = end) {
        int last = combining_class(cp[i]);
        bool ordered = true;
        end = i + 1;
        if (last == 0) continue;
        for (int now; end < n && (now = combining_class(cp[end])) != 0; end++) {
            if (now < last) ordered = false;
            last = now;
        }
        if (!ordered && order_run(cp + i, end - i) != 0) return -1;
    }
    return 0;
}

/* Orders, composes and writes out what has been gathered. */
static int flush(struct segment *g, text_buf *out) {
    if (g->n == 0) return 0;
    if (order_marks(g->cp, g->n) != 0) return -1;
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(g->cp, (utf8proc_ssize_t)g->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        char *to = text_buf_room(out, 4);
        if (to == NULL) return -1;
        out->len += utf8_put((uint32_t)g->cp[i], to);
    }
    g->n = 0;
    return 0;
}

static int grow(struct segment *g) {
    if (g->cap - g->n >= DECOMPOSED_MAX) return 0;
    size_t cap = g->cap ? g->cap * 2 : 256;
    utf8proc_int32_t *cp = realloc(g->cp, cap * sizeof *cp);
    if (cp == NULL) return -1;
    g->cp = cp;
    g->cap = cap;
    return 0;
}

static int add(struct segment *g, normalize_form form, uint32_t c) {
    int opt = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (form == NORMALIZE_NFKC ? UTF8PROC_COMPAT : 0);

    if (grow(g) != 0) return -1;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, g->cp + g->n, DECOMPOSED_MAX, opt, NULL);
    if (n < 0 || n > DECOMPOSED_MAX) return -1;
    g->n += (size_t)n;
    return 0;
}

int normalize(normalize_form form, const char *s, size_t n, text_buf *out, engine_error *err) {
    struct segment g = {0};
    size_t len;
    int rc = 1;

    if (form == NORMALIZE_NONE || is_normal(form, s, n)) return 0;
    for (size_t at = 0; at < n && rc == 1; at += len) {
        uint32_t c = utf8_first(s + at, s + n, &len);
        if (!unicode_unnormalized(c)) {
            if (add(&g, form, c) != 0) rc = -1;
        } else if (flush(&g, out) != 0) {
            rc = -1;
        } else {
            text_buf_put(out, s + at, len);
        }
    }
    if (rc == 1 && flush(&g, out) != 0) rc = -1;
    if (out->failed) rc = -1;
    free(g.cp);
    return rc == 1 ? 1
                   : engine_fail(err, ENGINE_ENOMEM, "out of memory while normalizing %zu bytes of text", n);
}
