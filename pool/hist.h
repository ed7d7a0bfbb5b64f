/* A histogram with steps of a fourth of a doubling, for values that are compared by ratio. Its counts are what a
 * WorkerStatus carries. Plain data; no state. */
#ifndef MR_HIST_H
#define MR_HIST_H

#include "schemas/messages.h"

#define MR_HIST_STEPS       80 /* up to 2^20 units */

/* Units of the two that are in use: first tokens in ms, speeds in fourths of a token/s. */
#define MR_HIST_SPEED_UNITS 4

typedef struct mr_hist {
    int64_t n[MR_HIST_STEPS];
} mr_hist;

void mr_hist_add(mr_hist *h, double units);
/* h += a - b; b may be NULL. A count that would fall below 0 is 0. */
void mr_hist_add_difference(mr_hist *h, const mr_hist *a, const mr_hist *b);
int64_t mr_hist_count(const mr_hist *h);
/* The value that a share q (0 to 1) of all does not exceed, in units, interpolated; 0 when there are none. */
double mr_hist_quantile(const mr_hist *h, double q);

/* As a message's list, without the zeros at its end; borrows h. And back: what is too long is cut. */
mr_i64s mr_hist_list(mr_hist *h);
void mr_hist_read(mr_hist *h, mr_i64s list);

#endif
