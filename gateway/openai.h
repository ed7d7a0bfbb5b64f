/* What clients ask: the body of POST /v1/chat/completions (OpenAI's API with DeepSeek's and vLLM's extras) to a
 * ChatRequest. Pure functions over the caller's arena. */
#ifndef MR_OPENAI_H
#define MR_OPENAI_H

#include "gateway/api_error.h"
#include "gateway/conf.h"
#include "schemas/messages.h"

/* What is known about a request besides its body. */
typedef struct mr_openai_caller {
    mr_str id; /* given to the request */
    mr_str tenant;
    const char *session; /* header x-millrace-session, or NULL */
    const char *style;   /* of its key; NULL or empty: none */
    bool may_go_ahead;   /* of others, by priority */
} mr_openai_caller;

typedef struct mr_openai_request {
    mr_chat_request chat; /* without the fields of its journey: created_ms, reply_to, deadline_ms, trace */
    const char *model;    /* served; the configuration's string */
    bool stream, include_usage;
    bool form; /* the answer has a form to keep, as JSON */
    int n;     /* answers that are wanted */
} mr_openai_request;

/* All strings in `out` are the arena's, except those of `conf`. What is not understood but harmless is ignored; what would
 * change the answer and is not supported is refused. */
int mr_openai_parse(const mr_gateway_conf *conf, const mr_openai_caller *caller, mr_str body, mr_arena *a,
                    mr_openai_request *out, mr_api_error *e);

/* For one request at a time with all that may be made of it. NULL: out of memory. */
mr_arena *mr_openai_arena(const mr_gateway_conf *conf);

/* The body of POST /v1/feedback to a Feedback. */
int mr_openai_feedback(mr_str body, mr_arena *a, mr_feedback *out, mr_api_error *e);

/* Refuse by a message of the codec, which begins with the path of the field that is wrong. */
int mr_refuse_field(mr_api_error *e, const char *codec_message);

#endif
