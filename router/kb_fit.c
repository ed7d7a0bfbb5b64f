/* Maximum likelihood for the fusion; see kb_fit.h. */
#include "router/kb_fit.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    WEIGHTS = MR_KB_KINDS * MR_KB_TERMS,
    CANDIDATES_MAX = 64,
    STEPS = 50,
    HALVINGS = 20,
};

static const double PRIOR = 0.5, ENOUGH = 1e-9;

typedef struct sums {
    double gradient[WEIGHTS], curvature[WEIGHTS][WEIGHTS];
} sums;

static void terms_of(const mr_kb_evidence *e, double x[WEIGHTS]) {
    memset(x, 0, WEIGHTS * sizeof x[0]);
    mr_kb_terms(e, x + e->kind * MR_KB_TERMS);
}

static mr_kb_fusion fusion_of(const double w[WEIGHTS]) {
    mr_kb_fusion f;
    memcpy(f.w, w, sizeof f.w);
    return f;
}

/* The gradient of ln P is x(right) - E[x], its curvature -Var[x], under P. */
static void add_case(sums *s, const mr_kb_case *c, const mr_kb_fusion *f) {
    double p[CANDIDATES_MAX], mean[WEIGHTS] = {0}, x[WEIGHTS];
    mr_kb_fuse(f, c->v, c->n, p);
    for (int i = 0; i < c->n; i++) {
        terms_of(&c->v[i], x);
        for (int k = 0; k < WEIGHTS; k++) {
            mean[k] += p[i] * x[k];
            if (i == c->right) s->gradient[k] += x[k];
            for (int l = 0; l < WEIGHTS; l++) s->curvature[k][l] += p[i] * x[k] * x[l];
        }
    }
    for (int k = 0; k < WEIGHTS; k++) {
        s->gradient[k] -= mean[k];
        for (int l = 0; l < WEIGHTS; l++) s->curvature[k][l] -= mean[k] * mean[l];
    }
}

/* Solves curvature * step = gradient, which becomes the step, by Cholesky: the prior keeps it positive definite. */
static bool solve(sums *s) {
    for (int j = 0; j < WEIGHTS; j++) {
        for (int i = j; i < WEIGHTS; i++) {
            double v = s->curvature[i][j];
            for (int k = 0; k < j; k++) v -= s->curvature[i][k] * s->curvature[j][k];
            if (i == j && !(v > 0)) return false;
            s->curvature[i][j] = i == j ? sqrt(v) : v / s->curvature[j][j];
        }
    }
    for (int i = 0; i < WEIGHTS; i++) {
        for (int k = 0; k < i; k++) s->gradient[i] -= s->curvature[i][k] * s->gradient[k];
        s->gradient[i] /= s->curvature[i][i];
    }
    for (int i = WEIGHTS - 1; i >= 0; i--) {
        for (int k = i + 1; k < WEIGHTS; k++) s->gradient[i] -= s->curvature[k][i] * s->gradient[k];
        s->gradient[i] /= s->curvature[i][i];
    }
    return true;
}

double mr_kb_fit_loss(const mr_kb_case *cases, int n, const mr_kb_fusion *f) {
    double sum = 0, p[CANDIDATES_MAX];
    for (int i = 0; i < n; i++) {
        double none = 1;
        mr_kb_fuse(f, cases[i].v, cases[i].n, p);
        for (int k = 0; k < cases[i].n; k++) none -= p[k];
        sum -= log(fmax(cases[i].right < 0 ? none : p[cases[i].right], 1e-12));
    }
    return n > 0 ? sum / n : 0;
}

static double objective(const mr_kb_case *cases, int n, const double w[WEIGHTS],
                        const double prior[WEIGHTS]) {
    mr_kb_fusion f = fusion_of(w);
    double sum = n * mr_kb_fit_loss(cases, n, &f);
    for (int k = 0; k < WEIGHTS; k++) sum += PRIOR / 2 * (w[k] - prior[k]) * (w[k] - prior[k]);
    return sum;
}

/* One step of Newton's method, shortened until it is one down. The gain. */
static double improve(const mr_kb_case *cases, int n, double w[WEIGHTS], const double prior[WEIGHTS]) {
    sums s = {0};
    mr_kb_fusion f = fusion_of(w);
    double before = objective(cases, n, w, prior), length = 1;
    for (int i = 0; i < n; i++) add_case(&s, &cases[i], &f);
    for (int k = 0; k < WEIGHTS; k++) {
        s.gradient[k] -= PRIOR * (w[k] - prior[k]);
        s.curvature[k][k] += PRIOR;
    }
    if (!solve(&s)) return 0;
    for (int i = 0; i < HALVINGS; i++, length /= 2) {
        double tried[WEIGHTS];
        for (int k = 0; k < WEIGHTS; k++) tried[k] = w[k] + length * s.gradient[k];
        double gain = before - objective(cases, n, tried, prior);
        if (!(gain > 0)) continue;
        memcpy(w, tried, sizeof tried);
        return gain;
    }
    return 0;
}

int mr_kb_fit(const mr_kb_case *cases, int n, const mr_kb_fusion *prior, mr_kb_fusion *out, mr_error *err) {
    double start[WEIGHTS], w[WEIGHTS];
    for (int i = 0; i < n; i++) {
        if (cases[i].n > CANDIDATES_MAX) {
            return mr_fail(err, MR_ETOOBIG, "a question has more than %d candidates", CANDIDATES_MAX);
        }
    }
    memcpy(start, prior->w, sizeof start);
    memcpy(w, start, sizeof w);
    for (int i = 0; i < STEPS && improve(cases, n, w, start) > ENOUGH; i++) continue;
    *out = fusion_of(w);
    return 0;
}
