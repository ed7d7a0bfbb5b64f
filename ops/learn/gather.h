/* What people said of answers, joined with what they had asked and what they got: chat.feedback, chat.requests and
 * chat.responses of a period, each read once. Memory follows the number of ratings, not the traffic. */
#ifndef MR_LEARN_GATHER_H
#define MR_LEARN_GATHER_H

#include "base/bus.h"
#include "gateway/answer.h"
#include "ops/learn/samples.h"
#include "router/intent.h"

typedef struct mr_gather_options {
    const mr_kafka_conf *kafka;
    mr_intent *intent;      /* the model in service: what it makes of the messages */
    int64_t from_ms, to_ms; /* when they were asked or rated; `to_ms` is past it */
    int review_max;         /* messages that nobody rated and the model is least sure of */
} mr_gather_options;

/* A request that somebody rated. */
typedef struct mr_rated {
    mr_str request, label;
    int rating; /* 0: taken back, and a label alone */
    int64_t at_ms;
    mr_str question; /* personal data masked; empty: no chat was found, or none in text */
    mr_str prompt;   /* the whole conversation as JSON, masked; empty: it is too long to learn from */
    mr_answer heard;
    mr_buf answer; /* its content; personal data masked at the end */
    bool whole;    /* it came to its own end and nothing is missing */
    bool kb;
} mr_rated;

typedef struct mr_gathered {
    mr_rated *rated;
    int rated_n, rated_cap;
    int *slots; /* by request, as in mr_samples */
    int slots_n;
    mr_sample *unsure; /* not rated, the least sure first */
    int unsure_n;
    int64_t chats, from_kb, from_model; /* of the period */
    int64_t good, bad, unknown;         /* ratings; those whose request was not found */
    mr_arena *arena;
} mr_gathered;

/* Blocks. What it filled in is freed by mr_gathered_done in any case. */
int mr_gather(const mr_gather_options *o, mr_gathered *out, mr_error *err);
void mr_gathered_done(mr_gathered *g);

/* Samples out of it, as the model in service sees them, with a label and without one. */
int mr_gathered_sample(const mr_gathered *g, mr_intent *intent, mr_samples *out, mr_error *err);

#endif
