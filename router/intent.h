/* What a message wants, and whether that is routine: a model of intents that `millrace intent train` made.
 *
 * The message in words form (text_norm.h) becomes hashed features (intent_text.h), and these a score a label by a
 * linear model and a small network (intent_model.h): 20 to 50 KB of weights read, some tens of microseconds. A
 * message whose P(routine) is under the model's threshold is one for the language model.
 *
 * An mr_intent belongs to one thread (the router's loop). The file is mapped read-only; whoever makes a new one
 * replaces it by rename, and mr_intent_refresh notices.
 */
#ifndef MR_INTENT_H
#define MR_INTENT_H

#include "base/error.h"
#include "base/str.h"

typedef struct mr_intent mr_intent;

typedef struct mr_intent_guess {
    mr_str
        label; /* the likeliest routine one, NUL-terminated; borrowed until refresh or close; empty: none */
    mr_str
        class_label; /* the likeliest of all labels, those that are out of scope included; borrowed likewise */
    double confidence;  /* calibrated probability that the message is routine */
    double probability; /* that it is, and the label is right */
    bool routine;       /* the confidence reaches the model's threshold */
} mr_intent_guess;

mr_intent *mr_intent_open(const char *path, mr_error *err);
void mr_intent_close(mr_intent *in);

/* Of a message, UTF-8. What has no word in it is not routine; of a very long one the beginning is looked at. */
int mr_intent_classify(mr_intent *in, mr_str text, mr_intent_guess *out, mr_error *err);
/* The same for a text that is in words form already. */
void mr_intent_classify_words(mr_intent *in, mr_str words, mr_intent_guess *out);

/* Of the message that was classified last: the probability of label i, those that are out of scope included, and the `max`
 * likeliest labels, the first one first; returns how many there are. */
double mr_intent_label_probability(const mr_intent *in, int i);
int mr_intent_likeliest(const mr_intent *in, int *labels, int max);

int mr_intent_labels(const mr_intent *in);
/* Another one than before once a refresh has opened another file; no two models of a process have the same. */
uint64_t mr_intent_version(const mr_intent *in);
/* The number of a label, or -1. */
int mr_intent_label_number(const mr_intent *in, mr_str name);
/* Label number i, and whether it is out of scope. */
mr_str mr_intent_label_name(const mr_intent *in, int i, bool *outside);
double mr_intent_threshold(const mr_intent *in);

/* Opens the file again when it was replaced or changed: 1 when it was, 0 when nothing changed, -1 when the new file
 * is unusable (the old model stays in service, and the same file is not tried again). */
int mr_intent_refresh(mr_intent *in, mr_error *err);

/* Writes the model's file anew with another threshold, by rename. */
int mr_intent_set_threshold(const char *path, double threshold, double share_low, double share_high,
                            mr_error *err);

#endif
