/* Chats from their arrival to their place among the requests in flight (stream.h): keys, what the body says, whether the
 * answer would come in time, what protection and the limits say. And connections that go on with an answer.
 *
 * What is refused is refused before any header of the answer is out. A chat whose limits are asked of Redis waits here for
 * the verdict, and goes away with its client. Loop's thread.
 */
#ifndef MR_CHATS_H
#define MR_CHATS_H

#include "gateway/access.h"
#include "gateway/ready.h"
#include "gateway/stream.h"
#include "pool/view.h"

typedef struct mr_chats mr_chats;

/* What it works with; all borrowed. */
typedef struct mr_chats_parts {
    const mr_gateway_conf *conf;
    const mr_access *access;
    const mr_ready *ready;
    const mr_records *records;
    mr_limiter *limiter; /* freed before this: until then chats may wait for it */
    mr_streams *streams;
    const mr_view *workers;
} mr_chats_parts;

mr_chats *mr_chats_new(const mr_chats_parts *parts, mr_metrics *m, mr_error *err);
void mr_chats_free(mr_chats *c);

/* These take the call over. */
void mr_chats_begin(mr_chats *c, mr_call *call);
void mr_chats_resume(mr_chats *c, mr_call *call);

#endif
