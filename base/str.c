/* Strings, growing buffers and arenas (see str.h). Plain memory, no threads: each object belongs to its user. */
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- slices ---- */

mr_str mr_str_of(const char *z) {
    return z ? (mr_str){z, strlen(z)} : (mr_str){"", 0};
}

bool mr_str_eq(mr_str a, mr_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

void mr_str_copy(mr_str s, char *out, size_t cap) {
    size_t n = s.n < cap ? s.n : cap - 1;
    if (n > 0) memcpy(out, s.p, n);
    out[n] = '\0';
}

void mr_hex(const unsigned char *bytes, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

int mr_hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool mr_str_eqz(mr_str a, const char *z) {
    return mr_str_eq(a, mr_str_of(z));
}

/* Bytes of the UTF-8 character at p (n bytes are left), or 0 when it is malformed. The ranges of the second
 * byte are those of table 3-7 of the Unicode standard: they rule out overlong forms and surrogates. */
static size_t utf8_char(const unsigned char *p, size_t n) {
    static const struct {
        unsigned char lead_min, lead_max, second_min, second_max;
        size_t bytes;
    } rows[] = {
        {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
        {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
        {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    if (p[0] < 0x80) return 1;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (p[0] < rows[i].lead_min || p[0] > rows[i].lead_max) continue;
        if (n < rows[i].bytes || p[1] < rows[i].second_min || p[1] > rows[i].second_max) return 0;
        for (size_t k = 2; k < rows[i].bytes; k++) {
            if ((p[k] & 0xC0) != 0x80) return 0;
        }
        return rows[i].bytes;
    }
    return 0;
}

bool mr_str_is_utf8(mr_str s) {
    for (size_t i = 0; i < s.n;) {
        size_t k = utf8_char((const unsigned char *)s.p + i, s.n - i);
        if (k == 0) return false;
        i += k;
    }
    return true;
}

size_t mr_str_utf8_char(mr_str s) {
    return s.n == 0 ? 0 : utf8_char((const unsigned char *)s.p, s.n);
}

/* ---- nearest word ---- */

#define NEAREST_MAX 64

/* Levenshtein's distance, one row at a time. */
static int distance(const char *a, size_t na, const char *b, size_t nb) {
    int row[NEAREST_MAX + 1];
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

void mr_nearest_try(mr_nearest *n, const char *word, const char *candidate) {
    size_t nw = strlen(word), nc = strlen(candidate);
    if (nw > NEAREST_MAX || nc > NEAREST_MAX) return;
    int d = distance(word, nw, candidate, nc);
    int near_enough = nw < 4 ? 1 : nw < 9 ? 2 : 3;
    if (d > near_enough || (n->best && d >= n->distance)) return;
    n->best = candidate;
    n->distance = d;
}

/* ---- buffers ---- */

void mr_buf_init(mr_buf *b, size_t max) {
    *b = (mr_buf){.max = max};
}

void mr_buf_done(mr_buf *b) {
    free(b->p);
    *b = (mr_buf){0};
}

void mr_buf_clear(mr_buf *b) {
    b->n = 0;
    b->failed = false;
}

/* Room for n more bytes and the NUL that keeps .p printable; false (and failed) when there cannot be. */
static bool buf_room(mr_buf *b, size_t n) {
    if (b->failed) return false;
    if (n > b->max || b->n > b->max - n) {
        b->failed = true;
        return false;
    }
    size_t need = b->n + n + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap < 128 ? 128 : b->cap;
    while (cap < need) cap += cap / 2;
    char *p = realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void mr_buf_put(mr_buf *b, const void *p, size_t n) {
    if (!buf_room(b, n)) return;
    if (n > 0) memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void mr_buf_puts(mr_buf *b, const char *z) {
    mr_buf_put(b, z, strlen(z));
}

void mr_buf_printf(mr_buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!buf_room(b, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

mr_str mr_buf_str(const mr_buf *b) {
    return (mr_str){b->p ? b->p : "", b->n};
}

/* ---- arenas ---- */

#define ARENA_ALIGN       16
#define ARENA_FIRST_CHUNK 4096
#define ARENA_LAST_CHUNK  (256u << 10) /* chunks double up to this; a larger allocation has one of its own */

typedef struct chunk {
    struct chunk *next;
    size_t used, size; /* of data */
    _Alignas(ARENA_ALIGN) unsigned char data[];
} chunk;

struct mr_arena {
    chunk *top; /* the one that allocations come from; older ones behind it */
    size_t max, taken;
};

mr_arena *mr_arena_new(size_t max) {
    mr_arena *a = calloc(1, sizeof(*a));
    if (a) a->max = max;
    return a;
}

/* Free all chunks but `keep` (or all, when it is NULL). */
static void arena_drop(mr_arena *a, chunk *keep) {
    chunk *next;
    for (chunk *c = a->top; c; c = next) {
        next = c->next;
        if (c == keep) continue;
        a->taken -= sizeof(*c) + c->size;
        free(c);
    }
    a->top = keep;
    if (keep) keep->next = NULL;
}

void mr_arena_free(mr_arena *a) {
    if (!a) return;
    arena_drop(a, NULL);
    free(a);
}

void mr_arena_reset(mr_arena *a) {
    /* The newest ordinary chunk stays, so that a reused arena settles at one chunk and no system calls. */
    chunk *keep = a->top;
    while (keep && keep->size > ARENA_LAST_CHUNK) keep = keep->next;
    arena_drop(a, keep);
    if (keep) keep->used = 0;
}

static bool arena_grow(mr_arena *a, size_t n) {
    size_t size = a->top ? a->top->size * 2 : ARENA_FIRST_CHUNK;
    if (size > ARENA_LAST_CHUNK) size = ARENA_LAST_CHUNK;
    size_t left = a->max - a->taken;
    if (left < sizeof(chunk) || left - sizeof(chunk) < n) return false;
    if (size > left - sizeof(chunk)) size = left - sizeof(chunk);
    if (size < n) size = n;
    chunk *c = malloc(sizeof(*c) + size);
    if (!c) return false;
    *c = (chunk){.next = a->top, .size = size};
    a->taken += sizeof(*c) + size;
    a->top = c;
    return true;
}

void *mr_arena_alloc(mr_arena *a, size_t n) {
    if (n > a->max) return NULL; /* also keeps the rounding below from wrapping */
    size_t need = (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (need == 0) need = ARENA_ALIGN;
    if (!a->top || a->top->size - a->top->used < need) {
        if (!arena_grow(a, need)) return NULL;
    }
    void *p = a->top->data + a->top->used;
    a->top->used += need;
    return memset(p, 0, need);
}

mr_str mr_arena_str(mr_arena *a, mr_str s) {
    char *p = s.n < SIZE_MAX ? mr_arena_alloc(a, s.n + 1) : NULL;
    if (!p) return (mr_str){NULL, 0};
    if (s.n > 0) memcpy(p, s.p, s.n);
    return (mr_str){p, s.n};
}
