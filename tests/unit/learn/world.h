/* A world for `millrace learn`: a broker with the topics, traffic and ratings at any time, and the command itself in a
 * process of its own. A failure in here fails the test. */
#ifndef TEST_LEARN_WORLD_H
#define TEST_LEARN_WORLD_H

#include "base/bus.h"
#include "schemas/messages.h"
#include "support/support.h"

#include <stdio.h>

#define DAY_MS INT64_C(86400000)

typedef struct world {
    const char *millrace; /* the program */
    char folder[64], model[100], kept[120], output[100];
    test_kafka *kafka;
    mr_kafka_conf conf;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_producer *producer;
    mr_arena *arena;
    int in_air;
    char text[40000]; /* what the last command printed */
} world;

void world_init(world *w, const char *millrace);
void world_done(world *w);

/* A chat with this one message, and its answer from the knowledge base or the model. */
void world_chat(world *w, const char *id, const char *text, int64_t at_ms);
void world_answer(world *w, const char *id, const char *text, bool kb);
/* label may be NULL. */
void world_rate(world *w, const char *id, int rating, const char *label, int64_t at_ms);
/* Until the broker has all of it. */
void world_settle(world *w);

/* Runs `millrace ARGS…`, which end with NULL; its exit status. */
int world_run(world *w, const char *const *args);
#define RUN(w, ...) world_run(w, (const char *const[]){__VA_ARGS__, NULL})

void world_expect(const world *w, const char *needle);
void world_expect_not(const world *w, const char *needle);
/* A file's path in the world's folder (static; four at a time), and reading one. */
const char *world_path(const world *w, const char *name);
char *world_read(const char *path, size_t *n); /* malloc'ed, NUL-terminated; NULL when it is not there */

#endif
