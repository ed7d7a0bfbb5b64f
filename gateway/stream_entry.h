/* The entries of the table of requests in flight: what they hold, their birth and death. It is the lowest of the files that
 * stream.h is made of; each knows only those below it:
 *
 *     stream.c          a request's beginning, and time
 *     stream_records.c  what the records of an answer mean
 *     regenerate.c resume.c   asking for the rest again; going on from the log
 *     stream_reply.c    an answer's text and end, streamed or as a whole
 *     stream_say.c      what is said to a client, and the ways in which an entry ends
 *     stream_entry.c
 */
#ifndef MR_STREAM_ENTRY_H
#define MR_STREAM_ENTRY_H

#include "gateway/answer.h"
#include "gateway/calls.h"
#include "gateway/prefix.h"
#include "gateway/protection.h"
#include "gateway/render.h"
#include "gateway/stream.h"

#include <sys/queue.h>

#define MR_CHOICE_ID_LEN (MR_REQUEST_ID_LEN + 12)
#define MR_RECORD_ID_LEN (MR_CHOICE_ID_LEN + 12)

typedef enum {
    CHOICE_PRODUCING,
    CHOICE_ACCEPTED,
    CHOICE_STOPPED, /* by a word: cancelled, and only the usage is still waited for */
    CHOICE_ENDED,
} choice_state;

/* One answer: a request to the workers.
 *
 * Where an attempt's text differs from what was sent already, the answer is asked for again with the tokens that were sent
 * as its beginning: as a request with an id of its own, "ID~2", "ID~3"…, its generation. Records of earlier generations
 * are dropped from then on. */
typedef struct mr_choice {
    LIST_ENTRY(mr_choice) in_bucket;
    struct mr_stream *of;
    mr_ticket *ticket; /* of its request that is on its way to Kafka */
    choice_state state;
    bool begun;       /* its role was said */
    int64_t attempt;  /* the latest of its generation that a record came from */
    int generation;   /* from 1 */
    int64_t asked_us; /* when this one was first asked for; of the first one 0 */
    bool unasked;     /* Kafka did not take that: it is asked for once more */
    char id[MR_CHOICE_ID_LEN + 1];
    mr_render render;
    mr_answer answer;
    mr_prefix sent;
    mr_buf request;            /* as it was produced, to ask again; empty: there was no room to keep it */
    mr_buf content, reasoning; /* when not streamed */
    json_t *logprobs;          /* likewise */
    mr_calls calls;            /* their arguments likewise */
    /* where answers are filtered */
    mr_filter *filter; /* of the text of a channel that is under way, which began there in the answer */
    int channel;
    uint64_t channel_at;
    uint64_t passed; /* bytes of the answer that what was said stands for */
    mr_findings findings;
    int64_t tokens; /* that came */
    int64_t stopped_us;
    /* of a resumed one */
    uint64_t skip;      /* bytes that its client has */
    int64_t next;       /* offset in the log of its next record */
    int64_t waiting_us; /* for the next generation, since then; 0: not */
} mr_choice;

/* One request of a client. */
typedef struct mr_stream {
    LIST_ENTRY(mr_stream) in_table;
    mr_streams *table;
    mr_call *call;       /* NULL: the client has vanished */
    bool streamed, open; /* open: its headers are out */
    mr_stream_origin from;
    int64_t started_us, accepted_us, first_us, said_us;
    int64_t attempt; /* the latest of its choices */
    int source;
    mr_hold *hold;   /* of limits; NULL: nothing */
    bool accepted;   /* by Kafka, or by a record of its answer */
    int64_t prompt;  /* its tokens, guessed, where that is needed */
    int64_t seen;    /* those and what came: the cost, should it not end well */
    mr_usage usage;  /* of the choices that have ended */
    json_t *replies; /* of them, when not streamed */
    int64_t vanished_us;
    int64_t epoch;           /* of its connection, 0 for the first one */
    bool moved;              /* there is a later one: not ours to cancel */
    bool resumed;            /* fed from the log: */
    bool found;              /* a record of it was there */
    bool caught_up, trimmed; /* read to the end; the place where it began is gone */
    mr_request_place at;
    int64_t round;
    int n, ended;
    mr_choice choice[]; /* [n] */
} mr_stream;

typedef LIST_HEAD(bucket, mr_choice) bucket;

struct mr_streams {
    const mr_gateway_conf *conf;
    mr_outbox *out;
    mr_protection *protection;
    bucket *buckets;
    size_t nbuckets; /* a power of two */
    LIST_HEAD(, mr_stream) all;
    int count;
    size_t kept;              /* bytes of the requests that are kept */
    mr_arena *arena;          /* of a request that is asked again */
    mr_buf event, clear;      /* scratch: what is said; what a filter let through */
    char at[MR_EVENT_ID_MAX]; /* likewise */
    mr_log_reader *log;
    mr_gauge *in_flight;
    mr_histogram *first_token, *duration;
    mr_counter *duplicates, *gaps, *mismatches, *strays, *late, *prompt_tokens, *completion_tokens;
    mr_counter *differing, *regenerated, *resumes;
    mr_counter *cancelled_closed, *cancelled_slow, *cancelled_late, *cancelled_broken, *cancelled_word;
};

bucket *mr_streams_bucket(mr_streams *s, mr_str id);
/* The choice of a request that was begun here, not of one that goes on from the log. */
mr_choice *mr_streams_find(mr_streams *s, mr_str id);
/* An entry in the table, not yet watching its call; NULL: out of memory. */
mr_stream *mr_stream_new(mr_streams *s, mr_call *call, const mr_openai_request *req,
                         const mr_stream_origin *from);
void mr_stream_free(mr_stream *st);

/* Are its texts filtered? What the guard itself says is not. */
static inline bool mr_stream_filters(const mr_stream *st) {
    return st->source != MR_SOURCE_GUARD && mr_protection_filters(st->table->protection);
}
/* What was found in the choice goes on record; at its end that happens of itself. */
void mr_choice_report(mr_choice *c);

/* Id of the records of the choice's generation. */
void mr_choice_record_id(const mr_choice *c, char out[MR_RECORD_ID_LEN + 1]);
/* "ID~2" to ID, and its generation. */
int mr_split_generation(mr_str *id);

#endif
