/* A test's other end of Kafka: asks as a program of its own or as the router would, and joins the answers as the
 * gateway would.
 *
 * Belongs to the loop's thread. A failure in here fails the test.
 */
#ifndef MR_TEST_ASKER_H
#define MR_TEST_ASKER_H

#include "base/bus.h"
#include "schemas/messages.h"

#define ASKER_ANSWERS 1024

/* An answer as a reader of chat.responses sees it. */
typedef struct answer {
    char id[64];
    bool asked;
    mr_buf text, reasoning;
    uint64_t hash; /* of both */
    int64_t bytes, tokens, attempt;
    int deltas, repeated; /* deltas; those of them that said nothing new */
    int logprobs;
    int ends;
    int finish, status;
    char code[64], worker[64];
    int64_t sent_ms, gap_ms; /* the last delta: when it was sent, and how long after the one before */
    int64_t
        closest_ms; /* the least such gap before the last delta, which the end does not wait for; 0: none */
} answer;

typedef struct asker {
    mr_loop *loop;
    const mr_kafka_conf *conf;
    mr_producer *producer;
    mr_consumer *responses, *dead;
    char to[250], control[250]; /* topics; `to` gets the questions */
    char prefix[16]; /* of every id asked for: asker_clear changes it, so that tests may use the same ids */
    int rounds;
    answer *answers;
    int nanswers;
    int letters;
    char reason[1001], letter_of[MR_ID_MAX + 1]; /* of the last letter, its id without the prefix */
    mr_arena *arena;
} asker;

typedef struct question {
    const char *id, *text;
    const char *tenant;  /* NULL: none */
    const char *session; /* likewise */
    int64_t seed;        /* 0: none */
    int64_t deadline_ms; /* 0: none */
    int64_t reply_to;    /* -1: none */
    int64_t max_tokens;  /* 0: none */
    bool logprobs, ignore_eos, as_json;
} question;

/* Asks the workers of pool main, color blue, unless a->to is set to another topic. */
void asker_init(asker *a, mr_loop *l, mr_metrics *m, const mr_kafka_conf *conf);
void asker_done(asker *a);
/* Cancels what was asked and has not ended, waits until it has, and forgets all answers and letters. */
void asker_clear(asker *a);

void asker_ask(asker *a, const question *q);
void asker_say(asker *a, const char *id, const char *text); /* a question with nothing but a script */
void asker_put(asker *a, mr_str value);                     /* anything, as a record of that topic */
void asker_cancel(asker *a, const char *id);

answer *asker_answer(asker *a, const char *id); /* as it is by now; an empty one if nothing came yet */
int asker_begun(const asker *a);                /* answers with a first byte */
int asker_ended(const asker *a);                /* answers with a terminal record */
/* Waits for its end; it is complete, in order, and has one terminal record. */
answer *asker_wait(asker *a, const char *id);
bool asker_wait_all(asker *a, int n, int timeout_ms);

#endif
