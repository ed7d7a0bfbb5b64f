/* `millrace intent`: trains, measures and tries the model by which the router tells routine messages from those
 * for the language model. Blocking; the router notices a new model by itself. */
#include "router/intent.h"
#include "base/str.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"
#include "router/intent_eval.h"
#include "router/intent_train.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 64 };

static const double SHARE_LOW = 0.15, SHARE_HIGH = 0.20;

typedef struct string_list {
    const char *v[LIST_MAX];
    int n;
} string_list;

typedef struct intent_args {
    string_list operands, valid, outside;
    const char *output, *seed_text, *share_text;
    long seed;
    double share_low, share_high;
} intent_args;

typedef struct intent_verb {
    const char *name, *operand, *about;
    int least, most;          /* operands */
    const char *const *flags; /* that it takes; NULL ends them */
    int (*run)(const intent_args *a, mr_error *err);
} intent_verb;

static int read_all(mr_intent_data *d, const char *const *paths, int n, mr_error *err) {
    for (int i = 0; i < n; i++) {
        if (mr_intent_data_read(d, paths[i], err) < 0) return -1;
    }
    if (d->n == 0) return mr_fail(err, MR_EINVAL, "%s: there is no message in it", paths[0]);
    return 0;
}

/* ---- train ---- */

static void print_trained(const mr_intent_trained *t, const char *path) {
    printf("%s: %d labels, %d messages (%d out of scope), %d features, %.1f MB.\n", path, t->labels,
           t->samples, t->outside_samples, t->features, (double)t->bytes / 1e6);
    printf("Messages that the model had not seen: %.1f %% of the routine ones get their label",
           100 * t->accuracy);
    if (isfinite(t->auroc)) printf("; AUROC of routine against out of scope %.3f", t->auroc);
    printf(".\nThreshold %.3f: below it the language model answers.\n", t->threshold);
}

static int intent_train(const intent_args *a, mr_error *err) {
    static const char *const usual[] = {"oos"};
    mr_intent_data data = {0}, valid = {0};
    mr_intent_train_options o = {.seed = (uint64_t)a->seed,
                                 .outside = a->outside.n ? a->outside.v : usual,
                                 .outside_n = a->outside.n ? a->outside.n : 1,
                                 .share_low = a->share_low,
                                 .share_high = a->share_high};
    mr_intent_trained trained;
    int rc = read_all(&data, a->operands.v, a->operands.n, err);
    for (int i = 0; rc == 0 && i < a->outside.n; i++) {
        if (a->outside.v[i][0] && mr_intent_data_label(&data, mr_str_of(a->outside.v[i])) < 0) {
            rc = mr_fail(err, MR_EINVAL, "--oos %s: no message has this label", a->outside.v[i]);
        }
    }
    if (rc == 0 && a->valid.n > 0) rc = read_all(&valid, a->valid.v, a->valid.n, err);
    if (rc == 0) rc = mr_intent_train(&data, a->valid.n ? &valid : NULL, &o, a->output, &trained, err);
    if (rc == 0) print_trained(&trained, a->output);
    mr_intent_data_done(&data);
    mr_intent_data_done(&valid);
    return rc;
}

/* ---- eval ---- */

static void print_percent(const char *what, double v) {
    if (isfinite(v)) printf("  %-38s %6.2f %%\n", what, 100 * v);
}

static void print_report(const mr_intent *in, const mr_intent_data *d, const mr_intent_report *r) {
    printf("%d messages, %d of them routine; threshold %.3f\n", r->messages, r->routine,
           mr_intent_threshold(in));
    print_percent("right label, routine messages", r->accuracy);
    print_percent("macro-F1 of all labels", r->macro_f1);
    if (isfinite(r->auroc)) printf("  %-38s %6.4f\n", "AUROC, routine against out of scope", r->auroc);
    print_percent("routine or AI decided rightly", r->decided);
    print_percent("AI share", r->ai_share);
    print_percent("out of scope sent to the AI", r->oos_recall);
    print_percent("right label, or rightly sent to the AI", r->end_to_end);
    print_percent("calibration error", r->calibration);
    printf("  %-38s %6.4f\n", "error of the probabilities (Brier)", r->error);
    printf("  %-38s %6.1f and %.1f microseconds\n", "to classify: median and 99th percentile", r->p50_us,
           r->p99_us);
    for (int i = 0; i < MR_INTENT_CONFUSIONS && r->confusions[i].times > 0; i++) {
        const mr_intent_confusion *c = &r->confusions[i];
        mr_str guess = c->guessed < 0 ? MR_STR("nothing") : mr_intent_label_name(in, c->guessed, NULL);
        printf("%s%4d times %.*s was taken for %.*s\n", i == 0 ? "Most confused:\n" : "", c->times,
               MR_FMT(d->labels[c->right]), MR_FMT(guess));
    }
}

static int intent_eval(const intent_args *a, mr_error *err) {
    mr_intent_data d = {0};
    mr_intent_report r;
    mr_intent *in = mr_intent_open(a->operands.v[0], err);
    int rc = in ? read_all(&d, a->operands.v + 1, a->operands.n - 1, err) : -1;
    if (rc == 0) rc = mr_intent_eval(in, &d, &r, err);
    if (rc == 0) print_report(in, &d, &r);
    mr_intent_data_done(&d);
    mr_intent_close(in);
    return rc;
}

/* ---- classify ---- */

static int classify_one(mr_intent *in, mr_str text, mr_error *err) {
    mr_intent_guess g;
    if (mr_intent_classify(in, text, &g, err) < 0) return -1;
    printf("%s\t%.3f\t%.3f\t%.*s\n", g.routine ? "routine" : "ai", g.confidence, g.probability,
           MR_FMT(g.label));
    return 0;
}

static int intent_classify(const intent_args *a, mr_error *err) {
    mr_intent *in = mr_intent_open(a->operands.v[0], err);
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = in ? 0 : -1;
    if (rc == 0 && a->operands.n == 2) rc = classify_one(in, mr_str_of(a->operands.v[1]), err);
    while (rc == 0 && a->operands.n == 1 && (n = getline(&line, &cap, stdin)) >= 0) {
        if (n > 0 && line[n - 1] == '\n') n--;
        rc = classify_one(in, (mr_str){line, (size_t)n}, err);
    }
    free(line);
    mr_intent_close(in);
    return rc;
}

/* ---- calibrate ---- */

static int intent_calibrate(const intent_args *a, mr_error *err) {
    mr_intent_data d = {0};
    double threshold = 0;
    mr_intent *in = mr_intent_open(a->operands.v[0], err);
    int rc = in ? read_all(&d, a->operands.v + 1, a->operands.n - 1, err) : -1;
    if (rc == 0) rc = mr_intent_calibrate(in, &d, a->share_low, a->share_high, &threshold, err);
    if (rc == 0) rc = mr_intent_set_threshold(a->operands.v[0], threshold, a->share_low, a->share_high, err);
    if (rc == 0) printf("Threshold %.3f (it was %.3f).\n", threshold, mr_intent_threshold(in));
    mr_intent_data_done(&d);
    mr_intent_close(in);
    return rc;
}

/* ---- the command line ---- */

static const char *const train_flags[] = {"-o", "--valid", "--seed", "--oos", "--target-share", NULL};
static const char *const calibrate_flags[] = {"--target-share", NULL}, *const no_flags[] = {NULL};

static const intent_verb verbs[] = {
    {"train", "DATA.tsv… -o MODEL", "make a model of labelled messages", 1, LIST_MAX, train_flags,
     intent_train},
    {"eval", "MODEL TEST.tsv…", "measure it by other messages", 2, LIST_MAX, no_flags, intent_eval},
    {"classify", "MODEL [TEXT]", "what it makes of a text, or of each line of stdin", 1, 2, no_flags,
     intent_classify},
    {"calibrate", "MODEL VALID.tsv…", "choose its threshold anew, by messages not trained on", 2, LIST_MAX,
     calibrate_flags, intent_calibrate},
    {0},
};

static void print_help(void) {
    printf("millrace intent: the model that tells routine messages from those for the language model.\n\n"
           "Usage: millrace intent COMMAND OPERANDS [OPTIONS]\n\n");
    for (const intent_verb *v = verbs; v->name; v++)
        printf("  %-9s %-19s %s\n", v->name, v->operand, v->about);
    printf(
        "\nOptions:\n"
        "  -o MODEL                train: the file to write; what was there is replaced at once\n"
        "  --valid FILE            train: labelled messages that the threshold may be chosen by, not trained "
        "on\n"
        "  --oos LABEL             train: this label is out of scope, for the language model; may be given\n"
        "                          several times (oos); an empty one: no label is\n"
        "  --seed N                train: of all that is drawn (1)\n"
        "  --target-share LOW..HIGH  train, calibrate: the share of messages for the language model "
        "(0.15..0.20)\n"
        "\nA TSV file has a label, a tab and a text on each line. classify prints routine or ai, the "
        "probability\n"
        "that the message is routine, the probability that it is and the label is right, and the label.\n"
        "The router takes a new model within a second, without a restart (router.intent_model).\n");
}

static int list_add(string_list *l, const char *value, mr_error *err) {
    if (l->n == LIST_MAX) return mr_fail(err, MR_EINVAL, "too many arguments: '%.100s'", value);
    l->v[l->n++] = value;
    return 0;
}

static bool takes(const intent_verb *verb, const char *flag) {
    const char *const *known = verb->flags;
    while (*known && strcmp(*known, flag) != 0) known++;
    return *known != NULL;
}

/* A flag with its value: as mr_flags_value. */
static int read_flag(int argc, char **argv, int *at, const intent_verb *verb, intent_args *a, mr_error *err) {
    const struct {
        const char *name;
        const char **value;
        string_list *list; /* of one that may be given several times */
    } flags[] = {{"-o", &a->output, NULL},
                 {"--seed", &a->seed_text, NULL},
                 {"--target-share", &a->share_text, NULL},
                 {"--valid", NULL, &a->valid},
                 {"--oos", NULL, &a->outside}};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        const char *value;
        int rc = takes(verb, flags[i].name) ? mr_flags_value(argc, argv, at, flags[i].name, &value, err) : 0;
        if (rc == 1 && flags[i].list) return list_add(flags[i].list, value, err) < 0 ? -1 : 1;
        if (rc == 1) *flags[i].value = value;
        if (rc != 0) return rc;
    }
    return 0;
}

static int read_argument(int argc, char **argv, int *at, const intent_verb *verb, intent_args *a,
                         mr_error *err) {
    const char *arg = argv[*at];
    if (arg[0] != '-' || arg[1] == '\0') return list_add(&a->operands, arg, err);
    int rc = read_flag(argc, argv, at, verb, a, err);
    if (rc != 0) return rc < 0 ? -1 : 0;
    return mr_fail(err, MR_EINVAL, "%s has no flag %.*s", verb->name, (int)strcspn(arg, "="), arg);
}

static int read_numbers(intent_args *a, mr_error *err) {
    char *end;
    a->seed = 1;
    a->share_low = SHARE_LOW;
    a->share_high = SHARE_HIGH;
    if (a->seed_text) {
        errno = 0;
        a->seed = strtol(a->seed_text, &end, 10);
        if (errno || end == a->seed_text || *end || a->seed < 0 || a->seed > 1000000) {
            return mr_fail(err, MR_EINVAL, "--seed is a number from 0 to 1000000");
        }
    }
    if (!a->share_text) return 0;
    a->share_low = a->share_high = strtod(a->share_text, &end);
    if (end != a->share_text && strncmp(end, "..", 2) == 0) {
        const char *high = end + 2;
        a->share_high = strtod(high, &end);
        if (end == high) end = (char *)"?";
    }
    if (end != a->share_text && !*end && a->share_low > 0 && a->share_high < 1 &&
        a->share_low <= a->share_high)
        return 0;
    return mr_fail(err, MR_EINVAL,
                   "--target-share is a range like 0.15..0.20, or one number, between 0 and 1");
}

static int wrong(const mr_error *err) {
    fprintf(stderr, "millrace intent: %s. Try millrace intent --help.\n", err->msg);
    return 2;
}

int cmd_intent(int argc, char **argv) {
    intent_args a = {0};
    mr_error err;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return 0;
        }
    }
    if (argc < 2) {
        print_help();
        return 2;
    }
    const intent_verb *verb = mr_flags_verb(verbs, sizeof(verbs[0]), argv[1], &err);
    if (!verb) return wrong(&err);
    for (int i = 2; i < argc; i++) {
        if (read_argument(argc, argv, &i, verb, &a, &err) != 0) return wrong(&err);
    }
    if (read_numbers(&a, &err) != 0) return wrong(&err);
    if (a.operands.n < verb->least || a.operands.n > verb->most) {
        mr_fail(&err, MR_EINVAL, "%s takes %s", verb->name, verb->operand);
        return wrong(&err);
    }
    if (verb->run == intent_train && !a.output) {
        mr_fail(&err, MR_EINVAL, "where to? Give -o MODEL");
        return wrong(&err);
    }
    int rc = verb->run(&a, &err);
    if (rc != 0) fprintf(stderr, "millrace intent: %s\n", err.msg);
    return rc == 0 ? 0 : 1;
}
