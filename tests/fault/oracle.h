/* Knows every request that Kafka has accepted, and what its answer must be: it reads chat.requests, chat.responses and
 * chat.dead beside the pipeline, and computes the undisturbed answer itself.
 *
 * A request is found again in the logs by its seed. Its text is joined as the gateway joins it: a delta goes on where the answer
 * ended, repeats are dropped, a hole or another hash is a violation. Belongs to the loop's thread.
 */
#ifndef MR_TEST_ORACLE_H
#define MR_TEST_ORACLE_H

#include "base/bus.h"
#include "schemas/messages.h"

typedef enum { WANT_TEXT, WANT_ERROR, WANT_POISON } oracle_want;

/* What was asked, by its number; the seed is ORACLE_SEED more. */
#define ORACLE_SEED    1000000
/* No engine computes a request any more that was cancelled so long ago, also where its worker has just died. */
#define ORACLE_FREED_S 15
typedef struct asked {
    oracle_want want;
    int64_t tokens;
    int64_t asked_us, closed_us; /* closed: its client went away; 0: it did not */
    bool excused;                /* its client or gateway went away, so that it may end as cancelled */
    bool answered;               /* its client has the whole answer */
    int entry;                   /* in the log; -1: not (yet) */
} asked;

/* What the logs say of one id. */
typedef struct entry {
    char id[64];
    int64_t number; /* -1: only responses came so far */
    int64_t bytes, next_token;
    uint64_t hash;
    int records, ends; /* of chat.requests; terminal ones */
    int finish, status;
    char code[64];
    int64_t end_us,
        said_us; /* when the first terminal record and the last delta before it came; 0: none did */
    bool hole, differs, changed; /* changed: two terminal records that contradict each other */
    bool again;                  /* deltas came behind its end */
} entry;

/* What went wrong, by kind. */
typedef enum {
    FAILED_LOST,      /* accepted, and no terminal record */
    FAILED_TWICE,     /* two terminal records that contradict each other */
    FAILED_DIFFERING, /* another text, or a hole in it */
    FAILED_ERROR,     /* an error or a cancellation that nothing explains */
    FAILED_CANCEL,    /* cancelled, and an engine still computed it long after */
    FAILED_PROCESS,   /* something ended by itself, leaked, or did not come back */
    FAILURES
} oracle_failure;

typedef struct oracle {
    mr_loop *loop;
    const mr_kafka_conf *conf;
    mr_consumer *requests, *responses, *dead;
    mr_producer *producer;
    mr_reader *bounds; /* asks where a log begins */
    mr_arena *arena;
    asked *asked;
    int64_t nasked, room;
    entry *entries;
    int nentries, entries_room;
    int32_t *slots; /* hash table of ids: entry + 1 */
    uint32_t nslots;
    int64_t accepted;      /* requests in the log */
    int letters, repeated; /* of chat.dead; terminal records that said the same again */
    int again;             /* requests that were computed again, at least in part, behind their end */
    int waited; /* cancelled requests that waited in line for long, without a slot, until they ended… */
    double longest_cancel_s; /* …and the longest of all cancelled */
    struct {
        int64_t at_us;
        bool gateway; /* else a worker or its engine */
    } * hurts;        /* as they came */
    int nhurts;
    uint64_t seed; /* of the run, for what is said */
    int failures[FAILURES];
    struct {
        mr_buf key, value;
        char type[64];
    } last; /* a record of chat.requests, to be delivered once more */
} oracle;

void oracle_init(oracle *o, mr_loop *l, mr_metrics *m, const mr_kafka_conf *conf, uint64_t seed);
void oracle_done(oracle *o);

/* The number of a new request. */
int64_t oracle_ask(oracle *o, oracle_want want, int64_t tokens);
/* Asks it straight on chat.requests. false: Kafka takes nothing now. */
bool oracle_produce(oracle *o, int64_t number, const char *script, const char *tenant);
bool oracle_produce_garbage(oracle *o);
bool oracle_produce_again(oracle *o); /* the last accepted request */

/* The undisturbed answer, reasoning first. */
void oracle_text(const asked *a, int64_t number, mr_buf *out);
bool oracle_ended(const oracle *o, int64_t number);
/* Requests that are in the log and have not ended. */
int oracle_open(const oracle *o);

/* A gateway, or a worker or its engine host, was hurt now. */
void oracle_note_hurt(oracle *o, bool gateway);
/* Whether the schedule explains that a request which was to be answered ended with this error: so many were hurt since it was
 * asked that it may have been given up, or its deadline has passed. */
bool oracle_explains(const oracle *o, const asked *a, const char *code, int64_t ended_us);
/* Whether chat.responses still has what stood there. */
bool oracle_keeps(oracle *o, int32_t partition, int64_t offset);

void oracle_fail(oracle *o, oracle_failure kind, int64_t number, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Judges all that was accepted, as it is now. */
void oracle_judge(oracle *o);
int oracle_failed(const oracle *o);

#endif
