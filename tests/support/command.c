/* See command.h. */
#include "support/command.h"

#include <assert.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGS_MAX = 40 };

static void run(const test_command *c, const char *const *args) {
    char *argv[ARGS_MAX + 2] = {(char *)c->name};
    int argc = 1;
    for (; args[argc - 1]; argc++) {
        if (argc > ARGS_MAX) _exit(98);
        argv[argc] = (char *)args[argc - 1];
    }
    if (c->input && !freopen(c->input, "r", stdin)) _exit(99);
    if (!freopen(c->output, "w", stdout) || dup2(1, 2) < 0) _exit(99);
    int rc = c->run(argc, argv);
    fflush(stdout);
    _exit(rc);
}

int test_command_run(const test_command *c, const char *const *args) {
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert(pid >= 0);
    if (pid == 0) run(c, args);
    pid_t ended = waitpid(pid, &status, 0);
    assert(ended == pid);
    FILE *in = fopen(c->output, "r");
    assert(in);
    c->text[fread(c->text, 1, c->size - 1, in)] = '\0';
    fclose(in);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
