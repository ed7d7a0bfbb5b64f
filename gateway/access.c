/* Keys, scopes, and the record of those that were not enough. See access.h. */
#include "gateway/access.h"

#include "base/log.h"
#include "gateway/request_id.h"

static int refuse_key(mr_auth_verdict v, mr_api_error *e) {
    switch (v) {
    case MR_AUTH_MISSING:
        return mr_refuse(e, 401, "invalid_api_key", NULL, "An API key is needed: Authorization: Bearer KEY.");
    case MR_AUTH_EXPIRED: return mr_refuse(e, 401, "expired_api_key", NULL, "The API key has expired.");
    default: return mr_refuse(e, 401, "invalid_api_key", NULL, "The API key is not valid.");
    }
}

int mr_access_refused(const mr_access *a, mr_call *call, const char *category, const char *tenant,
                      const mr_api_error *e) {
    const char *id = mr_call_own_header(call, "x-request-id");
    char made[MR_REQUEST_ID_LEN + 1], trace[MR_TRACEPARENT_LEN + 1];
    if (!id && mr_request_id(&(mr_request_place){.n = 1}, MR_STR(""), made) == 0) {
        mr_call_set_header(call, "x-request-id", made);
        id = made;
    }
    mr_trace_child(mr_str_of(mr_call_header(call, "traceparent")), trace);
    if (id) mr_protection_refused(a->protection, category, e->code, mr_str_of(id), mr_str_of(tenant), trace);
    return -1;
}

int mr_access_check(const mr_access *a, mr_call *call, unsigned scope, mr_grant *grant, mr_api_error *e) {
    mr_auth_verdict v = mr_auth_check(a->auth, mr_call_header(call, "Authorization"), mr_now_ms(), grant);
    if (v != MR_AUTH_OK) {
        refuse_key(v, e);
        return mr_access_refused(a, call, "key", "", e);
    }
    if (mr_grant_allows(grant, scope)) return 0;
    mr_refuse(e, 403, "insufficient_scope", NULL, "This API key is not meant for that.");
    return mr_access_refused(a, call, "scope", grant->tenant, e);
}
