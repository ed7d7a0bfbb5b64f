/* See kv.h. Runs on the engine's thread; the pool owns all arrays. */
#include "engine/sched/kv.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = -1 };

typedef struct kv_block {
    int holders;
    int32_t prev, next; /* in the list of free blocks */
    /* while published */
    uint64_t name;   /* never used twice; 0: not published */
    uint64_t parent; /* name of the block before; the salt for a first one */
    bool first;
    int32_t same_slot; /* next in its slot of the hash table */
} kv_block;

struct kv_pool {
    int blocks, block_tokens, nfree;
    kv_block *block;
    int32_t *tokens; /* [blocks][block_tokens], of the published ones */
    /* free blocks: what knows nothing at the front, then by the time of last use */
    int32_t first_free, last_free;
    int32_t *slots;  /* hash table: first published block of each slot */
    uint32_t nslots; /* a power of two */
    uint64_t names;
};

static uint32_t slots_for(int blocks) {
    uint32_t n = 16;
    while (n < (uint32_t)blocks) n *= 2;
    return n;
}

/* ---- the list of free blocks ---- */

static void put_free(kv_pool *p, int32_t b) {
    kv_block *k = &p->block[b];
    bool front = !k->name;
    k->prev = front ? NONE : p->last_free;
    k->next = front ? p->first_free : NONE;
    *(k->prev == NONE ? &p->first_free : &p->block[k->prev].next) = b;
    *(k->next == NONE ? &p->last_free : &p->block[k->next].prev) = b;
    p->nfree++;
}

static void take_free(kv_pool *p, int32_t b) {
    kv_block *k = &p->block[b];
    *(k->prev == NONE ? &p->first_free : &p->block[k->prev].next) = k->next;
    *(k->next == NONE ? &p->last_free : &p->block[k->next].prev) = k->prev;
    p->nfree--;
}

kv_pool *kv_pool_new(int blocks, int block_tokens, engine_error *err) {
    kv_pool *p = calloc(1, sizeof *p);
    if (p) {
        *p = (kv_pool){.blocks = blocks, .block_tokens = block_tokens, .first_free = NONE, .last_free = NONE};
        p->nslots = slots_for(blocks);
        p->block = calloc((size_t)blocks, sizeof *p->block);
        p->tokens = calloc((size_t)blocks * (size_t)block_tokens, sizeof *p->tokens);
        p->slots = malloc(p->nslots * sizeof *p->slots);
    }
    if (!p || !p->block || !p->tokens || !p->slots) {
        kv_pool_free(p);
        engine_fail(err, ENGINE_ENOMEM, "no memory for a table of %d KV blocks", blocks);
        return NULL;
    }
    for (uint32_t i = 0; i < p->nslots; i++) p->slots[i] = NONE;
    for (int32_t b = blocks - 1; b >= 0; b--) put_free(p, b);
    return p;
}

void kv_pool_free(kv_pool *p) {
    if (!p) return;
    free(p->block);
    free(p->tokens);
    free(p->slots);
    free(p);
}

int kv_pool_blocks(const kv_pool *p) {
    return p->blocks;
}
int kv_pool_free_blocks(const kv_pool *p) {
    return p->nfree;
}
int kv_pool_holders(const kv_pool *p, int32_t block) {
    return p->block[block].holders;
}

/* ---- what is published ---- */

static int32_t *tokens_of(const kv_pool *p, int32_t b) {
    return p->tokens + (size_t)b * (size_t)p->block_tokens;
}

static uint32_t slot_of(const kv_pool *p, uint64_t parent, const int32_t *tokens) {
    uint64_t h = parent;
    for (int i = 0; i < p->block_tokens; i++) {
        h = (h ^ (uint32_t)tokens[i]) * UINT64_C(0x9E3779B97F4A7C15);
        h ^= h >> 32;
    }
    return (uint32_t)h & (p->nslots - 1);
}

/* The published block with these tokens after `parent`, or NONE. */
static int32_t find(const kv_pool *p, uint64_t parent, bool first, const int32_t *tokens) {
    int32_t b = p->slots[slot_of(p, parent, tokens)];
    for (; b != NONE; b = p->block[b].same_slot) {
        const kv_block *k = &p->block[b];
        if (k->parent == parent && k->first == first &&
            !memcmp(tokens_of(p, b), tokens, (size_t)p->block_tokens * sizeof *tokens)) {
            break;
        }
    }
    return b;
}

static void publish(kv_pool *p, int32_t b, uint64_t parent, bool first, const int32_t *tokens) {
    kv_block *k = &p->block[b];
    int32_t *slot = &p->slots[slot_of(p, parent, tokens)];
    memcpy(tokens_of(p, b), tokens, (size_t)p->block_tokens * sizeof *tokens);
    k->name = ++p->names;
    k->parent = parent;
    k->first = first;
    k->same_slot = *slot;
    *slot = b;
}

static void unpublish(kv_pool *p, int32_t b) {
    kv_block *k = &p->block[b];
    int32_t *at = &p->slots[slot_of(p, k->parent, tokens_of(p, b))];
    while (*at != b) at = &p->block[*at].same_slot;
    *at = k->same_slot;
    k->name = 0;
}

/* ---- tables ---- */

static void hold(kv_pool *p, int32_t b) {
    if (p->block[b].holders++ == 0) take_free(p, b);
}

static void drop(kv_pool *p, int32_t b) {
    if (--p->block[b].holders == 0) put_free(p, b);
}

static int32_t take_new(kv_pool *p) {
    int32_t b = p->first_free;
    hold(p, b);
    if (p->block[b].name) unpublish(p, b);
    return b;
}

static uint64_t parent_of(const kv_table *t) {
    return t->npublished ? t->chain : t->salt;
}

int kv_table_reuse(kv_pool *p, kv_table *t, const int32_t *tokens, int n) {
    while ((t->n + 1) * p->block_tokens <= n) {
        int32_t b = find(p, parent_of(t), t->npublished == 0, tokens + t->n * p->block_tokens);
        if (b == NONE) break;
        hold(p, b);
        t->block[t->n++] = b;
        t->npublished++;
        t->chain = p->block[b].name;
    }
    return t->n * p->block_tokens;
}

int kv_table_lacks(const kv_pool *p, const kv_table *t, int tokens) {
    int lacks = (tokens + p->block_tokens - 1) / p->block_tokens - t->n;
    return lacks > 0 ? lacks : 0;
}

bool kv_table_grow(kv_pool *p, kv_table *t, int tokens) {
    int lacks = kv_table_lacks(p, t, tokens);
    if (lacks > p->nfree) return false;
    while (lacks--) t->block[t->n++] = take_new(p);
    return true;
}

void kv_table_publish(kv_pool *p, kv_table *t, const int32_t *tokens, int n) {
    while ((t->npublished + 1) * p->block_tokens <= n) {
        const int32_t *own = tokens + t->npublished * p->block_tokens;
        bool first = t->npublished == 0;
        int32_t b = t->block[t->npublished], known = find(p, parent_of(t), first, own);
        /* when another sequence was first with the same text, the chain goes on from its block */
        if (known == NONE) publish(p, b, parent_of(t), first, own);
        t->chain = p->block[known == NONE ? b : known].name;
        t->npublished++;
    }
}

void kv_table_share(kv_pool *p, const kv_table *from, kv_table *to, int n) {
    for (; to->n < n; to->n++) {
        to->block[to->n] = from->block[to->n];
        hold(p, to->block[to->n]);
    }
    to->npublished = from->npublished;
    to->chain = from->chain;
}

bool kv_table_is_shared(const kv_pool *p, const kv_table *t, int index) {
    return index < t->n && p->block[t->block[index]].holders > 1;
}

int32_t kv_table_split(kv_pool *p, kv_table *t, int index) {
    int32_t shared = t->block[index];
    t->block[index] = take_new(p);
    drop(p, shared);
    return shared;
}

void kv_table_release(kv_pool *p, kv_table *t) {
    while (t->n) drop(p, t->block[--t->n]);
    t->npublished = 0;
}
