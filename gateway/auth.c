/* API keys, compared in constant time. */
#include "gateway/auth.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct key {
    mr_str tenant, secret;
} key;

struct mr_auth {
    key *keys;
    int n;
};

static bool is_loopback(const char *host) {
    struct in_addr v4;
    struct in6_addr v6;
    if (strcmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* "tenant=key" or "key". A key may itself contain '=' (base64 padding), so only a name before it that ends in something
 * of a key's length counts as a tenant. */
static key key_parse(const char *entry) {
    const char *eq = strchr(entry, '=');
    size_t name = strspn(entry, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    if (eq && eq > entry && eq == entry + name && eq[1] && eq[1] != '=') {
        return (key){{entry, name}, mr_str_of(eq + 1)};
    }
    return (key){MR_STR(MR_TENANT_DEFAULT), mr_str_of(entry)};
}

mr_auth *mr_auth_new(const mr_gateway_conf *conf, mr_error *err) {
    if (conf->keys.n == 0 && !is_loopback(conf->host)) {
        mr_fail(err, MR_EINVAL,
                "gateway.host is %s but gateway.keys is empty: anybody could use it. Set keys, or listen on "
                "127.0.0.1",
                conf->host);
        return NULL;
    }
    mr_auth *a = calloc(1, sizeof(*a));
    if (a) a->keys = calloc((size_t)conf->keys.n + 1, sizeof(key));
    if (!a || !a->keys) {
        free(a);
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    for (a->n = 0; a->n < conf->keys.n; a->n++) {
        a->keys[a->n] = key_parse(conf->keys.v[a->n]);
        if (a->keys[a->n].secret.n == 0) {
            mr_fail(err, MR_EINVAL, "gateway.keys: entry %d is empty", a->n + 1);
            mr_auth_free(a);
            return NULL;
        }
    }
    return a;
}

void mr_auth_free(mr_auth *a) {
    if (!a) return;
    free(a->keys);
    free(a);
}

/* The whole of `given` is walked whatever it holds. */
static bool same_secret(mr_str secret, mr_str given) {
    unsigned char diff = secret.n != given.n;
    for (size_t i = 0; i < given.n; i++) {
        diff |= (unsigned char)(given.p[i] ^ secret.p[i % secret.n]);
    }
    return diff == 0;
}

static mr_str bearer(const char *authorization) {
    if (!authorization || strncasecmp(authorization, "Bearer", 6) != 0 || authorization[6] != ' ')
        return MR_STR("");
    mr_str s = mr_str_of(authorization + 7 + strspn(authorization + 7, " "));
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

mr_str mr_auth_tenant(const mr_auth *a, const char *authorization) {
    if (a->n == 0) return MR_STR(MR_TENANT_DEFAULT);
    mr_str given = bearer(authorization), found = MR_STR("");
    if (given.n == 0) return found;
    for (int i = 0; i < a->n; i++) {
        if (same_secret(a->keys[i].secret, given)) found = a->keys[i].tenant;
    }
    return found;
}
