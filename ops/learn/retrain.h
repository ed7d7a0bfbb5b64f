/* A new model of the base data and of what people said, and whether it is better than the one in service: by messages that
 * people labelled and it did not see (held out), and by the standing evaluation set. Blocking, for minutes; forks (intent_train.h). */
#ifndef MR_LEARN_RETRAIN_H
#define MR_LEARN_RETRAIN_H

#include "base/conf.h"
#include "ops/learn/samples.h"
#include "router/intent_eval.h"

typedef struct mr_retrain_options {
    mr_strlist train, valid, eval, labels, outside; /* paths, but `outside`: labels */
    double share_low, share_high, holdout;
    uint64_t seed;
    int least; /* labelled messages without which nothing is done */
} mr_retrain_options;

typedef struct mr_retrained {
    int trained_on, learned, held_out, standing; /* messages; `learned` are those of people among the first */
    int new_labels, too_few;        /* labels that the base data lacks; those with too few messages */
    double held_before, held_after; /* share right end to end: the right label, or rightly to the model */
    double standing_before, standing_after;
    /* Errors of the probabilities (intent_eval.h) on the same. */
    double held_error_before, held_error_after, standing_error_before, standing_error_after;
    bool enough,
        better; /* better: a smaller error on both, and not fewer messages right than chance explains */
} mr_retrained;

/* Into `candidate`, when there is enough to learn from. */
int mr_retrain(const mr_retrain_options *o, const mr_samples *samples, const char *in_service,
               const char *candidate, mr_retrained *out, mr_error *err);

/* Of the messages that only one of two models gets right, does the new one get so few that chance does not explain it? Of each of
 * n messages whether it was right before and is after. */
bool mr_right_less_often(const bool *before, const bool *after, int n);

#endif
