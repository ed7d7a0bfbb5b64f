/* The answer of one request as far as it was passed on: which bytes of the records that come are new.
 *
 * Records arrive at least once, from one attempt or from several. A delta says where its bytes stand in the answer (offset)
 * and carries the running hash of everything up to its end; so what was already passed on is dropped, and what is new is
 * proved to belong to the same text. Two texts that differ are never spliced: that is a gap or a mismatch,
 * and the answer has to end as an error. Pure state, no I/O.
 */
#ifndef MR_ANSWER_H
#define MR_ANSWER_H

#include "base/str.h"

#include <stdint.h>

typedef struct mr_answer {
    uint64_t bytes; /* passed on so far, reasoning and content together */
    uint64_t hash;  /* of them */
    uint64_t duplicate_bytes;
} mr_answer;

typedef enum {
    MR_ANSWER_NEW,       /* *fresh is the part to pass on; it may be empty */
    MR_ANSWER_DUPLICATE, /* all of it was passed on before */
    MR_ANSWER_GAP,       /* bytes before it never came */
    MR_ANSWER_MISMATCH,  /* it belongs to another text */
} mr_answer_verdict;

void mr_answer_init(mr_answer *a);

/* A delta of `text` that begins at `offset`, with the hash (hexadecimal) after it. On NEW it counts as passed on. */
mr_answer_verdict mr_answer_delta(mr_answer *a, int64_t offset, mr_str text, mr_str hash, mr_str *fresh);

/* The terminal record of a whole answer of `offset` bytes: NEW when that is what was passed on. */
mr_answer_verdict mr_answer_end(const mr_answer *a, int64_t offset, mr_str hash);

#endif
