/* Labelled messages from TSV files: label<TAB>text, UTF-8, one a line. Empty lines and lines that begin with '#'
 * are skipped, and so is a text without any word in it. Texts are kept in words form (text_norm.h). */
#ifndef MR_INTENT_DATA_H
#define MR_INTENT_DATA_H

#include "base/error.h"
#include "base/str.h"

typedef struct mr_intent_sample {
    int label;
    mr_str words;
} mr_intent_sample;

/* Owns all of it; begins as {0}. */
typedef struct mr_intent_data {
    mr_intent_sample *v;
    int n, cap;
    mr_str *labels; /* in the order in which they came */
    int labels_n;
    int *slots; /* open addressing by the name's hash: index into labels + 1, 0 = free */
    int slots_n;
    mr_arena *arena;
} mr_intent_data;

/* Adds the lines of a file; an error names the file and line. */
int mr_intent_data_read(mr_intent_data *d, const char *path, mr_error *err);
/* Adds one message, of any text in UTF-8. */
int mr_intent_data_add(mr_intent_data *d, mr_str label, mr_str text, mr_error *err);
void mr_intent_data_done(mr_intent_data *d);

/* The number of a label, or -1. */
int mr_intent_data_label(const mr_intent_data *d, mr_str name);
/* Its number; a new one is added. -1: no memory, or too many. */
int mr_intent_data_add_label(mr_intent_data *d, mr_str name, mr_error *err);

#endif
