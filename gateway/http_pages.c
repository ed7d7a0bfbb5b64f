/* evhttp answers by itself what it cannot parse, and a body over its limit, with an HTML page; libevent 2.1 has no hook for
 * that (2.2 has evhttp_set_errorcb). So the output buffer of each connection is watched: when it holds just such a page,
 * whole and still unsent, the page is replaced by an error object. Loop's thread. */
#include "gateway/http_pages.h"

#include "gateway/api_error.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 1024
static const char page_begin[] = "HTTP/1.";
static const char page_end[] = "</BODY></HTML>\n";

/* The status of the page in `out`; -1 when it holds anything else. */
static int page_status(struct evbuffer *out) {
    char page[PAGE_MAX + 1];
    size_t n = evbuffer_get_length(out), begin = sizeof(page_begin) - 1, end = sizeof(page_end) - 1;
    if (n < begin + 2 + end || n > PAGE_MAX) return -1;
    if (evbuffer_copyout(out, page, n) != (ev_ssize_t)n) return -1;
    page[n] = '\0';
    if (memcmp(page, page_begin, begin) != 0 || memcmp(page + n - end, page_end, end) != 0) return -1;
    return atoi(page + begin + 2); /* after "1 " */
}

static void explain(int status, size_t body_max, mr_api_error *e) {
    switch (status) {
    case 413:
        /* evhttp does not tell the two apart */
        mr_refuse(e, 413, "request_too_large", NULL,
                  "The request body is over the limit of %zu bytes, or its chunks are malformed.", body_max);
        break;
    case 417: mr_refuse(e, 417, "expectation_failed", NULL, "Unknown Expect header."); break;
    case 400: mr_refuse(e, 400, "malformed_request", NULL, "This is not a well-formed HTTP request."); break;
    default: mr_refuse(e, 501, "unknown_method", NULL, "Unknown HTTP method."); break;
    }
}

static void replace_page(struct evbuffer *out, int status, size_t body_max) {
    mr_api_error e;
    explain(status, body_max, &e);
    json_t *j = mr_api_error_json(&e);
    char *body = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    if (!body) return; /* the page goes out as it is */
    evbuffer_drain(out, evbuffer_get_length(out));
    evbuffer_add_printf(
        out,
        "HTTP/1.1 %d Error\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\n"
        "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
        e.status, strlen(body), body);
    free(body);
}

static void look(struct evbuffer *out, const size_t *body_max) {
    int status = page_status(out);
    if (status >= 0) replace_page(out, status, *body_max);
}

/* Bufferevents of sockets keep others from taking bytes off the front; those of TLS do not, and cannot do so themselves
 * where that is forbidden. */
static void on_output(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg) {
    if (info->n_added == 0 || evbuffer_get_length(out) > PAGE_MAX) return;
    evbuffer_unfreeze(out, 1);
    look(out, arg);
    evbuffer_freeze(out, 1);
}

static void on_tls_output(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg) {
    if (info->n_added > 0 && evbuffer_get_length(out) <= PAGE_MAX) look(out, arg);
}

int mr_http_pages_watch(struct bufferevent *bev, bool tls, const size_t *body_max) {
    evbuffer_cb_func cb = tls ? on_tls_output : on_output;
    return evbuffer_add_cb(bufferevent_get_output(bev), cb, (void *)body_max) ? 0 : -1;
}
