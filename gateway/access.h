/* Who may do what here, and that a refusal of access goes on record. Borrows both; loop's thread. */
#ifndef MR_ACCESS_H
#define MR_ACCESS_H

#include "gateway/auth.h"
#include "gateway/http.h"
#include "gateway/protection.h"

typedef struct mr_access {
    const mr_auth *auth;
    mr_protection *protection;
} mr_access;

/* 0 and *grant, or -1 and *e when the call's key does not allow this scope (enum mr_scope). */
int mr_access_check(const mr_access *a, mr_call *call, unsigned scope, mr_grant *grant, mr_api_error *e);

/* Puts a refusal on record, with the id that the request has or gets now; category: see mr_protection_refused. Returns -1. */
int mr_access_refused(const mr_access *a, mr_call *call, const char *category, const char *tenant,
                      const mr_api_error *e);

#endif
