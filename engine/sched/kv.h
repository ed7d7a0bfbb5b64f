/* The blocks of the KV cache: which are free, and how many hold each of the others.
 *
 * A block is `block_tokens` positions of one sequence in every layer; its bytes are the backend's, here it is a number. A
 * kv_table lists the blocks of one sequence in order of position. A block may be in several tables (a shared prefix): it
 * goes back to the free list when the last holder drops it.
 *
 * All memory is taken by kv_pool_new. Not thread-safe: a pool belongs to its scheduler.
 */
#ifndef ENGINE_SCHED_KV_H
#define ENGINE_SCHED_KV_H

#include "engine/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct kv_pool kv_pool;

/* Where one sequence's positions are. `block` is the sequence's own memory, large enough for its longest. */
typedef struct kv_table {
    int32_t *block;
    int n;
} kv_table;

kv_pool *kv_pool_new(int blocks, int block_tokens, engine_error *err);
void kv_pool_free(kv_pool *p);

int kv_pool_blocks(const kv_pool *p);
int kv_pool_free_blocks(const kv_pool *p);
int kv_pool_holders(const kv_pool *p, int32_t block);

/* Blocks that the table lacks to cover `tokens` positions. */
int kv_table_lacks(const kv_pool *p, const kv_table *t, int tokens);
/* Makes the table cover `tokens` positions, with blocks of its own. All or nothing: false when too few are free. */
bool kv_table_grow(kv_pool *p, kv_table *t, int tokens);
/* Drops all blocks. */
void kv_table_release(kv_pool *p, kv_table *t);

#endif
