/* `millrace profile`: how a user is answered. Blocking; the routers read it with the user's next request. */
#include "session/profile.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"
#include "router/conf.h"
#include "router/style.h"

#include <stdio.h>
#include <string.h>

typedef struct profile_args {
    const char *user, *style, *tenant, *config; /* NULL: not given */
    mr_router_conf router;
    mr_redis_conf redis;
} profile_args;

typedef struct profile_verb {
    const char *name, *operands, *about;
    bool needs_style;
    int (*run)(const profile_args *a, mr_error *err);
} profile_verb;

static int check_style(const profile_args *a, mr_error *err) {
    mr_styles styles;
    if (mr_styles_read(&styles, &a->router.styles, err) < 0) return -1;
    if (mr_styles_find(&styles, mr_str_of(a->style))) return 0;
    return mr_fail(err, MR_EINVAL, "no style '%.60s': formal, casual, and those of router.styles are there",
                   a->style);
}

static int profile_set(const profile_args *a, mr_error *err) {
    if (check_style(a, err) < 0) return -1;
    return mr_profile_set(&a->redis, mr_str_of(a->tenant), mr_str_of(a->user), a->style, err);
}

static int profile_get(const profile_args *a, mr_error *err) {
    char style[65];
    if (mr_profile_get(&a->redis, mr_str_of(a->tenant), mr_str_of(a->user), style, err) < 0) return -1;
    printf("%s\n", *style ? style : "none");
    return 0;
}

static int profile_drop(const profile_args *a, mr_error *err) {
    return mr_profile_set(&a->redis, mr_str_of(a->tenant), mr_str_of(a->user), NULL, err);
}

static const profile_verb verbs[] = {
    {"set", "USER STYLE", "answer this user in a style: formal, casual, or one of router.styles", true,
     profile_set},
    {"get", "USER", "show the user's style", false, profile_get},
    {"drop", "USER", "forget it", false, profile_drop},
    {0},
};

static void print_help(void) {
    printf("millrace profile: how a user is answered.\n\nUsage: millrace profile COMMAND USER [STYLE] "
           "[OPTIONS]\n\n");
    for (const profile_verb *v = verbs; v->name; v++) {
        printf("  %-4s %-11s %s\n", v->name, v->operands, v->about);
    }
    printf(
        "\nOptions:\n"
        "  --tenant NAME  whose user it is; default: default\n"
        "  --config FILE  the configuration that names Redis and the styles\n"
        "\nUSER is what requests name in their field `user`. A style sets temperature, top_p and a line for "
        "the model,\nunless the request says otherwise.\n");
}

static int read_argument(int argc, char **argv, int *at, profile_args *a, mr_error *err) {
    const char *arg = argv[*at];
    int rc = mr_flags_value(argc, argv, at, "--tenant", &a->tenant, err);
    if (rc == 0) rc = mr_flags_value(argc, argv, at, "--config", &a->config, err);
    if (rc != 0) return rc < 0 ? -1 : 0;
    if (arg[0] == '-') return mr_fail(err, MR_EINVAL, "unknown flag %.100s", arg);
    const char **operand = !a->user ? &a->user : !a->style ? &a->style : NULL;
    if (!operand || strlen(arg) > MR_NAME_MAX)
        return mr_fail(err, MR_EINVAL, "unexpected argument '%.100s'", arg);
    *operand = arg;
    return 0;
}

static int wrong(const mr_error *err) {
    fprintf(stderr, "millrace profile: %s. Try millrace profile --help.\n", err->msg);
    return 2;
}

static int run(const profile_verb *verb, profile_args *a) {
    mr_error err;
    mr_conf_group groups[] = {
        {"router", mr_router_keys, &a->router}, {"redis", mr_redis_keys, &a->redis}, {0}};
    mr_conf *conf = mr_conf_load(a->config, groups, &err);
    if (!conf) return wrong(&err);
    int rc = verb->run(a, &err);
    if (rc != 0) fprintf(stderr, "millrace profile: %s\n", err.msg);
    mr_conf_free(conf);
    return rc == 0 ? 0 : 1;
}

int cmd_profile(int argc, char **argv) {
    profile_args a = {.tenant = "default"};
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
    const profile_verb *verb = mr_flags_verb(verbs, sizeof(verbs[0]), argv[1], &err);
    if (!verb) return wrong(&err);
    for (int i = 2; i < argc; i++) {
        if (read_argument(argc, argv, &i, &a, &err) != 0) return wrong(&err);
    }
    if (!a.user || verb->needs_style != (a.style != NULL)) {
        mr_fail(&err, MR_EINVAL, "%s needs %s", verb->name, verb->operands);
        return wrong(&err);
    }
    return run(verb, &a);
}
