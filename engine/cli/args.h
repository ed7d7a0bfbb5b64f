/* Command-line options of millrace-engine, described by a table that also makes the help page. */
#ifndef ENGINE_CLI_ARGS_H
#define ENGINE_CLI_ARGS_H

#include <stdbool.h>

typedef enum { ARG_FLAG, ARG_UNLESS, ARG_TEXT, ARG_INT, ARG_NUMBER, ARG_SEED } arg_type;

typedef struct arg {
    const char *name; /* without the dashes */
    arg_type type;
    void *out; /* bool, bool that "true" makes false, const char *, int, float, uint64_t */
    double min, max;
    const char *value, *help; /* value: its placeholder on the help page */
} arg;

/* An argument without a name, which must be there. */
typedef struct operand {
    const char *name;
    const char **out;
} operand;

typedef struct command {
    const char *name, *about;
    const arg *args;         /* ends with name == NULL */
    const operand *operands; /* the same, or NULL: none */
} command;

/* Options as --name VALUE or --name=VALUE. Returns -1 to go on, or the exit status when the program is to end now: 0 after
 * --help, 2 after a wrong option (said on stderr in one line). */
int args_parse(const command *c, int argc, char **argv);
/* "millrace-engine generate: what (see --help)"; returns 2. */
int args_wrong(const command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
