/* millrace-worker: configuration, loop, supervisor. */
#include "base/main.h"
#include "worker/supervisor.h"

#include <stdlib.h>

static mr_worker_conf worker;
static mr_kafka_conf kafka;
static mr_redis_conf redis;
static mr_log_conf logging;

static const mr_conf_group groups[] = {
    {"worker", mr_worker_keys, &worker},
    {"kafka", mr_kafka_keys, &kafka},
    {"redis", mr_redis_keys, &redis},
    {"log", mr_log_keys, &logging},
    {0},
};

static int serve(mr_loop *loop, mr_error *err) {
    const mr_supervisor_options options = {.worker = &worker, .kafka = &kafka, .redis = &redis};
    int rc = -1;
    mr_supervisor *s = NULL;
    /* the engine host logs as its supervisor does */
    if (setenv("MILLRACE_LOG_FORMAT", logging.format, 1) != 0)
        return mr_fail(err, MR_ENOMEM, "out of memory for the engine host's environment");
    mr_metrics *m = mr_metrics_new(err);
    if (m) s = mr_supervisor_new(&options, loop, m, err);
    if (s) rc = mr_loop_run(loop);
    mr_supervisor_free(s);
    mr_metrics_free(m);
    return rc;
}

int main(int argc, char **argv) {
    const mr_main_options options = {
        .name = "millrace-worker",
        .part = "worker",
        .about = "Takes chats from Kafka, has them answered by an engine host of its own, and publishes the "
                 "answers.",
        .groups = groups,
        .log = &logging,
    };
    return mr_main_serve(argc, argv, &options, serve);
}
