/* The tokens of an answer as far as it was sent: what another attempt needs to go on after them.
 *
 * Only tokens that wholly stand for the first `bytes` of the answer are held. What cannot be told apart (deltas without
 * token ids, or more tokens than a request may carry) closes the prefix: it stays as it is, and what was sent after it is
 * not covered. Pure state, no I/O.
 */
#ifndef MR_PREFIX_H
#define MR_PREFIX_H

#include "gateway/answer.h"
#include "schemas/messages.h"

typedef struct mr_prefix {
    int64_t *ids;
    uint32_t n, cap;
    uint64_t bytes, hash; /* of their text */
    bool closed;
} mr_prefix;

void mr_prefix_init(mr_prefix *p);
void mr_prefix_done(mr_prefix *p);

/* A delta that mr_answer_delta found new; `after` is the answer with it. */
void mr_prefix_add(mr_prefix *p, const mr_response_delta *d, const mr_answer *after);

#endif
