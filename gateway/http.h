/* The HTTP server of the gateway: evhttp with the manners that a stream of tokens needs.
 *
 * A route's handler gets an mr_call, one request to be answered, with its body read. The handler, or whoever it hands the
 * call to, ends it exactly once: by a reply, or by mr_call_stream … mr_call_end or _abort. From then on the call belongs to
 * the server again. When the peer goes away first, the on_close callback says so and the call is gone.
 *
 * All of it runs on the loop's thread. Every reply, errors and evhttp's own error pages included, is JSON (or the
 * stream) and carries CORS headers.
 */
#ifndef MR_HTTP_H
#define MR_HTTP_H

#include "base/error.h"
#include "base/loop.h"
#include "base/str.h"
#include "gateway/api_error.h"
#include "gateway/tls.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct mr_http mr_http;
typedef struct mr_call mr_call;

typedef void mr_route_cb(void *arg, mr_call *call);

typedef struct mr_route {
    const char *method; /* "GET" answers HEAD too */
    const char *path;   /* exact, or with a '*' at its end: everything below */
    const char *name;   /* for metrics and the log */
    mr_route_cb *cb;
} mr_route;

/* An answered (or abandoned: status 499) request, for metrics and the access log. */
typedef struct mr_call_done {
    const char *route;
    int status;
    double seconds;
    bool logged; /* somebody else wrote its line already */
} mr_call_done;

typedef struct mr_http_options {
    const char *host;
    int port;    /* 0: a free one */
    mr_tls *tls; /* borrowed; NULL: plain HTTP */
    size_t body_max;
    int idle_timeout_s;
    const mr_route *routes; /* ends with method == NULL */
    void (*on_done)(void *arg, const mr_call_done *done);
    void *arg; /* of on_done and of the routes */
} mr_http_options;

mr_http *mr_http_new(mr_loop *l, const mr_http_options *o, mr_error *err);
void mr_http_free(mr_http *h); /* closes what is open; no on_close is called any more */
int mr_http_port(const mr_http *h);
void mr_http_stop_accepting(mr_http *h);
int mr_http_calls(const mr_http *h); /* calls not yet wholly answered */

/* ---- the request ---- */

const char *mr_call_header(const mr_call *c, const char *name); /* NULL when absent */
mr_str mr_call_body(mr_call *c);
const char *mr_call_path(const mr_call *c);
/* A value of the query string, into out; false when it is not there, or too long. */
bool mr_call_query(const mr_call *c, const char *name, char *out, size_t cap);

/* ---- the reply ---- */

void mr_call_set_header(mr_call *c, const char *name, const char *value);
const char *mr_call_own_header(const mr_call *c, const char *name); /* that was set; NULL: none */
/* Whole replies. They take the reference to j; NULL is said as an error 500. */
void mr_call_json(mr_call *c, int status, json_t *j);
void mr_call_reply(mr_call *c, int status, mr_str json);
void mr_call_error(mr_call *c, const mr_api_error *e);

/* The caller writes the access log line of this call. */
void mr_call_logged(mr_call *c);

/* A stream: 200 text/event-stream, then pieces as they come, each sent at once. */
void mr_call_stream(mr_call *c);
/* False when out of memory: the stream must be aborted, since its bytes are lost. */
bool mr_call_send(mr_call *c, mr_str bytes);
size_t mr_call_unsent(const mr_call *c); /* bytes that a slow client has not taken */
void mr_call_end(mr_call *c);
/* Send `last`, then close without the end that chunked encoding needs: no client takes it for a complete answer.
 * With an empty `last` the connection is closed at once, and what was unsent is lost. */
void mr_call_abort(mr_call *c, mr_str last);

/* The peer closed, or does not read: the call must not be used any more. */
typedef void mr_call_closed_cb(void *arg);
void mr_call_on_close(mr_call *c, mr_call_closed_cb *cb, void *arg);

#endif
