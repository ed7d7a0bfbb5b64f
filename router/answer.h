/* The records that the router itself answers with. Each function adds to a parcel (forwarder.h); nothing is kept. */
#ifndef MR_ANSWER_H
#define MR_ANSWER_H

#include "router/forwarder.h"
#include "schemas/messages.h"

/* To whom an answer goes. Copied out of the request, because it may be needed after the request is gone. */
typedef struct mr_reply_to {
    const char *topic; /* chat.responses, with prefix */
    char id[MR_ID_MAX + 1];
    char model[MR_NAME_MAX + 1];
    char traceparent[56];
    int32_t partition; /* -1: by the id */
    int64_t attempt;
    int64_t accepted_ms; /* unix time */
} mr_reply_to;

/* The whole answer of the knowledge base: deltas and the end. */
int mr_answer_kb(mr_parcel *p, const mr_reply_to *to, mr_str text, mr_error *err);
/* The whole answer to a request that is not let through: the text, and the end with content_filter. */
int mr_answer_refusal(mr_parcel *p, const mr_reply_to *to, mr_str text, mr_error *err);
/* The end with an error. */
int mr_answer_error(mr_parcel *p, const mr_reply_to *to, int status, const char *code, const char *message,
                    mr_error *err);

#endif
