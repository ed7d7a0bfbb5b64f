/* Configuration (see conf.h): libconfig reads the file, the tables say what may be in it.
 *
 * A value comes from the environment, else from the file, else from the table's default; environment and
 * default are text and share one parser. Used once at start, by one thread; the mr_conf owns all strings. */
#include "base/conf.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONF_ARENA_MAX (4u << 20)

extern char **environ;

struct mr_conf {
    config_t file;
    const char *path;
    mr_arena *strings;
};

/* One key while it is being filled in: who it is and where its value was written. */
typedef struct target {
    const mr_conf_group *group;
    const mr_conf_key *key;
    char where[300];
} target;

/* ---- messages ---- */

static const char *type_name(int type) {
    switch (type) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64: return "an integer";
    case CONFIG_TYPE_FLOAT: return "a number with a fraction";
    case CONFIG_TYPE_STRING: return "a string";
    case CONFIG_TYPE_BOOL: return "true or false";
    case CONFIG_TYPE_ARRAY:
    case CONFIG_TYPE_LIST: return "a list";
    case CONFIG_TYPE_GROUP: return "a group";
    default: return "empty";
    }
}

static void describe_choices(const char *choices, char *out, size_t cap) {
    size_t n = (size_t)snprintf(out, cap, "one of ");
    for (const char *p = choices; *p && n + 3 < cap; p++) {
        if (*p == '|') {
            out[n++] = ',';
            out[n++] = ' ';
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

static void describe_expected(const mr_conf_key *k, char *out, size_t cap) {
    bool bounded = k->min != 0 || k->max != 0;
    if (k->type == MR_CONF_INT && bounded) {
        snprintf(out, cap, "an integer from %.0f to %.0f", k->min, k->max);
    } else if (k->type == MR_CONF_NUM && bounded) {
        snprintf(out, cap, "a number from %g to %g", k->min, k->max);
    } else if (k->type == MR_CONF_STR && k->choices) {
        describe_choices(k->choices, out, cap);
    } else {
        static const char *const plain[] = {"a string", "an integer", "a number", "true or false",
                                            "a list of strings"};
        snprintf(out, cap, "%s", plain[k->type]);
    }
}

static int fail_expected(const target *t, const char *found, mr_error *err) {
    char expected[200];
    describe_expected(t->key, expected, sizeof(expected));
    return mr_fail(err, MR_EINVAL, "%s: %s.%s is %.100s, expected %s", t->where, t->group->name, t->key->name,
                   found, expected);
}

/* ---- storing values ---- */

static void *member(const target *t) {
    return (char *)t->group->out + t->key->offset;
}

static int put_int(const target *t, int64_t v, mr_error *err) {
    const mr_conf_key *k = t->key;
    if ((k->min != 0 || k->max != 0) && ((double)v < k->min || (double)v > k->max)) {
        char found[32];
        snprintf(found, sizeof(found), "%" PRId64, v);
        return fail_expected(t, found, err);
    }
    *(int64_t *)member(t) = v;
    return 0;
}

static int put_num(const target *t, double v, mr_error *err) {
    const mr_conf_key *k = t->key;
    bool in_range = (k->min == 0 && k->max == 0) || (v >= k->min && v <= k->max); /* false for NaN */
    if (!in_range) {
        char found[32];
        snprintf(found, sizeof(found), "%g", v);
        return fail_expected(t, found, err);
    }
    *(double *)member(t) = v;
    return 0;
}

static bool is_choice(const char *choices, const char *z) {
    size_t n = strlen(z);
    for (const char *p = choices; p; p = strchr(p, '|')) {
        if (*p == '|') p++;
        if (strncmp(p, z, n) == 0 && (p[n] == '|' || p[n] == '\0')) return true;
    }
    return false;
}

static int fail_memory(const target *t, mr_error *err) {
    return mr_fail(err, MR_ENOMEM, "%s: %s.%s does not fit: all settings together may take %u MiB", t->where,
                   t->group->name, t->key->name, CONF_ARENA_MAX >> 20);
}

static int put_str(mr_conf *c, const target *t, const char *z, mr_error *err) {
    if (t->key->choices && !is_choice(t->key->choices, z)) {
        char found[128];
        snprintf(found, sizeof(found), "\"%.100s\"", z);
        return fail_expected(t, found, err);
    }
    mr_str copy = mr_arena_str(c->strings, mr_str_of(z));
    if (!copy.p) return fail_memory(t, err);
    *(const char **)member(t) = copy.p;
    return 0;
}

/* ---- values as text: environment and defaults ---- */

static int put_text_int(const target *t, const char *z, mr_error *err) {
    char *end;
    errno = 0;
    long long v = strtoll(z, &end, 10);
    if (errno != 0 || end == z || *end != '\0') return fail_expected(t, *z ? z : "empty", err);
    return put_int(t, v, err);
}

static int put_text_num(const target *t, const char *z, mr_error *err) {
    char *end;
    errno = 0;
    double v = strtod(z, &end);
    if (errno != 0 || end == z || *end != '\0') return fail_expected(t, *z ? z : "empty", err);
    return put_num(t, v, err);
}

static int put_text_bool(const target *t, const char *z, mr_error *err) {
    bool yes = strcmp(z, "true") == 0 || strcmp(z, "1") == 0;
    if (!yes && strcmp(z, "false") != 0 && strcmp(z, "0") != 0)
        return fail_expected(t, *z ? z : "empty", err);
    *(bool *)member(t) = yes;
    return 0;
}

/* Comma-separated; an empty text is an empty list. */
static int put_text_list(mr_conf *c, const target *t, const char *z, mr_error *err) {
    int n = *z ? 1 : 0;
    for (const char *p = z; *p; p++) n += *p == ',';
    const char **v = mr_arena_alloc(c->strings, (size_t)n * sizeof(*v));
    if (!v) return fail_memory(t, err);
    for (int i = 0; i < n; i++) {
        size_t len = strcspn(z, ",");
        v[i] = mr_arena_str(c->strings, (mr_str){z, len}).p;
        if (!v[i]) return fail_memory(t, err);
        z += len + 1;
    }
    *(mr_strlist *)member(t) = (mr_strlist){v, n};
    return 0;
}

static int put_text(mr_conf *c, const target *t, const char *z, mr_error *err) {
    switch (t->key->type) {
    case MR_CONF_INT: return put_text_int(t, z, err);
    case MR_CONF_NUM: return put_text_num(t, z, err);
    case MR_CONF_BOOL: return put_text_bool(t, z, err);
    case MR_CONF_STRLIST: return put_text_list(c, t, z, err);
    default: return put_str(c, t, z, err);
    }
}

/* ---- values from the file ---- */

static int put_setting_list(mr_conf *c, const target *t, config_setting_t *s, mr_error *err) {
    int n = config_setting_length(s);
    const char **v = mr_arena_alloc(c->strings, (size_t)n * sizeof(*v));
    if (!v) return fail_memory(t, err);
    for (int i = 0; i < n; i++) {
        const char *z = config_setting_get_string_elem(s, i);
        if (!z) return fail_expected(t, "a list with something else than strings in it", err);
        v[i] = mr_arena_str(c->strings, mr_str_of(z)).p;
        if (!v[i]) return fail_memory(t, err);
    }
    *(mr_strlist *)member(t) = (mr_strlist){v, n};
    return 0;
}

static int put_setting(mr_conf *c, const target *t, config_setting_t *s, mr_error *err) {
    int type = config_setting_type(s);
    bool is_int = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
    switch (t->key->type) {
    case MR_CONF_INT:
        if (is_int) return put_int(t, config_setting_get_int64(s), err);
        break;
    case MR_CONF_NUM:
        if (is_int) return put_num(t, (double)config_setting_get_int64(s), err);
        if (type == CONFIG_TYPE_FLOAT) return put_num(t, config_setting_get_float(s), err);
        break;
    case MR_CONF_BOOL:
        if (type != CONFIG_TYPE_BOOL) break;
        *(bool *)member(t) = config_setting_get_bool(s);
        return 0;
    case MR_CONF_STRLIST:
        if (type == CONFIG_TYPE_LIST || type == CONFIG_TYPE_ARRAY) return put_setting_list(c, t, s, err);
        break;
    default:
        if (type == CONFIG_TYPE_STRING) return put_str(c, t, config_setting_get_string(s), err);
    }
    return fail_expected(t, type_name(type), err);
}

/* ---- checking names ---- */

static void put_where(const mr_conf *c, config_setting_t *s, char *out, size_t cap) {
    const char *file = config_setting_source_file(s); /* set when it came by @include */
    snprintf(out, cap, "%s:%u", file ? file : c->path, config_setting_source_line(s));
}

static const mr_conf_key *find_key(const mr_conf_group *g, const char *name) {
    for (const mr_conf_key *k = g->keys; k->name; k++) {
        if (strcmp(k->name, name) == 0) return k;
    }
    return NULL;
}

static mr_nearest nearest_key(const mr_conf_group *g, const char *name) {
    mr_nearest near = {0};
    for (const mr_conf_key *k = g->keys; k->name; k++) mr_nearest_try(&near, name, k->name);
    return near;
}

/* "…: <what> is not a known <kind>", with the nearest name when there is one. */
static int fail_unknown(const char *where, const char *kind, const char *what, mr_nearest near,
                        mr_error *err) {
    if (near.best) {
        return mr_fail(err, MR_EINVAL, "%s: '%.80s' is not a known %s; did you mean '%s'?", where, what, kind,
                       near.best);
    }
    return mr_fail(err, MR_EINVAL, "%s: '%.80s' is not a known %s (--print-config shows all)", where, what,
                   kind);
}

static int check_root(const mr_conf *c, config_setting_t *s, mr_error *err) {
    const char *name = config_setting_name(s);
    char where[300];
    mr_nearest near = {0};
    put_where(c, s, where, sizeof(where));
    for (const char *const *g = mr_conf_groups; *g; g++) {
        if (strcmp(*g, name) != 0) {
            mr_nearest_try(&near, name, *g);
        } else if (config_setting_is_group(s)) {
            return 0;
        } else {
            return mr_fail(err, MR_EINVAL, "%s: %s is %s, expected a group: %s = { … };", where, name,
                           type_name(config_setting_type(s)), name);
        }
    }
    return fail_unknown(where, "group", name, near, err);
}

static int check_group_names(const mr_conf *c, const mr_conf_group *g, config_setting_t *in_file,
                             mr_error *err) {
    int n = config_setting_length(in_file);
    for (int i = 0; i < n; i++) {
        config_setting_t *s = config_setting_get_elem(in_file, (unsigned)i);
        const char *name = config_setting_name(s);
        if (find_key(g, name)) continue;
        char where[300], what[120];
        put_where(c, s, where, sizeof(where));
        snprintf(what, sizeof(what), "%s.%s", g->name, name);
        return fail_unknown(where, "setting", what, nearest_key(g, name), err);
    }
    return 0;
}

void mr_conf_env_name(const char *group, const char *key, char *out, size_t cap) {
    snprintf(out, cap, "MILLRACE_%s_%s", group, key);
    for (char *p = out; *p; p++) *p = (char)toupper((unsigned char)*p);
}

/* A variable that begins like one of the group's but names none of its keys is a mistyped setting. */
static int check_env_variable(const mr_conf_group *g, const char *variable, mr_error *err) {
    char name[128], prefix[64], key[128];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(variable, "="), variable);
    mr_conf_env_name(g->name, "", prefix, sizeof(prefix));
    if (strncmp(name, prefix, strlen(prefix)) != 0) return 0;
    snprintf(key, sizeof(key), "%s", name + strlen(prefix));
    for (char *p = key; *p; p++) *p = (char)tolower((unsigned char)*p);
    if (find_key(g, key)) return 0;
    return fail_unknown("environment", "setting", name, nearest_key(g, key), err);
}

static int check_environment(const mr_conf_group *g, mr_error *err) {
    for (char **e = environ; *e; e++) {
        if (check_env_variable(g, *e, err) != 0) return -1;
    }
    return 0;
}

/* ---- loading ---- */

static int load_key(mr_conf *c, const mr_conf_group *g, const mr_conf_key *k, config_setting_t *in_file,
                    mr_error *err) {
    target t = {.group = g, .key = k};
    char variable[128];
    mr_conf_env_name(g->name, k->name, variable, sizeof(variable));
    const char *text = getenv(variable);
    if (text) {
        snprintf(t.where, sizeof(t.where), "%s", variable);
        return put_text(c, &t, text, err);
    }
    config_setting_t *s = in_file ? config_setting_get_member(in_file, k->name) : NULL;
    if (s) {
        put_where(c, s, t.where, sizeof(t.where));
        return put_setting(c, &t, s, err);
    }
    if (!k->def) {
        return mr_fail(err, MR_EINVAL, "%s: %s.%s is missing and has no default; set it there or as %s",
                       c->path ? c->path : "no configuration file", g->name, k->name, variable);
    }
    snprintf(t.where, sizeof(t.where), "default");
    return put_text(c, &t, k->def, err);
}

static int load_group(mr_conf *c, const mr_conf_group *g, mr_error *err) {
    config_setting_t *in_file = config_lookup(&c->file, g->name);
    if (in_file && check_group_names(c, g, in_file, err) != 0) return -1;
    if (check_environment(g, err) != 0) return -1;
    for (const mr_conf_key *k = g->keys; k->name; k++) {
        if (load_key(c, g, k, in_file, err) != 0) return -1;
    }
    return 0;
}

static int read_file(mr_conf *c, mr_error *err) {
    struct stat st;
    FILE *f = fopen(c->path, "re");
    if (!f) return mr_fail(err, MR_ENOTFOUND, "%s: cannot be read: %s", c->path, strerror(errno));
    /* libconfig's scanner ends the process when a read fails, as it does for a folder */
    if (fstat(fileno(f), &st) != 0 || S_ISDIR(st.st_mode)) {
        fclose(f);
        return mr_fail(err, MR_EINVAL, "%s: is a folder, expected a configuration file", c->path);
    }
    int ok = config_read(&c->file, f);
    fclose(f);
    if (ok != CONFIG_TRUE) {
        const char *file = config_error_file(&c->file);
        return mr_fail(err, MR_EINVAL, "%s:%d: %s", file ? file : c->path, config_error_line(&c->file),
                       config_error_text(&c->file));
    }
    config_setting_t *root = config_root_setting(&c->file);
    for (int i = 0; i < config_setting_length(root); i++) {
        if (check_root(c, config_setting_get_elem(root, (unsigned)i), err) != 0) return -1;
    }
    return 0;
}

mr_conf *mr_conf_load(const char *file, const mr_conf_group *groups, mr_error *err) {
    mr_conf *c = calloc(1, sizeof(*c));
    if (!c) {
        mr_fail(err, MR_ENOMEM, "out of memory while loading the configuration");
        return NULL;
    }
    config_init(&c->file);
    c->path = file;
    c->strings = mr_arena_new(CONF_ARENA_MAX);
    if (!c->strings) {
        mr_fail(err, MR_ENOMEM, "out of memory while loading the configuration");
        goto fail;
    }
    if (file && read_file(c, err) != 0) goto fail;
    for (const mr_conf_group *g = groups; g->name; g++) {
        if (load_group(c, g, err) != 0) goto fail;
    }
    return c;
fail:
    mr_conf_free(c);
    return NULL;
}

void mr_conf_free(mr_conf *c) {
    if (!c) return;
    mr_arena_free(c->strings);
    config_destroy(&c->file);
    free(c);
}

/* ---- printing ---- */

static void print_quoted(mr_buf *out, const char *p, size_t n) {
    mr_buf_puts(out, "\"");
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"' || p[i] == '\\') mr_buf_puts(out, "\\");
        mr_buf_put(out, p + i, 1);
    }
    mr_buf_puts(out, "\"");
}

static void print_default(mr_buf *out, const mr_conf_key *k) {
    const char *z = k->def ? k->def : "";
    if (k->type == MR_CONF_STR) {
        print_quoted(out, z, strlen(z));
    } else if (k->type == MR_CONF_STRLIST) {
        mr_buf_puts(out, "(");
        while (*z) {
            size_t n = strcspn(z, ",");
            print_quoted(out, z, n);
            z += n + (z[n] == ',');
            if (*z) mr_buf_puts(out, ", ");
        }
        mr_buf_puts(out, ")");
    } else if (k->type == MR_CONF_INT &&
               (strtoll(z, NULL, 10) > INT32_MAX || strtoll(z, NULL, 10) < INT32_MIN)) {
        mr_buf_printf(out, "%sL", z); /* libconfig's plain integers have 32 bits */
    } else {
        mr_buf_puts(out, z);
    }
}

static void print_key(mr_buf *out, const mr_conf_group *g, const mr_conf_key *k) {
    char expected[200], variable[128];
    describe_expected(k, expected, sizeof(expected));
    mr_conf_env_name(g->name, k->name, variable, sizeof(variable));
    mr_buf_printf(out, "  # %s\n  # %s%s; %s\n  %s%s = ", k->doc, expected, k->def ? "" : ", required",
                  variable, k->def ? "" : "# ", k->name);
    print_default(out, k);
    mr_buf_puts(out, ";\n");
}

void mr_conf_print(const mr_conf_group *groups, mr_buf *out) {
    for (const mr_conf_group *g = groups; g->name; g++) {
        mr_buf_printf(out, "%s%s = {\n", g == groups ? "" : "\n", g->name);
        for (const mr_conf_key *k = g->keys; k->name; k++) print_key(out, g, k);
        mr_buf_puts(out, "};\n");
    }
}
