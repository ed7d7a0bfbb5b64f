/* What clients get: records of an answer to server-sent events, or to the one JSON of a completion.
 *
 * Every event carries `id:`, from which a later connection can go on (request_id.h). Functions
 * append to `out`; out of memory shows as out->failed. No state.
 */
#ifndef MR_RENDER_H
#define MR_RENDER_H

#include "gateway/api_error.h"
#include "gateway/calls.h"
#include "schemas/messages.h"

#include <jansson.h>

/* A comment after an event ends with one newline, not two: openai-python, once it has seen an `id:`, takes the empty
 * line for an event without data and fails to parse it. */
#define MR_SSE_ACCEPTED   ": accepted\n\n"
#define MR_SSE_KEEP_ALIVE ": keep-alive\n"
#define MR_SSE_DONE       "data: [DONE]\n\n"

/* What all pieces of one answer have in common. */
typedef struct mr_render {
    const char *id, *model;
    int64_t created;   /* unix seconds */
    bool usage;        /* the client asked for the usage chunk */
    int choice;        /* which of the answers to the request this is */
    bool marked;       /* what the model wrote is marked as such… */
    const char *label; /* …and ends with this sentence, or NULL */
} mr_render;

typedef struct mr_piece {
    int channel; /* enum mr_channel: exactly one field of the delta is filled */
    mr_str text;
    bool first;                /* says the role too */
    const mr_delta_call *call; /* in channel tool_call: which… */
    bool call_begins;          /* …and these are its first arguments */
    const json_t *logprobs;    /* what mr_render_logprobs made, or NULL */
    const char *at;            /* event id, after the text */
} mr_piece;

void mr_render_piece(const mr_render *r, const mr_piece *p, mr_buf *out);

/* The last chunk of a good end: finish_reason. */
void mr_render_end(const mr_render *r, const mr_response_end *end, const char *at, mr_buf *out);

/* The chunk after the last answer's end: the usage, when it was asked for. */
void mr_render_usage(const mr_render *r, const mr_response_end *end, const char *at, mr_buf *out);

/* The error event; official clients raise it. */
void mr_render_error(const mr_api_error *e, const char *at, mr_buf *out);

/* The sentence for people whose client shows only text. */
void mr_render_sentence(const mr_api_error *e, bool first, mr_buf *out);

/* Appends OpenAI's form of them to the JSON array `list`; -1 when out of memory. */
int mr_render_logprobs(const mr_logprob *v, uint32_t n, json_t *list);

/* What an answer that is not streamed says. */
typedef struct mr_reply {
    mr_str content, reasoning;
    const mr_calls *calls;
    const json_t *logprobs; /* or NULL */
} mr_reply;

/* One answer of a request that is not streamed. NULL when out of memory. */
json_t *mr_render_choice(const mr_render *r, const mr_reply *reply, const mr_response_end *end);

/* The reply to such a request; takes over the array of its choices. */
void mr_render_completion(const mr_render *r, json_t *choices, const mr_response_end *end, mr_buf *out);

/* Appends compact JSON and drops the reference to j (NULL counts as out of memory). */
void mr_render_json(json_t *j, mr_buf *out);

#endif
