/* See tls.h. */
#include "gateway/tls.h"

#include "base/log.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/stat.h>

struct mr_tls {
    const char *cert, *key;
    SSL_CTX *ctx;
    struct stat seen[2];
};

static int fail(mr_error *err, const char *what, const char *path) {
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return mr_fail(err, MR_EINVAL, "%s %.300s: %s", what, path, why ? why : "it cannot be used");
}

static int fill(const mr_tls *t, SSL_CTX *ctx, mr_error *err) {
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_use_certificate_chain_file(ctx, t->cert) != 1) return fail(err, "gateway.tls_cert", t->cert);
    if (SSL_CTX_use_PrivateKey_file(ctx, t->key, SSL_FILETYPE_PEM) != 1)
        return fail(err, "gateway.tls_key", t->key);
    return 0;
}

static int load(mr_tls *t, mr_error *err) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) return mr_fail(err, MR_ENOMEM, "out of memory");
    if (fill(t, ctx, err) < 0) {
        SSL_CTX_free(ctx);
        return -1;
    }
    SSL_CTX_free(t->ctx); /* connections hold their own */
    t->ctx = ctx;
    return 0;
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool has_changed(mr_tls *t) {
    struct stat now[2];
    if (stat(t->cert, &now[0]) != 0 || stat(t->key, &now[1]) != 0) return false; /* they are on their way */
    if (same_file(&now[0], &t->seen[0]) && same_file(&now[1], &t->seen[1])) return false;
    t->seen[0] = now[0];
    t->seen[1] = now[1];
    return true;
}

void mr_tls_refresh(mr_tls *t) {
    mr_error err;
    if (!has_changed(t)) return;
    if (load(t, &err) < 0) {
        mr_log(MR_ERROR, "the certificate was not loaded again, the old one goes on", MR_S("error", err.msg));
    } else {
        mr_log(MR_INFO, "certificate loaded again", MR_S("file", t->cert));
    }
}

mr_tls *mr_tls_new(const char *cert, const char *key, mr_error *err) {
    mr_tls *t = calloc(1, sizeof(*t));
    if (!t) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    t->cert = cert;
    t->key = key;
    (void)has_changed(t);
    if (load(t, err) == 0) return t;
    mr_tls_free(t);
    return NULL;
}

void mr_tls_free(mr_tls *t) {
    if (!t) return;
    SSL_CTX_free(t->ctx);
    free(t);
}

struct bufferevent *mr_tls_accept(mr_tls *t, struct event_base *base) {
    SSL *ssl = SSL_new(t->ctx);
    if (!ssl) return NULL;
    /* by its option the SSL is the bufferevent's, even where there is none in the end */
    struct bufferevent *bev =
        bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    /* many clients just close; what must be whole says so in HTTP */
    if (bev) bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}
