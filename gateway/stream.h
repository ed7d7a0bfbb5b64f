/* The requests in flight: from admission over the records that come back to the last byte of the answer.
 *
 *     PRODUCING ──broker has it──> ACCEPTED ──terminal record──> gone
 *         └── not delivered: 503        ├── peer gone, too slow, too late, contradicting records: cancelled, gone
 *                                       └── a word that must not go out: cancelled ──usage, or too long without──> gone
 *
 * Several answers to one request (`n`) are as many requests to the workers, with ids of their own ("ID-1"…), whose records
 * go out through one call: it ends when all of them have ended well, or one of them badly.
 *
 * A client that vanishes cancels its answer, at once or after the grace that it asked for. Until then, and at any gateway,
 * another connection may go on with the answer from the log (mr_streams_resume): its entry is fed with the records of
 * that, from the answer's first on, and says only what its client lacks. The latest connection is the one whose end
 * cancels.
 *
 * Where answers are filtered (protection.h), an event's id counts the answer's own bytes up to which all was said, and who
 * goes on with an answer filters it from its beginning: so every connection says the same.
 *
 * A streamed request that the broker has gets its 200 and a first comment with the first word of its answer, or after
 * headers_wait_ms without one, and a comment whenever it was silent for keep_alive_s. Every entry ends in exactly one way, and says so in one log line. Loop's thread; the table owns its entries,
 * an entry owns its call until it ends it.
 */
#ifndef MR_STREAM_H
#define MR_STREAM_H

#include "base/log.h"
#include "base/metrics.h"
#include "gateway/auth.h"
#include "gateway/conf.h"
#include "gateway/http.h"
#include "gateway/limits.h"
#include "gateway/log_reader.h"
#include "gateway/openai.h"
#include "gateway/outbox.h"
#include "gateway/protection.h"
#include "gateway/request_id.h"
#include "schemas/messages.h"

typedef struct mr_streams mr_streams;

mr_streams *mr_streams_new(const mr_gateway_conf *conf, mr_outbox *out, mr_protection *protection,
                           mr_metrics *m, mr_error *err);
/* The calls of what is left are not touched. */
void mr_streams_free(mr_streams *s);

/* What came with a request besides its body. */
typedef struct mr_stream_origin {
    char trace[MR_TRACEPARENT_LEN + 1];
    char tenant[MR_TENANT_MAX + 1];
    char client_request[65]; /* the client's own x-request-id, for the log; may be empty */
    int64_t grace_s;         /* how long the answer goes on without its client */
} mr_stream_origin;

/* What a connection that goes on with an answer knows of it. */
typedef struct mr_resume {
    mr_str id;
    mr_request_place at;
    uint64_t seen[MR_CHOICES_MAX]; /* bytes of each answer that the client has */
    bool streamed;
} mr_resume;

/* Where a record of the log was. */
typedef struct mr_log_place {
    int32_t partition;
    int64_t offset, round;
} mr_log_place;

/* Send the request on its way (the fields of its journey are filled in here), and take over the call and what it holds of
 * limits (NULL: nothing). On failure both stay the caller's, the call to be answered with e. */
int mr_streams_start(mr_streams *s, mr_call *call, mr_openai_request *req, const mr_stream_origin *from,
                     mr_hold *hold, mr_api_error *e);

/* Likewise, for a request that no worker gets: its answer is this text, with finish_reason content_filter. */
int mr_streams_refuse(mr_streams *s, mr_call *call, mr_openai_request *req, const mr_stream_origin *from,
                      mr_hold *hold, mr_str text, mr_api_error *e);

/* Likewise for an answer that was begun before, from the log. */
int mr_streams_resume(mr_streams *s, mr_call *call, const mr_resume *q, const mr_stream_origin *from,
                      mr_api_error *e);
/* Where those read; set before the first of them. */
void mr_streams_use_log(mr_streams *s, mr_log_reader *log);
/* The client of this request has another connection, here or at another gateway: `epoch` tells which is later. */
void mr_streams_came_back(mr_streams *s, mr_str request, int64_t epoch);

/* Records: of this gateway's own partition (from is NULL), or of the log. */
void mr_streams_delta(mr_streams *s, const mr_response_delta *d, const mr_log_place *from);
void mr_streams_end(mr_streams *s, const mr_response_end *end, const mr_log_place *from);
/* Does anybody wait for records of this request from the log? */
bool mr_streams_resumes(mr_streams *s, mr_str request);
/* What log_reader.h calls on_end and on_gone. */
void mr_streams_log_end(mr_streams *s, int32_t partition, int64_t round);
void mr_streams_log_gone(mr_streams *s, int32_t partition, int64_t round, int64_t position);

/* Comments, timeouts: call it about every 250 ms. */
void mr_streams_tick(mr_streams *s);

/* This gateway ends, the answers do not: they can be gone on with elsewhere. Those without a client are let go; */
void mr_streams_let_go(mr_streams *s);
/* and the others are told so. */
void mr_streams_fail_all(mr_streams *s, const mr_api_error *e);

int mr_streams_count(const mr_streams *s);

#endif
