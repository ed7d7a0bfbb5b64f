/* Measures and calibrates the knowledge base; see kb_eval.h. */
#include "router/kb_eval.h"

#include "router/kb_fit.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { BINS = 10, RECALLED = 5 };

typedef struct tally {
    double first, recalled, reciprocal;
    int known, answered, right, known_right, none_answered;
    double bin_confidence[BINS], bin_right[BINS];
    double *micros;
} tally;

static bool is_right(const mr_kb_hit *h, mr_str label) {
    return mr_str_eq(h->name, label) || mr_str_eq(h->intent, label);
}

/* Of this thread alone: nothing in a search waits, and a machine that does something else as well must not count. */
static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* The first hit that is right, or -1. */
static int find_right(const mr_kb_hit *hits, int n, mr_str label) {
    for (int i = 0; i < n; i++) {
        if (is_right(&hits[i], label)) return i;
    }
    return -1;
}

static void count(tally *t, const mr_kb_hit *hits, int n, mr_str label, bool known, double threshold) {
    int at = find_right(hits, n, label);
    double confidence = n > 0 ? hits[0].confidence : 0;
    bool answers = n > 0 && confidence >= threshold;
    int bin = confidence < 1 ? (int)(confidence * BINS) : BINS - 1;
    t->known += known;
    if (at >= 0) {
        t->first += at == 0;
        t->recalled += at < RECALLED;
        t->reciprocal += 1.0 / (at + 1);
    }
    t->answered += answers;
    t->right += answers && at == 0;
    t->known_right += known && answers && at == 0;
    t->none_answered += !known && answers;
    t->bin_confidence[bin] += confidence;
    t->bin_right[bin] += at == 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double share(double part, int whole) {
    return whole > 0 ? part / whole : NAN;
}

static void conclude(const tally *t, int n, mr_kb_report *out) {
    double off = 0;
    for (int i = 0; i < BINS; i++) off += fabs(t->bin_confidence[i] - t->bin_right[i]);
    *out = (mr_kb_report){.questions = n, .known = t->known};
    out->recall_1 = share(t->first, t->known);
    out->recall_5 = share(t->recalled, t->known);
    out->mrr = share(t->reciprocal, t->known);
    out->answered = share(t->answered, n);
    out->right = share(t->right, t->answered);
    out->known_answered = share(t->known_right, t->known);
    out->none_answered = share(t->none_answered, n - t->known);
    out->calibration = share(off, n);
    qsort(t->micros, (size_t)n, sizeof *t->micros, by_value);
    out->p50_us = n > 0 ? t->micros[n / 2] : NAN;
    out->p99_us = n > 0 ? t->micros[n - 1 - n / 100] : NAN;
}

static int ask(mr_kb *kb, mr_intent *intents, mr_str words, mr_kb_hit hits[MR_KB_HITS_MAX], mr_error *err) {
    mr_intent_guess guess;
    if (intents && mr_intent_classify(intents, words, &guess, err) < 0) return -1;
    return mr_kb_search(kb, words, intents, hits, MR_KB_HITS_MAX, err);
}

/* Which labels are those of entries. */
static bool *known_labels(mr_kb *kb, const mr_intent_data *d, mr_error *err) {
    bool *known = calloc((size_t)d->labels_n + 1, sizeof *known);
    if (!known) {
        mr_fail(err, MR_ENOMEM, "no memory for %d labels", d->labels_n);
        return NULL;
    }
    for (int i = 0; i < d->labels_n; i++) {
        int rc = mr_kb_has(kb, d->labels[i], err);
        if (rc < 0) {
            free(known);
            return NULL;
        }
        known[i] = rc;
    }
    return known;
}

int mr_kb_eval(mr_kb *kb, mr_intent *intents, const mr_intent_data *d, double threshold, mr_kb_report *out,
               mr_error *err) {
    mr_kb_hit hits[MR_KB_HITS_MAX];
    tally t = {.micros = calloc((size_t)d->n + 1, sizeof *t.micros)};
    bool *known = known_labels(kb, d, err);
    int n = 0;
    if (!t.micros) n = mr_fail(err, MR_ENOMEM, "no memory to evaluate %d questions", d->n);
    if (!known) n = -1;
    for (int i = 0; n >= 0 && i < d->n; i++) {
        int label = d->v[i].label;
        double start = now_us();
        n = ask(kb, intents, d->v[i].words, hits, err);
        t.micros[i] = now_us() - start;
        if (n >= 0) count(&t, hits, n, d->labels[label], known[label], threshold);
    }
    if (n >= 0) conclude(&t, d->n, out);
    free(t.micros);
    free(known);
    return n < 0 ? -1 : 0;
}

int mr_kb_calibrate(mr_kb *kb, mr_intent *intents, const mr_intent_data *d, mr_kb_fusion *out,
                    mr_error *err) {
    mr_kb_hit hits[MR_KB_HITS_MAX];
    mr_kb_evidence *evidence = calloc((size_t)d->n * MR_KB_HITS_MAX + 1, sizeof *evidence);
    mr_kb_case *cases = calloc((size_t)d->n + 1, sizeof *cases);
    int rc = evidence && cases ? 0 : mr_fail(err, MR_ENOMEM, "no memory to calibrate by %d questions", d->n);
    for (int i = 0; rc >= 0 && i < d->n; i++) {
        mr_kb_evidence *v = evidence + (size_t)i * MR_KB_HITS_MAX;
        rc = ask(kb, intents, d->v[i].words, hits, err);
        for (int k = 0; k < rc; k++) v[k] = hits[k].evidence;
        if (rc >= 0) cases[i] = (mr_kb_case){v, rc, find_right(hits, rc, d->labels[d->v[i].label])};
    }
    if (rc >= 0) rc = mr_kb_fit(cases, d->n, &mr_kb_fusion_default, out, err);
    free(evidence);
    free(cases);
    return rc < 0 ? -1 : 0;
}
