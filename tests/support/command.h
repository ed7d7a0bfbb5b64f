/* A command of `millrace` as an operator runs it. */
#ifndef TESTS_SUPPORT_COMMAND_H
#define TESTS_SUPPORT_COMMAND_H

#include <stddef.h>

typedef struct test_command {
    int (*run)(int argc, char **argv); /* as commands.h has it */
    const char *name;
    const char *input;  /* file that it reads; NULL: what the test has */
    const char *output; /* file for what it prints */
    char *text;         /* that, stdout and stderr, up to `size` with its end */
    size_t size;
} test_command;

/* Runs it with these arguments, of which the last is NULL, in a process of its own; returns its exit status, or -1. */
int test_command_run(const test_command *c, const char *const *args);

#endif
