/* A gateway in this process over the mock cluster; a worker that the test plays by hand; clients on plain sockets. All of
 * it on one loop, so that a test reads as a sequence of steps. Failures are assertions. */
#ifndef GATEWAY_FIXTURE_H
#define GATEWAY_FIXTURE_H

#include "base/bus.h"
#include "base/loop.h"
#include "base/metrics.h"
#include "gateway/gateway.h"
#include "schemas/messages.h"
#include "support/support.h"

#define WAIT_MS    20000
#define SEEN_MAX   512
#define KEY_HEADER "Authorization: Bearer sk-test\r\n"

typedef struct fixture {
    test_kafka *kafka;
    mr_kafka_conf kafka_conf;
    mr_gateway_conf conf;     /* change it before fixture_start */
    mr_redis_conf redis_conf; /* likewise; no Redis as it is */
    mr_loop *loop;
    mr_gateway *gateway;
    mr_metrics *metrics;
    mr_producer *producer;
    mr_consumer *consumer;
    mr_arena *arena;
    mr_chat_request requests[SEEN_MAX]; /* as they came to chat.requests */
    int nrequests;
    mr_control controls[SEEN_MAX];
    int ncontrols;
    mr_audit audits[SEEN_MAX];
    int naudits;
    mr_feedback feedback;
    int nfeedback;
    const char *auto_answer; /* when set, every request is answered with it at once */
} fixture;

void fixture_init(fixture *f);
void fixture_start(fixture *f);
void fixture_done(fixture *f);

/* ---- the worker ---- */

/* Wait for request number i (from 0). */
const mr_chat_request *worker_request(fixture *f, int i);
/* Deltas and ends of `text`, the whole answer up to there: [from, to) is sent. */
void worker_delta(fixture *f, const mr_chat_request *r, const char *text, size_t from, size_t to);
void worker_delta_as(fixture *f, const mr_chat_request *r, int channel, int attempt, const char *text,
                     size_t from, size_t to);
/* A delta of the arguments of call number `index`. */
void worker_call(fixture *f, const mr_chat_request *r, int64_t index, const char *name, const char *text,
                 size_t from, size_t to);
/* The same with token ids: every byte is a token, its value the id. */
void worker_tokens(fixture *f, const mr_chat_request *r, int attempt, const char *text, size_t from,
                   size_t to);
void worker_end(fixture *f, const mr_chat_request *r, const char *text);
/* One with this source (enum mr_source) and reason. */
void worker_end_as(fixture *f, const mr_chat_request *r, const char *text, int source, int finish);
void worker_error(fixture *f, const mr_chat_request *r, const char *text, int status, const char *code,
                  const char *message);
void worker_answer(fixture *f, const mr_chat_request *r, const char *text);
/* Wait for a cancel of this request. */
void worker_sees_cancel(fixture *f, const mr_chat_request *r);

/* Wait for a record of chat.audit by this rule, from number `from` on; of this request, if it is not empty. */
const mr_audit *wait_audit(fixture *f, int from, mr_str request, const char *rule);

/* ---- clients ---- */

typedef struct client {
    fixture *f;
    struct bufferevent *bev;
    mr_buf in;
    bool closed;
} client;

client *client_open(fixture *f);
client *client_open_by(fixture *f, struct bufferevent *bev); /* which is not connected yet */
void client_close(client *c);
void client_send(client *c, const char *text);
void client_send_bytes(client *c, const void *p, size_t n);
/* POST with the test's key. */
void client_post(client *c, const char *path, const char *body);
void client_get(client *c, const char *path);
/* Wait until `needle` has come, from `in` on. */
void client_expect(client *c, const char *needle);
void client_expect_closed(client *c);
void client_forget(client *c); /* what has come so far */
bool client_has(const client *c, const char *needle);
/* The body of the reply, unchunked; *clean says that it ended as HTTP wants it. The caller frees. */
char *client_body(const client *c, bool *clean);
/* All delta.content of the stream, joined. The caller frees. */
char *client_content(const client *c);

/* Value of a line of the metrics page; 0 when there is none. */
double metric(fixture *f, const char *line);

#endif
