/* How good a model of intents is, by labelled messages. Out of scope are the labels that the model says are, and
 * those that it does not know. */
#ifndef MR_INTENT_EVAL_H
#define MR_INTENT_EVAL_H

#include "router/intent.h"
#include "router/intent_data.h"

#define MR_INTENT_CONFUSIONS 10

typedef struct mr_intent_confusion {
    int right, guessed, times; /* labels of the data and of the model */
} mr_intent_confusion;

/* Shares of the messages they speak of; NAN where there are none. */
typedef struct mr_intent_report {
    int messages, routine; /* in scope */
    double accuracy;       /* of the routine messages: the likeliest routine label is right */
    double
        macro_f1; /* of the likeliest of all labels, mean over the labels of the data that the model knows */
    double auroc; /* of the confidence: routine against out of scope */
    double decided;     /* of all: rightly called routine or rightly sent to the model */
    double ai_share;    /* of all: sent to the model */
    double oos_recall;  /* of those out of scope: sent to the model */
    double end_to_end;  /* of all: the right label, or rightly sent to the model */
    double calibration; /* mean distance between probability and truth, in ten bins */
    double
        error; /* of all the probabilities that a message gets, of each label and of being out of scope: mean of the sum
                   * of their squared distances from the truth, 0 to 2 (G. Brier, "Verification of forecasts expressed in
                   * terms of probability", 1950). Few messages tell by it what takes many to tell by counting. */
    double p50_us, p99_us;                                /* to classify one, by this thread's clock */
    mr_intent_confusion confusions[MR_INTENT_CONFUSIONS]; /* most frequent first; times 0 ends them */
} mr_intent_report;

int mr_intent_eval(mr_intent *in, const mr_intent_data *d, mr_intent_report *out, mr_error *err);
/* The same; right[i], unless NULL, becomes whether message i got the right label, or was rightly sent to the model. */
int mr_intent_eval_each(mr_intent *in, const mr_intent_data *d, bool *right, mr_intent_report *out,
                        mr_error *err);

/* The threshold at which the share of messages sent to the model is within low..high and most are decided
 * rightly, by messages of which those out of scope are weighted to be the middle of that band; of thresholds that
 * are equally good as far as so many messages can tell, the one nearest to that middle. With none out of scope:
 * the middle's quantile. */
int mr_intent_calibrate(mr_intent *in, const mr_intent_data *d, double low, double high, double *threshold,
                        mr_error *err);

/* The same from confidences; `outside[i]` says whether the message is out of scope. Sorts both arrays. */
typedef struct mr_intent_judged {
    float confidence;
    bool outside;
} mr_intent_judged;
double mr_intent_pick_threshold(mr_intent_judged *v, int n, double low, double high);
double mr_intent_auroc(mr_intent_judged *v, int n);

#endif
