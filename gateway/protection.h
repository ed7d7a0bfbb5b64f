/* The gateway's share of protection: requests are looked through before they are stored, answers before they are sent, and
 * who was refused access is put on record. What is found by whom goes to chat.audit (guard/ decides what that is).
 *
 * What is not configured costs nothing. Loop's thread; changed lists are loaded again, and answers that have begun keep
 * theirs. */
#ifndef MR_PROTECTION_H
#define MR_PROTECTION_H

#include "gateway/conf.h"
#include "gateway/outbox.h"
#include "guard/filter.h"
#include "guard/findings.h"

typedef struct mr_protection mr_protection;

/* Borrows the configuration and the outbox. */
mr_protection *mr_protection_new(const mr_gateway_conf *conf, mr_outbox *out, mr_metrics *m, mr_error *err);
void mr_protection_free(mr_protection *p);
/* Call it several times a second. */
void mr_protection_tick(mr_protection *p);

/* ---- requests ---- */

/* Rewrites what is replaced or masked, in the arena; *blocked: it must not be answered. */
int mr_protection_request(mr_protection *p, mr_chat_request *q, mr_arena *a, const char *trace, bool *blocked,
                          mr_error *err);
/* The same for words beside a request; those that block are replaced. */
int mr_protection_remark(mr_protection *p, mr_str *text, mr_arena *a, mr_error *err);

/* ---- answers ---- */

bool mr_protection_filters(const mr_protection *p);
/* A filter with the lists of now; what it finds is told to mr_protection_found. */
mr_filter *mr_protection_filter(mr_protection *p, size_t skip, mr_filter_cb *cb, void *arg, mr_error *err);
void mr_protection_found(mr_protection *p, mr_findings *f, const mr_guard_rule *rule, mr_guard_action done,
                         mr_str text);
/* Records of all findings, which are forgotten. */
void mr_protection_report(mr_protection *p, mr_findings *f, mr_str request, mr_str tenant, const char *trace);

/* ---- access ---- */

/* Somebody was refused by his key, its scopes or a limit (`category`), with this error. Of many alike in a second
 * there is one record, with their number, and the id and trace of the first. The tenant may be empty. */
void mr_protection_refused(mr_protection *p, const char *category, const char *code, mr_str request,
                           mr_str tenant, const char *trace);

#endif
