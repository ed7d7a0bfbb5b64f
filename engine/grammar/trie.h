/* The tokens of a vocabulary as a trie in one array, in the order in which a walk meets its nodes: a walk that fails at a
 * node goes on behind the node's whole subtree. */
#ifndef ENGINE_GRAMMAR_TRIE_H
#define ENGINE_GRAMMAR_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRIE_DEPTH_MAX = 128 }; /* bytes of a token; longer ones are left out */

typedef struct trie_node {
    uint8_t byte, depth; /* depth of the first byte is 1 */
    int32_t token;       /* that ends here; -1: none */
    uint32_t skip;       /* nodes of the subtree, this one included */
} trie_node;

typedef struct trie {
    trie_node *v;
    uint32_t n, cap;
} trie;

typedef struct trie_word {
    const char *s;
    uint32_t n;
    int32_t token;
} trie_word;

/* Words are sorted in place. Where several are equal, `twin` (by token) leads from each to the next, -1 at the end. -1: out of
 * memory. */
int trie_build(trie *t, trie_word *words, size_t n, int32_t *twin);
void trie_done(trie *t);

#endif
