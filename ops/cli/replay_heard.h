/* What was heard of an answer: the recorded one and the one made again are both collected into this, and compared.
 *
 * Joined as the gateway does, by offset and hash. Bounded: an answer of more than MR_HEARD_MAX bytes is broken.
 */
#ifndef MR_CLI_REPLAY_HEARD_H
#define MR_CLI_REPLAY_HEARD_H

#include "gateway/prefix.h"

#define MR_HEARD_MAX (4u << 20)

typedef struct mr_heard {
    mr_answer answer;
    mr_prefix tokens;
    mr_buf text;   /* from byte `begin` on */
    int64_t begin; /* what a request with forced tokens had already */
    bool ended;
    bool broken; /* its records contradict each other, or are missing */
    int finish;
    char error[200]; /* of its end, or what is broken */
} mr_heard;

/* q: the request, whose forced tokens the answer begins after. */
void mr_heard_init(mr_heard *h, const mr_chat_request *q);
void mr_heard_done(mr_heard *h);

void mr_heard_delta(mr_heard *h, const mr_response_delta *d);
void mr_heard_end(mr_heard *h, const mr_response_end *e);
/* Did the answer come to an end of its own, so that it can be compared whole? */
bool mr_heard_whole(const mr_heard *h);

typedef enum { MR_HEARD_SAME, MR_HEARD_DIFFERS, MR_HEARD_INCOMPARABLE } mr_heard_verdict;

/* The first difference goes to `what`, or why there is nothing to compare. A recorded answer that was cut short is compared
 * as far as it goes. */
mr_heard_verdict mr_heard_compare(const mr_heard *recorded, const mr_heard *again, char *what, size_t cap);

#endif
