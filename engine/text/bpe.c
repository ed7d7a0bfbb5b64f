/* The piece is a doubly linked list of nodes, each a token; a heap holds the merges that are possible between neighbours,
 * lowest rank first and leftmost first among equals. Heap entries are not removed when a neighbour changes: a node
 * remembers the rank of its present pair, and an entry of another rank is stale. */
#include "engine/text/bpe.h"

#include <stdlib.h>

#define NO_RANK UINT32_MAX
#define NONE    UINT32_MAX

struct bpe_node {
    int32_t id, merged; /* merged: what this node and the next become */
    uint32_t rank;      /* of that merge; NO_RANK: none, or the node is gone */
    uint32_t prev, next;
};

int bpe_init(bpe *b, size_t n) {
    size_t size = 16;

    while (size < n * 2) size *= 2;
    *b = (bpe){.merges = malloc(size * sizeof *b->merges), .mask = size - 1};
    if (b->merges == NULL) return -1;
    for (size_t i = 0; i < size; i++) b->merges[i].pair = UINT64_MAX;
    for (int i = 0; i < 256; i++) b->byte_id[i] = -1;
    return 0;
}

void bpe_done(bpe *b) {
    free(b->merges);
    *b = (bpe){0};
}

static struct merge_slot *slot_of(const bpe *b, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t h = pair * 0x9E3779B97F4A7C15u;

    for (size_t i = (h ^ h >> 32) & b->mask;; i = (i + 1) & b->mask)
        if (b->merges[i].pair == pair || b->merges[i].pair == UINT64_MAX) return &b->merges[i];
}

void bpe_add(bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    struct merge_slot *m = slot_of(b, left, right);

    if (m->pair == UINT64_MAX && b->used * 2 > b->mask) return;
    b->used += m->pair == UINT64_MAX;
    *m =
        (struct merge_slot){.pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, .rank = rank, .id = id};
}

void bpe_work_done(bpe_work *w) {
    free(w->nodes);
    free(w->heap);
    *w = (bpe_work){0};
}

/* n nodes, and as many heap entries as can ever be: one a pair at first, then two a merge. */
static int reserve(bpe_work *w, size_t n) {
    size_t cap = n + n / 4 + 64;

    if (n <= w->cap) return 0;
    bpe_work_done(w);
    w->nodes = malloc(cap * sizeof *w->nodes);
    w->heap = malloc(cap * 3 * sizeof *w->heap);
    if (w->nodes == NULL || w->heap == NULL) {
        bpe_work_done(w);
        return -1;
    }
    w->cap = cap;
    return 0;
}

struct heap {
    uint64_t *key; /* rank << 32 | place */
    size_t n;
};

static void heap_push(struct heap *h, uint64_t key) {
    size_t i = h->n++;

    for (; i > 0; i = (i - 1) / 2) {
        uint64_t up = h->key[(i - 1) / 2];
        if (up <= key) break;
        h->key[i] = up;
    }
    h->key[i] = key;
}

static uint64_t heap_pop(struct heap *h) {
    uint64_t top = h->key[0], last = h->key[--h->n];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->key[child + 1] < h->key[child]) child++;
        if (h->key[child] >= last) break;
        h->key[i] = h->key[child];
    }
    h->key[i] = last;
    return top;
}

/* Looks up what the node and its next become, and puts that in line. */
static void consider(const bpe *b, struct bpe_node *nodes, struct heap *h, uint32_t i) {
    struct bpe_node *node = &nodes[i];

    node->rank = NO_RANK;
    if (node->next == NONE) return;
    const struct merge_slot *m = slot_of(b, node->id, nodes[node->next].id);
    if (m->pair == UINT64_MAX) return;
    node->rank = m->rank;
    node->merged = m->id;
    heap_push(h, (uint64_t)m->rank << 32 | i);
}

static uint32_t fill(const bpe *b, struct bpe_node *nodes, const char *s, size_t n) {
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[(unsigned char)s[i]];
        if (id < 0) continue;
        nodes[count] = (struct bpe_node){.id = id, .prev = count - 1, .next = count + 1};
        count++;
    }
    if (count > 0) nodes[count - 1].next = NONE;
    return count;
}

static void merge_all(const bpe *b, struct bpe_node *nodes, struct heap *h) {
    while (h->n > 0) {
        uint64_t key = heap_pop(h);
        uint32_t i = (uint32_t)key;
        struct bpe_node *node = &nodes[i];
        if (node->rank != key >> 32) continue;
        struct bpe_node *gone = &nodes[node->next];
        node->id = node->merged;
        node->next = gone->next;
        gone->rank = NO_RANK;
        if (node->next != NONE) nodes[node->next].prev = i;
        if (node->prev != NONE) consider(b, nodes, h, node->prev);
        consider(b, nodes, h, i);
    }
}

int bpe_encode(const bpe *b, bpe_work *w, const char *s, size_t n, id_list *ids, engine_error *err) {
    if (n > BPE_PIECE_MAX)
        return engine_fail(err, ENGINE_EINVAL, "a word of %zu bytes is too long; at most %zu are taken", n,
                           BPE_PIECE_MAX);
    if (reserve(w, n) != 0)
        return engine_fail(err, ENGINE_ENOMEM, "out of memory for a word of %zu bytes", n);
    uint32_t count = fill(b, w->nodes, s, n);
    struct heap h = {.key = w->heap};
    for (uint32_t i = 0; i < count; i++) consider(b, w->nodes, &h, i);
    merge_all(b, w->nodes, &h);
    for (uint32_t i = 0; i < count; i = w->nodes[i].next) id_list_put(ids, w->nodes[i].id);
    return 0;
}
