/* The fusion of words and label; see kb_fuse.h. */
#include "router/kb_fuse.h"

#include <math.h>

/* A model is never so sure that an entry is wrong that no wording could make up for it. */
static const double LEAST_LABEL = 1e-4;

const char *const mr_kb_kind_names[MR_KB_KINDS] = {"plain", "category", "own"};
const char *const mr_kb_term_names[MR_KB_TERMS] = {"bias", "best", "votes", "label"};

const mr_kb_fusion mr_kb_fusion_default = {{
    [MR_KB_PLAIN] = {-5.3, 11.2, 1.5, 0},
    [MR_KB_CATEGORY] = {-2.7, 9.0, 0.1, 0.85},
    [MR_KB_OWN] = {0.3, 2.8, 0.2, 1.0},
}};

void mr_kb_terms(const mr_kb_evidence *e, double x[MR_KB_TERMS]) {
    x[MR_KB_BIAS] = 1;
    x[MR_KB_BEST] = e->best;
    x[MR_KB_VOTES] = e->votes;
    x[MR_KB_LABEL] = e->kind != MR_KB_PLAIN ? log(fmax(e->label, LEAST_LABEL)) : 0;
}

void mr_kb_fuse(const mr_kb_fusion *f, const mr_kb_evidence *e, int n, double *probability) {
    double most = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        double x[MR_KB_TERMS];
        const double *w = f->w[e[i].kind];
        mr_kb_terms(&e[i], x);
        probability[i] = 0;
        for (int k = 0; k < MR_KB_TERMS; k++) probability[i] += w[k] * x[k];
        if (probability[i] > most) most = probability[i];
    }
    for (int i = 0; i < n; i++) sum += probability[i] = exp(probability[i] - most);
    sum += exp(-most);
    for (int i = 0; i < n; i++) probability[i] /= sum;
}
