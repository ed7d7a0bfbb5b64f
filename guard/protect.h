/* The input layer of protection: what the guard finds in a request, what is done about it, and the records of that for
 * chat.audit. The router and, where it is told to, the gateway use it.
 *
 * Everything that the model would read is looked through. What is new, that is after the assistant's last turn, can be blocked;
 * what would be blocked in older turns is replaced, so that a conversation can go on after a refusal. Phrases of
 * injection are not looked for in the system's messages. Loop thread.
 */
#ifndef MR_GUARD_PROTECT_H
#define MR_GUARD_PROTECT_H

#include "base/metrics.h"
#include "guard/findings.h"
#include "guard/guard.h"
#include "schemas/messages.h"

typedef struct mr_protect mr_protect;

typedef struct mr_protect_options {
    const char *part;                 /* in the names of metrics and settings */
    mr_strlist lists;                 /* borrowed, as in guard.h */
    const char *injection, *personal; /* names of actions, or "off" */
    bool audit_text;
} mr_protect_options;

/* Borrows the tally. */
mr_protect *mr_protect_new(const mr_protect_options *o, mr_tally *tally, mr_metrics *m, mr_error *err);
void mr_protect_free(mr_protect *p);

/* Rewrites the request where something is replaced or masked, in the arena; *blocked: it must not be answered. */
int mr_protect_request(mr_protect *p, mr_chat_request *q, mr_arena *a, bool *blocked, mr_error *err);

/* Words beside a request, such as a comment on its answer: those that block are replaced. No records. */
int mr_protect_remark(mr_protect *p, mr_str *text, mr_arena *a, mr_error *err);

/* Hands out the records of what the last request led to, one by one, until one is not taken. */
typedef int mr_protect_audit_cb(void *arg, const mr_audit *audit, mr_error *err);
int mr_protect_audit(mr_protect *p, mr_protect_audit_cb *cb, void *arg, mr_error *err);
/* There is another request, or the same again: of the last one there are no records any more. */
void mr_protect_forget(mr_protect *p);

/* Notices changed lists; what happens is logged. */
void mr_protect_refresh(mr_protect *p);

#endif
