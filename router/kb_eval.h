/* How good the knowledge base is, by questions labelled with what is right: the name of an entry, or an intent. A label that
 * no entry has means that the base has no answer to the question. */
#ifndef MR_KB_EVAL_H
#define MR_KB_EVAL_H

#include "router/intent_data.h"
#include "router/kb.h"

/* Shares of the questions that they speak of; NAN where there are none. */
typedef struct mr_kb_report {
    int questions, known;                 /* of them with a right entry */
    double recall_1, recall_5, mrr;       /* of the known ones; MRR over MR_KB_HITS_MAX hits */
    double answered, right;               /* at the threshold: of all; of the answered ones */
    double known_answered, none_answered; /* of the known ones rightly; of those without a right entry */
    double calibration;                   /* mean distance between confidence and truth, in ten bins */
    double p50_us, p99_us;                /* processor time to classify and search one */
} mr_kb_report;

/* `intents` may be NULL. */
int mr_kb_eval(mr_kb *kb, mr_intent *intents, const mr_intent_data *d, double threshold, mr_kb_report *out,
               mr_error *err);

/* Fits the coefficients of kb_fuse.h to the questions, which are neither in the base nor in the intents' training. */
int mr_kb_calibrate(mr_kb *kb, mr_intent *intents, const mr_intent_data *d, mr_kb_fusion *out, mr_error *err);

#endif
