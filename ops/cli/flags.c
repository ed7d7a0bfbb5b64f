/* See flags.h. */
#include "ops/cli/flags.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mr_flags_bare(int argc, char **argv, const char *const *names) {
    static char given[8][32]; /* main's arguments live as long as the process */
    for (int n = 0; names[n] && n < 8; n++) {
        snprintf(given[n], sizeof(given[n]), "--%s=true", names[n]);
        for (int i = 1; i < argc; i++) {
            if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, names[n]) == 0) argv[i] = given[n];
        }
    }
}

const void *mr_flags_verb(const void *verbs, size_t size, const char *name, mr_error *err) {
    mr_nearest near = {0};
    const char *verb = verbs, *known;
    for (; (known = *(const char *const *)verb) != NULL; verb += size) {
        if (strcmp(known, name) == 0) return verb;
        mr_nearest_try(&near, name, known);
    }
    mr_fail(err, MR_EINVAL,
            near.best ? "unknown command '%.100s' (did you mean '%s'?)" : "unknown command '%.100s'", name,
            near.best);
    return NULL;
}

int mr_flags_value(int argc, char **argv, int *at, const char *flag, const char **value, mr_error *err) {
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

int mr_flags_duration(const char *what, const char *text, int64_t *ms, mr_error *err) {
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
    char *end;
    double n = strtod(text, &end);
    for (size_t i = 0; end != text && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) != 0 || !(n >= 0 && n * units[i].ms <= 1e12)) continue;
        *ms = (int64_t)(n * units[i].ms);
        return 0;
    }
    return mr_fail(err, MR_EINVAL, "%s is '%.40s', expected a time such as 60s, 500ms, 10m or 2h", what,
                   text);
}
