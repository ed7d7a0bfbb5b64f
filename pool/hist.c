/* See hist.h. Step i holds what is over 2^((i-1)/4) and up to 2^(i/4) units. */
#include "pool/hist.h"

#include <math.h>
#include <string.h>

#define STEPS_PER_DOUBLING 4.0

void mr_hist_add(mr_hist *h, double units) {
    double step = units > 1 ? ceil(STEPS_PER_DOUBLING * log2(units)) : 0;
    h->n[step < MR_HIST_STEPS ? (int)step : MR_HIST_STEPS - 1]++;
}

void mr_hist_add_difference(mr_hist *h, const mr_hist *a, const mr_hist *b) {
    for (int i = 0; i < MR_HIST_STEPS; i++) {
        h->n[i] += a->n[i] - (b ? b->n[i] : 0);
        if (h->n[i] < 0) h->n[i] = 0;
    }
}

int64_t mr_hist_count(const mr_hist *h) {
    int64_t n = 0;
    for (int i = 0; i < MR_HIST_STEPS; i++) n += h->n[i];
    return n;
}

double mr_hist_quantile(const mr_hist *h, double q) {
    double rank = q * (double)mr_hist_count(h), before = 0;
    if (rank <= 0) return 0;
    for (int i = 0; i < MR_HIST_STEPS; i++) {
        double here = (double)h->n[i];
        if (here > 0 && before + here >= rank) {
            return exp2((i - 1 + (rank - before) / here) / STEPS_PER_DOUBLING);
        }
        before += here;
    }
    return exp2((MR_HIST_STEPS - 1) / STEPS_PER_DOUBLING);
}

mr_i64s mr_hist_list(mr_hist *h) {
    uint32_t n = MR_HIST_STEPS;
    while (n > 0 && h->n[n - 1] == 0) n--;
    return (mr_i64s){h->n, n};
}

void mr_hist_read(mr_hist *h, mr_i64s list) {
    uint32_t n = list.n < MR_HIST_STEPS ? list.n : MR_HIST_STEPS;
    memset(h, 0, sizeof(*h));
    for (uint32_t i = 0; i < n; i++) h->n[i] = list.v[i] > 0 ? list.v[i] : 0;
}
