/* API keys, compared in constant time. */
#include "gateway/auth.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

typedef struct key {
    mr_str tenant, secret;
} key;

struct mr_auth {
    key *keys;
    int n;
    const char *path; /* of the file, or NULL */
    mr_keys *file;
    struct stat seen; /* the file that was looked at last, good or bad */
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

static int read_plain(mr_auth *a, const mr_strlist *keys, mr_error *err) {
    a->keys = calloc((size_t)keys->n + 1, sizeof(key));
    if (!a->keys) return mr_fail(err, MR_ENOMEM, "out of memory");
    for (; a->n < keys->n; a->n++) {
        a->keys[a->n] = key_parse(keys->v[a->n]);
        if (a->keys[a->n].secret.n == 0) {
            return mr_fail(err, MR_EINVAL, "gateway.keys: entry %d is empty", a->n + 1);
        }
    }
    return 0;
}

static int look_at_file(mr_auth *a, struct stat *st, mr_error *err) {
    if (stat(a->path, st) == 0) return 0;
    return mr_fail(err, MR_EIO, "gateway.keys_file %.300s cannot be read: %s", a->path, strerror(errno));
}

mr_auth *mr_auth_new(const mr_gateway_conf *conf, mr_error *err) {
    bool file = conf->keys_file && *conf->keys_file;
    if (conf->keys.n == 0 && !file && !is_loopback(conf->host)) {
        mr_fail(err, MR_EINVAL,
                "gateway.host is %s but gateway.keys is empty: anybody could use it. Set keys or keys_file, "
                "or listen on 127.0.0.1",
                conf->host);
        return NULL;
    }
    mr_auth *a = calloc(1, sizeof(*a));
    if (!a) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    if (file) a->path = conf->keys_file;
    if (read_plain(a, &conf->keys, err) < 0) goto fail;
    if (!file) return a;
    if (look_at_file(a, &a->seen, err) < 0) goto fail;
    a->file = mr_keys_read(a->path, err);
    if (a->file) return a;
fail:
    mr_auth_free(a);
    return NULL;
}

static bool same_file(const struct stat *x, const struct stat *y) {
    return x->st_ino == y->st_ino && x->st_size == y->st_size && x->st_mtim.tv_sec == y->st_mtim.tv_sec &&
           x->st_mtim.tv_nsec == y->st_mtim.tv_nsec;
}

void mr_auth_refresh(mr_auth *a) {
    struct stat now;
    mr_error err;
    if (!a->path) return;
    /* One that is missing is on its way: editors move a new file over the old one. */
    if (look_at_file(a, &now, &err) < 0 || same_file(&now, &a->seen)) return;
    a->seen = now;
    mr_keys *fresh = mr_keys_read(a->path, &err);
    if (!fresh) {
        mr_log(MR_ERROR, "the API keys were not loaded again, the old ones go on", MR_S("error", err.msg));
        return;
    }
    mr_keys_free(a->file);
    a->file = fresh;
    mr_log(MR_INFO, "API keys loaded again", MR_I("keys", mr_keys_count(fresh)));
}

void mr_auth_free(mr_auth *a) {
    if (!a) return;
    mr_keys_free(a->file);
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

static void grant_all(mr_grant *g, mr_str tenant, const char *id) {
    *g = (mr_grant){.scopes = MR_SCOPE_ADMIN};
    snprintf(g->key, sizeof(g->key), "%s", id);
    mr_str_copy(tenant, g->tenant, sizeof(g->tenant));
}

static mr_auth_verdict check_file(const mr_keys *keys, mr_str given, int64_t now_ms, mr_grant *out) {
    const mr_key *k = mr_keys_find(keys, given);
    if (!k) return MR_AUTH_UNKNOWN;
    if (k->expires_ms && now_ms >= k->expires_ms) return MR_AUTH_EXPIRED;
    *out = (mr_grant){.scopes = k->scopes, .limited = k->limited, .limits = k->limits};
    snprintf(out->key, sizeof(out->key), "%s", k->id);
    snprintf(out->tenant, sizeof(out->tenant), "%s", k->tenant);
    snprintf(out->style, sizeof(out->style), "%s", k->style);
    return MR_AUTH_OK;
}

mr_auth_verdict mr_auth_check(const mr_auth *a, const char *authorization, int64_t now_ms, mr_grant *out) {
    if (a->n == 0 && !a->file) {
        grant_all(out, MR_STR(MR_TENANT_DEFAULT), "anybody");
        return MR_AUTH_OK;
    }
    mr_str given = bearer(authorization), tenant = MR_STR("");
    if (given.n == 0) return MR_AUTH_MISSING;
    for (int i = 0; i < a->n; i++) {
        if (same_secret(a->keys[i].secret, given)) tenant = a->keys[i].tenant;
    }
    if (tenant.n > 0) {
        char id[MR_KEY_ID_LEN + 1];
        mr_key_digest(given, id);
        grant_all(out, tenant, id);
        return MR_AUTH_OK;
    }
    return a->file ? check_file(a->file, given, now_ms, out) : MR_AUTH_UNKNOWN;
}

bool mr_grant_allows(const mr_grant *g, unsigned scope) {
    return (g->scopes & (scope | MR_SCOPE_ADMIN)) != 0;
}
