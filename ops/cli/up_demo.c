/* The chat that `millrace up` shows: an HTTP request like any client's, its answer printed as it comes. All on the loop's
 * thread; the request owns nothing of the caller's. */
#include "base/str.h"
#include "ops/cli/up.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_S  120
#define LINE_BYTES 65536
#define MAX_TOKENS 200

struct mr_up_demo {
    mr_loop *loop;
    struct evhttp_connection *conn;
    struct event *finished; /* reports outside the connection's own callbacks */
    mr_up_demo_cb *cb;
    void *arg;
    mr_buf line; /* the part of a line that has come so far */
    mr_error err;
    bool answered, ended;
};

static void print_delta(mr_up_demo *d, const char *json, size_t n) {
    json_t *chunk = json_loadb(json, n, 0, NULL);
    const char *text = json_string_value(json_object_get(
        json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "delta"), "content"));
    const char *why = json_string_value(json_object_get(json_object_get(chunk, "error"), "message"));
    if (why) mr_fail(&d->err, MR_EIO, "%s", why);
    if (text && *text) {
        fputs(text, stdout);
        fflush(stdout);
        d->answered = true;
    }
    json_decref(chunk);
}

static void on_line(mr_up_demo *d) {
    static const char data[] = "data: ";
    mr_str line = mr_buf_str(&d->line);
    if (line.n < sizeof(data) - 1 || memcmp(line.p, data, sizeof(data) - 1) != 0) return;
    line.p += sizeof(data) - 1;
    line.n -= sizeof(data) - 1;
    if (mr_str_eqz(line, "[DONE]")) {
        d->ended = true;
    } else {
        print_delta(d, line.p, line.n);
    }
}

static void on_chunk(struct evhttp_request *req, void *arg) {
    mr_up_demo *d = arg;
    struct evbuffer *in = evhttp_request_get_input_buffer(req);
    char c;
    while (evbuffer_remove(in, &c, 1) == 1) {
        if (c != '\n') {
            mr_buf_put(&d->line, &c, 1);
            continue;
        }
        on_line(d);
        mr_buf_clear(&d->line);
    }
}

static void on_response(struct evhttp_request *req, void *arg) {
    mr_up_demo *d = arg;
    int code = req ? evhttp_request_get_response_code(req) : 0;
    if (d->err.code == MR_OK && !(d->ended && d->answered)) {
        if (code != 200 && code != 0) {
            mr_fail(&d->err, MR_EIO, "the gateway answered with HTTP status %d", code);
        } else {
            mr_fail(&d->err, MR_EIO, "the answer broke off");
        }
    }
    event_active(d->finished, EV_TIMEOUT, 0);
}

static void on_finished(evutil_socket_t fd, short what, void *arg) {
    mr_up_demo *d = arg;
    (void)fd, (void)what;
    d->cb(d->arg, d->err.code == MR_OK ? NULL : &d->err);
}

/* The first of the gateway's keys, if the environment gives it any; each is `key` or `tenant=key`. */
static void add_key(struct evkeyvalq *headers) {
    const char *keys = getenv("MILLRACE_GATEWAY_KEYS");
    char value[512];
    if (!keys || !*keys) return;
    int n = (int)strcspn(keys, ",");
    const char *equals = memchr(keys, '=', (size_t)n);
    if (equals) {
        n -= (int)(equals + 1 - keys);
        keys = equals + 1;
    }
    if (snprintf(value, sizeof(value), "Bearer %.*s", n, keys) < (int)sizeof(value)) {
        evhttp_add_header(headers, "Authorization", value);
    }
}

static int put_body(struct evhttp_request *req, const char *model, const char *question) {
    json_t *body =
        json_pack("{s:s, s:b, s:i, s:f, s:[{s:s, s:s}]}", "model", model, "stream", 1, "max_tokens",
                  MAX_TOKENS, "temperature", 0.0, "messages", "role", "user", "content", question);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    int rc = text ? evbuffer_add(evhttp_request_get_output_buffer(req), text, strlen(text)) : -1;
    free(text);
    json_decref(body);
    return rc;
}

static int send_request(mr_up_demo *d, int port, const char *model, const char *question) {
    d->conn = evhttp_connection_base_new(mr_loop_base(d->loop), NULL, "127.0.0.1", (uint16_t)port);
    d->finished = event_new(mr_loop_base(d->loop), -1, EV_TIMEOUT, on_finished, d);
    struct evhttp_request *req = d->conn && d->finished ? evhttp_request_new(on_response, d) : NULL;
    if (!req) return -1;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    evhttp_request_set_chunked_cb(req, on_chunk);
    evhttp_connection_set_timeout(d->conn, TIMEOUT_S);
    evhttp_add_header(headers, "Host", "127.0.0.1");
    evhttp_add_header(headers, "Content-Type", "application/json");
    add_key(headers);
    if (put_body(req, model, question) != 0) {
        evhttp_request_free(req);
        return -1;
    }
    return evhttp_make_request(d->conn, req, EVHTTP_REQ_POST, "/v1/chat/completions");
}

mr_up_demo *mr_up_demo_start(mr_loop *l, int port, const char *model, const char *question, mr_up_demo_cb *cb,
                             void *arg, mr_error *err) {
    mr_up_demo *d = calloc(1, sizeof(*d));
    if (d) {
        *d = (mr_up_demo){.loop = l, .cb = cb, .arg = arg};
        mr_buf_init(&d->line, LINE_BYTES);
        if (send_request(d, port, model, question) == 0) return d;
        mr_up_demo_free(d);
    }
    mr_fail(err, MR_ENOMEM, "out of memory");
    return NULL;
}

void mr_up_demo_free(mr_up_demo *d) {
    if (!d) return;
    if (d->conn) evhttp_connection_free(d->conn);
    if (d->finished) event_free(d->finished);
    mr_buf_done(&d->line);
    free(d);
}
