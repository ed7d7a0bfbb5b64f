/* An HTTP client of the gateway, for the suites that run whole pipelines: many chats at once on the test's own loop.
 *
 * A chat is one request on a connection of its own. It is read as it comes; chat_close in the middle is what a closed tab
 * does. Belongs to the loop's thread; a failure in here fails the test.
 */
#ifndef MR_TEST_CHAT_H
#define MR_TEST_CHAT_H

#include "base/loop.h"
#include "base/str.h"

typedef struct ask {
    const char *text;
    const char *model;        /* NULL: millrace-demo */
    const char *earlier[2];   /* a question and its answer, before this one */
    int64_t seed, max_tokens; /* 0: none */
    bool whole;               /* in one piece, not streamed */
    bool usage;               /* stream_options.include_usage */
    bool likeliest;           /* temperature 0 */
    bool long_answer;         /* goes on past its natural end, to max_tokens */
    const char *more;         /* further members of the body, as a JSON object; NULL: none */
    int resume_s;             /* header x-millrace-resume; 0: none */
    const char *session;      /* header x-millrace-session; NULL: none */
} ask;

typedef struct chat chat;

struct chat {
    struct evhttp_connection *connection;
    struct evhttp_request *request;
    mr_buf in; /* of a stream: what is not yet a whole line; else the body */
    mr_buf text, reasoning;
    mr_buf calls;   /* tool calls, each as "NAME(ARGUMENTS" and all but the last with ")" */
    char ids[1000]; /* of the calls, each with a blank behind it */
    int status;     /* of HTTP; 0: no answer (yet) */
    char finish[32], source[16], usage_source[16], header_source[16], code[64], message[300];
    int64_t prompt_tokens, completion_tokens;
    char id[128], at[64]; /* of the request; of the last event that was read whole */
    char next_at[64];     /* of the event that is being read */
    int pieces;
    bool done;   /* [DONE] came */
    bool over;   /* nothing comes any more */
    bool broken; /* the connection ended before the answer did */
    int64_t asked_us, first_us, over_us;
};

chat *chat_ask(mr_loop *l, int port, const ask *a);
/* Anything to any path. body: empty for GET. */
chat *chat_send(mr_loop *l, int port, const char *path, mr_str body);
/* Goes on with an answer after the event `at`. */
chat *chat_resume(mr_loop *l, int port, const char *id, const char *at);
/* Closes what is still open. */
void chat_free(chat *c);

/* Until it is over, or has this many bytes of text and calls; each fails the test when that takes too long. */
void chat_wait(mr_loop *l, chat *c);
void chat_wait_bytes(mr_loop *l, chat *c, size_t bytes);

/* One sample of the metrics of whoever serves them at that port, by its name with labels; -1 when there is none. */
double chat_metric(mr_loop *l, int port, const char *name);

/* It ended well: 200, a finish reason, and for a stream [DONE]. */
bool chat_complete(const chat *c);

#endif
