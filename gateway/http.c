/* The HTTP server (see http.h). Loop's thread throughout.
 *
 * Who owns what: evhttp owns connections and requests; the server owns its calls, one for each request that reached
 * a handler, linked in a list. A call dies when its reply was written (on_complete), or with its connection (on_closed).
 */
#include "gateway/http.h"

#include "base/log.h"
#include "gateway/http_pages.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#define HEADERS_MAX     65536
#define WRITE_TIMEOUT_S 30 /* a client that takes no byte for so long is gone */
#define ACCEPT_RETRY_MS 100
#define ALLOWED_METHODS                                                                                      \
    (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |               \
     EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH)

typedef enum {
    CALL_OPEN,      /* the handler has it, nothing was sent */
    CALL_STREAMING, /* headers are out */
    CALL_ENDED,     /* the reply is being written; nobody but the server uses it */
} call_state;

struct mr_call {
    LIST_ENTRY(mr_call) link;
    mr_http *http;
    struct evhttp_request *req;
    struct event *closer; /* fires once, to close the connection from outside of its own callbacks */
    call_state state;
    const char *route;
    int status;
    bool logged;
    int64_t started_us;
    mr_call_closed_cb *on_close;
    void *on_close_arg;
};

struct mr_http {
    struct event_base *base;
    struct evhttp *ev;
    struct evhttp_bound_socket *bound;
    struct event *accept_again;
    mr_http_options o;
    int port;
    int ncalls;
    bool freeing;
    LIST_HEAD(, mr_call) calls;
};

/* ---- calls: birth and death ---- */

static struct evhttp_connection *connection(const mr_call *c) {
    return evhttp_request_get_connection(c->req);
}

static struct bufferevent *buffers(const mr_call *c) {
    return evhttp_connection_get_bufferevent(connection(c));
}

static void call_free(mr_call *c) {
    mr_http *h = c->http;
    mr_call_done done = {c->route, c->status, (double)(mr_mono_us() - c->started_us) / 1e6, c->logged};
    LIST_REMOVE(c, link);
    h->ncalls--;
    if (c->closer) event_free(c->closer);
    free(c);
    if (!h->freeing) h->o.on_done(h->o.arg, &done);
}

/* The connection is being freed: the peer closed it or stopped reading, or we close it ourselves after an abort. */
static void on_closed(struct evhttp_connection *evcon, void *arg) {
    mr_call *c = arg;
    (void)evcon;
    /* evhttp lets go of a request that is still being answered, which makes it ours to free */
    if (!connection(c)) evhttp_request_free(c->req);
    if (c->state != CALL_ENDED && !c->http->freeing) {
        c->status = 499;
        if (c->on_close) c->on_close(c->on_close_arg);
    }
    call_free(c);
}

/* The reply is written. Back to waiting for the connection's next request, with the timeouts for that. */
static void on_complete(struct evhttp_request *req, void *arg) {
    mr_call *c = arg;
    struct evhttp_connection *evcon = evhttp_request_get_connection(req);
    struct timeval idle = {c->http->o.idle_timeout_s, 0}, write = {WRITE_TIMEOUT_S, 0};
    bufferevent_set_timeouts(evhttp_connection_get_bufferevent(evcon), &idle, &write);
    evhttp_connection_set_closecb(evcon, NULL, NULL);
    call_free(c);
}

/* Notice a peer that goes away while it waits. evhttp stops reading during a reply, and would exit on data that comes then; so
 * read without its read callback (what a client sends ahead stays in the buffer), and without a timeout for silence. */
static void watch_peer(mr_call *c) {
    struct bufferevent *bev = buffers(c);
    bufferevent_data_cb on_write;
    bufferevent_event_cb on_event;
    void *arg;
    struct timeval write = {WRITE_TIMEOUT_S, 0};
    int yes = 1;
    setsockopt(bufferevent_getfd(bev), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    bufferevent_getcb(bev, NULL, &on_write, &on_event, &arg);
    bufferevent_setcb(bev, NULL, on_write, on_event, arg);
    bufferevent_set_timeouts(bev, NULL, &write);
    bufferevent_enable(bev, EV_READ);
}

static mr_call *call_new(mr_http *h, struct evhttp_request *req) {
    mr_call *c = calloc(1, sizeof(*c));
    if (!c) return NULL;
    *c = (mr_call){.http = h, .req = req, .route = "other", .started_us = mr_mono_us()};
    LIST_INSERT_HEAD(&h->calls, c, link);
    h->ncalls++;
    evhttp_connection_set_closecb(connection(c), on_closed, c);
    evhttp_request_set_on_complete_cb(req, on_complete, c);
    watch_peer(c);
    return c;
}

/* ---- the request ---- */

const char *mr_call_header(const mr_call *c, const char *name) {
    return evhttp_find_header(evhttp_request_get_input_headers(c->req), name);
}

mr_str mr_call_body(mr_call *c) {
    struct evbuffer *in = evhttp_request_get_input_buffer(c->req);
    const char *p = (const char *)evbuffer_pullup(in, -1);
    return p ? (mr_str){p, evbuffer_get_length(in)} : MR_STR("");
}

const char *mr_call_path(const mr_call *c) {
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(c->req);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    return path && *path ? path : "/";
}

bool mr_call_query(const mr_call *c, const char *name, char *out, size_t cap) {
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(c->req);
    const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
    struct evkeyvalq values;
    if (!query || evhttp_parse_query_str(query, &values) != 0) return false;
    const char *v = evhttp_find_header(&values, name);
    bool fits = v && strlen(v) < cap;
    if (fits) memcpy(out, v, strlen(v) + 1);
    evhttp_clear_headers(&values);
    return fits;
}

void mr_call_on_close(mr_call *c, mr_call_closed_cb *cb, void *arg) {
    c->on_close = cb;
    c->on_close_arg = arg;
}

void mr_call_logged(mr_call *c) {
    c->logged = true;
}

/* ---- whole replies ---- */

void mr_call_set_header(mr_call *c, const char *name, const char *value) {
    struct evkeyvalq *headers = evhttp_request_get_output_headers(c->req);
    evhttp_remove_header(headers, name);
    /* a value that is not fit for a header is refused there, and left out */
    evhttp_add_header(headers, name, value);
}

const char *mr_call_own_header(const mr_call *c, const char *name) {
    return evhttp_find_header(evhttp_request_get_output_headers(c->req), name);
}

static void common_headers(mr_call *c) {
    mr_call_set_header(c, "Access-Control-Allow-Origin", "*");
    mr_call_set_header(c, "Access-Control-Expose-Headers", "x-request-id, retry-after, x-millrace-source");
    if (!c->http->bound) mr_call_set_header(c, "Connection", "close");
}

static const char *reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 413: return "Content Too Large";
    case 429: return "Too Many Requests";
    default: return NULL; /* evhttp knows the others */
    }
}

static void reply(mr_call *c, int status, const char *p, size_t n) {
    struct evbuffer *body = evbuffer_new();
    bool head = evhttp_request_get_command(c->req) == EVHTTP_REQ_HEAD;
    common_headers(c);
    c->state = CALL_ENDED;
    c->status = status;
    if (!body || (n > 0 && !head && evbuffer_add(body, p, n) != 0)) {
        evhttp_connection_free(connection(c)); /* out of memory; frees the call as well */
    } else {
        evhttp_send_reply(c->req, status, reason(status), body);
    }
    if (body) evbuffer_free(body);
}

void mr_call_reply(mr_call *c, int status, mr_str json) {
    mr_call_set_header(c, "Content-Type", "application/json");
    reply(c, status, json.p, json.n);
}

void mr_call_json(mr_call *c, int status, json_t *j) {
    static const char failed[] = "{\"error\":{\"message\":\"Out of memory.\",\"type\":\"server_error\","
                                 "\"param\":null,\"code\":\"out_of_memory\"}}";
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    mr_call_reply(c, text ? status : 500, text ? mr_str_of(text) : mr_str_of(failed));
    free(text);
}

void mr_call_error(mr_call *c, const mr_api_error *e) {
    char seconds[16];
    if (e->retry_after_s > 0) {
        snprintf(seconds, sizeof(seconds), "%d", e->retry_after_s);
        mr_call_set_header(c, "Retry-After", seconds);
    }
    if (e->status == 401) mr_call_set_header(c, "WWW-Authenticate", "Bearer");
    mr_call_json(c, e->status, mr_api_error_json(e));
}

/* ---- streams ---- */

void mr_call_stream(mr_call *c) {
    common_headers(c);
    mr_call_set_header(c, "Content-Type", "text/event-stream; charset=utf-8");
    mr_call_set_header(c, "Cache-Control", "no-cache");
    mr_call_set_header(c, "X-Accel-Buffering", "no");
    /* HTTP/1.0 has no chunks: the end of such a stream is the end of its connection, whatever the client asked for */
    if (c->req->major == 1 && c->req->minor == 0) {
        evhttp_remove_header(evhttp_request_get_input_headers(c->req), "Connection");
    }
    c->state = CALL_STREAMING;
    c->status = 200;
    evhttp_send_reply_start(c->req, 200, reason(200));
}

bool mr_call_send(mr_call *c, mr_str bytes) {
    struct evbuffer *b = evbuffer_new();
    bool ok = b && evbuffer_add(b, bytes.p, bytes.n) == 0;
    if (ok) evhttp_send_reply_chunk(c->req, b);
    if (b) evbuffer_free(b);
    return ok;
}

size_t mr_call_unsent(const mr_call *c) {
    return evbuffer_get_length(bufferevent_get_output(buffers(c)));
}

void mr_call_end(mr_call *c) {
    c->state = CALL_ENDED;
    evhttp_send_reply_end(c->req);
}

static void close_now(evutil_socket_t fd, short what, void *arg) {
    mr_call *c = arg;
    (void)fd, (void)what;
    evhttp_connection_free(connection(c)); /* on_closed frees the call */
}

static void close_soon(struct evhttp_connection *evcon, void *arg) {
    mr_call *c = arg;
    (void)evcon;
    event_active(c->closer, EV_TIMEOUT, 0);
}

void mr_call_abort(mr_call *c, mr_str last) {
    struct evbuffer *b = evbuffer_new();
    c->state = CALL_ENDED;
    c->closer = event_new(c->http->base, -1, 0, close_now, c);
    if (!c->closer) {
        evhttp_connection_free(connection(c));
    } else if (!b || last.n == 0 || evbuffer_add(b, last.p, last.n) != 0) {
        close_soon(NULL, c);
    } else {
        evhttp_send_reply_chunk_with_cb(c->req, b, close_soon, c);
    }
    if (b) evbuffer_free(b);
}

/* ---- routing ---- */

static bool path_matches(const char *pattern, const char *path) {
    size_t n = strlen(pattern);
    if (pattern[n - 1] == '*') return strncmp(pattern, path, n - 1) == 0 && path[n - 1];
    return strcmp(pattern, path) == 0;
}

static const char *method_name(mr_call *c) {
    switch (evhttp_request_get_command(c->req)) {
    case EVHTTP_REQ_GET:
    case EVHTTP_REQ_HEAD: return "GET";
    case EVHTTP_REQ_POST: return "POST";
    default: return "";
    }
}

static void preflight(mr_call *c) {
    const char *asked = mr_call_header(c, "Access-Control-Request-Headers");
    mr_call_set_header(c, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    mr_call_set_header(c, "Access-Control-Allow-Headers", asked ? asked : "authorization, content-type");
    mr_call_set_header(c, "Access-Control-Max-Age", "86400");
    reply(c, 204, NULL, 0);
}

static void refuse_route(mr_call *c, const char *allowed) {
    mr_api_error e;
    if (*allowed) {
        char allow[64];
        snprintf(allow, sizeof(allow), "%s%s, OPTIONS", allowed, strcmp(allowed, "GET") == 0 ? ", HEAD" : "");
        mr_call_set_header(c, "Allow", allow);
        mr_refuse(&e, 405, "method_not_allowed", NULL, "This path takes %s.", allowed);
    } else {
        mr_refuse(&e, 404, "unknown_path", NULL, "There is nothing at %.200s.", mr_call_path(c));
    }
    mr_call_error(c, &e);
}

static void dispatch(mr_http *h, mr_call *c) {
    const char *path = mr_call_path(c), *method = method_name(c), *allowed = "";
    for (const mr_route *r = h->o.routes; r->method; r++) {
        if (!path_matches(r->path, path)) continue;
        c->route = r->name;
        if (strcmp(r->method, method) == 0) {
            r->cb(h->o.arg, c);
            return;
        }
        allowed = r->method;
    }
    refuse_route(c, allowed);
}

/* A request whose end a proxy before us may see elsewhere than evhttp does: what follows it could be taken for
 * somebody else's request. */
static bool is_ambiguous(const mr_call *c) {
    const struct evkeyval *kv;
    int lengths = 0;
    TAILQ_FOREACH(kv, evhttp_request_get_input_headers(c->req), next) {
        if (strpbrk(kv->key, " \t")) return true;
        if (strcasecmp(kv->key, "Content-Length") == 0) {
            if (++lengths > 1 || kv->value[strspn(kv->value, "0123456789")]) return true;
        } else if (strcasecmp(kv->key, "Transfer-Encoding") == 0 && strcasecmp(kv->value, "chunked") != 0) {
            return true;
        }
    }
    return false;
}

static void refuse_ambiguous(mr_call *c) {
    mr_api_error e;
    mr_call_set_header(c, "Connection", "close");
    mr_refuse(&e, 400, "malformed_request", NULL,
              "The request's headers do not say clearly where its body ends.");
    mr_call_error(c, &e);
}

static void on_request(struct evhttp_request *req, void *arg) {
    mr_http *h = arg;
    mr_call *c = call_new(h, req);
    if (!c) {
        evhttp_send_error(req, 503, NULL);
    } else if (is_ambiguous(c)) {
        refuse_ambiguous(c);
    } else if (evhttp_request_get_command(req) == EVHTTP_REQ_OPTIONS) {
        preflight(c);
    } else if (evbuffer_get_length(evhttp_request_get_input_buffer(req)) > h->o.body_max) {
        mr_api_error e;
        mr_refuse(&e, 413, "request_too_large", NULL, "The request body is over the limit of %zu bytes.",
                  h->o.body_max);
        mr_call_error(c, &e);
    } else {
        dispatch(h, c);
    }
}

/* ---- the server ---- */

/* evhttp reads a body up to here, so that a chunked one that is over body_max by less can still be answered in peace; what is
 * longer is drained (EVHTTP_SERVER_LINGERING_CLOSE) and answered by http_pages. */
static size_t evhttp_body_max(const mr_http *h) {
    return 2 * h->o.body_max;
}

static struct bufferevent *new_connection(struct event_base *base, void *arg) {
    mr_http *h = arg;
    struct bufferevent *bev = h->o.tls ? mr_tls_accept(h->o.tls, base) : bufferevent_socket_new(base, -1, 0);
    if (!bev) return NULL;
    /* bounds what a client can send ahead while it is being answered; must leave room for a whole body */
    bufferevent_setwatermark(bev, EV_READ, 0, evhttp_body_max(h) + 2 * HEADERS_MAX);
    if (mr_http_pages_watch(bev, h->o.tls != NULL, &h->o.body_max) < 0) {
        bufferevent_free(bev);
        return NULL;
    }
    return bev;
}

/* Out of file descriptors, most likely: accepting again at once would only spin. */
static void on_accept_error(struct evconnlistener *listener, void *arg) {
    mr_http *h = arg;
    struct timeval later = {0, ACCEPT_RETRY_MS * 1000};
    mr_log(MR_ERROR, "cannot accept a connection", MR_S("reason", strerror(errno)));
    evconnlistener_disable(listener);
    event_add(h->accept_again, &later);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg) {
    mr_http *h = arg;
    (void)fd, (void)what;
    if (h->bound) evconnlistener_enable(evhttp_bound_socket_get_listener(h->bound));
}

static int bound_port(struct evhttp_bound_socket *bound) {
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof(a);
    if (getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&a, &n) < 0) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

static int listen_on(mr_http *h, mr_error *err) {
    errno = 0;
    h->bound = evhttp_bind_socket_with_handle(h->ev, h->o.host, (uint16_t)h->o.port);
    if (!h->bound) {
        return mr_fail(err, MR_EIO, "cannot listen on %s:%d: %s. Set gateway.host and gateway.port",
                       h->o.host, h->o.port, errno ? strerror(errno) : "no such address");
    }
    h->port = bound_port(h->bound);
    evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(h->bound), on_accept_error);
    return 0;
}

static void configure(mr_http *h) {
    evhttp_set_gencb(h->ev, on_request, h);
    evhttp_set_bevcb(h->ev, new_connection, h);
    evhttp_set_allowed_methods(h->ev, ALLOWED_METHODS);
    evhttp_set_max_headers_size(h->ev, HEADERS_MAX);
    evhttp_set_max_body_size(h->ev, (ev_ssize_t)evhttp_body_max(h));
    evhttp_set_flags(h->ev, EVHTTP_SERVER_LINGERING_CLOSE);
    evhttp_set_timeout(h->ev, h->o.idle_timeout_s);
    evhttp_set_default_content_type(h->ev, NULL);
}

mr_http *mr_http_new(mr_loop *l, const mr_http_options *o, mr_error *err) {
    mr_http *h = calloc(1, sizeof(*h));
    if (!h) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    h->o = *o;
    h->base = mr_loop_base(l);
    LIST_INIT(&h->calls);
    h->ev = evhttp_new(h->base);
    h->accept_again = evtimer_new(h->base, on_accept_again, h);
    if (!h->ev || !h->accept_again) {
        mr_fail(err, MR_ENOMEM, "out of memory");
    } else {
        configure(h);
        if (listen_on(h, err) == 0) return h;
    }
    mr_http_free(h);
    return NULL;
}

void mr_http_stop_accepting(mr_http *h) {
    if (h->bound) evhttp_del_accept_socket(h->ev, h->bound);
    h->bound = NULL;
}

void mr_http_free(mr_http *h) {
    if (!h) return;
    h->freeing = true;
    if (h->ev) evhttp_free(h->ev);
    if (h->accept_again) event_free(h->accept_again);
    free(h);
}

int mr_http_port(const mr_http *h) {
    return h->port;
}

int mr_http_calls(const mr_http *h) {
    return h->ncalls;
}
