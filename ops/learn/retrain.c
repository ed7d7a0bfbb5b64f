/* See retrain.h. */
#include "ops/learn/retrain.h"

#include "router/intent_train.h"
#include "schemas/hash.h"
#include "text/text_norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    NEW_LABEL_LEAST =
        5, /* different messages of a label that the base data lacks: fewer may be a slip of the pen */
    HELD_LEAST = 10, /* messages held out, below which nobody can say what is better */
};

/* One message as people labelled it. */
typedef struct vote {
    uint64_t words; /* hash of the text in words form */
    mr_str label, text;
    int64_t at_ms;
    bool held_out;
} vote;

typedef struct retraining {
    const mr_retrain_options *o;
    mr_intent_data base, valid, standing, labelled; /* labelled: learn.labels */
    mr_intent_data train, held;                     /* what comes out */
    vote *votes;
    int votes_n;
    uint64_t *seen; /* hashes of words that may be no fair test, or no training: sorted */
    size_t seen_n;
    mr_buf words;
} retraining;

/* ---- votes ---- */

static uint64_t hash_of(mr_str s) {
    return mr_text_hash_feed(mr_text_hash_init(), s);
}

static int add_vote(retraining *r, mr_str label, mr_str text, int64_t at_ms, mr_error *err) {
    mr_buf_clear(&r->words);
    if (mr_text_words(text, &r->words, err) < 0) return -1;
    if (r->words.n == 0) return 0;
    mr_str words = mr_buf_str(&r->words);
    r->votes[r->votes_n++] =
        (vote){hash_of(words), label, text, at_ms, mr_sample_held_out(words, r->o->holdout)};
    return 0;
}

static int by_words(const void *a, const void *b) {
    const vote *x = a, *y = b;
    if (x->words != y->words) return x->words < y->words ? -1 : 1;
    int c = memcmp(x->label.p, y->label.p, x->label.n < y->label.n ? x->label.n : y->label.n);
    if (c == 0) c = (x->label.n > y->label.n) - (x->label.n < y->label.n);
    return c ? c : (x->at_ms > y->at_ms) - (x->at_ms < y->at_ms);
}

/* Of votes on one text the label that most gave; of equal ones the latest word. */
static vote winner(const vote *v, int n) {
    int most = 0;
    vote best = v[0];
    for (int i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && mr_str_eq(v[end].label, v[i].label);) end++;
        if (end - i > most || (end - i == most && v[end - 1].at_ms > best.at_ms)) best = v[end - 1];
        if (end - i > most) most = end - i;
    }
    return best;
}

/* Each text once. */
static void settle_votes(retraining *r) {
    int n = 0;
    qsort(r->votes, (size_t)r->votes_n, sizeof *r->votes, by_words);
    for (int i = 0, end; i < r->votes_n; i = end) {
        for (end = i + 1; end < r->votes_n && r->votes[end].words == r->votes[i].words;) end++;
        r->votes[n++] = winner(r->votes + i, end - i);
    }
    r->votes_n = n;
}

static int collect_votes(retraining *r, const mr_samples *s, mr_error *err) {
    r->votes = calloc((size_t)s->n + (size_t)r->labelled.n + 1, sizeof *r->votes);
    if (!r->votes) return mr_fail(err, MR_ENOMEM, "no memory for %d samples", s->n);
    for (int i = 0; i < s->n; i++) {
        const mr_sample *one = &s->v[i];
        if (one->label.n > 0 && add_vote(r, one->label, one->text, one->at_ms, err) < 0) return -1;
    }
    for (int i = 0; i < r->labelled.n; i++) {
        const mr_intent_sample *one = &r->labelled.v[i];
        if (add_vote(r, r->labelled.labels[one->label], one->words, INT64_MAX, err) < 0) return -1;
    }
    settle_votes(r);
    return 0;
}

/* ---- data ---- */

static int read_all(mr_intent_data *d, const mr_strlist *paths, mr_error *err) {
    for (int i = 0; i < paths->n; i++) {
        if (mr_intent_data_read(d, paths->v[i], err) < 0) return -1;
    }
    return 0;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int remember(retraining *r, mr_error *err) {
    const mr_intent_data *sets[] = {&r->base, &r->standing, &r->valid};
    size_t n = (size_t)r->base.n + (size_t)r->standing.n + (size_t)r->valid.n;
    r->seen = calloc(n + 1, sizeof *r->seen);
    if (!r->seen) return mr_fail(err, MR_ENOMEM, "no memory for %zu messages", n);
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < sets[k]->n; i++) r->seen[r->seen_n++] = hash_of(sets[k]->v[i].words);
    }
    qsort(r->seen, n, sizeof *r->seen, by_value);
    return 0;
}

static bool known(const retraining *r, uint64_t words) {
    return bsearch(&words, r->seen, r->seen_n, sizeof words, by_value) != NULL;
}

/* Labels that are new, each with the number of messages to train on; -1: too few. */
static int *count_new_labels(const retraining *r, mr_intent_data *names, mr_retrained *out, mr_error *err) {
    int *n = calloc((size_t)r->votes_n + 1, sizeof *n);
    if (!n) mr_fail(err, MR_ENOMEM, "no memory for the labels");
    for (int i = 0; n && i < r->votes_n; i++) {
        const vote *v = &r->votes[i];
        if (mr_intent_data_label(&r->base, v->label) >= 0) continue;
        int label = mr_intent_data_add_label(names, v->label, err);
        if (label < 0) {
            free(n);
            return NULL;
        }
        n[label] += !v->held_out && !known(r, v->words);
    }
    for (int i = 0; n && i < names->labels_n; i++) {
        out->new_labels += n[i] >= NEW_LABEL_LEAST;
        out->too_few += n[i] < NEW_LABEL_LEAST;
    }
    return n;
}

/* The base data, and the votes parted into those to train on and those to measure by. */
static int part_votes(retraining *r, mr_retrained *out, mr_error *err) {
    mr_intent_data names = {0};
    int *counts = count_new_labels(r, &names, out, err), rc = counts ? 0 : -1;
    for (int i = 0; rc == 0 && i < r->votes_n; i++) {
        const vote *v = &r->votes[i];
        int fresh = mr_intent_data_label(&names, v->label);
        /* A text of the base data teaches nothing new, one of the standing set must not be trained on. */
        if (known(r, v->words) || (fresh >= 0 && counts[fresh] < NEW_LABEL_LEAST)) continue;
        rc = mr_intent_data_add(v->held_out ? &r->held : &r->train, v->label, v->text, err);
    }
    out->learned = r->train.n;
    out->held_out = r->held.n;
    for (int i = 0; rc == 0 && i < r->base.n; i++) {
        rc = mr_intent_data_add(&r->train, r->base.labels[r->base.v[i].label], r->base.v[i].words, err);
    }
    out->trained_on = r->train.n;
    out->standing = r->standing.n;
    free(counts);
    mr_intent_data_done(&names);
    return rc;
}

/* ---- the comparison ---- */

typedef struct measured {
    mr_intent_report held, standing;
    bool *right; /* of each message held out, then of each of the standing set */
} measured;

static int measure(const char *path, const retraining *r, measured *out, mr_error *err) {
    out->right = calloc((size_t)r->held.n + (size_t)r->standing.n + 1, sizeof *out->right);
    if (!out->right) return mr_fail(err, MR_ENOMEM, "no memory to measure a model");
    mr_intent *in = mr_intent_open(path, err);
    int rc = in ? mr_intent_eval_each(in, &r->held, out->right, &out->held, err) : -1;
    if (rc == 0) {
        rc = mr_intent_eval_each(in, &r->standing, out->right + r->held.n, &out->standing, err);
    }
    mr_intent_close(in);
    return rc;
}

/* A sign test (Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947), 95 %, one-sided. */
bool mr_right_less_often(const bool *before, const bool *after, int n) {
    static const double CHANCE = 1.645;
    int won = 0, lost = 0;
    for (int i = 0; i < n; i++) {
        won += after[i] && !before[i];
        lost += before[i] && !after[i];
    }
    return lost - won > CHANCE * sqrt(lost + won);
}

/* The share that is right goes up and down by chance as much as by what a month can add: only messages that change sides have a
 * part in it. All have one in the error of the probabilities, which so decides on each set. */
static bool is_better(const measured *before, const measured *after, int n) {
    return after->held.error < before->held.error && after->standing.error < before->standing.error &&
           !mr_right_less_often(before->right, after->right, n);
}

static void compare(const measured *before, const measured *after, int n, mr_retrained *out) {
    out->held_before = before->held.end_to_end;
    out->held_after = after->held.end_to_end;
    out->held_error_before = before->held.error;
    out->held_error_after = after->held.error;
    out->standing_before = before->standing.end_to_end;
    out->standing_after = after->standing.end_to_end;
    out->standing_error_before = before->standing.error;
    out->standing_error_after = after->standing.error;
    out->better = is_better(before, after, n);
}

static int train_and_compare(retraining *r, const char *in_service, const char *candidate, mr_retrained *out,
                             mr_error *err) {
    mr_intent_train_options t = {.seed = r->o->seed,
                                 .outside = r->o->outside.v,
                                 .outside_n = r->o->outside.n,
                                 .share_low = r->o->share_low,
                                 .share_high = r->o->share_high};
    mr_intent_trained trained;
    measured before = {0}, after = {0};
    if (mr_intent_train(&r->train, r->valid.n ? &r->valid : NULL, &t, candidate, &trained, err) < 0)
        return -1;
    int rc = measure(in_service, r, &before, err);
    if (rc == 0) rc = measure(candidate, r, &after, err);
    if (rc == 0) compare(&before, &after, r->held.n + r->standing.n, out);
    free(before.right);
    free(after.right);
    return rc;
}

int mr_retrain(const mr_retrain_options *o, const mr_samples *samples, const char *in_service,
               const char *candidate, mr_retrained *out, mr_error *err) {
    retraining r = {.o = o};
    *out = (mr_retrained){0};
    mr_buf_init(&r.words, 64 << 20);
    int rc = read_all(&r.base, &o->train, err);
    if (rc == 0) rc = read_all(&r.valid, &o->valid, err);
    if (rc == 0) rc = read_all(&r.standing, &o->eval, err);
    if (rc == 0) rc = read_all(&r.labelled, &o->labels, err);
    if (rc == 0 && r.standing.n == 0) rc = mr_fail(err, MR_EINVAL, "learn.eval: there is no message in it");
    if (rc == 0) rc = collect_votes(&r, samples, err);
    if (rc == 0) rc = remember(&r, err);
    if (rc == 0) rc = part_votes(&r, out, err);
    out->enough = out->learned + out->held_out >= o->least && out->learned > 0 && out->held_out >= HELD_LEAST;
    if (rc == 0 && out->enough) rc = train_and_compare(&r, in_service, candidate, out, err);
    mr_intent_data_done(&r.base);
    mr_intent_data_done(&r.valid);
    mr_intent_data_done(&r.standing);
    mr_intent_data_done(&r.labelled);
    mr_intent_data_done(&r.train);
    mr_intent_data_done(&r.held);
    free(r.votes);
    free(r.seen);
    mr_buf_done(&r.words);
    return rc;
}
