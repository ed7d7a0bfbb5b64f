/* `millrace keys`: the operator's hands on the file of API keys. Blocking; the gateways notice a changed file by
 * themselves. */
#include "gateway/keys.h"
#include "base/conf.h"
#include "base/loop.h"
#include "gateway/conf.h"
#include "ops/cli/commands.h"
#include "ops/cli/flags.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

typedef struct keys_args {
    const char *file, *config; /* of the flags; NULL: not given */
    const char *tenant, *scopes, *expires, *limits, *style;
    mr_key key; /* new: as the flags say */
    mr_gateway_conf gateway;
} keys_args;

typedef struct keys_verb {
    const char *name, *about;
    int (*prepare)(keys_args *a, mr_error *err);   /* what the flags say; NULL: nothing more */
    int (*run)(const keys_args *a, mr_error *err); /* with gateway.keys_file in place */
} keys_verb;

static int copy_name(const char *flag, const char *value, char out[MR_KEY_NAME_MAX + 1], mr_error *err) {
    if (!mr_key_name_ok(mr_str_of(value))) {
        return mr_fail(err, MR_EINVAL,
                       "%s: '%.100s' is not 1 to %d letters, digits, dots, underscores and hyphens", flag,
                       value, MR_KEY_NAME_MAX);
    }
    snprintf(out, MR_KEY_NAME_MAX + 1, "%s", value);
    return 0;
}

static int read_key(keys_args *a, mr_error *err) {
    int64_t ms = 0;
    mr_key *k = &a->key;
    if (!a->tenant) return mr_fail(err, MR_EINVAL, "whose key? Give --tenant NAME");
    if (copy_name("--tenant", a->tenant, k->tenant, err) < 0) return -1;
    if (a->style && copy_name("--style", a->style, k->style, err) < 0) return -1;
    if (mr_scopes_parse(mr_str_of(a->scopes ? a->scopes : "chat,models,feedback"), &k->scopes, err) < 0) {
        return mr_fail_in(err, "--scopes");
    }
    k->limited = a->limits != NULL;
    if (a->limits && mr_limits_parse(mr_str_of(a->limits), &k->limits, err) < 0) {
        return mr_fail_in(err, "--limits");
    }
    if (!a->expires) return 0;
    if (mr_flags_duration("--expires", a->expires, &ms, err) < 0) return -1;
    k->expires_ms = mr_now_ms() + ms;
    return 0;
}

/* The file is whole before and after, also when two of these run at once. */
static int append(int fd, const char *path, mr_str line, mr_error *err) {
    off_t end = lseek(fd, 0, SEEK_END);
    char last = '\n';
    if (end < 0 || (end > 0 && pread(fd, &last, 1, end - 1) != 1)) {
        return mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    }
    if (last != '\n' && write(fd, "\n", 1) != 1) return mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    ssize_t n = write(fd, line.p, line.n);
    if (n != (ssize_t)line.n || fsync(fd) != 0) {
        return mr_fail(err, MR_EIO, "%s: the key could not be written: %s", path, strerror(errno));
    }
    return 0;
}

static int write_key(const char *path, const mr_key *k, mr_error *err) {
    mr_buf line;
    int rc = -1;
    mr_keys *before = NULL;
    mr_buf_init(&line, 4096);
    mr_key_write(k, &line);
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
        goto done;
    }
    before = mr_keys_read(path, err); /* gateways would not take a file with a wrong line in it */
    if (before) rc = append(fd, path, mr_buf_str(&line), err);
done:
    if (fd >= 0) close(fd);
    mr_keys_free(before);
    mr_buf_done(&line);
    return rc;
}

static int keys_new(const keys_args *a, mr_error *err) {
    mr_key k = a->key;
    char text[MR_KEY_TEXT_LEN + 1];
    if (mr_key_new(&k, text, err) < 0) return -1;
    if (write_key(a->gateway.keys_file, &k, err) < 0) return -1;
    printf("%s\n", text);
    fprintf(stderr, "This is shown once. %s holds its hash as %s; delete that line to take the key back.\n",
            a->gateway.keys_file, k.id);
    return 0;
}

static int keys_list(const keys_args *a, mr_error *err) {
    mr_keys *keys = mr_keys_read(a->gateway.keys_file, err);
    if (!keys) return -1;
    for (int i = 0; i < mr_keys_count(keys); i++) {
        mr_key k = *mr_keys_at(keys, i);
        mr_buf line;
        mr_buf_init(&line, 4096);
        mr_key_write(&k, &line);
        mr_str s = mr_buf_str(&line); /* without the hash */
        const char *rest = memchr(s.p + MR_KEY_ID_LEN + 1, '\t', s.n - MR_KEY_ID_LEN - 1);
        bool over = k.expires_ms && k.expires_ms <= mr_now_ms();
        printf("%s%.*s%s\n", k.id, (int)(s.n - 1 - (size_t)(rest - s.p)), rest, over ? "\texpired" : "");
        mr_buf_done(&line);
    }
    mr_keys_free(keys);
    return 0;
}

static const keys_verb verbs[] = {
    {"new", "make a key: prints it once, and adds its hash to the file", read_key, keys_new},
    {"list", "show id, tenant, scopes, expiry, limits and style of every key", NULL, keys_list},
    {0},
};

static void print_help(void) {
    printf("millrace keys: the API keys that gateways let in.\n\nUsage: millrace keys COMMAND [OPTIONS]\n\n");
    for (const keys_verb *v = verbs; v->name; v++) printf("  %-5s %s\n", v->name, v->about);
    printf(
        "\nOptions:\n"
        "  --file PATH      the file of keys (gateway.keys_file of the configuration)\n"
        "  --config FILE    the configuration that names it\n"
        "  --tenant NAME    new: whose key it is\n"
        "  --scopes LIST    new: of chat, models, feedback, billing, priority, admin (all of them); default "
        "chat,models,feedback\n"
        "  --expires TIME   new: how long it is good, as 90d or 12h; default for ever\n"
        "  --limits LIST    new: in place of gateway.limits_key, as requests=60,tokens=90000,concurrent=4\n"
        "  --style NAME     new: how its users are answered (router.styles)\n"
        "\nGateways take a changed file within a second. To take a key back, delete its line.\n");
}

static int read_argument(int argc, char **argv, int *at, keys_args *a, mr_error *err) {
    const struct {
        const char *name;
        const char **value;
    } flags[] = {{"--file", &a->file},     {"--config", &a->config},   {"--tenant", &a->tenant},
                 {"--scopes", &a->scopes}, {"--expires", &a->expires}, {"--limits", &a->limits},
                 {"--style", &a->style}};
    const char *arg = argv[*at];
    mr_nearest near = {0};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        mr_nearest_try(&near, arg, flags[i].name);
        int rc = mr_flags_value(argc, argv, at, flags[i].name, flags[i].value, err);
        if (rc != 0) return rc < 0 ? -1 : 0;
    }
    if (arg[0] != '-') return mr_fail(err, MR_EINVAL, "unexpected argument '%.100s'", arg);
    return mr_fail(err, MR_EINVAL,
                   near.best ? "unknown flag %.100s (did you mean %s?)" : "unknown flag %.100s", arg,
                   near.best);
}

static mr_conf *load_settings(keys_args *a, mr_error *err) {
    mr_conf_group groups[] = {{"gateway", mr_gateway_keys, &a->gateway}, {0}};
    mr_conf *conf = mr_conf_load(a->config, groups, err);
    if (!conf) return NULL;
    if (a->file) a->gateway.keys_file = a->file;
    if (a->gateway.keys_file[0]) return conf;
    mr_fail(err, MR_EINVAL, "which file? Give --file PATH, or --config FILE with gateway.keys_file in it");
    mr_conf_free(conf);
    return NULL;
}

static int wrong(const mr_error *err) {
    fprintf(stderr, "millrace keys: %s. Try millrace keys --help.\n", err->msg);
    return 2;
}

int cmd_keys(int argc, char **argv) {
    keys_args a = {0};
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
    const keys_verb *verb = mr_flags_verb(verbs, sizeof(verbs[0]), argv[1], &err);
    if (!verb) return wrong(&err);
    for (int i = 2; i < argc; i++) {
        if (read_argument(argc, argv, &i, &a, &err) != 0) return wrong(&err);
    }
    if (verb->prepare && verb->prepare(&a, &err) != 0) return wrong(&err);
    mr_conf *conf = load_settings(&a, &err);
    if (!conf) return wrong(&err);
    int rc = verb->run(&a, &err);
    if (rc != 0) fprintf(stderr, "millrace keys: %s\n", err.msg);
    mr_conf_free(conf);
    return rc == 0 ? 0 : 1;
}
