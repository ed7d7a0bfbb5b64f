/* Training with cross-validation; see intent_train.h. */
#include "router/intent_train.h"

#include "router/intent_eval.h"
#include "router/intent_fit.h"
#include "router/intent_write.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FOLDS = 4,
    JOBS = FOLDS + 1,   /* the last fits on everything; a cross-validation has none */
    MIX_SAMPLES = 4000, /* by which the mix is chosen */
    VALID_ENOUGH = 200, /* routine messages by which a threshold can be chosen */
};

/* What one message scored by a model that had not seen it. */
typedef struct seen {
    int label; /* of the model; -1: none, so out of scope */
    bool valid, outside;
    float words, runs, length; /* signals */
    float *linear, *net;       /* [labels] */
} seen;

typedef struct job {
    int rc;
    bool done;
    mr_error err;
} job;

/* Shared with the children; all of it in one anonymous mapping. */
typedef struct training {
    const mr_intent_data *data, *valid;
    const mr_intent_train_options *options;
    bool *outside; /* [labels] */
    int jobs_n;
    job *jobs; /* [jobs_n], shared, as all that follows */
    char *images[JOBS];
    float *scores; /* [samples][2 * labels + 3] */
    size_t width, shared_bytes;
    void *shared;
    seen *seen;
    int seen_n;
    mr_intent_image m; /* the final one */
    mr_intent_scores *scratch;
} training;

/* ---- jobs ---- */

static void keep_scores(const mr_intent_image *m, const mr_intent_scores *s, float *out) {
    size_t n = m->head.labels;
    memcpy(out, s->linear, n * sizeof(float));
    memcpy(out + n, s->net, n * sizeof(float));
    out[2 * n] = s->signals[MR_SIGNAL_WORDS];
    out[2 * n + 1] = s->signals[MR_SIGNAL_RUNS];
    out[2 * n + 2] = s->signals[MR_SIGNAL_LENGTH];
}

static int score_left_out(training *t, const mr_intent_fit_options *o, const char *bytes, mr_error *err) {
    mr_intent_image m;
    mr_intent_image_layout(bytes, &m);
    mr_intent_scores *s = mr_intent_scores_new(&m, err);
    if (!s) return -1;
    for (int i = 0; i < t->data->n; i++) {
        if (!mr_intent_left_out(o, i)) continue;
        mr_intent_score(&m, t->data->v[i].words, s);
        keep_scores(&m, s, t->scores + (size_t)i * t->width);
    }
    mr_intent_scores_free(s);
    return 0;
}

static int run_job(training *t, int number, mr_error *err) {
    mr_intent_fit_options o = {.seed = t->options->seed,
                               .how = t->options->how,
                               .outside = t->outside,
                               .fold = number,
                               .folds = number < FOLDS ? FOLDS : 0};
    if (mr_intent_fit(t->data, &o, t->images[number], err) < 0) return -1;
    return score_left_out(t, &o, t->images[number], err);
}

static int start_job(training *t, int number, mr_error *err) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return mr_fail(err, MR_EIO, "no process for the training: %s", strerror(errno));
    if (pid > 0) return 0;
    job *j = &t->jobs[number];
    j->rc = run_job(t, number, &j->err);
    j->done = true;
    _exit(0);
}

static void wait_for_one(void) {
    while (wait(NULL) < 0 && errno == EINTR) continue;
}

/* The longest job first, as many at once as there are CPUs. */
static int run_jobs(training *t, mr_error *err) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int running = 0, rc = 0;
    for (int number = t->jobs_n - 1; number >= 0 && rc == 0; number--) {
        if (running >= cpus) {
            wait_for_one();
            running--;
        }
        rc = start_job(t, number, err);
        running += rc == 0;
    }
    for (; running > 0; running--) wait_for_one();
    for (int i = 0; i < t->jobs_n && rc == 0; i++) {
        if (!t->jobs[i].done) {
            rc = mr_fail(err, MR_ENOMEM, "a training process died: the machine may be out of memory");
        } else if (t->jobs[i].rc < 0) {
            *err = t->jobs[i].err;
            rc = -1;
        }
    }
    return rc;
}

/* ---- what was scored ---- */

static void add_seen(training *t, int label, bool valid, float *scores) {
    size_t n = t->m.head.labels;
    t->seen[t->seen_n++] = (seen){.label = label,
                                  .valid = valid,
                                  .outside = label < 0 || t->outside[label],
                                  .linear = scores,
                                  .net = scores + n,
                                  .words = scores[2 * n],
                                  .runs = scores[2 * n + 1],
                                  .length = scores[2 * n + 2]};
}

static void gather_seen(training *t) {
    int valid_n = t->valid ? t->valid->n : 0;
    for (int i = 0; i < t->data->n; i++) {
        add_seen(t, t->data->v[i].label, false, t->scores + (size_t)i * t->width);
    }
    for (int i = 0; i < valid_n; i++) {
        float *scores = t->scores + (size_t)(t->data->n + i) * t->width;
        mr_str name = t->valid->labels[t->valid->v[i].label];
        mr_intent_score(&t->m, t->valid->v[i].words, t->scratch);
        keep_scores(&t->m, t->scratch, scores);
        add_seen(t, mr_intent_data_label(t->data, name), true, scores);
    }
}

/* ---- mix ---- */

/* Mean of -ln p of the right label. */
static double mix_loss(const training *t, double linear, double net) {
    int labels = (int)t->m.head.labels, step = t->data->n / MIX_SAMPLES + 1, n = 0;
    double sum = 0;
    for (int i = 0; i < t->data->n; i += step, n++) {
        const seen *s = &t->seen[i];
        double max = -INFINITY, all = 0, right = linear * s->linear[s->label] + net * s->net[s->label];
        for (int k = 0; k < labels; k++) max = fmax(max, linear * s->linear[k] + net * s->net[k]);
        for (int k = 0; k < labels; k++) all += exp(linear * s->linear[k] + net * s->net[k] - max);
        sum += max + log(all) - right;
    }
    return sum / n;
}

/* Each in turn by ever smaller steps; the loss is convex. */
static void choose_mix(training *t) {
    double v[2] = {1, 1}, factor = 2, best = mix_loss(t, v[0], v[1]);
    while (factor > 1.02) {
        bool better = false;
        for (int k = 0; k < 2; k++) {
            for (int up = 0; up < 2; up++) {
                double old = v[k];
                v[k] *= up ? factor : 1 / factor;
                double loss = mix_loss(t, v[0], v[1]);
                if (loss < best && v[k] < 100 && v[k] > 0.01) {
                    best = loss;
                    better = true;
                } else {
                    v[k] = old;
                }
            }
        }
        if (!better) factor = sqrt(factor);
    }
    t->m.head.mix_linear = (float)v[0];
    t->m.head.mix_net = (float)v[1];
}

/* ---- how good the folds are ---- */

static void judge(training *t, const seen *s) {
    size_t n = t->m.head.labels * sizeof(float);
    memcpy(t->scratch->linear, s->linear, n);
    memcpy(t->scratch->net, s->net, n);
    t->scratch->signals[MR_SIGNAL_WORDS] = s->words;
    t->scratch->signals[MR_SIGNAL_RUNS] = s->runs;
    t->scratch->signals[MR_SIGNAL_LENGTH] = s->length;
    t->scratch->features.n = 1;
    mr_intent_judge(&t->m, t->scratch);
}

static int measure_labels(training *t, mr_intent_trained *out, mr_error *err) {
    int labels = (int)t->m.head.labels, with = 0;
    int *truths = calloc(3 * (size_t)labels, sizeof *truths), *guesses = truths + labels,
        *hits = guesses + labels;
    if (!truths) return mr_fail(err, MR_ENOMEM, "no memory to measure a model");
    for (int i = 0; i < t->data->n; i++) {
        judge(t, &t->seen[i]);
        truths[t->seen[i].label]++;
        guesses[t->scratch->best]++;
        hits[t->seen[i].label] += t->scratch->best == t->seen[i].label;
    }
    for (int k = 0; k < labels; k++) {
        with += truths[k] > 0;
        if (truths[k] > 0) out->macro_f1 += 2.0 * hits[k] / (guesses[k] + truths[k]);
    }
    out->macro_f1 /= with;
    out->loss = mix_loss(t, t->m.head.mix_linear, t->m.head.mix_net);
    free(truths);
    return 0;
}

/* ---- P(routine) ---- */

enum { DIMENSIONS = MR_SIGNALS + 1 };

typedef struct regression {
    double *x; /* [n][DIMENSIONS], the last one 1 */
    double *y, *weight;
    int n;
    double mean[MR_SIGNALS], deviation[MR_SIGNALS], w[DIMENSIONS];
} regression;

static void standardize(regression *r) {
    for (int k = 0; k < MR_SIGNALS; k++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < r->n; i++) sum += r->x[i * DIMENSIONS + k];
        r->mean[k] = sum / r->n;
        for (int i = 0; i < r->n; i++) {
            double d = r->x[i * DIMENSIONS + k] -= r->mean[k];
            squares += d * d;
        }
        r->deviation[k] = sqrt(squares / r->n) + 1e-6;
        for (int i = 0; i < r->n; i++) r->x[i * DIMENSIONS + k] /= r->deviation[k];
    }
}

/* Solves a * x = b for a symmetric positive a by Cholesky's method; b becomes x. */
static void solve(double a[DIMENSIONS][DIMENSIONS], double b[DIMENSIONS]) {
    for (int j = 0; j < DIMENSIONS; j++) {
        for (int i = j; i < DIMENSIONS; i++) {
            for (int k = 0; k < j; k++) a[i][j] -= a[i][k] * a[j][k];
            a[i][j] = i == j ? sqrt(fmax(a[i][j], 1e-12)) : a[i][j] / a[j][j];
        }
    }
    for (int i = 0; i < DIMENSIONS; i++) {
        for (int k = 0; k < i; k++) b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (int i = DIMENSIONS - 1; i >= 0; i--) {
        for (int k = i + 1; k < DIMENSIONS; k++) b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
}

/* One of Newton's steps for the logistic loss with a small square penalty. */
static void newton_step(regression *r) {
    static const double PENALTY = 1e-3;
    double a[DIMENSIONS][DIMENSIONS] = {{0}}, g[DIMENSIONS] = {0};
    for (int i = 0; i < r->n; i++) {
        const double *x = r->x + i * DIMENSIONS;
        double z = 0;
        for (int k = 0; k < DIMENSIONS; k++) z += r->w[k] * x[k];
        double p = 1 / (1 + exp(-z)), h = r->weight[i] * fmax(p * (1 - p), 1e-6);
        for (int k = 0; k < DIMENSIONS; k++) {
            g[k] += r->weight[i] * (r->y[i] - p) * x[k];
            for (int j = 0; j <= k; j++) a[k][j] += h * x[k] * x[j];
        }
    }
    for (int k = 0; k < DIMENSIONS; k++) {
        a[k][k] += PENALTY;
        if (k < MR_SIGNALS) g[k] -= PENALTY * r->w[k];
    }
    solve(a, g);
    for (int k = 0; k < DIMENSIONS; k++) r->w[k] += fmax(-5, fmin(5, g[k]));
}

/* Without any message out of scope to learn from, what is routine is what the label is right for. */
static void fill_regression(training *t, regression *r, double share) {
    int outside = 0;
    for (int i = 0; i < t->seen_n; i++) outside += t->seen[i].outside;
    for (int i = 0; i < t->seen_n; i++) {
        const seen *s = &t->seen[i];
        double *x = r->x + i * DIMENSIONS;
        judge(t, s);
        for (int k = 0; k < MR_SIGNALS; k++) x[k] = t->scratch->signals[k];
        x[MR_SIGNALS] = 1;
        r->y[i] = outside ? !s->outside : s->label == t->scratch->best_routine;
        r->weight[i] = !outside     ? 1.0 / t->seen_n
                       : s->outside ? share / outside
                                    : (1 - share) / (t->seen_n - outside);
    }
    standardize(r);
}

static int learn_routine(training *t, mr_error *err) {
    enum { STEPS = 30 };
    mr_intent_header *h = &t->m.head;
    regression r = {.n = t->seen_n};
    size_t n = (size_t)t->seen_n;
    r.x = calloc(n * DIMENSIONS, sizeof *r.x);
    r.y = calloc(n, sizeof *r.y);
    r.weight = calloc(n, sizeof *r.weight);
    int rc = r.x && r.y && r.weight ? 0 : mr_fail(err, MR_ENOMEM, "no memory to calibrate");
    if (rc == 0) {
        fill_regression(t, &r, (h->share_low + h->share_high) / 2);
        for (int i = 0; i < STEPS; i++) newton_step(&r);
        h->signal_bias = (float)r.w[MR_SIGNALS];
        for (int k = 0; k < MR_SIGNALS; k++) {
            h->signal_weights[k] = (float)(r.w[k] / r.deviation[k]);
            h->signal_bias -= (float)(r.w[k] / r.deviation[k] * r.mean[k]);
        }
    }
    free(r.x);
    free(r.y);
    free(r.weight);
    return rc;
}

/* ---- threshold ---- */

/* Routine messages of the validation set tell best what the final model makes of them; messages out of scope are
 * rare, so all count. */
static int choose_threshold(training *t, mr_intent_trained *out, mr_error *err) {
    mr_intent_judged *v = calloc((size_t)t->seen_n + 1, sizeof *v);
    int n = 0, valid_routine = 0, right = 0, routine = 0;
    if (!v) return mr_fail(err, MR_ENOMEM, "no memory to choose a threshold");
    for (int i = 0; i < t->seen_n; i++) valid_routine += t->seen[i].valid && !t->seen[i].outside;
    for (int i = 0; i < t->seen_n; i++) {
        const seen *s = &t->seen[i];
        judge(t, s);
        if (!s->valid && !s->outside) {
            routine++;
            right += s->label == t->scratch->best_routine;
        }
        if (!s->outside && !s->valid && valid_routine >= VALID_ENOUGH) continue;
        v[n++] = (mr_intent_judged){t->scratch->routine, s->outside};
    }
    out->accuracy = routine ? (double)right / routine : NAN;
    out->auroc = mr_intent_auroc(v, n);
    out->threshold = mr_intent_pick_threshold(v, n, t->m.head.share_low, t->m.head.share_high);
    t->m.head.threshold = (float)out->threshold;
    free(v);
    return 0;
}

/* ---- the whole ---- */

static int share_memory(training *t, mr_error *err) {
    int messages = t->data->n + (t->valid ? t->valid->n : 0);
    t->width = 2 * (size_t)t->data->labels_n + 3;
    size_t scores = (size_t)messages * t->width * sizeof(float);
    t->shared_bytes = MR_INTENT_BYTES_MAX * (size_t)JOBS + (scores + 63) / 64 * 64 + JOBS * sizeof(job);
    void *p = mmap(NULL, t->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) return mr_fail(err, MR_ENOMEM, "no memory to train on %d messages", messages);
    t->shared = p;
    for (int i = 0; i < JOBS; i++) t->images[i] = (char *)p + (size_t)i * MR_INTENT_BYTES_MAX;
    t->scores = (float *)((char *)p + (size_t)JOBS * MR_INTENT_BYTES_MAX);
    t->jobs = (job *)((char *)p + (size_t)JOBS * MR_INTENT_BYTES_MAX + (scores + 63) / 64 * 64);
    return 0;
}

static int mark_outside(training *t, mr_intent_trained *out, mr_error *err) {
    t->outside = calloc((size_t)t->data->labels_n + 1, sizeof *t->outside);
    t->seen = calloc((size_t)t->data->n + (size_t)(t->valid ? t->valid->n : 0) + 1, sizeof *t->seen);
    if (!t->outside || !t->seen) return mr_fail(err, MR_ENOMEM, "no memory for the messages");
    for (int i = 0; i < t->options->outside_n; i++) {
        int label = mr_intent_data_label(t->data, mr_str_of(t->options->outside[i]));
        if (label >= 0) t->outside[label] = true;
    }
    for (int i = 0; i < t->data->n; i++) out->outside_samples += t->outside[t->data->v[i].label];
    out->samples = t->data->n;
    out->labels = t->data->labels_n;
    if (t->data->labels_n >= 2 && t->data->n >= 2 * FOLDS) return 0;
    return mr_fail(err, MR_EINVAL, "training needs at least two labels and %d messages", 2 * FOLDS);
}

/* All that is set by the folds' scores, in the header of `image`. */
static int learn_from_folds(training *t, const char *image, mr_intent_trained *out, mr_error *err) {
    mr_intent_image_layout(image, &t->m);
    t->m.head.share_low = (float)t->options->share_low;
    t->m.head.share_high = (float)t->options->share_high;
    t->scratch = mr_intent_scores_new(&t->m, err);
    if (!t->scratch) return -1;
    gather_seen(t);
    choose_mix(t);
    if (measure_labels(t, out, err) < 0 || learn_routine(t, err) < 0) return -1;
    return choose_threshold(t, out, err);
}

static int finish(training *t, const char *path, mr_intent_trained *out, mr_error *err) {
    char *image = t->images[FOLDS];
    if (learn_from_folds(t, image, out, err) < 0) return -1;
    memcpy(image, &t->m.head, sizeof t->m.head);
    out->features = (int)t->m.head.rows;
    out->bytes = t->m.head.bytes;
    return mr_intent_write(path, image, err);
}

static int begin(training *t, mr_intent_trained *out, mr_error *err) {
    *out = (mr_intent_trained){0};
    if (mark_outside(t, out, err) < 0 || share_memory(t, err) < 0) return -1;
    return run_jobs(t, err);
}

static void end(training *t) {
    mr_intent_scores_free(t->scratch);
    free(t->outside);
    free(t->seen);
    if (t->shared) munmap(t->shared, t->shared_bytes);
}

int mr_intent_train(const mr_intent_data *data, const mr_intent_data *valid, const mr_intent_train_options *o,
                    const char *path, mr_intent_trained *out, mr_error *err) {
    training t = {.data = data, .valid = valid, .options = o, .jobs_n = JOBS};
    int rc = begin(&t, out, err);
    if (rc == 0) rc = finish(&t, path, out, err);
    end(&t);
    return rc;
}

int mr_intent_cross_validate(const mr_intent_data *data, const mr_intent_train_options *o,
                             mr_intent_trained *out, mr_error *err) {
    training t = {.data = data, .options = o, .jobs_n = FOLDS};
    int rc = begin(&t, out, err);
    if (rc == 0) rc = learn_from_folds(&t, t.images[0], out, err);
    end(&t);
    return rc;
}
