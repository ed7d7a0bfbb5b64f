/* See trie.h. Sorted words come in the order of a walk, so each only adds the nodes that it does not share with the one
 * before. Built once, then read only. */
#include "engine/grammar/trie.h"

#include <stdlib.h>
#include <string.h>

static int compare_words(const void *a, const void *b) {
    const trie_word *x = a, *y = b;
    int order = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    if (order) return order;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static trie_node *push(trie *t) {
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 1024;
        trie_node *v = realloc(t->v, cap * sizeof *v);
        if (!v) return NULL;
        t->v = v;
        t->cap = cap;
    }
    return &t->v[t->n++];
}

static uint32_t shared(const trie_word *a, const trie_word *b) {
    uint32_t n = 0;
    while (n < a->n && n < b->n && a->s[n] == b->s[n]) n++;
    return n;
}

/* A node's subtree ends where the next node of its depth or less begins. */
static void find_skips(trie *t) {
    uint32_t open[TRIE_DEPTH_MAX + 1], depth = 0;
    for (uint32_t i = 0; i <= t->n; i++) {
        uint32_t now = i < t->n ? t->v[i].depth : 0;
        for (; depth > 0 && depth >= now; depth--) t->v[open[depth]].skip = i - open[depth];
        if (i == t->n) break;
        depth = now;
        open[depth] = i;
    }
}

int trie_build(trie *t, trie_word *words, size_t n, int32_t *twin) {
    static const trie_word none = {"", 0, -1};
    const trie_word *last = &none;
    if (n) qsort(words, n, sizeof *words, compare_words);
    for (size_t i = 0; i < n; i++) {
        const trie_word *w = &words[i];
        uint32_t at = shared(last, w);
        if (at == w->n) {
            twin[last->token] = w->token;
        }
        for (; at < w->n; at++) {
            trie_node *node = push(t);
            if (!node) return -1;
            *node = (trie_node){(uint8_t)w->s[at], (uint8_t)(at + 1), at + 1 == w->n ? w->token : -1, 1};
        }
        last = w;
    }
    find_skips(t);
    return 0;
}

void trie_done(trie *t) {
    free(t->v);
    *t = (trie){0};
}
