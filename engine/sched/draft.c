/* See draft.h. */
#include "engine/sched/draft.h"

enum {
    FIRST_LENGTH = 3,
    LEAST_LENGTH = 2,
    LEAST_MATCH = 2, /* tokens that must have occurred before */
    LONG_MATCH = 8,  /* so many are as good as any more */
    FAILURES_MAX = 2,
    FIRST_PAUSE = 8,
    LONGEST_PAUSE = 256,
};

void drafter_start(drafter *d) {
    *d = (drafter){.length = FIRST_LENGTH, .pause = FIRST_PAUSE};
}

/* How many tokens before `a` and before `b` are the same, a < b. */
static int matching(const int32_t *tokens, int a, int b) {
    int n = 0;
    while (n < LONG_MATCH && a - n > 0 && tokens[a - n - 1] == tokens[b - n - 1]) n++;
    return n;
}

/* Where the longest run that the tokens end with has occurred before, the latest one if there are several: the position
 * after it, or 0. */
static int find_earlier(const int32_t *tokens, int n) {
    int best = 0, longest = LEAST_MATCH - 1;
    for (int at = n - 1; at >= LEAST_MATCH && longest < LONG_MATCH; at--) {
        if (tokens[at - 1] != tokens[n - 1]) continue;
        int m = matching(tokens, at, n);
        if (m <= longest) continue;
        longest = m;
        best = at;
    }
    return best;
}

int drafter_guess(drafter *d, int32_t *tokens, int n, int room) {
    if (d->rest > 0) {
        d->rest--;
        return 0;
    }
    int from = find_earlier(tokens, n);
    int count = d->length < room ? d->length : room;
    if (!from || count <= 0) return 0;
    /* one by one: the guess may run into itself, as in "ha ha ha" */
    for (int i = 0; i < count; i++) tokens[n + i] = tokens[from + i];
    return count;
}

void drafter_learn(drafter *d, int tried, int right) {
    if (right == tried) {
        d->length = d->length * 2 < DRAFT_MAX ? d->length * 2 : DRAFT_MAX;
    } else {
        d->length = right + 1 > LEAST_LENGTH ? right + 1 : LEAST_LENGTH;
    }
    d->failures = right ? 0 : d->failures + 1;
    if (right) d->pause = FIRST_PAUSE;
    if (d->failures < FAILURES_MAX) return;
    d->failures = 0;
    d->rest = d->pause;
    d->pause = d->pause * 2 < LONGEST_PAUSE ? d->pause * 2 : LONGEST_PAUSE;
}
