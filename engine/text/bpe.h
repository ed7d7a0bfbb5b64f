/* Byte pair encoding: the vocabulary's merges, and their application to one piece of text. */
#ifndef ENGINE_TEXT_BPE_H
#define ENGINE_TEXT_BPE_H

#include "engine/error.h"

#include <stddef.h>
#include <stdint.h>

/* Ids on their way out: all are counted, the first cap are kept. */
typedef struct id_list {
    int32_t *out;
    size_t cap;
    int64_t n;
} id_list;

static inline void id_list_put(id_list *l, int32_t id) {
    if ((uint64_t)l->n < l->cap) l->out[l->n] = id;
    l->n++;
}

struct merge_slot {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free */
    uint32_t rank;
    int32_t id; /* of what the pair becomes */
};

typedef struct bpe {
    int32_t byte_id[256]; /* -1: the byte has no token and is left out, as in the reference */
    struct merge_slot *merges;
    size_t mask, used;
} bpe;

/* Room for n merges; all bytes are without a token. -1: out of memory. */
int bpe_init(bpe *b, size_t n);
void bpe_done(bpe *b);
/* Merges are added in the order of their rank; of the same pair the last one counts. At most the n of init. */
void bpe_add(bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id);

/* Working memory of one thread; zeroed is empty, and it grows with the longest piece. */
typedef struct bpe_work {
    struct bpe_node *nodes;
    uint64_t *heap;
    size_t cap;
} bpe_work;
void bpe_work_done(bpe_work *w);

/* Longest piece that is taken: places in it are 32 bits, and its working memory stays within 2 GB. */
#define BPE_PIECE_MAX ((size_t)32 << 20)

/* Appends the ids of the bytes s[0..n). Time is n log n, whatever the text. */
int bpe_encode(const bpe *b, bpe_work *w, const char *s, size_t n, id_list *ids, engine_error *err);

#endif
