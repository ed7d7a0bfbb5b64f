/* What every process begins with: command line -> configuration -> log.
 *
 *     int main(int argc, char **argv) {
 *         int status;
 *         mr_conf *conf = mr_main_init(argc, argv, &options, &status);
 *         if (!conf) return status;
 *         …
 *
 * Flags: --config FILE, --print-config, --help, --version; and every setting of the process: `--port 8081` for
 * a key of its own group (options.part), `--kafka.brokers host:9092` for any of its groups. Flags win over the
 * environment, the environment over the file.
 */
#ifndef MR_MAIN_H
#define MR_MAIN_H

#include "base/conf.h"
#include "base/error.h"
#include "base/loop.h"

typedef struct mr_main_options {
    const char *name;            /* "millrace-gateway" */
    const char *part;            /* "gateway": its own group, and its name in the log */
    const char *about;           /* one sentence for --help */
    const mr_conf_group *groups; /* all groups that the process reads, `log` among them */
    const mr_log_conf *log;      /* what the group `log` fills */
} mr_main_options;

/* The loaded configuration, with the log initialised; the caller frees it. NULL when the process is to end now,
 * with *status for its exit: 0 after --help and the like, 2 after a wrong flag or setting (said on stderr). */
mr_conf *mr_main_init(int argc, char **argv, const mr_main_options *o, int *status);

/* The whole main() of a process that serves until it is told to stop: mr_main_init, a loop, serve(), and the exit status.
 * serve() sets up, runs the loop, cleans up, and returns what mr_loop_run() returned, or -1 and err. */
int mr_main_serve(int argc, char **argv, const mr_main_options *o, int (*serve)(mr_loop *l, mr_error *err));

const char *mr_version(void);

#endif
