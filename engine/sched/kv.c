/* See kv.h. Runs on the engine's thread; the pool owns both arrays. */
#include "engine/sched/kv.h"

#include <stdlib.h>

struct kv_pool {
    int blocks, block_tokens;
    int nfree;
    int32_t *free; /* a stack: the block used last is the one whose bytes are still in the CPU's caches */
    int *holders;
};

kv_pool *kv_pool_new(int blocks, int block_tokens, engine_error *err) {
    kv_pool *p = calloc(1, sizeof *p);
    if (p) {
        p->free = malloc((size_t)blocks * sizeof *p->free);
        p->holders = calloc((size_t)blocks, sizeof *p->holders);
    }
    if (!p || !p->free || !p->holders) {
        kv_pool_free(p);
        engine_fail(err, ENGINE_ENOMEM, "no memory for a table of %d KV blocks", blocks);
        return NULL;
    }
    p->blocks = p->nfree = blocks;
    p->block_tokens = block_tokens;
    for (int i = 0; i < blocks; i++) p->free[i] = blocks - 1 - i;
    return p;
}

void kv_pool_free(kv_pool *p) {
    if (!p) return;
    free(p->free);
    free(p->holders);
    free(p);
}

int kv_pool_blocks(const kv_pool *p) {
    return p->blocks;
}
int kv_pool_free_blocks(const kv_pool *p) {
    return p->nfree;
}
int kv_pool_holders(const kv_pool *p, int32_t block) {
    return p->holders[block];
}

static int32_t take(kv_pool *p) {
    int32_t b = p->free[--p->nfree];
    p->holders[b] = 1;
    return b;
}

static void drop(kv_pool *p, int32_t b) {
    if (--p->holders[b] == 0) p->free[p->nfree++] = b;
}

int kv_table_lacks(const kv_pool *p, const kv_table *t, int tokens) {
    int lacks = (tokens + p->block_tokens - 1) / p->block_tokens - t->n;
    return lacks > 0 ? lacks : 0;
}

bool kv_table_grow(kv_pool *p, kv_table *t, int tokens) {
    int lacks = kv_table_lacks(p, t, tokens);
    if (lacks > p->nfree) return false;
    while (lacks--) t->block[t->n++] = take(p);
    return true;
}

void kv_table_release(kv_pool *p, kv_table *t) {
    while (t->n) drop(p, t->block[--t->n]);
}
