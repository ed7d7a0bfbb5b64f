/* What every run did, kept as JSON lines, and the report of it by month: how much traffic there was, what people thought of
 * it, how often the model was right, and what became of it. */
#ifndef MR_LEARN_REPORT_H
#define MR_LEARN_REPORT_H

#include "ops/learn/retrain.h"

#include <stdio.h>

typedef struct mr_learn_run {
    int64_t at_ms, from_ms, to_ms;
    int64_t chats, from_kb, from_model, good, bad;
    mr_retrained trained;
    int version; /* that was promoted; 0: none was */
} mr_learn_run;

int mr_runs_add(const char *path, const mr_learn_run *run, mr_error *err);
/* Where the last run's period ended; 0: there was none. */
int mr_runs_last_end(const char *path, int64_t *to_ms, mr_error *err);
int mr_report_print(const char *runs_path, const mr_samples *samples, FILE *out, mr_error *err);

#endif
