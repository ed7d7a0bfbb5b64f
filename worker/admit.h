/* The waiting line: who is admitted next.
 *
 * Tenants are served in turn, weighted by tokens: each tenant has a clock that advances with what is spent on it, its tickets'
 * costs when they are admitted and the tokens of their answers as they come, and the tenant whose clock is furthest behind goes
 * next. So one who has much running falls behind one who has little while it runs, and nobody saves up turns while idle: who was
 * idle begins with the clock of those that were not. Within a tenant what stepped aside for another tenant goes first, then the
 * highest priority, the earliest deadline, and the order of arrival.
 *
 * What was admitted before and comes back (its engine died) has paid already: it goes before all others.
 *
 * Tickets are part of their owner's memory; a ticket is in at most one line. Not thread-safe.
 */
#ifndef MR_ADMIT_H
#define MR_ADMIT_H

#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct mr_admit mr_admit;
struct mr_tenant;

typedef struct mr_ticket {
    struct mr_ticket *prev, *next;
    mr_admit *line;           /* NULL: in none */
    struct mr_tenant *tenant; /* NULL among those that come back */
    int64_t cost;             /* tokens that are spent by its admission */
    int64_t deadline_ms;      /* 0: none */
    int64_t priority;
    bool aside; /* it was admitted, has paid, and stepped aside for another tenant */
} mr_ticket;

mr_admit *mr_admit_new(mr_error *err);
void mr_admit_free(mr_admit *q); /* tickets still in line are forgotten */

/* Set cost, deadline, priority and aside before. Fails only without memory. */
int mr_admit_push(mr_admit *q, mr_ticket *t, mr_str tenant, mr_error *err);
/* Before all others, in the order of these calls. */
void mr_admit_return(mr_admit *q, mr_ticket *t);

mr_ticket *mr_admit_pop(mr_admit *q); /* NULL when empty */
/* What mr_admit_pop would return. */
const mr_ticket *mr_admit_next(const mr_admit *q);
/* Only one that comes back, or NULL: for a worker that takes nothing new. */
mr_ticket *mr_admit_pop_returned(mr_admit *q);
void mr_admit_remove(mr_ticket *t); /* nothing when it is in no line */

/* A request of the tenant begins to run, whatever line it came from; and it does so no more. */
void mr_admit_runs(mr_admit *q, mr_str tenant);
void mr_admit_left(mr_admit *q, mr_str tenant);
/* So many tokens more (or less, when negative) were spent on the tenant, besides its tickets' costs. */
void mr_admit_spend(mr_admit *q, mr_str tenant, int64_t tokens);

int mr_admit_waiting(const mr_admit *q);

#endif
