/* Training: the whole of `millrace intent train`, and what `millrace learn` can call. Blocking, for minutes;
 * forks a process for each CPU, so not for a program with threads.
 *
 * The messages are parted into folds; a model fitted without one fold scores that fold. By these scores, and
 * those of the validation messages by the final model, everything is set that must not be set by messages trained
 * on: how much the network counts beside the linear model, how P(routine) follows from the signals, and the
 * threshold. The same data, options and kind of CPU give the same file.
 */
#ifndef MR_INTENT_TRAIN_H
#define MR_INTENT_TRAIN_H

#include "router/intent_data.h"
#include "router/intent_fit.h"

typedef struct mr_intent_train_options {
    uint64_t seed;
    const mr_intent_how *how;   /* NULL: the default */
    const char *const *outside; /* names of labels that are out of scope */
    int outside_n;
    double share_low, share_high; /* of messages that shall go to the model */
} mr_intent_train_options;

typedef struct mr_intent_trained {
    int samples, labels, outside_samples, features;
    /* By models that did not see the message: */
    double accuracy; /* of the routine messages */
    double macro_f1; /* of the likeliest of all labels */
    double loss;     /* mean of -ln of the right label's probability */
    double
        auroc; /* of P(routine) on the same and on the validation messages; NAN when none is out of scope */
    double threshold;
    size_t bytes;
} mr_intent_trained;

/* `valid` may be NULL. Writes the model to `path` by rename. */
int mr_intent_train(const mr_intent_data *data, const mr_intent_data *valid, const mr_intent_train_options *o,
                    const char *path, mr_intent_trained *out, mr_error *err);

/* The same without a model of everything: how good models of this kind are on messages that they did not see. No
 * threshold is chosen. */
int mr_intent_cross_validate(const mr_intent_data *data, const mr_intent_train_options *o,
                             mr_intent_trained *out, mr_error *err);

#endif
