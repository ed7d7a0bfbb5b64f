/* millrace-engine: the engine from a terminal, without anything of Millrace around it. */
#include "engine/cli/cli.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"generate", "answer a prompt, streaming to the terminal", cli_generate},
    {"inspect", "what a checkpoint is, and the memory it needs", cli_inspect},
    {"quantize", "make an 8-bit checkpoint of one", cli_quantize},
    {"accuracy", "measure what 8-bit weights and KV cache change", cli_accuracy},
    {"bench", "measure prefill and decode against the memory's bandwidth", cli_bench},
};
enum { NCOMMANDS = sizeof commands / sizeof *commands };

int cli_fail(const char *command, const engine_error *err) {
    fprintf(stderr, "millrace-engine %s: %s\n", command, err->msg);
    return 1;
}

void cli_bar_show(void *shown, size_t done, size_t total) {
    cli_bar *b = shown;
    const int percent = total ? (int)((double)done * 100.0 / (double)total) : 100;
    if (!isatty(2) || percent == b->percent) return;
    const double seconds = cli_seconds() - b->started;
    fprintf(stderr, "\r[%-50.*s] %3d %%  %.2f GB/s ", percent / 2,
            "##################################################", percent,
            seconds > 0 ? (double)done / seconds / 1e9 : 0);
    if (done == total) fputc('\n', stderr);
    b->percent = percent;
}

double cli_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int cli_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static void usage(FILE *to) {
    fprintf(to, "Usage: millrace-engine COMMAND [options]\n\n");
    for (int i = 0; i < NCOMMANDS; i++) fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].about);
    fprintf(to, "\nmillrace-engine COMMAND --help lists the options.\n");
}

int main(int argc, char **argv) {
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        usage(stdout);
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        printf("millrace-engine %s\n", MILLRACE_ENGINE_VERSION);
        return 0;
    }
    for (int i = 0; argc > 1 && i < NCOMMANDS; i++) {
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 2, argv + 2);
    }
    if (argc > 1)
        fprintf(stderr, "millrace-engine: unknown command %s (see --help)\n", argv[1]);
    else
        usage(stderr);
    return 2;
}
