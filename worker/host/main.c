/* millrace-engine-host: started by millrace-worker. */
#include "base/log.h"
#include "worker/host/options.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    mr_engine_host_options opt;
    mr_error err;
    int status = mr_engine_host_options_parse(argc, argv, &opt);
    if (status >= 0) return status;
    const char *format = getenv("MILLRACE_LOG_FORMAT"); /* the supervisor's */
    if (mr_log_init("engine", format ? format : "auto", MR_INFO, &err)) {
        fprintf(stderr, "millrace-engine-host: %s\n", err.msg);
        return 1;
    }
    /* Whoever ends a whole group means the supervisor, who then drains this process. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    if (mr_engine_host_run(&opt, &err) == 0) return 0;
    mr_log(MR_ERROR, "engine host ends", MR_S("error", err.msg));
    return 1;
}
