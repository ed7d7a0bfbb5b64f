/* The rollout of one pool as chat.control tells it, fenced by epochs.
 *
 * Whoever drives a rollout opens an epoch by a record with a higher one than any before, in its own name. From then on only
 * that owner's records of that epoch count, until a higher one opens: all readers agree, because they read one partition in
 * one order. A tool acts on what it wrote only after it has read it back as valid; so one that was frozen and thawed hears
 * that it was replaced before it can touch the traffic.
 *
 * Compaction keeps the last record of a key, also one that does not count; so the owner writes its state again when it sees
 * a foreign record of its own or a lower epoch (`contested`). Plain data; no I/O.
 */
#ifndef MR_REGISTER_H
#define MR_REGISTER_H

#include "pool/view.h"
#include "schemas/messages.h"

#define MR_STEPS_MAX 32

typedef struct mr_limits {
    double max_error_rate, max_ttft_ratio, min_speed_ratio;
    int64_t min_requests;
} mr_limits;

typedef struct mr_rollout_at {
    int64_t epoch, created_ms;
    int state, to; /* MR_ROLLOUT_…, MR_BLUE or MR_GREEN */
    char owner[MR_NAME_MAX + 1];
    int64_t steps[MR_STEPS_MAX];
    int nsteps, step;
    int64_t started_ms, hold_ms;
    mr_limits limits;
    char reason[501];
} mr_rollout_at;

typedef struct mr_register {
    char pool[MR_POOL_NAME];
    bool known;                              /* there is or was a rollout */
    mr_rollout_at at;                        /* the last record that counts */
    bool contested;                          /* a record that does not count came after it */
    int64_t share[MR_COLORS], weights_epoch; /* the weights in force; blue 1, green 0 by default */
} mr_register;

void mr_register_init(mr_register *r, const char *pool);
void mr_register_feed(mr_register *r, const mr_control *c);
/* Does a rollout run? */
bool mr_register_active(const mr_register *r);
/* The epoch that takes it over. */
int64_t mr_register_next_epoch(const mr_register *r);
/* Percent of the traffic that a color has. */
double mr_register_percent(const mr_register *r, int color);

/* A rollout as a record; the strings are borrowed from `at`. */
void mr_register_control(const mr_rollout_at *at, mr_str pool, mr_control *out);

#endif
