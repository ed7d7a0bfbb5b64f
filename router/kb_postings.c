/* A ring of lists and a table of where they begin; see kb_postings.h. */
#include "router/kb_postings.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 14 /* power of two */ };

/* `at` counts what was ever written; in the ring that is at % MR_KB_POSTINGS_KEPT. */
typedef struct slot {
    uint64_t at;
    uint32_t token, n;
    bool used;
} slot;

struct mr_kb_postings {
    uint32_t ring[MR_KB_POSTINGS_KEPT];
    slot slots[SLOTS];       /* by token; of two with one slot the later stays */
    uint64_t written, begun; /* begun: the list that is being written */
};

mr_kb_postings *mr_kb_postings_new(mr_error *err) {
    mr_kb_postings *p = calloc(1, sizeof *p);
    if (!p) mr_fail(err, MR_ENOMEM, "no memory for what the index answers");
    return p;
}

void mr_kb_postings_free(mr_kb_postings *p) {
    free(p);
}

void mr_kb_postings_forget(mr_kb_postings *p) {
    memset(p->slots, 0, sizeof p->slots);
}

/* Tokens' places are those of their hashes, so neighbours are as good as strangers. */
static uint32_t slot_of(uint32_t token) {
    return (token ^ token >> 14) & (SLOTS - 1);
}

const uint32_t *mr_kb_postings_find(const mr_kb_postings *p, uint32_t token, uint32_t *n) {
    const slot *s = &p->slots[slot_of(token)];
    if (!s->used || s->token != token || p->written - s->at > MR_KB_POSTINGS_KEPT) return NULL;
    *n = s->n;
    return &p->ring[s->at % MR_KB_POSTINGS_KEPT];
}

uint32_t *mr_kb_postings_begin(mr_kb_postings *p, uint32_t most) {
    uint64_t left = MR_KB_POSTINGS_KEPT - p->written % MR_KB_POSTINGS_KEPT;
    if (most > MR_KB_POSTINGS_KEPT) return NULL;
    if (left < most) p->written += left; /* a list lies in one piece */
    p->begun = p->written;
    p->written += most;
    return &p->ring[p->begun % MR_KB_POSTINGS_KEPT];
}

void mr_kb_postings_end(mr_kb_postings *p, uint32_t token, uint32_t n) {
    p->slots[slot_of(token)] = (slot){.at = p->begun, .token = token, .n = n, .used = true};
}
