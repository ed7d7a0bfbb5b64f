/* HTTPS with a certificate that this test makes. */
#include "fixture.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BODY "{\"model\":\"small\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"

static char folder[64], cert_path[100], key_path[100];

/* Signs itself; its serial number tells it from others. */
static void write_certificate(long serial) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"127.0.0.1", -1, -1, 0);
    X509_set_issuer_name(x, name);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *out = fopen(key_path, "w");
    assert_true(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL));
    fclose(out);
    out = fopen(cert_path, "w");
    assert_true(PEM_write_X509(out, x));
    fclose(out);
    X509_free(x);
    EVP_PKEY_free(key);
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    test_folder_init(folder);
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", folder);
    snprintf(key_path, sizeof(key_path), "%s/key.pem", folder);
    write_certificate(1);
    fixture_init(f);
    f->conf.tls_cert = cert_path;
    f->conf.tls_key = key_path;
    fixture_start(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture_done(*state);
    free(*state);
    test_folder_done(folder);
    return 0;
}

/* One that trusts any certificate: which one it got is asked for in a test. */
static client *open_tls(fixture *f, int version) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(ctx, version);
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        mr_loop_base(f->loop), -1, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
    assert_non_null(bev);
    return client_open_by(f, bev);
}

static void a_stream_comes_through_tls(void **state) {
    fixture *f = *state;
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int i = 0; i < 2; i++) {
        int n = f->nrequests;
        client *c = open_tls(f, versions[i]);
        client_post(c, "/v1/chat/completions", BODY);
        const mr_chat_request *r = worker_request(f, n);
        client_expect(c, ": accepted");
        worker_answer(f, r, "Water turns the wheel.");
        client_expect(c, "[DONE]\n\n\r\n0\r\n\r\n");
        char *got = client_content(c);
        assert_string_equal(got, "Water turns the wheel.");
        free(got);
        client_forget(c);
        client_get(c, "/livez"); /* on the same connection */
        client_expect(c, "\"ok\"");
        client_close(c);
    }
}

static void what_is_no_http_gets_an_error_object_through_tls(void **state) {
    fixture *f = *state;
    client *c = open_tls(f, TLS1_3_VERSION);
    client_send(c, "nonsense\r\n\r\n");
    client_expect(c, "malformed_request");
    client_close(c);
}

static void a_client_that_vanishes_is_noticed_through_tls(void **state) {
    fixture *f = *state;
    int n = f->nrequests;
    client *c = open_tls(f, TLS1_3_VERSION);
    client_post(c, "/v1/chat/completions", BODY);
    const mr_chat_request *r = worker_request(f, n);
    client_expect(c, ": accepted");
    client_close(c);
    worker_sees_cancel(f, r);
}

static void old_versions_and_plain_http_get_nothing(void **state) {
    fixture *f = *state;
    client *old = open_tls(f, TLS1_1_VERSION), *plain = client_open(f);
    client_get(old, "/livez");
    client_expect_closed(old);
    client_get(plain, "/livez");
    client_expect_closed(plain);
    assert_false(client_has(plain, "ok"));
    client_close(old);
    client_close(plain);
}

static long served_serial(fixture *f) {
    client *c = open_tls(f, TLS1_3_VERSION);
    client_get(c, "/livez");
    client_expect(c, "\"ok\"");
    X509 *x = SSL_get1_peer_certificate(bufferevent_openssl_get_ssl(c->bev));
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(x));
    X509_free(x);
    client_close(c);
    return serial;
}

static void a_new_certificate_is_taken_without_a_restart(void **state) {
    fixture *f = *state;
    assert_int_equal(served_serial(f), 1);
    write_certificate(2);
    while (served_serial(f) != 2) test_idle(f->loop, 50);
}

static void files_that_cannot_be_used_are_said_before_anything_starts(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_gateway_conf conf = f->conf;
    conf.tls_key = "";
    assert_null(mr_gateway_new(&conf, &f->kafka_conf, &f->redis_conf, f->loop, &err));
    assert_non_null(strstr(err.msg, "TLS needs both"));
    conf.tls_key = "/nowhere/key.pem";
    assert_null(mr_gateway_new(&conf, &f->kafka_conf, &f->redis_conf, f->loop, &err));
    assert_non_null(strstr(err.msg, "gateway.tls_key /nowhere/key.pem"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_comes_through_tls),
        cmocka_unit_test(what_is_no_http_gets_an_error_object_through_tls),
        cmocka_unit_test(a_client_that_vanishes_is_noticed_through_tls),
        cmocka_unit_test(old_versions_and_plain_http_get_nothing),
        cmocka_unit_test(a_new_certificate_is_taken_without_a_restart),
        cmocka_unit_test(files_that_cannot_be_used_are_said_before_anything_starts),
    };
    return cmocka_run_group_tests_name("gateway_tls", tests, setup, teardown);
}
