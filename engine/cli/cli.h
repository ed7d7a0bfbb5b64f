/* The commands of millrace-engine: each takes its arguments after the command's name and returns the exit status. */
#ifndef ENGINE_CLI_CLI_H
#define ENGINE_CLI_CLI_H

#include "engine/engine.h"

int cli_generate(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_quantize(int argc, char **argv);
int cli_accuracy(int argc, char **argv);

/* Says what went wrong; returns 1. */
int cli_fail(const char *command, const engine_error *err);
double cli_seconds(void); /* monotonic */
/* Drawn on stderr where that is a terminal. `shown` is one that began as {.started = cli_seconds(), .percent = -1}. */
typedef struct cli_bar {
    double started;
    int percent;
} cli_bar;
void cli_bar_show(void *shown, size_t done, size_t total);
int cli_cpus(void); /* that this process may use */

#endif
