/* Search by binary narrowing over the sorted tokens: at each place the range of tokens that begin as the text does shrinks
 * byte by byte. Sets are built at load and then only read, by any thread. */
#include "engine/text/added.h"

#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

#include <stdlib.h>
#include <string.h>

int added_add(added_set *a, const added_token *t) {
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 64;
        added_token *tokens = realloc(a->tokens, cap * sizeof *tokens);
        if (tokens == NULL) return -1;
        a->tokens = tokens;
        a->cap = cap;
    }
    char *content = malloc(t->len);
    if (content == NULL) return -1;
    memcpy(content, t->content, t->len);
    a->tokens[a->n] = *t;
    a->tokens[a->n++].content = content;
    a->first[(unsigned char)content[0]] = true;
    return 0;
}

static int compare(const void *x, const void *y) {
    const added_token *a = x, *b = y;
    int order = memcmp(a->content, b->content, a->len < b->len ? a->len : b->len);

    if (order != 0) return order;
    return (a->len > b->len) - (a->len < b->len);
}

void added_sort(added_set *a) {
    if (a->n > 1) qsort(a->tokens, a->n, sizeof *a->tokens, compare);
}

void added_done(added_set *a) {
    for (size_t i = 0; i < a->n; i++) free(a->tokens[i].content);
    free(a->tokens);
    *a = (added_set){0};
}

/* First of tokens[lo..hi), all longer than depth, whose byte at depth is at least b. */
static size_t bound(const added_set *a, size_t lo, size_t hi, size_t depth, int b) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)a->tokens[mid].content[depth] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static const added_token *longest_at(const added_set *a, const char *s, size_t n) {
    const added_token *best = NULL;
    size_t lo = 0, hi = a->n;

    for (size_t depth = 0; lo < hi; depth++) {
        /* the token that ends here is sorted before those that go on */
        for (; lo < hi && a->tokens[lo].len == depth; lo++) best = &a->tokens[lo];
        if (depth == n) break;
        int b = (unsigned char)s[depth];
        lo = bound(a, lo, hi, depth, b);
        hi = bound(a, lo, hi, depth, b + 1);
    }
    return best;
}

static bool is_single_word(const char *s, size_t n, size_t start, size_t end) {
    size_t len;
    bool before = start > 0 && unicode_is_word(utf8_last(s, s + start, &len));
    bool after = end < n && unicode_is_word(utf8_first(s + end, s + n, &len));

    return !before && !after;
}

static size_t spaces_before(const char *s, size_t start, size_t least) {
    for (size_t len; start > least && utf8_is_space(utf8_last(s, s + start, &len));) start -= len;
    return start;
}

static size_t spaces_after(const char *s, size_t n, size_t end) {
    for (size_t len; end < n && utf8_is_space(utf8_first(s + end, s + n, &len));) end += len;
    return end;
}

/* Cuts out one match at [start, end); *done is where the text not yet handed out begins. */
static int cut(const added_token *t, const char *s, size_t n, size_t start, size_t end, size_t *done,
               const added_sink *to, engine_error *err) {
    if (t->lstrip) start = spaces_before(s, start, *done);
    if (t->rstrip) end = spaces_after(s, n, end);
    if (start > *done && to->text(to->ctx, s + *done, start - *done, err) != 0) return -1;
    to->token(to->ctx, t->id);
    *done = end;
    return 0;
}

int added_split(const added_set *a, const char *s, size_t n, bool with_control, const added_sink *to,
                engine_error *err) {
    size_t done = 0;

    for (size_t at = 0; a->n > 0 && at < n;) {
        const added_token *t = a->first[(unsigned char)s[at]] ? longest_at(a, s + at, n - at) : NULL;
        if (t == NULL) {
            at++;
            continue;
        }
        bool wanted =
            (with_control || !t->control) && (!t->single_word || is_single_word(s, n, at, at + t->len));
        if (wanted && cut(t, s, n, at, at + t->len, &done, to, err) != 0) return -1;
        at += t->len;
    }
    return done < n ? to->text(to->ctx, s + done, n - done, err) : 0;
}
