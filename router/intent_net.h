/* The small neural network beside the linear model: sparse input, one hidden layer of rectified units, and
 * softmax. It is trained by Adam with dropout of features and of hidden units. Training with the same seed gives
 * the same network, bit for bit. Blocking; an mr_net belongs to its caller.
 */
#ifndef MR_INTENT_NET_H
#define MR_INTENT_NET_H

#include "base/error.h"

#include <stdint.h>

typedef struct mr_sparse {
    int32_t row; /* -1 ends a vector */
    float value;
} mr_sparse;

typedef struct mr_net {
    int rows, hidden, labels, stride; /* stride: labels, rounded up to whole vectors; the rest is zero */
    float *w1, *b1;                   /* [rows][hidden], [hidden] */
    float *w2, *b2;                   /* [hidden][stride], [stride] */
} mr_net;

typedef struct mr_net_samples {
    int n;
    const mr_sparse *const *x;
    const int *label;
} mr_net_samples;

/* By which the values of a sample are multiplied before they meet w1. */
#define MR_NET_INPUT_SCALE 4.0f

/* Samples between two steps: few messages have to make many steps, too. */
static inline int mr_net_batch(int samples) {
    return samples < 1024 ? 8 : 32;
}

typedef struct mr_net_how {
    int epochs;
    float keep_x, keep_h; /* shares of the features and of the hidden units that a sample sees */
    float rate;           /* of learning; it sinks to 0 */
    float smooth;         /* of the truth, spread over all labels */
} mr_net_how;

int mr_net_train(mr_net *net, const mr_net_samples *s, const mr_net_how *how, uint64_t seed, mr_error *err);
void mr_net_done(mr_net *net);

#endif
