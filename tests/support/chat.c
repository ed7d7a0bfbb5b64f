/* An HTTP client of the gateway. See chat.h. */
#include "support/chat.h"

#include "support/support.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_MS   60000
#define TEXT_MAX  (4u << 20)
#define TIMEOUT_S 120

/* ---- what comes ---- */

static void put_string(mr_buf *out, const json_t *s) {
    if (json_is_string(s)) mr_buf_put(out, json_string_value(s), json_string_length(s));
}

static void copy_string(char *out, size_t cap, const json_t *s) {
    if (json_is_string(s)) snprintf(out, cap, "%s", json_string_value(s));
}

/* The list of a whole answer has the same members as that of a chunk, but for the index. */
static void read_calls(chat *c, const json_t *list) {
    size_t i;
    const json_t *call;
    json_array_foreach(list, i, call) {
        const json_t *function = json_object_get(call, "function"), *name = json_object_get(function, "name");
        if (name) {
            size_t n = strlen(c->ids);
            mr_buf_printf(&c->calls, "%s%s(", n ? ")" : "", json_string_value(name));
            assert_string_equal(json_string_value(json_object_get(call, "type")), "function");
            snprintf(c->ids + n, sizeof(c->ids) - n, "%s ", json_string_value(json_object_get(call, "id")));
        }
        put_string(&c->calls, json_object_get(function, "arguments"));
    }
}

/* A chunk of a stream, a whole answer, or an error object: they share their shape. */
static void read_object(chat *c, const json_t *j) {
    const json_t *choice = json_array_get(json_object_get(j, "choices"), 0);
    const json_t *said = json_object_get(choice, "delta"), *error = json_object_get(j, "error");
    const json_t *usage = json_object_get(j, "usage");
    if (!said) said = json_object_get(choice, "message");
    put_string(&c->text, json_object_get(said, "content"));
    put_string(&c->reasoning, json_object_get(said, "reasoning_content"));
    read_calls(c, json_object_get(said, "tool_calls"));
    copy_string(c->finish, sizeof(c->finish), json_object_get(choice, "finish_reason"));
    copy_string(c->id, sizeof(c->id), json_object_get(j, "id"));
    copy_string(c->source, sizeof(c->source), json_object_get(json_object_get(j, "millrace"), "source"));
    copy_string(c->code, sizeof(c->code), json_object_get(error, "code"));
    copy_string(c->message, sizeof(c->message), json_object_get(error, "message"));
    if (json_is_object(usage)) {
        c->prompt_tokens = json_integer_value(json_object_get(usage, "prompt_tokens"));
        c->completion_tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
        copy_string(c->usage_source, sizeof(c->usage_source), json_object_get(usage, "source"));
    }
    if (!said) return;
    c->pieces++;
    if (!c->first_us) c->first_us = mr_mono_us();
}

static void read_json(chat *c, const char *p, size_t n) {
    json_error_t why;
    json_t *j = json_loadb(p, n, 0, &why);
    if (!j) fail_msg("not JSON: %s: %.*s", why.text, (int)n, p);
    read_object(c, j);
    json_decref(j);
}

static void read_line(chat *c, const char *p, size_t n) {
    static const char data[] = "data: ", end[] = "[DONE]", id[] = "id: ";
    if (n > sizeof(id) - 1 && memcmp(p, id, sizeof(id) - 1) == 0) { /* counts when its data is here */
        snprintf(c->next_at, sizeof(c->next_at), "%.*s", (int)(n - sizeof(id) + 1), p + sizeof(id) - 1);
        return;
    }
    if (n < sizeof(data) - 1 || memcmp(p, data, sizeof(data) - 1) != 0) return; /* comments, ids */
    p += sizeof(data) - 1;
    n -= sizeof(data) - 1;
    assert_false(c->done);
    if (n == sizeof(end) - 1 && memcmp(p, end, n) == 0) {
        c->done = true;
    } else {
        read_json(c, p, n);
        memcpy(c->at, c->next_at, sizeof(c->at));
    }
}

static void read_lines(chat *c) {
    const char *at = c->in.p, *end = c->in.p + c->in.n, *nl;
    while (at < end && (nl = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        read_line(c, at, (size_t)(nl - at));
        at = nl + 1;
    }
    size_t rest = (size_t)(end - at);
    if (rest) memmove(c->in.p, at, rest);
    c->in.n = rest;
}

static bool is_type(struct evhttp_request *r, const char *type) {
    const char *v = evhttp_find_header(evhttp_request_get_input_headers(r), "Content-Type");
    return v && strncmp(v, type, strlen(type)) == 0;
}

static void read_source(chat *c, struct evhttp_request *r) {
    const char *v = evhttp_find_header(evhttp_request_get_input_headers(r), "x-millrace-source");
    snprintf(c->header_source, sizeof(c->header_source), "%s", v ? v : "");
}

static void on_chunk(struct evhttp_request *r, void *arg) {
    chat *c = arg;
    char part[16384];
    struct evbuffer *in = evhttp_request_get_input_buffer(r);
    int n;
    c->status = evhttp_request_get_response_code(r);
    while ((n = evbuffer_remove(in, part, sizeof(part))) > 0) mr_buf_put(&c->in, part, (size_t)n);
    if (is_type(r, "text/event-stream")) read_lines(c);
}

static void on_error(enum evhttp_request_error e, void *arg) {
    (void)e;
    ((chat *)arg)->broken = true;
}

static void on_over(struct evhttp_request *r, void *arg) {
    chat *c = arg;
    c->request = NULL;
    c->over = true;
    c->over_us = mr_mono_us();
    if (!r || evhttp_request_get_response_code(r) == 0) {
        c->broken = true;
        return;
    }
    c->status = evhttp_request_get_response_code(r);
    read_source(c, r);
    if (is_type(r, "application/json")) read_json(c, c->in.p, c->in.n);
}

/* ---- asking ---- */

typedef struct header {
    const char *name, *value; /* value NULL: not sent */
} header;

/* headers: the last one has no name. */
static chat *send_with(mr_loop *l, int port, const char *path, mr_str body, const header *more) {
    chat *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    mr_buf_init(&c->in, TEXT_MAX);
    mr_buf_init(&c->text, TEXT_MAX);
    mr_buf_init(&c->reasoning, TEXT_MAX);
    mr_buf_init(&c->calls, TEXT_MAX);
    c->connection = evhttp_connection_base_new(mr_loop_base(l), NULL, "127.0.0.1", (uint16_t)port);
    c->request = evhttp_request_new(on_over, c);
    assert_true(c->connection && c->request);
    evhttp_connection_set_timeout(c->connection, TIMEOUT_S);
    evhttp_request_set_chunked_cb(c->request, on_chunk);
    evhttp_request_set_error_cb(c->request, on_error);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(c->request);
    evhttp_add_header(headers, "Host", "127.0.0.1");
    evhttp_add_header(headers, "Connection", "close");
    for (; more->name; more++) {
        if (more->value) evhttp_add_header(headers, more->name, more->value);
    }
    if (body.n) evhttp_add_header(headers, "Content-Type", "application/json");
    evbuffer_add(evhttp_request_get_output_buffer(c->request), body.p, body.n);
    c->asked_us = mr_mono_us();
    int rc = evhttp_make_request(c->connection, c->request, body.n ? EVHTTP_REQ_POST : EVHTTP_REQ_GET, path);
    assert_int_equal(rc, 0);
    return c;
}

chat *chat_send(mr_loop *l, int port, const char *path, mr_str body) {
    return send_with(l, port, path, body, &(header){NULL, NULL});
}

chat *chat_resume(mr_loop *l, int port, const char *id, const char *at) {
    char path[200];
    snprintf(path, sizeof(path), "/v1/chat/completions/%s", id);
    const header more[] = {{"Last-Event-ID", *at ? at : NULL}, {NULL, NULL}};
    return send_with(l, port, path, MR_STR(""), more);
}

static json_t *message(const char *role, const char *text) {
    return json_pack("{s:s, s:s}", "role", role, "content", text);
}

static json_t *body_of(const ask *a) {
    json_t *messages = json_array();
    if (a->earlier[0]) {
        json_array_append_new(messages, message("user", a->earlier[0]));
        json_array_append_new(messages, message("assistant", a->earlier[1]));
    }
    json_array_append_new(messages, message("user", a->text));
    json_t *j = json_pack("{s:s, s:b, s:o}", "model", a->model ? a->model : "millrace-demo", "stream",
                          !a->whole, "messages", messages);
    if (a->seed) json_object_set_new(j, "seed", json_integer(a->seed));
    if (a->max_tokens) json_object_set_new(j, "max_tokens", json_integer(a->max_tokens));
    if (a->long_answer) json_object_set_new(j, "ignore_eos", json_true());
    if (a->likeliest) json_object_set_new(j, "temperature", json_integer(0));
    if (a->usage) json_object_set_new(j, "stream_options", json_pack("{s:b}", "include_usage", 1));
    if (a->more) {
        json_t *more = json_loads(a->more, 0, NULL);
        assert_int_equal(json_object_update(j, more), 0);
        json_decref(more);
    }
    return j;
}

chat *chat_ask(mr_loop *l, int port, const ask *a) {
    json_t *j = body_of(a);
    char *body = json_dumps(j, JSON_COMPACT);
    assert_non_null(body);
    char seconds[16];
    snprintf(seconds, sizeof(seconds), "%d", a->resume_s);
    const header more[] = {{"x-millrace-resume", a->resume_s ? seconds : NULL},
                           {"x-millrace-session", a->session},
                           {NULL, NULL}};
    chat *c = send_with(l, port, "/v1/chat/completions", mr_str_of(body), more);
    free(body);
    json_decref(j);
    return c;
}

void chat_free(chat *c) {
    if (!c) return;
    evhttp_connection_free(c->connection);
    mr_buf_done(&c->in);
    mr_buf_done(&c->text);
    mr_buf_done(&c->reasoning);
    mr_buf_done(&c->calls);
    free(c);
}

/* ---- waiting ---- */

typedef struct goal {
    const chat *c;
    size_t bytes;
} goal;

static bool is_over(void *arg) {
    return ((const chat *)arg)->over;
}

static bool has_bytes(void *arg) {
    const goal *g = arg;
    return g->c->text.n + g->c->calls.n >= g->bytes || g->c->over;
}

void chat_wait(mr_loop *l, chat *c) {
    if (!test_wait(l, WAIT_MS, is_over, c)) {
        fail_msg("an answer does not end; status %d, %zu bytes so far", c->status, c->text.n);
    }
}

void chat_wait_bytes(mr_loop *l, chat *c, size_t bytes) {
    goal g = {c, bytes};
    bool came = test_wait(l, WAIT_MS, has_bytes, &g);
    if (!came || c->text.n + c->calls.n < bytes) {
        fail_msg("an answer has only %zu bytes; status %d, %s", c->text.n, c->status, c->message);
    }
}

bool chat_complete(const chat *c) {
    bool streamed_well = c->done || c->pieces == 1;
    return c->over && !c->broken && c->status == 200 && *c->finish && streamed_well && !*c->code;
}

double chat_metric(mr_loop *l, int port, const char *name) {
    char line[200];
    chat *c = chat_send(l, port, "/metrics", MR_STR(""));
    chat_wait(l, c);
    mr_buf_put(&c->in, "", 1);
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = c->status == 200 ? strstr(c->in.p, line) : NULL;
    double v = at ? strtod(at + strlen(line), NULL) : -1;
    chat_free(c);
    return v;
}
