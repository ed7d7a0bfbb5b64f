/* See args.h. */
#include "engine/cli/args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int args_wrong(const command *c, const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "millrace-engine %s: ", c->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputs(" (see --help)\n", stderr);
    return 2;
}

static int help(const command *c) {
    printf("Usage: millrace-engine %s", c->name);
    for (const operand *o = c->operands; o && o->name; o++) printf(" %s", o->name);
    printf(" [options]\n%s\n\n", c->about);
    for (const arg *a = c->args; a->name; a++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", a->name, a->value ? " " : "", a->value ? a->value : "");
        printf("  %-26s %s\n", left, a->help);
    }
    printf("  %-26s %s\n", "--help", "this page");
    return 0;
}

static const arg *find(const command *c, const char *name, size_t n) {
    for (const arg *a = c->args; a->name; a++) {
        if (strlen(a->name) == n && !strncmp(a->name, name, n)) return a;
    }
    return NULL;
}

static bool parse_seed(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = *text == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    return !errno && end != text && !*end;
}

static int set_unless(const command *c, const arg *a, const char *text) {
    const bool yes = !strcmp(text, "true");
    if (!yes && strcmp(text, "false") != 0)
        return args_wrong(c, "--%s is %s: expected true or false", a->name, text);
    *(bool *)a->out = !yes;
    return -1;
}

static int set_number(const command *c, const arg *a, const char *text) {
    char *end;
    double v = strtod(text, &end);
    bool whole = a->type != ARG_INT || (v > -1e9 && v < 1e9 && v == (double)(int)v);
    if (end == text || *end || !whole || !(v >= a->min && v <= a->max)) {
        return args_wrong(c, "--%s is %s: expected %s from %g to %g", a->name, text,
                          a->type == ARG_INT ? "an integer" : "a number", a->min, a->max);
    }
    if (a->type == ARG_INT)
        *(int *)a->out = (int)v;
    else
        *(float *)a->out = (float)v;
    return -1;
}

static int set(const command *c, const arg *a, const char *text) {
    switch (a->type) {
    case ARG_FLAG: *(bool *)a->out = true; return -1;
    case ARG_UNLESS: return set_unless(c, a, text);
    case ARG_TEXT: *(const char **)a->out = text; return -1;
    case ARG_SEED:
        return parse_seed(text, a->out) ? -1
                                        : args_wrong(c, "--%s is %s: expected an integer", a->name, text);
    default: return set_number(c, a, text);
    }
}

int args_parse(const command *c, int argc, char **argv) {
    const operand *next = c->operands;
    for (int i = 0; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--help") || !strcmp(name, "-h")) return help(c);
        if (strncmp(name, "--", 2) != 0) {
            if (!next || !next->name) return args_wrong(c, "unexpected argument %s", name);
            *next++->out = name;
            continue;
        }
        size_t n = strcspn(name + 2, "=");
        const arg *a = find(c, name + 2, n);
        if (!a) return args_wrong(c, "unknown option %s", name);
        const char *value = name[n + 2] ? name + n + 3 : NULL;
        if (a->type == ARG_FLAG && value) return args_wrong(c, "--%s takes no value", a->name);
        if (a->type != ARG_FLAG && !value) value = ++i < argc ? argv[i] : NULL;
        if (a->type != ARG_FLAG && !value) return args_wrong(c, "--%s wants a value", a->name);
        int status = set(c, a, value);
        if (status >= 0) return status;
    }
    return next && next->name ? args_wrong(c, "%s is missing", next->name) : -1;
}
