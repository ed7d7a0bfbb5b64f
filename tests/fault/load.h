/* The mixed load of a soak: so many clients, each asks again a while after its answer is over, by HTTP at either gateway and some of
 * them straight on Kafka. What request N is depends on the run's seed and on N alone.
 *
 * Belongs to the loop's thread.
 */
#ifndef MR_TEST_LOAD_H
#define MR_TEST_LOAD_H

#include "fault/fleet.h"
#include "fault/oracle.h"
#include "support/chat.h"

#define LOAD_CLIENTS 120 /* at most */
#define LOAD_KINDS   64  /* of outcomes */

typedef enum {
    MANNER_STREAM,
    MANNER_WHOLE,
    MANNER_SLOW,
    MANNER_CLOSES,
    MANNER_VANISHES,
    MANNER_DIRECT
} manner;

typedef struct client {
    chat *c; /* NULL: asks nothing by HTTP now */
    bool direct;
    int64_t number;
    manner how;
    member *gateway;
    size_t close_bytes;
    int64_t due_us;       /* VANISHES: when it goes; SLOW: when it reads on; 0: neither */
    int64_t wait_us;      /* it asks nothing, and goes on with nothing, before: it was refused */
    mr_buf begun;         /* what came before its gateway was lost */
    char id[128], at[64]; /* of the answer that goes on at another gateway; id empty: of none */
    int tries;
} client;

/* How requests ended, as their clients saw it. */
typedef struct outcome {
    char what[80];
    int n;
} outcome;

typedef struct load {
    mr_loop *loop;
    fleet *fleet;
    oracle *oracle;
    uint64_t seed;
    client clients[LOAD_CLIENTS];
    int nclients;
    int64_t pause_us; /* between a client's answer and what it asks next */
    bool running;
    outcome outcomes[LOAD_KINDS];
    int noutcomes;
    double *first_s, *total_s; /* of the whole answers that were streamed */
    int ntimes, times_room;
} load;

void load_init(load *l, mr_loop *loop, fleet *f, oracle *o, uint64_t seed, int nclients, int64_t pause_us);
void load_done(load *l);
/* Takes what is over, and asks anew while it runs. Between events, often. */
void load_tick(load *l);
bool load_idle(const load *l);
/* 0 to 1 of what was measured, in seconds; sorts. */
double load_quantile(double *v, int n, double q);

/* The next number of a stream of pseudo-random ones. */
uint64_t soak_random(uint64_t *state);

#endif
