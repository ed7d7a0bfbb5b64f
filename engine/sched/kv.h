/* The blocks of the KV cache: who holds them, which are free, and which prefix of text the free ones still know.
 *
 * A block is `block_tokens` positions of one sequence in every layer; its bytes are the backend's, here it is a number. A
 * kv_table lists the blocks of one sequence in order of position. A full block whose positions have been computed is
 * published: a later sequence that begins with the same tokens (and the same salt) takes it into its own table instead
 * of computing it again. A block nobody holds is free, but keeps what it knows until it is taken for something else: the
 * one unused for the longest time goes first, and of one sequence the end before the beginning.
 *
 * A block may be in several tables, as a prefix that they share or since one was made as a fork of the other. Only full
 * blocks are shared for good: whoever is to write into a block that others hold too takes a copy first (kv_table_split).
 *
 * Published blocks are found by (the block before, own tokens), compared in full: the hash only finds the candidates, so
 * no two prefixes can be mistaken for each other.
 *
 * All memory is taken by kv_pool_new. Not thread-safe: a pool belongs to its scheduler.
 */
#ifndef ENGINE_SCHED_KV_H
#define ENGINE_SCHED_KV_H

#include "engine/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct kv_pool kv_pool;

/* Where one sequence's positions are. `block` is the sequence's own memory, large enough for its longest; the owner sets
 * `salt` before the first use. */
typedef struct kv_table {
    int32_t *block;
    int n;
    uint64_t salt;  /* only prefixes of the same salt are shared */
    int npublished; /* blocks at the front that are published, here or as another's equal block */
    uint64_t chain; /* name of the last of them */
} kv_table;

kv_pool *kv_pool_new(int blocks, int block_tokens, engine_error *err);
void kv_pool_free(kv_pool *p);

int kv_pool_blocks(const kv_pool *p);
int kv_pool_free_blocks(const kv_pool *p);
int kv_pool_holders(const kv_pool *p, int32_t block);

/* Fills an empty table with the published blocks of the longest known prefix of tokens[0..n); returns the positions that
 * they cover. */
int kv_table_reuse(kv_pool *p, kv_table *t, const int32_t *tokens, int n);
/* Blocks that the table lacks to cover `tokens` positions. */
int kv_table_lacks(const kv_pool *p, const kv_table *t, int tokens);
/* Makes the table cover `tokens` positions, with blocks of its own. All or nothing: false when too few are free. */
bool kv_table_grow(kv_pool *p, kv_table *t, int tokens);
/* Positions 0 .. n-1, of these tokens, have been computed. */
void kv_table_publish(kv_pool *p, kv_table *t, const int32_t *tokens, int n);
/* A fork: `to`, which is empty, gets the first `n` blocks of `from`. */
void kv_table_share(kv_pool *p, const kv_table *from, kv_table *to, int n);
/* Is the block at this index there, and in another table too? */
bool kv_table_is_shared(const kv_pool *p, const kv_table *t, int index);
/* Puts a new block in the place of a shared one, whose number is returned: its content is to be copied. At least one block
 * is free. */
int32_t kv_table_split(kv_pool *p, kv_table *t, int index);
/* Drops all blocks. */
void kv_table_release(kv_pool *p, kv_table *t);

#endif
