/* A stream: one request's answer on its way to chat.responses.
 *
 * Text is collected and sent as a delta at most every 20 ms (the first at once), each with the byte offset and the running
 * hash by which readers join attempts; then comes the one terminal record. The owner hears `ended` when the
 * brokers have that record, and only then may forget the request.
 *
 * A delta that the brokers refused leaves a hole that no later delta may follow: the stream then waits until nothing of
 * it is in the air, and tells its owner `broken`, who begins the answer again from its start or gives it up.
 *
 * Everything belongs to the loop's thread. A stream is embedded in its owner, who opens and closes it; strings
 * given to mr_stream_open are borrowed until mr_stream_close.
 */
#ifndef MR_STREAM_H
#define MR_STREAM_H

#include "worker/publish.h"

#define MR_DELTA_INTERVAL_US 20000

/* Where an answer begins that another attempt has brought so far: nothing of what is before is sent. */
typedef struct mr_stream_base {
    int64_t tokens, bytes;
    uint64_t hash; /* of those bytes */
} mr_stream_base;

typedef struct mr_stream_options {
    mr_publisher *publisher;
    mr_loop *loop;
    mr_str request, trace;
    int32_t partition;          /* of chat.responses; -1: by the request's id */
    const mr_stream_base *base; /* NULL: from nothing; copied */
    void (*ended)(void *owner);
    void (*broken)(void *owner, const char *why);
    void *owner;
} mr_stream_options;

typedef struct mr_stream {
    mr_stream_options opt;
    mr_stream_base base;
    int64_t attempt;       /* the owner's to set */
    int64_t tokens, bytes; /* of the answer, pending ones included */
    uint64_t hash;         /* of what was sent */

    mr_buf text; /* pending: what the next delta says */
    int channel;
    int64_t call; /* in channel tool_call: its number, and its tool's name */
    char name[MR_TOOL_NAME_MAX + 1];
    int64_t pending_tokens;
    mr_buf ids; /* of the pending tokens, int64_t each */
    MR_LIST(mr_logprob) logprobs;
    uint32_t logprobs_cap;
    mr_arena *arena; /* of the pending logprobs; NULL until there are some */
    struct event *timer;
    int64_t sent_us; /* when the last delta went out; 0: none yet */

    int in_air;
    bool broken, ending; /* ending: send the terminal record */
    bool ended;          /* it was delivered */
    char why[500];
    mr_buf end; /* the terminal record, kept until it is delivered */
    int end_tries;
    mr_tag delta_tag, end_tag;
} mr_stream;

int mr_stream_open(mr_stream *s, const mr_stream_options *opt, mr_error *err);
/* Only while it is idle. */
void mr_stream_close(mr_stream *s);
bool mr_stream_idle(const mr_stream *s); /* nothing of it is in the air */
/* Back to its base; what was sent of it will be sent again. */
void mr_stream_restart(mr_stream *s);

/* Nothing more of it is sent: `broken` follows when nothing is in the air. */
void mr_stream_abandon(mr_stream *s, const char *why);

/* What an answer goes on with. */
typedef struct mr_stream_piece {
    int channel;
    int64_t call; /* in channel tool_call: of this number… */
    mr_str name;  /* …to this tool */
    mr_str text;
    mr_i64s tokens;       /* that it was made of; none: earlier ones held it back */
    const mr_logprob *lp; /* none, or one for each of them */
    uint32_t nlp;
} mr_stream_piece;

void mr_stream_text(mr_stream *s, const mr_stream_piece *p);
/* The caller fills in finish_reason, error, usage and timings; once. */
void mr_stream_end(mr_stream *s, mr_response_end *end);

#endif
