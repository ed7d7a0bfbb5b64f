/* The waiting line. See admit.h.
 *
 * A list of tenants, each with a sorted list of tickets. There are at most as many tenants as waiting requests plus
 * those whose clock is still ahead, so a walk over the list is short; no heap is worth its code here.
 */
#include "worker/admit.h"

#include <stdlib.h>
#include <string.h>

typedef struct line {
    mr_ticket *first, *last;
} line;

typedef struct mr_tenant {
    struct mr_tenant *next;
    double clock; /* tokens spent on it, in the common time of all tenants */
    int running;
    line line;
    size_t name_len;
    char name[];
} mr_tenant;

struct mr_admit {
    mr_tenant *tenants;
    line returned;
    int waiting;
};

/* ---- lines ---- */

static bool sooner(const mr_ticket *a, const mr_ticket *b) {
    if (a->aside != b->aside) return a->aside;
    if (a->priority != b->priority) return a->priority > b->priority;
    if (!a->deadline_ms) return false;
    return !b->deadline_ms || a->deadline_ms < b->deadline_ms;
}

/* From the back, because later requests mostly have later deadlines. */
static void line_insert(line *l, mr_ticket *t) {
    mr_ticket *before = l->last;
    while (before && sooner(t, before)) before = before->prev;
    t->prev = before;
    t->next = before ? before->next : l->first;
    *(t->prev ? &t->prev->next : &l->first) = t;
    *(t->next ? &t->next->prev : &l->last) = t;
}

static void line_append(line *l, mr_ticket *t) {
    t->prev = l->last;
    t->next = NULL;
    *(t->prev ? &t->prev->next : &l->first) = t;
    l->last = t;
}

static void line_remove(line *l, mr_ticket *t) {
    *(t->prev ? &t->prev->next : &l->first) = t->next;
    *(t->next ? &t->next->prev : &l->last) = t->prev;
    t->prev = t->next = NULL;
}

/* ---- tenants ---- */

static mr_tenant *find_tenant(const mr_admit *q, mr_str name) {
    mr_tenant *t = q->tenants;
    while (t && !mr_str_eq((mr_str){t->name, t->name_len}, name)) t = t->next;
    return t;
}

static bool is_active(const mr_tenant *t) {
    return t->line.first || t->running;
}

/* The clock of the active tenant that is furthest behind: what a newcomer begins with. `least` when nobody is active. */
static double common_time(const mr_admit *q, double least) {
    const mr_tenant *best = NULL;
    for (const mr_tenant *t = q->tenants; t; t = t->next) {
        if (is_active(t) && (!best || t->clock < best->clock)) best = t;
    }
    return best && best->clock > least ? best->clock : least;
}

/* One that was idle has saved up no turns. */
static mr_tenant *get_tenant(mr_admit *q, mr_str name) {
    mr_tenant *t = find_tenant(q, name);
    if (t && !is_active(t)) t->clock = common_time(q, t->clock);
    if (t) return t;
    t = calloc(1, sizeof(*t) + name.n);
    if (!t) return NULL;
    if (name.n) memcpy(t->name, name.p, name.n);
    t->name_len = name.n;
    t->clock = common_time(q, 0);
    t->next = q->tenants;
    q->tenants = t;
    return t;
}

/* One that is idle and not ahead of the others is as good as new. When nobody is active nobody was kept waiting either, so all
 * debts are forgotten: the list can't grow with the number of tenants ever seen. */
static void drop_idle_tenants(mr_admit *q) {
    const double now = common_time(q, -1);
    for (mr_tenant **at = &q->tenants; *at;) {
        mr_tenant *t = *at;
        if (is_active(t) || (now >= 0 && t->clock > now)) {
            at = &t->next;
        } else {
            *at = t->next;
            free(t);
        }
    }
}

/* Of two that are equally far, the one that has less running. */
static mr_tenant *furthest_behind(const mr_admit *q) {
    mr_tenant *best = NULL;
    for (mr_tenant *t = q->tenants; t; t = t->next) {
        if (!t->line.first) continue;
        if (!best || t->clock < best->clock || (t->clock == best->clock && t->running < best->running))
            best = t;
    }
    return best;
}

/* ---- the queue ---- */

mr_admit *mr_admit_new(mr_error *err) {
    mr_admit *q = calloc(1, sizeof(*q));
    if (!q) mr_fail(err, MR_ENOMEM, "out of memory");
    return q;
}

void mr_admit_free(mr_admit *q) {
    if (!q) return;
    while (q->tenants) {
        mr_tenant *t = q->tenants;
        q->tenants = t->next;
        free(t);
    }
    free(q);
}

int mr_admit_push(mr_admit *q, mr_ticket *t, mr_str tenant, mr_error *err) {
    mr_tenant *of = get_tenant(q, tenant);
    if (!of) return mr_fail(err, MR_ENOMEM, "out of memory");
    t->tenant = of;
    t->line = q;
    line_insert(&of->line, t);
    q->waiting++;
    return 0;
}

void mr_admit_return(mr_admit *q, mr_ticket *t) {
    t->tenant = NULL;
    t->line = q;
    line_append(&q->returned, t);
    q->waiting++;
}

void mr_admit_remove(mr_ticket *t) {
    if (!t->line) return;
    line_remove(t->tenant ? &t->tenant->line : &t->line->returned, t);
    t->line->waiting--;
    t->line = NULL;
    t->tenant = NULL;
}

mr_ticket *mr_admit_pop_returned(mr_admit *q) {
    mr_ticket *t = q->returned.first;
    if (t) mr_admit_remove(t);
    return t;
}

const mr_ticket *mr_admit_next(const mr_admit *q) {
    if (q->returned.first) return q->returned.first;
    const mr_tenant *of = furthest_behind(q);
    return of ? of->line.first : NULL;
}

mr_ticket *mr_admit_pop(mr_admit *q) {
    mr_ticket *t = mr_admit_pop_returned(q);
    if (t) return t;
    mr_tenant *of = furthest_behind(q);
    if (!of) return NULL;
    t = of->line.first;
    if (!t->aside) of->clock += (double)t->cost;
    mr_admit_remove(t);
    drop_idle_tenants(q);
    return t;
}

void mr_admit_runs(mr_admit *q, mr_str tenant) {
    mr_tenant *t = get_tenant(q, tenant);
    if (t) t->running++; /* without memory it counts as idle */
}

void mr_admit_left(mr_admit *q, mr_str tenant) {
    mr_tenant *t = find_tenant(q, tenant);
    if (t && t->running) t->running--;
    drop_idle_tenants(q);
}

void mr_admit_spend(mr_admit *q, mr_str tenant, int64_t tokens) {
    mr_tenant *t = find_tenant(q, tenant);
    if (t) t->clock += (double)tokens;
}

int mr_admit_waiting(const mr_admit *q) {
    return q->waiting;
}
