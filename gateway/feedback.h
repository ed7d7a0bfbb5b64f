/* What people think of an answer, to chat.feedback. Borrows what it needs; loop's thread. */
#ifndef MR_GATEWAY_FEEDBACK_H
#define MR_GATEWAY_FEEDBACK_H

#include "gateway/access.h"
#include "gateway/ready.h"

typedef struct mr_feedback_desk {
    const mr_access *access;
    const mr_ready *ready;
    mr_outbox *outbox;
    mr_arena *arena; /* of one request at a time */
} mr_feedback_desk;

/* Takes the call over: it is answered when the brokers have the feedback. */
void mr_feedback_take(const mr_feedback_desk *d, mr_call *call);

#endif
