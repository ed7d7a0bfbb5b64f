/* API keys. Built once from the configuration, read-only afterwards; borrows the configuration's strings. */
#ifndef MR_AUTH_H
#define MR_AUTH_H

#include "base/error.h"
#include "base/str.h"
#include "gateway/conf.h"

#define MR_TENANT_DEFAULT "default"

typedef struct mr_auth mr_auth;

/* Fails when a key cannot be used, and when there is none although `host` is reachable from other machines. */
mr_auth *mr_auth_new(const mr_gateway_conf *conf, mr_error *err);
void mr_auth_free(mr_auth *a);

/* The tenant of an Authorization header ("Bearer sk-…"; NULL when there is none); an empty string when it may not
 * pass. The time taken tells nothing about the keys but their lengths. */
mr_str mr_auth_tenant(const mr_auth *a, const char *authorization);

#endif
