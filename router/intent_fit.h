/* Makes an image of a model from labelled messages: the vocabulary, the linear model by liblinear, the network.
 * What needs scores of messages that were not trained on (mix, signals, threshold) is intent_train.c's to fill
 * in. Draws from rand() by way of liblinear, so at most one fit at a time runs in a process. */
#ifndef MR_INTENT_FIT_H
#define MR_INTENT_FIT_H

#include "router/intent_data.h"
#include "router/intent_model.h"
#include "router/intent_net.h"

/* What is not learned from the messages but set. */
typedef struct mr_intent_how {
    double svm_c; /* what a wrong message costs beside the size of the weights */
    int nets,
        hidden; /* networks whose outputs are averaged, and units of each: a multiple of MR_INTENT_VECTOR */
    mr_net_how net; /* …and epochs, where there are `steps` in so many… */
    int epochs_max; /* …of few messages more, to come near to… */
    int steps;      /* …so many */
} mr_intent_how;

/* Chosen by cross-validation of training parts alone: tests/bench/intent_cv. */
extern const mr_intent_how mr_intent_how_default;

typedef struct mr_intent_fit_options {
    uint64_t seed;
    const mr_intent_how *how; /* NULL: the default */
    const bool *outside;      /* [labels] */
    int fold, folds;          /* messages whose number modulo folds is fold are left out; folds 0: none are */
} mr_intent_fit_options;

/* Into `out`, of MR_INTENT_BYTES_MAX zeroed bytes; the header has its size. */
int mr_intent_fit(const mr_intent_data *d, const mr_intent_fit_options *o, void *out, mr_error *err);

/* Whether a message is left out. */
static inline bool mr_intent_left_out(const mr_intent_fit_options *o, int sample) {
    return o->folds > 0 && sample % o->folds == o->fold;
}

#endif
