/* The gateway's manners as an HTTP server: routes, keys, limits, connections. */
#include "fixture.h"

#include "gateway/keys.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char folder[64], keys_path[100];
static char chatter[MR_KEY_TEXT_LEN + 1], reader[MR_KEY_TEXT_LEN + 1], old[MR_KEY_TEXT_LEN + 1];

static void write_keys(void) {
    const struct {
        char *text;
        mr_key key;
    } all[] = {{chatter, {.tenant = "acme", .scopes = MR_SCOPE_CHAT, .style = "formal"}},
               {reader, {.tenant = "acme", .scopes = MR_SCOPE_MODELS | MR_SCOPE_BILLING}},
               {old, {.tenant = "acme", .scopes = MR_SCOPE_ADMIN, .expires_ms = mr_now_ms() - 1000}}};
    FILE *out = fopen(keys_path, "w");
    for (int i = 0; i < 3; i++) {
        mr_key k = all[i].key;
        mr_error err;
        mr_buf line;
        mr_buf_init(&line, 1000);
        assert_int_equal(mr_key_new(&k, all[i].text, &err), 0);
        mr_key_write(&k, &line);
        fprintf(out, "%.*s", MR_FMT(mr_buf_str(&line)));
        mr_buf_done(&line);
    }
    fclose(out);
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    fixture_init(f);
    test_folder_init(folder);
    snprintf(keys_path, sizeof(keys_path), "%s/keys", folder);
    write_keys();
    f->conf.keys_file = keys_path;
    fixture_start(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture_done(*state);
    test_folder_done(folder);
    free(*state);
    return 0;
}

/* Every error is an OpenAI error object, and a browser may read it. */
static void expect_error(client *c, int status, const char *code) {
    char line[64];
    bool clean;
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    client_expect(c, line);
    client_expect(c, code);
    assert_true(client_has(c, "Access-Control-Allow-Origin: *"));
    assert_true(client_has(c, "Content-Type: application/json"));
    char *body = client_body(c, &clean);
    json_t *j = json_loads(body, 0, NULL), *e = json_object_get(j, "error");
    if (!json_is_string(json_object_get(e, "message"))) fail_msg("not an error object: %s", body);
    assert_string_equal(json_string_value(json_object_get(e, "code")), code);
    json_decref(j);
    free(body);
}

static void models_are_listed(void **state) {
    client *c = client_open(*state);
    client_get(c, "/v1/models");
    client_expect(c, "\"id\":\"small\"");
    client_forget(c);
    client_get(c, "/models");
    client_expect(c, "\"id\":\"eye\"");
    client_forget(c);
    client_get(c, "/v1/models/small");
    client_expect(c, "{\"id\":\"small\",\"object\":\"model\"");
    client_forget(c);
    client_get(c, "/v1/models/none");
    expect_error(c, 404, "model_not_found");
    client_close(c);
}

static void the_billing_pages_say_what_nextchat_reads(void **state) {
    client *c = client_open(*state);
    client_get(c, "/dashboard/billing/usage?start_date=2026-11-01&end_date=2026-11-30");
    client_expect(c, "\"total_usage\":0");
    client_get(c, "/dashboard/billing/subscription");
    client_expect(c, "\"hard_limit_usd\":");
    client_close(c);
}

static void health_needs_no_key(void **state) {
    client *c = client_open(*state);
    client_send(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(c, "\"ok\"");
    client_send(c, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(c, "\"ready\"");
    client_close(c);
}

static void without_a_good_key_nothing_is_served(void **state) {
    static const char *const requests[] = {
        "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /dashboard/billing/usage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-wrong\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "POST /v1/feedback HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    };
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        client *c = client_open(*state);
        client_send(c, requests[i]);
        expect_error(c, 401, "invalid_api_key");
        client_close(c);
    }
}

#define CHAT_BODY                                                                                            \
    "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tenant\":\"other\"}"

/* With this key and, for a POST, a body. */
static client *ask_as(fixture *f, const char *key, const char *line, const char *body) {
    char head[400];
    client *c = client_open(f);
    snprintf(head, sizeof(head),
             "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %zu\r\n\r\n", line, key,
             strlen(body));
    client_send(c, head);
    client_send(c, body);
    return c;
}

static void a_key_opens_what_its_scopes_say(void **state) {
    static const char *const beyond[] = {"GET /v1/models", "GET /v1/models/small",
                                         "GET /dashboard/billing/usage", "POST /v1/feedback"};
    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        client *c = ask_as(*state, chatter, beyond[i], beyond[i][0] == 'P' ? "{}" : "");
        expect_error(c, 403, "insufficient_scope");
        client_close(c);
    }
    client *c = ask_as(*state, reader, "GET /v1/models", "");
    client_expect(c, "\"list\"");
    client_close(c);
    c = ask_as(*state, reader, "POST /v1/chat/completions", CHAT_BODY);
    expect_error(c, 403, "insufficient_scope");
    client_close(c);
}

static void an_expired_key_is_told_so(void **state) {
    client *c = ask_as(*state, old, "GET /v1/models", "");
    expect_error(c, 401, "expired_api_key");
    client_close(c);
}

static void the_tenant_is_the_keys_whatever_the_client_says(void **state) {
    fixture *f = *state;
    client *c = ask_as(f, chatter, "POST /v1/chat/completions", CHAT_BODY);
    const mr_chat_request *r = worker_request(f, f->nrequests);
    assert_true(mr_str_eqz(r->tenant, "acme"));
    worker_answer(f, r, "Hello.");
    client_expect(c, "chat.completion");
    client_close(c);
}

#define SESSION_BODY                                                                                         \
    "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"session_id\":\"s\","       \
    "\"session_history\":%s}"

static void history_comes_from_the_session_only_where_the_client_says_so(void **state) {
    static const char *const said[] = {"null", "true"};
    fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        char body[300];
        snprintf(body, sizeof(body), SESSION_BODY, said[i]);
        client *c = ask_as(f, chatter, "POST /v1/chat/completions", body);
        const mr_chat_request *r = worker_request(f, f->nrequests);
        assert_true(MR_HAS(r, MR_CHAT_REQUEST_HISTORY)); /* so the router does not guess */
        assert_int_equal(r->history, i);
        assert_true(mr_str_eqz(r->style, "formal")); /* the key's */
        worker_answer(f, r, "Hello.");
        client_expect(c, "chat.completion");
        client_close(c);
    }
    client *c = ask_as(
        f, chatter, "POST /v1/chat/completions",
        "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"session_history\":1}");
    expect_error(c, 400, "invalid_type");
    client_close(c);
}

static void unknown_paths_and_methods_are_refused(void **state) {
    client *c = client_open(*state);
    client_get(c, "/nothing");
    expect_error(c, 404, "unknown_path");
    client_forget(c);
    client_get(c, "/v1/chat/completions");
    expect_error(c, 405, "method_not_allowed");
    assert_true(client_has(c, "Allow: POST, OPTIONS"));
    client_forget(c);
    client_send(c, "DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_error(c, 405, "method_not_allowed");
    client_close(c);
}

static void head_has_no_body(void **state) {
    client *c = client_open(*state);
    client_send(c, "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(c, "\"ok\"");
    bool clean;
    char *body = client_body(c, &clean);
    assert_memory_equal(body, "HTTP/1.1 200 OK", 15); /* the second reply follows the first one's headers */
    free(body);
    client_close(c);
}

static void a_browser_may_ask_first(void **state) {
    client *c = client_open(*state);
    client_send(c, "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://127.0.0.1:3000\r\n"
                   "Access-Control-Request-Method: POST\r\n"
                   "Access-Control-Request-Headers: authorization,content-type\r\n\r\n");
    client_expect(c, "HTTP/1.1 204 ");
    client_expect(c, "Access-Control-Allow-Headers: authorization,content-type");
    assert_true(client_has(c, "Access-Control-Allow-Origin: *"));
    assert_true(client_has(c, "Access-Control-Allow-Methods: GET, POST, OPTIONS"));
    client_close(c);
}

/* ---- bodies ---- */

static void a_bad_body_is_explained(void **state) {
    client *c = client_open(*state);
    client_post(c, "/v1/chat/completions", "{\"model\":");
    expect_error(c, 400, "invalid_json");
    client_forget(c);
    client_post(c, "/v1/chat/completions", "{\"model\":\"other\",\"messages\":[]}");
    expect_error(c, 404, "model_not_found");
    assert_true(client_has(c, "x-request-id: chatcmpl-"));
    client_close(c);
}

static void post_zeros(client *c, size_t n, bool chunked) {
    char *body = malloc(n), head[200];
    memset(body, '0', n);
    client_send(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" KEY_HEADER);
    if (chunked) {
        client_send(c, "Transfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < n;) {
            size_t part = n - at < 50000 ? n - at : 50000;
            snprintf(head, sizeof(head), "%zx\r\n", part);
            client_send(c, head);
            client_send_bytes(c, body, part);
            client_send(c, "\r\n");
            at += part;
        }
        client_send(c, "0\r\n\r\n");
    } else {
        snprintf(head, sizeof(head), "Content-Length: %zu\r\n\r\n", n);
        client_send(c, head);
        client_send_bytes(c, body, n);
    }
    free(body);
}

static void a_body_over_the_limit_gets_413(void **state) {
    fixture *f = *state;
    size_t over[] = {(size_t)f->conf.body_max + 1, 3 * (size_t)f->conf.body_max, 20u << 20};
    for (size_t i = 0; i < sizeof(over) / sizeof(over[0]); i++) {
        client *c = client_open(f);
        post_zeros(c, over[i], false);
        expect_error(c, 413, "request_too_large");
        client_close(c);
    }
}

static void a_chunked_body_over_the_limit_gets_413(void **state) {
    fixture *f = *state;
    client *c = client_open(f);
    post_zeros(c, (size_t)f->conf.body_max + 1, true);
    expect_error(c, 413, "request_too_large");
    client_forget(c);
    post_zeros(c, 5 * (size_t)f->conf.body_max, true);
    client_expect(c, "request_too_large");
    client_close(c);
}

static void a_client_that_asks_before_its_body_is_told_to_go_on(void **state) {
    client *c = client_open(*state);
    client_send(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" KEY_HEADER
                   "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    client_expect(c, "HTTP/1.1 100 Continue");
    client_close(c);
}

static void what_is_no_http_gets_an_error_object_too(void **state) {
    static const struct {
        const char *text;
        int status;
        const char *code;
    } cases[] = {
        {"FROB /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 501, "unknown_method"},
        {"GET /v1/models HTTP/1.1\r\nno colon here\r\n\r\n", 400, "malformed_request"},
        {"POST /v1/feedback HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400, "malformed_request"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        client *c = client_open(*state);
        client_send(c, cases[i].text);
        expect_error(c, cases[i].status, cases[i].code);
        client_expect_closed(c);
        client_close(c);
    }
}

/* No proxy and gateway may disagree about where a request ends. */
static void a_body_of_unclear_length_is_refused_with_what_follows(void **state) {
    static const char *const headers[] = {
        "Content-Length: 0\r\nContent-Length: 27\r\n",
        "Content-Length: +0\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    };
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        client *c = client_open(*state);
        client_send(c, "POST /v1/feedback HTTP/1.1\r\nHost: x\r\n" KEY_HEADER);
        client_send(c, headers[i]);
        client_send(c, "\r\nGET /livez HTTP/1.1\r\n\r\n");
        expect_error(c, 400, "malformed_request");
        client_expect_closed(c);
        assert_false(client_has(c, "\"ok\""));
        client_close(c);
    }
}

static void malformed_chunks_are_refused(void **state) {
    static const char *const bodies[] = {"zz\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n",
                                         "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        client *c = client_open(*state);
        client_send(c, "POST /v1/feedback HTTP/1.1\r\nHost: x\r\n" KEY_HEADER
                       "Transfer-Encoding: chunked\r\n\r\n");
        client_send(c, bodies[i]);
        client_expect(c, "its chunks are malformed");
        client_expect_closed(c);
        client_close(c);
    }
}

static void bytes_that_are_no_text_are_refused(void **state) {
    static const char *const bodies[] = {"{\"model\":\"\xff\xfe\"}", "{\"model\":\"\\ud800\"}",
                                         "{\"model\":\"\\u0000\"}", "\x1f\x8b\x08"};
    client *c = client_open(*state);
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        client_post(c, "/v1/chat/completions", bodies[i]);
        expect_error(c, 400, "invalid_json");
        client_forget(c);
    }
    client_get(c, "/\xff\xfe");
    expect_error(c, 404, "unknown_path");
    client_close(c);
}

static void headers_over_the_limit_are_refused(void **state) {
    client *c = client_open(*state);
    client_send(c, "GET /livez HTTP/1.1\r\n");
    for (int i = 0; i < 2000; i++)
        client_send(c, "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
    client_send(c, "\r\n");
    client_expect(c, "HTTP/1.1 400 ");
    client_close(c);
}

/* ---- connections ---- */

static void a_connection_serves_many_requests(void **state) {
    client *c = client_open(*state);
    for (int i = 0; i < 20; i++) {
        client_get(c, "/v1/models");
        client_expect(c, "\"object\":\"list\"");
        client_forget(c);
    }
    assert_false(c->closed);
    client_close(c);
}

static void requests_sent_ahead_are_answered_in_order(void **state) {
    client *c = client_open(*state);
    client_get(c, "/nothing");
    client_get(c, "/v1/models");
    client_get(c, "/livez");
    client_expect(c, "\"status\":\"ok\"");
    assert_true(strstr(c->in.p, "unknown_path") < strstr(c->in.p, "\"list\""));
    client_close(c);
}

static void requests_are_counted_by_route_and_status(void **state) {
    fixture *f = *state;
    static const char line[] = "millrace_gateway_requests_total{route=\"models\",status=\"200\"} ";
    double before = metric(f, line);
    client *c = client_open(f);
    client_get(c, "/v1/models");
    client_expect(c, "\"list\"");
    client_get(c, "/livez");
    client_expect(c, "\"ok\"");
    assert_true(metric(f, line) == before + 1);
    client_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(the_billing_pages_say_what_nextchat_reads),
        cmocka_unit_test(health_needs_no_key),
        cmocka_unit_test(without_a_good_key_nothing_is_served),
        cmocka_unit_test(a_key_opens_what_its_scopes_say),
        cmocka_unit_test(an_expired_key_is_told_so),
        cmocka_unit_test(the_tenant_is_the_keys_whatever_the_client_says),
        cmocka_unit_test(history_comes_from_the_session_only_where_the_client_says_so),
        cmocka_unit_test(unknown_paths_and_methods_are_refused),
        cmocka_unit_test(head_has_no_body),
        cmocka_unit_test(a_browser_may_ask_first),
        cmocka_unit_test(a_bad_body_is_explained),
        cmocka_unit_test(a_body_over_the_limit_gets_413),
        cmocka_unit_test(a_chunked_body_over_the_limit_gets_413),
        cmocka_unit_test(a_client_that_asks_before_its_body_is_told_to_go_on),
        cmocka_unit_test(what_is_no_http_gets_an_error_object_too),
        cmocka_unit_test(a_body_of_unclear_length_is_refused_with_what_follows),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(bytes_that_are_no_text_are_refused),
        cmocka_unit_test(headers_over_the_limit_are_refused),
        cmocka_unit_test(a_connection_serves_many_requests),
        cmocka_unit_test(requests_sent_ahead_are_answered_in_order),
        cmocka_unit_test(requests_are_counted_by_route_and_status),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
