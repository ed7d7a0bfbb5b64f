/* millrace: the operator's command. Some commands are in here; every other name runs the program millrace-NAME that
 * stands beside this one, as git does. */
#include "base/main.h"
#include "ops/cli/commands.h"
#include "ops/cli/self.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv); /* NULL: a program of its own */
    const char *about;
} command;

static const command commands[] = {
    {"up", cmd_up, "run a whole pipeline on this machine"},
    {"topics", cmd_topics, "create the topics that are missing"},
    {"kb", cmd_kb, "import, search and export the knowledge base"},
    {"intent", cmd_intent, "train, measure and try the model of intents"},
    {"learn", cmd_learn, "make the model of intents better by what people said of answers"},
    {"keys", cmd_keys, "make and list API keys"},
    {"profile", cmd_profile, "set and show how a user is answered"},
    {"status", cmd_status, "show the pools: workers, lag, wait"},
    {"rollout", cmd_rollout, "move a pool's traffic to its other color, step by step"},
    {"tail", cmd_tail, "print a topic's records as JSON"},
    {"recycle", cmd_recycle, "replace a worker's engine host while its answers go on"},
    {"replay", cmd_replay, "ask requests of the log again, and compare the answers"},
    {"gateway", NULL, "the OpenAI-compatible edge"},
    {"router", NULL, "answers from the knowledge base, forwards the rest"},
    {"worker", NULL, "generates answers: supervisor and engine host"},
    {"engine", NULL, "the engine alone: generate, inspect, bench"},
    {"broker", NULL, "an embedded broker, in memory, for trying out"},
    {0},
};

static void print_help(void) {
    printf("millrace: chat from your own models, through Kafka.\n\nUsage: millrace COMMAND [OPTIONS]\n\n");
    for (const command *c = commands; c->name; c++) printf("  %-10s %s\n", c->name, c->about);
    printf("\nmillrace COMMAND --help tells more.\n");
}

static int unknown(const char *name) {
    mr_nearest near = {0};
    for (const command *c = commands; c->name; c++) mr_nearest_try(&near, name, c->name);
    fprintf(stderr, "millrace: unknown command '%s'", name);
    if (near.best) fprintf(stderr, "; did you mean '%s'", near.best);
    fprintf(stderr, "? Try millrace --help.\n");
    return 2;
}

static int run_program(const char *name, char **argv) {
    char path[MR_PATH_MAX];
    mr_error err;
    if (mr_self_sibling(name, path, &err) != 0) {
        fprintf(stderr, "millrace: %s\n", err.msg);
        return 1;
    }
    execv(path, argv);
    if (errno == ENOENT) return unknown(name);
    fprintf(stderr, "millrace: %s cannot be started: %s\n", path, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("millrace %s\n", mr_version());
        return 0;
    }
    for (const command *c = commands; c->name; c++) {
        if (strcmp(c->name, argv[1]) == 0 && c->run) return c->run(argc - 1, argv + 1);
    }
    if (argv[1][0] == '-' || strchr(argv[1], '/')) return unknown(argv[1]);
    return run_program(argv[1], argv + 1);
}
