/* The beginning of every process's main() (see main.h). Runs before any thread exists, so that setenv is safe:
 * a setting given as a flag is put in its environment variable, which makes flags, environment and file one path. */
#include "base/main.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRINT_MAX (1u << 20)

typedef struct command_line {
    const mr_main_options *o;
    int argc;
    char **argv;
    int at; /* the argument being read */
    const char *config;
    bool done; /* --help and the like: nothing is left to do */
} command_line;

const char *mr_version(void) {
    return MILLRACE_VERSION;
}

static void print_help(const mr_main_options *o) {
    printf("%s: %s\n\nUsage: %s [--config FILE] [--SETTING VALUE …]\n\n"
           "  --config FILE    the configuration file (without it: defaults and MILLRACE_* variables)\n"
           "  --print-config   print every setting with its default, as a configuration file\n"
           "  --help, --version\n\nSettings:\n",
           o->name, o->about, o->name);
    for (const mr_conf_group *g = o->groups; g->name; g++) {
        const char *dot = strcmp(g->name, o->part) == 0 ? "" : ".";
        for (const mr_conf_key *k = g->keys; k->name; k++) {
            printf("  --%s%s%s\n        %s%s%s%s\n", *dot ? g->name : "", dot, k->name, k->doc,
                   k->def && *k->def ? " (" : "", k->def ? k->def : "", k->def && *k->def ? ")" : "");
        }
    }
}

static int print_config(const mr_main_options *o, mr_error *err) {
    mr_buf out;
    mr_buf_init(&out, PRINT_MAX);
    mr_conf_print(o->groups, &out);
    bool ok = !out.failed && fwrite(out.p, 1, out.n, stdout) == out.n && fflush(stdout) == 0;
    mr_buf_done(&out);
    return ok ? 0 : mr_fail(err, MR_EIO, "the configuration could not be printed");
}

static bool same_key(const char *key, const char *flag) {
    for (; *key && *flag; key++, flag++) {
        if (*key != *flag && !(*key == '_' && *flag == '-')) return false;
    }
    return *key == *flag;
}

/* Splits "--name=value", or takes the next argument as the value. */
static int flag_value(command_line *c, char *name, size_t cap, const char **value, mr_error *err) {
    const char *arg = c->argv[c->at] + 2;
    size_t n = strcspn(arg, "=");
    snprintf(name, cap, "%.*s", (int)n, arg);
    if (arg[n] == '=') {
        *value = arg + n + 1;
    } else if (c->at + 1 < c->argc) {
        *value = c->argv[++c->at];
    } else {
        return mr_fail(err, MR_EINVAL, "--%s needs a value", name);
    }
    return 0;
}

/* The setting that --name means: `group.key`, or a key of the process's own group. */
static const mr_conf_key *find_flag(const mr_main_options *o, const char *name, const char **group,
                                    mr_nearest *near) {
    const char *dot = strchr(name, '.');
    mr_str want = dot ? (mr_str){name, (size_t)(dot - name)} : mr_str_of(o->part);
    const char *key = dot ? dot + 1 : name;
    for (const mr_conf_group *g = o->groups; g->name; g++) {
        if (!mr_str_eqz(want, g->name)) continue;
        for (const mr_conf_key *k = g->keys; k->name; k++) {
            mr_nearest_try(near, key, k->name);
            *group = g->name;
            if (same_key(k->name, key)) return k;
        }
    }
    return NULL;
}

static int set_flag(command_line *c, mr_error *err) {
    char name[128], variable[128];
    const char *value = NULL, *group = NULL;
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(c->argv[c->at] + 2, "="), c->argv[c->at] + 2);
    mr_nearest near = {0};
    const mr_conf_key *k = find_flag(c->o, name, &group, &near);
    if (!k) {
        return mr_fail(err, MR_EINVAL,
                       near.best ? "unknown flag --%s (did you mean --%s%s%s?)" : "unknown flag --%s", name,
                       strchr(name, '.') ? group : "", strchr(name, '.') ? "." : "", near.best);
    }
    if (flag_value(c, name, sizeof(name), &value, err) != 0) return -1;
    mr_conf_env_name(group, k->name, variable, sizeof(variable));
    if (setenv(variable, value, 1) != 0) return mr_fail(err, MR_ENOMEM, "out of memory");
    return 0;
}

static int read_argument(command_line *c, mr_error *err) {
    const char *arg = c->argv[c->at];
    char name[16];
    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
        print_help(c->o);
        c->done = true;
        return 0;
    }
    if (strcmp(arg, "--version") == 0) {
        printf("%s %s\n", c->o->name, MILLRACE_VERSION);
        c->done = true;
        return 0;
    }
    if (strcmp(arg, "--print-config") == 0) {
        c->done = true;
        return print_config(c->o, err);
    }
    if (strcmp(arg, "--config") == 0 || strncmp(arg, "--config=", 9) == 0) {
        return flag_value(c, name, sizeof(name), &c->config, err);
    }
    if (strncmp(arg, "--", 2) == 0) return set_flag(c, err);
    return mr_fail(err, MR_EINVAL, "unexpected argument '%.100s'", arg);
}

static int start_log(const mr_main_options *o, mr_error *err) {
    enum mr_log_level level;
    if (mr_log_level_parse(o->log->level, &level, err) != 0) return -1;
    return mr_log_init(o->part, o->log->format, level, err);
}

mr_conf *mr_main_init(int argc, char **argv, const mr_main_options *o, int *status) {
    mr_error err;
    command_line c = {.o = o, .argc = argc, .argv = argv};
    for (c.at = 1; c.at < argc && !c.done; c.at++) {
        if (read_argument(&c, &err) != 0) {
            fprintf(stderr, "%s: %s. Try %s --help.\n", o->name, err.msg, o->name);
            *status = 2;
            return NULL;
        }
    }
    *status = 0;
    if (c.done) return NULL;
    mr_conf *conf = mr_conf_load(c.config, o->groups, &err);
    if (conf && start_log(o, &err) == 0) return conf;
    mr_conf_free(conf);
    fprintf(stderr, "%s: %s\n", o->name, err.msg);
    *status = 2;
    return NULL;
}

int mr_main_serve(int argc, char **argv, const mr_main_options *o, int (*serve)(mr_loop *l, mr_error *err)) {
    mr_error err;
    int status;
    mr_conf *conf = mr_main_init(argc, argv, o, &status);
    if (!conf) return status;
    mr_loop *l = mr_loop_new(&err);
    int rc = l ? serve(l, &err) : -1;
    if (rc < 0) mr_log(MR_ERROR, "cannot start", MR_S("reason", err.msg));
    mr_loop_free(l);
    mr_conf_free(conf);
    return rc == 0 ? 0 : 1;
}
