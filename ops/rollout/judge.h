/* Is the canary as good as the color that it replaces? Pure: two counts of the same time, and the limits. */
#ifndef MR_JUDGE_H
#define MR_JUDGE_H

#include "ops/rollout/register.h"

/* False, and the reason, when the canary is worse than the limits allow. What has too few requests to be judged passes:
 * errors are judged from three on, times from limits->min_requests of each color. */
bool mr_judge(const mr_totals *canary, const mr_totals *old, const mr_limits *limits, char why[501]);

#endif
