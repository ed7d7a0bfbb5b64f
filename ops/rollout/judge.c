/* See judge.h. */
#include "ops/rollout/judge.h"

#include <stdio.h>

#define SURE_ERRORS   3 /* one failure, or two, may be anybody's bad luck */
#define TTFT_QUANTILE 0.9
#define TTFT_SLACK_MS 100.0 /* less than this nobody notices, whatever the ratio */

static double error_rate(const mr_totals *t) {
    int64_t n = mr_totals_requests(t);
    return n > 0 ? (double)t->errors / (double)n : 0;
}

static bool errors_pass(const mr_totals *canary, const mr_totals *old, const mr_limits *l, char why[501]) {
    double rate = error_rate(canary), was = error_rate(old);
    if (canary->errors < SURE_ERRORS || rate <= was + l->max_error_rate) return true;
    snprintf(why, 501, "%.2f %% of its requests failed (%lld of %lld), of the old color's %.2f %%",
             100 * rate, (long long)canary->errors, (long long)mr_totals_requests(canary), 100 * was);
    return false;
}

static bool enough(const mr_hist *a, const mr_hist *b, const mr_limits *l) {
    int64_t least = l->min_requests > 1 ? l->min_requests : 1;
    return mr_hist_count(a) >= least && mr_hist_count(b) >= least;
}

static bool first_token_passes(const mr_totals *canary, const mr_totals *old, const mr_limits *l,
                               char why[501]) {
    if (l->max_ttft_ratio <= 0 || !enough(&canary->first_token, &old->first_token, l)) return true;
    double is = mr_hist_quantile(&canary->first_token, TTFT_QUANTILE);
    double was = mr_hist_quantile(&old->first_token, TTFT_QUANTILE);
    if (is <= was * l->max_ttft_ratio || is <= was + TTFT_SLACK_MS) return true;
    snprintf(why, 501, "its time to first token (p90) is %.0f ms, %.2f times the old color's %.0f ms", is,
             is / was, was);
    return false;
}

static bool speed_passes(const mr_totals *canary, const mr_totals *old, const mr_limits *l, char why[501]) {
    if (l->min_speed_ratio <= 0 || !enough(&canary->speed, &old->speed, l)) return true;
    double is = mr_hist_quantile(&canary->speed, 0.5) / MR_HIST_SPEED_UNITS;
    double was = mr_hist_quantile(&old->speed, 0.5) / MR_HIST_SPEED_UNITS;
    if (is >= was * l->min_speed_ratio) return true;
    snprintf(why, 501, "it generates %.1f tokens/s (median), %.2f times the old color's %.1f", is, is / was,
             was);
    return false;
}

bool mr_judge(const mr_totals *canary, const mr_totals *old, const mr_limits *limits, char why[501]) {
    return errors_pass(canary, old, limits, why) && first_token_passes(canary, old, limits, why) &&
           speed_passes(canary, old, limits, why);
}
