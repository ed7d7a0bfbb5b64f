/* `millrace kb`: the operator's hands on the knowledge base. Blocking; the router notices a new file by itself. */
#include "router/kb.h"
#include "base/main.h"
#include "base/str.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"
#include "router/conf.h"
#include "router/kb_eval.h"
#include "router/kb_import.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 8 };

typedef struct kb_args {
    const char *kb, *config, *intent_model, *format; /* of the flags; NULL: not given */
    const char *operand;                             /* FILE or QUESTION */
    bool replace;
    mr_router_conf router;
} kb_args;

typedef struct kb_verb {
    const char *name, *operand, *about;
    bool needs_operand;
    int (*run)(const kb_args *a, mr_error *err); /* with the settings of a->router in place */
} kb_verb;

/* ---- import and export ---- */

static int kb_import(const kb_args *a, mr_error *err) {
    mr_kb_counts n;
    if (mr_kb_import(a->router.kb, a->operand, a->replace, &n, err) != 0) return -1;
    printf("%d entries added, %d changed; %d with %d phrasings are in %s now.\n", n.added, n.changed, n.total,
           n.phrasings, a->router.kb);
    return 0;
}

static int kb_export(const kb_args *a, mr_error *err) {
    mr_kb_format format = a->operand ? mr_kb_format_of(a->operand) : MR_KB_TSV;
    if (a->format) format = strcmp(a->format, "jsonl") == 0 ? MR_KB_JSONL : MR_KB_TSV;
    if (!a->operand) return mr_kb_export(a->router.kb, format, stdout, err);
    FILE *out = fopen(a->operand, "we");
    if (!out) return mr_fail(err, MR_EIO, "%s: %s", a->operand, strerror(errno));
    int rc = mr_kb_export(a->router.kb, format, out, err);
    if (fclose(out) != 0 && rc == 0) rc = mr_fail(err, MR_EIO, "%s: %s", a->operand, strerror(errno));
    return rc;
}

/* ---- what it answers ---- */

/* The base, and the model of intents if one is configured. */
typedef struct opened {
    mr_kb *kb;
    mr_intent *intents;
    mr_intent_data data; /* of a->operand, where the command reads questions */
} opened;

static int open_all(opened *o, const kb_args *a, bool questions, mr_error *err) {
    *o = (opened){.kb = mr_kb_open(a->router.kb, err)};
    if (!o->kb) return -1;
    if (a->router.intent_model[0] && !(o->intents = mr_intent_open(a->router.intent_model, err))) return -1;
    if (!questions) return 0;
    if (mr_intent_data_read(&o->data, a->operand, err) < 0) return -1;
    return o->data.n > 0 ? 0 : mr_fail(err, MR_EINVAL, "%s: there is no question in it", a->operand);
}

static void close_all(opened *o) {
    mr_intent_data_done(&o->data);
    mr_intent_close(o->intents);
    mr_kb_close(o->kb);
}

static void print_hit(const mr_kb_hit *h) {
    printf("%.3f  %.*s", h->confidence, MR_FMT(h->title));
    if (h->name.n > 0) printf("  [%.*s]", MR_FMT(h->name));
    if (h->intent.n > 0) printf("  %.*s", MR_FMT(h->intent));
    printf("  (similarity %.3f", h->similarity);
    if (h->evidence.kind != MR_KB_PLAIN) printf(", intent %.3f", h->evidence.label);
    printf(")\n       %.*s\n", MR_FMT(h->answer));
}

static int search(const opened *o, const kb_args *a, mr_error *err) {
    mr_kb_hit hits[SHOWN];
    mr_intent_guess guess;
    mr_str question = mr_str_of(a->operand);
    if (o->intents && mr_intent_classify(o->intents, question, &guess, err) < 0) return -1;
    int n = mr_kb_search(o->kb, question, o->intents, hits, SHOWN, err);
    if (n < 0) return -1;
    for (int i = 0; i < n; i++) print_hit(&hits[i]);
    bool routine = !o->intents || guess.routine;
    bool answers = n > 0 && hits[0].confidence >= (routine ? a->router.kb_threshold : 1);
    printf("%s (%d entries, threshold %.2f%s).\n",
           answers ? "The first one is the answer" : "The model answers", mr_kb_entries(o->kb),
           a->router.kb_threshold,
           routine ? "" : "; the model of intents calls the question none for the base");
    return 0;
}

static int kb_search(const kb_args *a, mr_error *err) {
    opened o;
    int rc = open_all(&o, a, false, err);
    if (rc == 0) rc = search(&o, a, err);
    close_all(&o);
    return rc;
}

static void print_percent(const char *what, double v) {
    if (isfinite(v)) printf("  %-38s %6.2f %%\n", what, 100 * v);
}

static void print_report(const mr_kb_report *r, double threshold) {
    printf("%d questions, %d of them with an entry; threshold %.2f\n", r->questions, r->known, threshold);
    print_percent("recall@1", r->recall_1);
    print_percent("recall@5", r->recall_5);
    if (isfinite(r->mrr)) printf("  %-38s %6.4f\n", "MRR", r->mrr);
    print_percent("answered", r->answered);
    print_percent("answered rightly, of the answered", r->right);
    print_percent("answered rightly, of those with one", r->known_answered);
    print_percent("answered, of those without an entry", r->none_answered);
    print_percent("calibration error", r->calibration);
    printf("  %-38s %6.0f and %.0f microseconds of a processor\n", "to answer: median and 99th percentile",
           r->p50_us, r->p99_us);
}

static int kb_eval(const kb_args *a, mr_error *err) {
    opened o;
    mr_kb_report r;
    int rc = open_all(&o, a, true, err);
    if (rc == 0) rc = mr_kb_eval(o.kb, o.intents, &o.data, a->router.kb_threshold, &r, err);
    if (rc == 0) print_report(&r, a->router.kb_threshold);
    close_all(&o);
    return rc;
}

static void print_fusion(const mr_kb_fusion *f) {
    for (int kind = 0; kind < MR_KB_KINDS; kind++) {
        printf("  %-9s", mr_kb_kind_names[kind]);
        for (int i = 0; i < MR_KB_TERMS; i++) printf("  %s %6.3f", mr_kb_term_names[i], f->w[kind][i]);
        printf("\n");
    }
}

static int kb_calibrate(const kb_args *a, mr_error *err) {
    opened o;
    mr_kb_fusion f;
    int rc = open_all(&o, a, true, err);
    if (rc == 0) rc = mr_kb_calibrate(o.kb, o.intents, &o.data, &f, err);
    if (rc == 0) rc = mr_kb_set_fusion(a->router.kb, &f, err);
    if (rc == 0) {
        printf("Calibrated by %d questions:\n", o.data.n);
        print_fusion(&f);
    }
    close_all(&o);
    return rc;
}

/* ---- the command line ---- */

static const kb_verb verbs[] = {
    {"import", "FILE", "add or change the entries of a file, TSV or JSONL by its name", true, kb_import},
    {"search", "QUESTION", "show the nearest entries with their confidence, and who answers", true,
     kb_search},
    {"export", "[FILE]", "write every entry, to stdout without FILE", false, kb_export},
    {"eval", "QUESTIONS.tsv", "recall@1, recall@5 and MRR, how many it answers, and the time", true, kb_eval},
    {"calibrate", "QUESTIONS.tsv", "fit its confidence to questions that are not in it", true, kb_calibrate},
    {0},
};

static void print_help(void) {
    printf("millrace kb: the routine questions that the router answers by itself.\n\n"
           "Usage: millrace kb COMMAND [OPERAND] [OPTIONS]\n\n");
    for (const kb_verb *v = verbs; v->name; v++) printf("  %-9s %-14s %s\n", v->name, v->operand, v->about);
    printf("\nOptions:\n"
           "  --kb PATH            the knowledge base (router.kb of the configuration)\n"
           "  --intent-model PATH  search, eval, calibrate: the model of intents (router.intent_model)\n"
           "  --config FILE        the configuration that names them, with router.kb_threshold\n"
           "  --replace            import: drop what was there before\n"
           "  --format tsv|jsonl   export: the format; otherwise by the name of FILE, tsv to stdout\n"
           "\nTSV has an entry a line: question<TAB>answer[<TAB>intent[<TAB>name[<TAB>follow]]]. A line "
           "without an\n"
           "answer is one more phrasing of the entry of that name, or else of the one above. `follow` are "
           "names of\n"
           "other entries, with commas between, that are offered at the end of the answer. \\n, \\r, \\t, "
           "\\\\ and \\#\n"
           "stand for a line break, a carriage return, a tab, a backslash and a number sign.\n"
           "JSONL has an object a line: question, answer, intent, name, follow (a list of names), also (a "
           "list of\n"
           "phrasings). An entry whose name or question is there already takes its place.\n"
           "Answers may hold {user}, {tenant}, {model}, {date}, {time} and {weekday}; {user|friend} says "
           "\"friend\"\n"
           "where there is no user; {{ is a brace.\n"
           "QUESTIONS.tsv has a label, a tab and a question on each line; the label is an entry's name or "
           "intent, and\n"
           "one that no entry has means that the base has no answer.\n"
           "The router takes a new file within a second, without a restart.\n");
}

static int read_argument(int argc, char **argv, int *at, const kb_verb *verb, kb_args *a, mr_error *err) {
    const char *arg = argv[*at];
    int rc = mr_flags_value(argc, argv, at, "--kb", &a->kb, err);
    if (rc == 0) rc = mr_flags_value(argc, argv, at, "--config", &a->config, err);
    bool asks = verb->run == kb_search || verb->run == kb_eval || verb->run == kb_calibrate;
    if (rc == 0 && asks) rc = mr_flags_value(argc, argv, at, "--intent-model", &a->intent_model, err);
    if (rc == 0 && verb->run == kb_export) rc = mr_flags_value(argc, argv, at, "--format", &a->format, err);
    if (rc == 1 && a->format && strcmp(a->format, "tsv") != 0 && strcmp(a->format, "jsonl") != 0) {
        return mr_fail(err, MR_EINVAL, "--format is tsv or jsonl, not '%.100s'", a->format);
    }
    if (rc != 0) return rc < 0 ? -1 : 0;
    if (strcmp(arg, "--replace") == 0 && verb->run == kb_import) {
        a->replace = true;
        return 0;
    }
    if (arg[0] == '-' && arg[1] != '\0') return mr_fail(err, MR_EINVAL, "unknown flag %.100s", arg);
    if (a->operand) return mr_fail(err, MR_EINVAL, "unexpected argument '%.100s'", arg);
    a->operand = arg;
    return 0;
}

static mr_conf *load_settings(kb_args *a, mr_error *err) {
    mr_conf_group groups[] = {{"router", mr_router_keys, &a->router}, {0}};
    mr_conf *conf = mr_conf_load(a->config, groups, err);
    if (!conf) return NULL;
    if (a->kb) a->router.kb = a->kb;
    if (a->intent_model) a->router.intent_model = a->intent_model;
    if (a->router.kb[0]) return conf;
    mr_fail(err, MR_EINVAL, "which knowledge base? Give --kb PATH, or --config FILE with router.kb in it");
    mr_conf_free(conf);
    return NULL;
}

static int wrong(const mr_error *err) {
    fprintf(stderr, "millrace kb: %s. Try millrace kb --help.\n", err->msg);
    return 2;
}

int cmd_kb(int argc, char **argv) {
    kb_args a = {0};
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
    const kb_verb *verb = mr_flags_verb(verbs, sizeof(verbs[0]), argv[1], &err);
    if (!verb) return wrong(&err);
    for (int i = 2; i < argc; i++) {
        if (read_argument(argc, argv, &i, verb, &a, &err) != 0) return wrong(&err);
    }
    if (verb->needs_operand && !a.operand) {
        mr_fail(&err, MR_EINVAL, "%s needs %s", verb->name, verb->operand);
        return wrong(&err);
    }
    mr_conf *conf = load_settings(&a, &err);
    if (!conf) return wrong(&err);
    int rc = verb->run(&a, &err);
    if (rc != 0) fprintf(stderr, "millrace kb: %s\n", err.msg);
    mr_conf_free(conf);
    return rc == 0 ? 0 : 1;
}
