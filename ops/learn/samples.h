/* What was learned from people: messages of the traffic with the label that somebody said they have, and such as a person
 * should look at. Those with a label are kept in a file of JSON lines, because Kafka forgets and training needs all of them;
 * personal data in them is masked. A request has at most one sample.
 */
#ifndef MR_LEARN_SAMPLES_H
#define MR_LEARN_SAMPLES_H

#include "base/error.h"
#include "base/str.h"

#define MR_SAMPLE_TEXT_MAX 4000 /* bytes; the model looks at no more */

typedef enum {
    MR_SAMPLE_CONFIRMED, /* the model was right: the label is its own, or the message was one for the language model */
    MR_SAMPLE_DISAGREES, /* the model was confident of another label */
    MR_SAMPLE_REJECTED,  /* thumbs down for an answer of the knowledge base, and no label */
    MR_SAMPLE_UNSURE,    /* the model was not confident */
    MR_SAMPLE_KINDS
} mr_sample_kind;

extern const char *const mr_sample_kind_names[];

typedef struct mr_sample {
    mr_str request, text;
    mr_str label, guess; /* of people, of the model then; each may be empty */
    int64_t at_ms;
    double confidence; /* of the model: that it is routine */
    int rating;
    mr_sample_kind kind;
} mr_sample;

/* Owns all of it; begins as {0}. */
typedef struct mr_samples {
    mr_sample *v;
    int n, cap;
    int *slots; /* open addressing by request: index into v + 1, 0 = free */
    int slots_n;
    mr_arena *arena;
} mr_samples;

/* A file that is not there holds none. */
int mr_samples_load(mr_samples *s, const char *path, mr_error *err);
/* A copy of it, in place of that of the same request. */
int mr_samples_put(mr_samples *s, const mr_sample *one, mr_error *err);
int mr_samples_save(const mr_samples *s, const char *path, mr_error *err);
void mr_samples_done(mr_samples *s);

/* For persons to correct and give back as learn.labels: guess<TAB>text, of those without a label. */
int mr_samples_save_review(const mr_samples *s, const char *path, mr_error *err);

/* Whether a text in words form is one to measure by rather than to train on: always the same texts are. */
bool mr_sample_held_out(mr_str words, double share);

#endif
