/* Who may ask: the plain keys of the configuration, and the file of hashed keys (keys.h), which is read again when it
 * changes. Loop's thread; borrows the configuration's strings. */
#ifndef MR_AUTH_H
#define MR_AUTH_H

#include "base/error.h"
#include "base/str.h"
#include "gateway/conf.h"
#include "gateway/keys.h"

#define MR_TENANT_DEFAULT "default"
#define MR_TENANT_MAX     200

typedef struct mr_auth mr_auth;

/* Fails when a key cannot be used, and when there is none although `host` is reachable from other machines. */
mr_auth *mr_auth_new(const mr_gateway_conf *conf, mr_error *err);
void mr_auth_free(mr_auth *a);
/* Call it several times a second. A file that cannot be read is said in the log, and the keys from before go on. */
void mr_auth_refresh(mr_auth *a);

/* What the owner of a key may do. Plain values. */
typedef struct mr_grant {
    char key[MR_KEY_ID_LEN + 1]; /* names the key without telling it */
    char tenant[MR_TENANT_MAX + 1];
    unsigned scopes;
    bool limited; /* by limits of its own */
    mr_limits limits;
    char style[MR_KEY_NAME_MAX + 1]; /* may be empty */
} mr_grant;

typedef enum { MR_AUTH_OK, MR_AUTH_MISSING, MR_AUTH_UNKNOWN, MR_AUTH_EXPIRED } mr_auth_verdict;

/* What an Authorization header ("Bearer sk-…"; NULL when there is none) lets in; *out is filled on MR_AUTH_OK. The time taken
 * tells nothing about the keys but their lengths and ids. */
mr_auth_verdict mr_auth_check(const mr_auth *a, const char *authorization, int64_t now_ms, mr_grant *out);
bool mr_grant_allows(const mr_grant *g, unsigned scope); /* enum mr_scope */

#endif
