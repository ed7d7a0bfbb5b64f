/* Measures a model of intents; see intent_eval.h. */
#include "router/intent_eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BINS = 10 };

/* What became of each message, and the tables that are counted from it. */
typedef struct tally {
    int labels;                   /* of the data */
    int *in_model;                /* [labels] the model's number of a label, or -1 */
    bool *outside;                /* [labels] */
    int *hits, *guesses, *truths; /* [labels] for F1 */
    int *confused;                /* [labels][model labels + 1] */
    int model_labels;
    mr_intent_judged *judged;
    double *micros;
    double bin_probability[BINS], bin_right[BINS], error;
    int bin_n[BINS];
    int right, decided, sent, sent_outside, outside_n, end_to_end;
} tally;

static int model_label(const mr_intent *in, mr_str name, bool *outside) {
    for (int i = 0; i < mr_intent_labels(in); i++) {
        if (mr_str_eq(mr_intent_label_name(in, i, outside), name)) return i;
    }
    *outside = true;
    return -1;
}

static int tally_init(tally *t, const mr_intent *in, const mr_intent_data *d, mr_error *err) {
    size_t n = (size_t)d->labels_n;
    *t = (tally){.labels = d->labels_n, .model_labels = mr_intent_labels(in)};
    t->in_model = calloc(n + 1, sizeof(int));
    t->outside = calloc(n + 1, sizeof(bool));
    t->hits = calloc(n + 1, sizeof(int));
    t->guesses = calloc(n + 1, sizeof(int));
    t->truths = calloc(n + 1, sizeof(int));
    t->confused = calloc((n + 1) * (size_t)(t->model_labels + 1), sizeof(int));
    t->judged = calloc((size_t)d->n + 1, sizeof *t->judged);
    t->micros = calloc((size_t)d->n + 1, sizeof *t->micros);
    if (!t->in_model || !t->outside || !t->hits || !t->guesses || !t->truths || !t->confused || !t->judged ||
        !t->micros) {
        return mr_fail(err, MR_ENOMEM, "no memory to evaluate %d messages", d->n);
    }
    for (int i = 0; i < d->labels_n; i++) t->in_model[i] = model_label(in, d->labels[i], &t->outside[i]);
    return 0;
}

static void tally_done(tally *t) {
    free(t->in_model);
    free(t->outside);
    free(t->hits);
    free(t->guesses);
    free(t->truths);
    free(t->confused);
    free(t->judged);
    free(t->micros);
}

static void count_calibration(tally *t, double probability, bool right) {
    int bin = (int)(probability * BINS);
    if (!(bin >= 0)) bin = 0;
    if (bin >= BINS) bin = BINS - 1;
    t->bin_probability[bin] += probability;
    t->bin_right[bin] += right;
    t->bin_n[bin]++;
}

/* Of one message: what the model says of each label and of its being out of scope, against what is so. */
static double squared_error(const mr_intent *in, const mr_intent_guess *g, int truth) {
    double inside = 0, squares = 0, right = truth < 0 ? 1 - g->confidence : 0;
    bool outside;
    for (int i = 0; i < mr_intent_labels(in); i++) {
        mr_intent_label_name(in, i, &outside);
        double p = outside ? 0 : mr_intent_label_probability(in, i);
        inside += p;
        squares += p * p;
        if (i == truth) right = p;
    }
    double scale = inside > 0 ? g->confidence / inside : 0; /* of the labels' to all that is routine */
    if (truth >= 0) right *= scale;
    return 1 - 2 * right + squares * scale * scale + (1 - g->confidence) * (1 - g->confidence);
}

/* Returns whether what the user gets is right. */
static bool count(tally *t, const mr_intent_data *d, int i, const mr_intent_guess *g, int guessed) {
    int truth = d->v[i].label, class_label = mr_intent_data_label(d, g->class_label);
    bool outside = t->outside[truth], right = !outside && mr_str_eq(g->label, d->labels[truth]);
    t->judged[i] = (mr_intent_judged){(float)g->confidence, outside};
    t->right += right;
    t->outside_n += outside;
    t->sent += !g->routine;
    t->sent_outside += outside && !g->routine;
    t->decided += outside != g->routine;
    bool well = g->routine ? right : outside;
    t->end_to_end += well;
    t->truths[truth]++;
    if (class_label >= 0) t->guesses[class_label]++;
    if (class_label == truth) t->hits[truth]++;
    if (!outside && !right) t->confused[truth * (t->model_labels + 1) + guessed + 1]++;
    count_calibration(t, g->probability, right);
    return well;
}

static double share(double part, int whole) {
    return whole > 0 ? part / whole : NAN;
}

static double macro_f1(const tally *t) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < t->labels; i++) {
        if (t->in_model[i] < 0 || t->truths[i] == 0) continue;
        n++;
        sum += 2.0 * t->hits[i] / (t->guesses[i] + t->truths[i]);
    }
    return share(sum, n);
}

static double calibration_error(const tally *t, int n) {
    double sum = 0;
    for (int i = 0; i < BINS; i++) sum += fabs(t->bin_probability[i] - t->bin_right[i]);
    return share(sum, n);
}

static void rank_confusions(const tally *t, mr_intent_confusion *out) {
    for (int i = 0; i < t->labels; i++) {
        for (int k = 0; k <= t->model_labels; k++) {
            mr_intent_confusion c = {i, k - 1, t->confused[i * (t->model_labels + 1) + k]};
            int at = MR_INTENT_CONFUSIONS;
            while (at > 0 && out[at - 1].times < c.times) at--;
            if (at == MR_INTENT_CONFUSIONS) continue;
            memmove(out + at + 1, out + at, (size_t)(MR_INTENT_CONFUSIONS - 1 - at) * sizeof *out);
            out[at] = c;
        }
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void conclude(tally *t, const mr_intent_data *d, mr_intent_report *out) {
    int n = d->n, routine = n - t->outside_n;
    *out = (mr_intent_report){.messages = n, .routine = routine};
    out->accuracy = share(t->right, routine);
    out->macro_f1 = macro_f1(t);
    out->decided = share(t->decided, n);
    out->ai_share = share(t->sent, n);
    out->oos_recall = share(t->sent_outside, t->outside_n);
    out->end_to_end = share(t->end_to_end, n);
    out->error = share(t->error, n);
    out->calibration = calibration_error(t, n);
    out->auroc = mr_intent_auroc(t->judged, n);
    rank_confusions(t, out->confusions);
    qsort(t->micros, (size_t)n, sizeof *t->micros, by_value);
    if (n > 0) {
        out->p50_us = t->micros[n / 2];
        out->p99_us = t->micros[(long)n * 99 / 100];
    }
}

static int guessed_label(const mr_intent *in, mr_str name) {
    bool outside;
    return model_label(in, name, &outside);
}

/* Of this thread alone: nothing in a guess waits, and a machine that does something else as well must not count. */
static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

int mr_intent_eval_each(mr_intent *in, const mr_intent_data *d, bool *right, mr_intent_report *out,
                        mr_error *err) {
    tally t;
    int rc = tally_init(&t, in, d, err);
    for (int i = 0; rc == 0 && i < d->n; i++) {
        mr_intent_guess g;
        double start = now_us();
        rc = mr_intent_classify(in, d->v[i].words, &g, err);
        t.micros[i] = now_us() - start;
        if (rc < 0) break;
        bool well = count(&t, d, i, &g, guessed_label(in, g.label));
        if (right) right[i] = well;
        int truth = d->v[i].label;
        t.error += squared_error(in, &g, t.outside[truth] ? -1 : t.in_model[truth]);
    }
    if (rc == 0) conclude(&t, d, out);
    tally_done(&t);
    return rc;
}

int mr_intent_eval(mr_intent *in, const mr_intent_data *d, mr_intent_report *out, mr_error *err) {
    return mr_intent_eval_each(in, d, NULL, out, err);
}

/* ---- thresholds ---- */

static int by_confidence(const void *a, const void *b) {
    const mr_intent_judged *x = a, *y = b;
    return (x->confidence > y->confidence) - (x->confidence < y->confidence);
}

static int count_outside(const mr_intent_judged *v, int n) {
    int k = 0;
    for (int i = 0; i < n; i++) k += v[i].outside;
    return k;
}

double mr_intent_auroc(mr_intent_judged *v, int n) {
    double below = 0, pairs = 0; /* below: out of scope with less confidence than the message at hand */
    qsort(v, (size_t)n, sizeof *v, by_confidence);
    for (int i = 0, end; i < n; i = end) {
        int outside = 0;
        for (end = i; end < n && v[end].confidence == v[i].confidence; end++) outside += v[end].outside;
        pairs += (end - i - outside) * (below + outside / 2.0);
        below += outside;
    }
    double all = below * (n - below);
    return all > 0 ? pairs / all : NAN;
}

/* Between the confidences of two neighbours; over the last of all, 1. */
static double between(const mr_intent_judged *v, int n, int i) {
    if (i >= n) return 1;
    return i == 0 ? 0 : (v[i - 1].confidence + v[i].confidence) / 2.0;
}

/* A sweep of the threshold up over sorted confidences. */
typedef struct sweep {
    const mr_intent_judged *v;
    int n, i;            /* the threshold is below message i */
    double heavy, light; /* weight of a message out of scope, and of a routine one; all weigh 1 */
    double sent, right;  /* shares at this threshold */
} sweep;

static sweep sweep_begin(const mr_intent_judged *v, int n, double outside_share) {
    int outside = count_outside(v, n);
    sweep s = {.v = v, .n = n};
    if (outside == 0 || outside == n) outside_share = (double)outside / (n > 0 ? n : 1);
    s.heavy = outside > 0 ? outside_share / outside : 0;
    s.light = outside < n ? (1 - outside_share) / (n - outside) : 0;
    s.right = 1 - outside_share;
    return s;
}

static bool sweep_next(sweep *s) {
    if (s->i == s->n) return false;
    bool outside = s->v[s->i++].outside;
    s->sent += outside ? s->heavy : s->light;
    s->right += outside ? s->heavy : -s->light;
    return true;
}

static double best_in_band(sweep s, double low, double high) {
    double best = -1;
    do {
        if (s.sent >= low && s.sent <= high && s.right > best) best = s.right;
    } while (sweep_next(&s));
    return best;
}

double mr_intent_pick_threshold(mr_intent_judged *v, int n, double low, double high) {
    double middle = (low + high) / 2, threshold = 0, nearest = 2;
    qsort(v, (size_t)n, sizeof *v, by_confidence);
    sweep s = sweep_begin(v, n, middle);
    double best = s.heavy > 0 ? best_in_band(s, low, high) : -1;
    /* What is worse by less than a standard error is as good: of these the nearest to the middle. */
    double enough = best < 0 ? -1 : best - sqrt(fmax(0, best * (1 - best)) / n);
    do {
        bool fits = best < 0 || (s.sent >= low && s.sent <= high && s.right >= enough);
        if (!fits || fabs(s.sent - middle) >= nearest) continue;
        nearest = fabs(s.sent - middle);
        threshold = between(v, n, s.i);
    } while (sweep_next(&s));
    return threshold;
}

int mr_intent_calibrate(mr_intent *in, const mr_intent_data *d, double low, double high, double *threshold,
                        mr_error *err) {
    mr_intent_judged *v = calloc((size_t)d->n + 1, sizeof *v);
    if (!v) return mr_fail(err, MR_ENOMEM, "no memory to calibrate by %d messages", d->n);
    for (int i = 0; i < d->n; i++) {
        mr_intent_guess g;
        bool outside;
        mr_intent_classify_words(in, d->v[i].words, &g);
        model_label(in, d->labels[d->v[i].label], &outside);
        v[i] = (mr_intent_judged){(float)g.confidence, outside};
    }
    *threshold = mr_intent_pick_threshold(v, d->n, low, high);
    free(v);
    return 0;
}
