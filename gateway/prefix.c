/* The tokens of an answer as far as it was sent (see prefix.h). */
#include "gateway/prefix.h"

#include "schemas/hash.h"

#include <stdlib.h>
#include <string.h>

void mr_prefix_init(mr_prefix *p) {
    *p = (mr_prefix){.hash = mr_text_hash_init()};
}

void mr_prefix_done(mr_prefix *p) {
    free(p->ids);
    p->ids = NULL;
}

static bool append(mr_prefix *p, const int64_t *ids, uint32_t n) {
    if (n > MR_TOKENS_MAX - p->n) return false;
    if (p->n + n > p->cap) {
        uint32_t cap = p->cap ? 2 * p->cap : 64;
        while (cap < p->n + n) cap *= 2;
        int64_t *more = realloc(p->ids, cap * sizeof(*more));
        if (!more) return false;
        p->ids = more;
        p->cap = cap;
    }
    memcpy(p->ids + p->n, ids, n * sizeof(*ids));
    p->n += n;
    return true;
}

/* How many of the delta's tokens are known already, or -1: it does not continue the prefix. Where it goes on with the text, some
 * may be known all the same: two attempts may cut their deltas before and after a token without text. */
static int64_t overlap(const mr_prefix *p, const mr_response_delta *d) {
    int64_t known = p->n - d->index;
    bool covers = known >= 0 && known <= d->tokens;
    if ((uint64_t)d->offset == p->bytes) {
        bool same = covers && known > 0 &&
                    memcmp(p->ids + d->index, d->token_ids.v, (size_t)known * sizeof(*p->ids)) == 0;
        return same ? known : 0;
    }
    return (uint64_t)d->offset < p->bytes && covers ? known : -1;
}

void mr_prefix_add(mr_prefix *p, const mr_response_delta *d, const mr_answer *after) {
    if (p->closed || d->tokens == 0) return; /* text that its engine would hold back again */
    bool told = MR_HAS(d, MR_RESPONSE_DELTA_TOKEN_IDS) && d->token_ids.n == d->tokens;
    int64_t known = told ? overlap(p, d) : -1;
    if (known < 0 || !append(p, d->token_ids.v + known, d->token_ids.n - (uint32_t)known)) {
        p->closed = true;
        return;
    }
    p->bytes = after->bytes;
    p->hash = after->hash;
}
