/* The requests in flight: from admission over the records that come back to the last byte of the answer.
 *
 *     PRODUCING ──broker has it──> ACCEPTED ──terminal record──> gone
 *         └── not delivered: 503        └── peer gone, too slow, too late, contradicting records: cancelled, gone
 *
 * Several answers to one request (`n`) are as many requests to the workers, with ids of their own ("ID-1"…), whose records
 * go out through one call: it ends when all of them have ended well, or one of them badly.
 *
 * A streamed request gets its 200 and a first comment when the broker has it, and a comment whenever it was silent for
 * keep_alive_s. Every entry ends in exactly one way, and says so in one log line. Loop's thread; the table owns its entries,
 * an entry owns its call until it ends it.
 */
#ifndef MR_STREAM_H
#define MR_STREAM_H

#include "base/log.h"
#include "base/metrics.h"
#include "gateway/conf.h"
#include "gateway/http.h"
#include "gateway/openai.h"
#include "gateway/outbox.h"
#include "schemas/messages.h"

#define MR_REQUEST_ID_LEN 41 /* "chatcmpl-" and 128 random bits */

typedef struct mr_streams mr_streams;

mr_streams *mr_streams_new(const mr_gateway_conf *conf, mr_outbox *out, mr_metrics *m, mr_error *err);
/* The calls of what is left are not touched. */
void mr_streams_free(mr_streams *s);

/* What came with a request besides its body. */
typedef struct mr_stream_origin {
    char trace[MR_TRACEPARENT_LEN + 1];
    char client_request[65]; /* the client's own x-request-id, for the log; may be empty */
} mr_stream_origin;

/* A new unguessable id; -1 when the system has no randomness. */
int mr_request_id(char out[MR_REQUEST_ID_LEN + 1]);

/* Send the request on its way (the fields of its journey are filled in here), and take over the call. On failure the
 * call stays the caller's, to be answered with e. */
int mr_streams_start(mr_streams *s, mr_call *call, mr_openai_request *req, const mr_stream_origin *from,
                     mr_api_error *e);

void mr_streams_delta(mr_streams *s, const mr_response_delta *d);
void mr_streams_end(mr_streams *s, const mr_response_end *end);

/* Comments, timeouts: call it about every 250 ms. */
void mr_streams_tick(mr_streams *s);

/* End all that is in flight with this error. */
void mr_streams_fail_all(mr_streams *s, const mr_api_error *e);

int mr_streams_count(const mr_streams *s);

#endif
