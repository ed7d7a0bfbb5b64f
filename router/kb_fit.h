/* Fits how sure the knowledge base is of itself (kb_fuse.h) to questions whose right entry is known. Pure; any thread. */
#ifndef MR_KB_FIT_H
#define MR_KB_FIT_H

#include "base/error.h"
#include "router/kb_fuse.h"

/* A question's candidates. */
typedef struct mr_kb_case {
    const mr_kb_evidence *v;
    int n, right; /* the candidate that is meant; -1: none of them */
} mr_kb_case;

/* The coefficients under which the right candidates are most likely: maximum likelihood by Newton's method, with a normal
 * prior around `prior` whose weight is that of few questions, so that little data changes little. */
int mr_kb_fit(const mr_kb_case *cases, int n, const mr_kb_fusion *prior, mr_kb_fusion *out, mr_error *err);

/* Mean of -ln P(right candidate, or none). */
double mr_kb_fit_loss(const mr_kb_case *cases, int n, const mr_kb_fusion *f);

#endif
