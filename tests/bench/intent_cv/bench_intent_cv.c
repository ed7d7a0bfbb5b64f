/* Chooses how models of intents are trained, without a look at any test part: each candidate is cross-validated on the training
 * parts of several public sets, large and small, English and Chinese, and gets the mean over them.
 *
 *     bench_intent_cv [-s SET,…] DATA [CANDIDATE…]
 *
 * A candidate is "keep_x=0.5,nets=2,…", what it does not name is as the program has it; none: the program's own. See README.md.
 */
#include "router/intent_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MAX = 3 };

/* Every `step`th line of these files, none of which is a validation or test part; the label oos is out of scope. */
typedef struct cv_set {
    const char *name;
    const char *files[FILES_MAX];
    int step;
} cv_set;

static const cv_set sets[] = {
    {"clinc", {"clinc150/train.tsv", "clinc150/oos_train_plus.tsv"}, 1},
    {"clinc_small", {"clinc150/train_small.tsv", "clinc150/oos_train.tsv"}, 1},
    {"clinc_10", {"clinc150/train.tsv"}, 10}, /* ten messages a label */
    {"banking", {"banking77/train.tsv"}, 1},
    {"banking_8", {"banking77/train.tsv"}, 8},
    {"smp", {"smp2017_zh/train.tsv", "smp2017_zh/dev.tsv"}, 1},
    {"vira", {"kb_vira_en/train.tsv"}, 1},
};
enum { SETS = sizeof sets / sizeof sets[0] };

static void fail(const mr_error *err) {
    fprintf(stderr, "bench_intent_cv: %s\n", err->msg);
    exit(1);
}

static void read_set(const char *folder, const cv_set *set, mr_intent_data *out) {
    char path[500];
    mr_error err;
    mr_intent_data all = {0};
    for (int i = 0; i < FILES_MAX && set->files[i]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, set->files[i]);
        if (mr_intent_data_read(&all, path, &err) < 0) fail(&err);
    }
    for (int i = 0; i < all.n; i += set->step) {
        const mr_intent_sample *s = &all.v[i];
        if (mr_intent_data_add(out, all.labels[s->label], s->words, &err) < 0) fail(&err);
    }
    mr_intent_data_done(&all);
}

static void set_one(mr_intent_how *how, const char *name, double v, mr_error *err) {
    if (strcmp(name, "svm_c") == 0)
        how->svm_c = v;
    else if (strcmp(name, "nets") == 0)
        how->nets = (int)v;
    else if (strcmp(name, "hidden") == 0)
        how->hidden = (int)v;
    else if (strcmp(name, "epochs") == 0)
        how->net.epochs = (int)v;
    else if (strcmp(name, "epochs_max") == 0)
        how->epochs_max = (int)v;
    else if (strcmp(name, "steps") == 0)
        how->steps = (int)v;
    else if (strcmp(name, "keep_x") == 0)
        how->net.keep_x = (float)v;
    else if (strcmp(name, "keep_h") == 0)
        how->net.keep_h = (float)v;
    else if (strcmp(name, "rate") == 0)
        how->net.rate = (float)v;
    else if (strcmp(name, "smooth") == 0)
        how->net.smooth = (float)v;
    else {
        mr_fail(err, MR_EINVAL, "no setting is called '%s'", name);
        fail(err);
    }
}

static mr_intent_how candidate(const char *text) {
    mr_intent_how how = mr_intent_how_default;
    mr_error err;
    char name[40];
    double v;
    int n;
    for (const char *at = text; *at; at += n + (at[n] == ',')) {
        if (sscanf(at, "%39[a-z_]=%lf%n", name, &v, &n) != 2) {
            mr_fail(&err, MR_EINVAL, "'%s' is not of the form name=number,…", text);
            fail(&err);
        }
        set_one(&how, name, v, &err);
    }
    return how;
}

static bool is_wanted(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',') {
        if (strcspn(at, ",") == n && memcmp(at, name, n) == 0) return true;
    }
    return !list;
}

/* One line: the mean accuracy over the sets and the mean loss, then each set's. */
static void measure(const char *name, const mr_intent_data *data, const char *list) {
    static const char *const outside[] = {"oos"};
    mr_intent_how how = candidate(name);
    mr_intent_train_options o = {
        .seed = 1, .how = &how, .outside = outside, .outside_n = 1, .share_low = 0.15, .share_high = 0.2};
    mr_error err;
    double accuracy = 0, loss = 0, macro_f1 = 0;
    int n = 0;
    char each[1000] = "";
    for (int i = 0; i < SETS; i++) {
        mr_intent_trained t;
        if (!is_wanted(list, sets[i].name)) continue;
        if (mr_intent_cross_validate(&data[i], &o, &t, &err) < 0) fail(&err);
        accuracy += t.accuracy;
        macro_f1 += t.macro_f1;
        loss += t.loss;
        n++;
        size_t at = strlen(each);
        snprintf(each + at, sizeof each - at, " | %.2f %.2f %.3f", 100 * t.accuracy, 100 * t.macro_f1,
                 t.loss);
        if (isfinite(t.auroc)) {
            at = strlen(each);
            snprintf(each + at, sizeof each - at, " %.4f", t.auroc);
        }
    }
    printf("| %s | %.2f | %.2f | %.4f%s |\n", *name ? name : "as it is", 100 * accuracy / n,
           100 * macro_f1 / n, loss / n, each);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static mr_intent_data data[SETS];
    const char *list = NULL;
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "-s") == 0) list = argv[2], at = 3;
    if (at >= argc) {
        fprintf(stderr, "usage: bench_intent_cv [-s SET,…] DATA [CANDIDATE…]\n");
        return 2;
    }
    const char *folder = argv[at++];
    printf("| candidate | accuracy | macro-F1 | loss");
    for (int i = 0; i < SETS; i++) {
        if (!is_wanted(list, sets[i].name)) continue;
        read_set(folder, &sets[i], &data[i]);
        printf(" | %s", sets[i].name);
    }
    printf(" |\n");
    if (at == argc) measure("", data, list);
    for (; at < argc; at++) measure(argv[at], data, list);
    for (int i = 0; i < SETS; i++) mr_intent_data_done(&data[i]);
    return 0;
}
