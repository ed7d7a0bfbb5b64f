/* A model of intents as it lies in its file and in memory: the same bytes, mapped read-only by those that
 * classify and built by intent_train.c. Internal to the intent files.
 *
 * A header, then the sections in the order of mr_intent_section, each on a 64-byte border; every size follows
 * from the header's counts. Numbers are little-endian, as on every CPU that Millrace runs on. The weights are
 * int8 with a scale a row.
 *
 *     score(label)  = linear_bias + sum over features x * linear          a linear support vector machine a label
 *     net(label)    = b2 + w2 * max(0, b1 + sum over features x * w1)     a network with one hidden layer
 *     logit(label)  = mix_linear * score + mix_net * net                  and softmax makes them probabilities
 *     P(routine)    = 1 / (1 + exp(-(signal_bias + signal_weights * signals)))
 *
 * where x is (1 + ln times) * sqrt(1 + ln(messages / those with the feature)), each kind of feature scaled to length one.
 */
#ifndef MR_INTENT_MODEL_H
#define MR_INTENT_MODEL_H

#include "router/intent_text.h"

#include "base/error.h"

#define MR_INTENT_MAGIC      "MRINTENT"
#define MR_INTENT_VERSION    2        /* raised when the layout or what a feature is changes */
#define MR_INTENT_BYTES_MAX  16000000 /* a multiple of 64 */
#define MR_INTENT_LABELS_MAX 4096
#define MR_INTENT_HIDDEN_MAX 1024
#define MR_INTENT_VECTOR     16 /* labels and hidden units come in multiples of it */

/* What tells a routine message from one for the model. */
typedef enum {
    MR_SIGNAL_LOGIT,   /* ln(p / (1 - p)) of the likeliest routine label */
    MR_SIGNAL_MARGIN,  /* its logit less that of the next routine label */
    MR_SIGNAL_SCORE,   /* its linear score */
    MR_SIGNAL_NET,     /* its place in the net: ln of the sum of exp(net) */
    MR_SIGNAL_OUTSIDE, /* ln of the odds of all labels that are out of scope */
    MR_SIGNAL_WORDS,   /* share of the words' weight that the model knows */
    MR_SIGNAL_RUNS,    /* the same for runs of characters */
    MR_SIGNAL_LENGTH,  /* ln(1 + words) */
    MR_SIGNALS
} mr_intent_signal;

typedef struct mr_intent_header {
    char magic[8];
    uint32_t version, rows, slots, labels, hidden, text;
    uint64_t bytes, checksum; /* of the whole file; over all of it, with 0 in this place */
    float mix_linear, mix_net, idf_unknown;
    float signal_bias, signal_weights[MR_SIGNALS];
    float threshold;             /* P(routine) from which a message is routine */
    float share_low, share_high; /* of messages that the threshold is meant to send to the model */
    uint32_t samples;            /* that it was trained on */
} mr_intent_header;
_Static_assert(sizeof(mr_intent_header) == 112, "no byte of it is padding");

typedef struct mr_intent_slot {
    uint32_t hash, row; /* hash 0: free */
} mr_intent_slot;

typedef struct mr_intent_label {
    uint32_t name;    /* offset in the text section, where a NUL ends it */
    uint32_t outside; /* 1: out of scope, for the model */
} mr_intent_label;

typedef struct mr_intent_row {
    float idf, linear_scale, w1_scale;
} mr_intent_row;

/* The pointers into one image. */
typedef struct mr_intent_image {
    mr_intent_header head;
    uint32_t stride, width; /* labels rounded up; weights of a row */
    const mr_intent_label *label;
    const char *text;
    const mr_intent_slot *slot;
    const mr_intent_row *row;
    const int8_t *weights, *w2; /* [rows][width]: stride of linear, then hidden of w1; [hidden][stride] */
    const float *linear_bias, *b1, *w2_scale, *b2; /* [stride], [hidden], [hidden], [stride] */
} mr_intent_image;

/* Bytes that an image with these counts has. */
uint64_t mr_intent_image_size(const mr_intent_header *head);
/* Where the sections are, without a look at their content; for the builder, which then fills them in. */
void mr_intent_image_layout(const void *bytes, mr_intent_image *out);
/* The same for bytes of unknown origin: fails unless every one of them is as it has to be. Borrows them. */
int mr_intent_image_check(const void *bytes, size_t n, mr_intent_image *out, mr_error *err);
uint64_t mr_intent_image_checksum(const void *bytes, size_t n);

/* What a message scores, and the scratch for it; allocated once a model (mr_intent_scores_init). */
typedef struct mr_intent_scores {
    mr_intent_features features;
    float *linear, *net, *hidden, *logit; /* [stride], [stride], [hidden], [stride] */
    int best, best_routine;               /* labels; best_routine -1: all are out of scope */
    float signals[MR_SIGNALS];
    float routine, probability; /* P(routine), and that best_routine is right as well */
    float log_total;            /* ln of the sum of exp(logit) */
} mr_intent_scores;

mr_intent_scores *mr_intent_scores_new(const mr_intent_image *m, mr_error *err);
void mr_intent_scores_free(mr_intent_scores *s);

typedef struct mr_intent_known {
    int32_t row;
    mr_intent_kind kind;
    float value; /* of x */
} mr_intent_known;

/* The features of a text in words form that the model has; the signals of words and runs are set on the way. */
int mr_intent_look_up(const mr_intent_image *m, mr_str words, mr_intent_scores *s,
                      mr_intent_known known[MR_INTENT_FEATURES_MAX]);
/* The same, and its linear and net scores. */
void mr_intent_score(const mr_intent_image *m, mr_str words, mr_intent_scores *s);
/* All the rest, from these. A text without a word is nothing that can be routine. */
void mr_intent_judge(const mr_intent_image *m, mr_intent_scores *s);

#endif
