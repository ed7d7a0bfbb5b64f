/* `millrace kb`: the operator's hands on the knowledge base. Blocking; the router notices a new file by itself. */
#include "router/kb.h"
#include "base/main.h"
#include "base/str.h"
#include "ops/cli/commands.h"
#include "router/conf.h"
#include "router/kb_import.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct kb_args {
    const char *kb, *config; /* of the flags; NULL: not given */
    const char *operand;     /* FILE or QUESTION */
    bool replace;
    mr_router_conf router;
} kb_args;

typedef struct kb_verb {
    const char *name, *operand, *about;
    bool needs_operand;
    int (*run)(const kb_args *a, mr_error *err); /* with router.kb and router.kb_threshold in place */
} kb_verb;

static int kb_import(const kb_args *a, mr_error *err) {
    mr_kb_counts n;
    if (mr_kb_import(a->router.kb, a->operand, a->replace, &n, err) != 0) return -1;
    printf("%d questions added, %d changed; %d are in %s now.\n", n.added, n.changed, n.total, a->router.kb);
    return 0;
}

static int kb_search(const kb_args *a, mr_error *err) {
    mr_kb_hit hits[MR_KB_RIVALS];
    mr_kb *kb = mr_kb_open(a->router.kb, err);
    if (!kb) return -1;
    int n = mr_kb_search(kb, mr_str_of(a->operand), hits, MR_KB_RIVALS, err);
    for (int i = 0; i < n; i++) {
        printf("%.3f  %.*s\n       %.*s\n", hits[i].score, MR_FMT(hits[i].question), MR_FMT(hits[i].answer));
    }
    if (n >= 0) {
        printf("%s (%d questions, threshold %.2f).\n",
               mr_kb_answers(hits, n, a->router.kb_threshold) ? "The first one is the answer"
                                                              : "The model answers",
               mr_kb_entries(kb), a->router.kb_threshold);
    }
    mr_kb_close(kb);
    return n < 0 ? -1 : 0;
}

static int kb_export(const kb_args *a, mr_error *err) {
    if (!a->operand) return mr_kb_export(a->router.kb, stdout, err);
    FILE *out = fopen(a->operand, "we");
    if (!out) return mr_fail(err, MR_EIO, "%s: %s", a->operand, strerror(errno));
    int rc = mr_kb_export(a->router.kb, out, err);
    if (fclose(out) != 0 && rc == 0) rc = mr_fail(err, MR_EIO, "%s: %s", a->operand, strerror(errno));
    return rc;
}

static const kb_verb verbs[] = {
    {"import", "FILE.tsv", "add or change the questions of a file", true, kb_import},
    {"search", "QUESTION", "show the nearest questions with their scores, and who answers", true, kb_search},
    {"export", "[FILE.tsv]", "write every question and answer, to stdout without FILE", false, kb_export},
    {0},
};

static void print_help(void) {
    printf("millrace kb: the routine questions that the router answers by itself.\n\n"
           "Usage: millrace kb COMMAND [OPERAND] [OPTIONS]\n\n");
    for (const kb_verb *v = verbs; v->name; v++) printf("  %s %-11s %s\n", v->name, v->operand, v->about);
    printf("\nOptions:\n"
           "  --kb PATH      the knowledge base (router.kb of the configuration)\n"
           "  --config FILE  the configuration that names it, with router.kb_threshold\n"
           "  --replace      import: drop what was there before\n"
           "\nA TSV file has a question, a tab and an answer on each line; \\n, \\t and \\\\ stand for a "
           "line break,\n"
           "a tab and a backslash. A question that is there already gets the new answer. The router takes a "
           "new\n"
           "file within a second, without a restart.\n");
}

static const kb_verb *find_verb(const char *name, mr_error *err) {
    mr_nearest near = {0};
    for (const kb_verb *v = verbs; v->name; v++) {
        if (strcmp(v->name, name) == 0) return v;
        mr_nearest_try(&near, name, v->name);
    }
    mr_fail(err, MR_EINVAL,
            near.best ? "unknown command '%.100s' (did you mean '%s'?)" : "unknown command '%.100s'", name,
            near.best);
    return NULL;
}

/* A flag's value, as `--kb PATH` or `--kb=PATH`: 1 when argv[*at] is this flag, 0 when it is another one. */
static int take_value(int argc, char **argv, int *at, const char *flag, const char **value, mr_error *err) {
    size_t n = strlen(flag);
    const char *arg = argv[*at];
    if (strncmp(arg, flag, n) != 0 || (arg[n] != '\0' && arg[n] != '=')) return 0;
    if (arg[n] == '=') {
        *value = arg + n + 1;
    } else if (*at + 1 < argc) {
        *value = argv[++*at];
    } else {
        return mr_fail(err, MR_EINVAL, "%s needs a value", flag);
    }
    return 1;
}

static int read_argument(int argc, char **argv, int *at, const kb_verb *verb, kb_args *a, mr_error *err) {
    const char *arg = argv[*at];
    int rc = take_value(argc, argv, at, "--kb", &a->kb, err);
    if (rc == 0) rc = take_value(argc, argv, at, "--config", &a->config, err);
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
    const kb_verb *verb = find_verb(argv[1], &err);
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
