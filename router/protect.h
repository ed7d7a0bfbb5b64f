/* The input layer of protection: what the guard finds in a request, what is done about it, and the records of that for
 * chat.audit.
 *
 * Everything that the model would read is looked through. What is new, that is after the assistant's last turn, can be blocked;
 * what would be blocked in older turns is replaced, so that a conversation can go on after a refusal. Phrases of
 * injection are not looked for in the system's messages. Loop thread.
 */
#ifndef MR_PROTECT_H
#define MR_PROTECT_H

#include "base/metrics.h"
#include "router/conf.h"
#include "router/forwarder.h"
#include "schemas/messages.h"

typedef struct mr_protect mr_protect;

/* Borrows the settings. */
mr_protect *mr_protect_new(const mr_router_conf *conf, const mr_kafka_conf *kafka, mr_metrics *m,
                           mr_error *err);
void mr_protect_free(mr_protect *p);

/* Rewrites the request where something is replaced or masked, in the arena; *blocked: it must not be answered. */
int mr_protect_request(mr_protect *p, mr_chat_request *q, mr_arena *a, bool *blocked, mr_error *err);
/* Adds the records of what the last request led to, once: after it there are none. */
int mr_protect_audit(mr_protect *p, mr_parcel *parcel, const char *traceparent, mr_error *err);
/* There is another request, or the same again. */
void mr_protect_forget(mr_protect *p);

/* Notices changed lists; what happens is logged. */
void mr_protect_refresh(mr_protect *p);

#endif
