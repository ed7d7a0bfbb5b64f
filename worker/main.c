/* millrace-worker: configuration, loop, supervisor. */
#include "base/main.h"
#include "base/log.h"
#include "worker/supervisor.h"

#include <stdio.h>

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

static int run(mr_error *err) {
    const mr_supervisor_options opt = {.worker = &worker, .kafka = &kafka, .redis = &redis};
    int status = -1;
    mr_supervisor *s = NULL;
    mr_metrics *m = NULL;
    mr_loop *l = mr_loop_new(err);
    if (l) m = mr_metrics_new(err);
    if (m) s = mr_supervisor_new(&opt, l, m, err);
    if (s) status = mr_loop_run(l);
    mr_supervisor_free(s);
    mr_metrics_free(m);
    mr_loop_free(l);
    return status;
}

int main(int argc, char **argv) {
    const mr_main_options opt = {
        .name = "millrace-worker",
        .part = "worker",
        .about = "takes chats from Kafka, has them answered by an engine host of its own, and publishes the "
                 "answers",
        .groups = groups,
        .log = &logging,
    };
    int status;
    mr_error err;
    mr_conf *conf = mr_main_init(argc, argv, &opt, &status);
    if (!conf) return status;
    status = run(&err);
    if (status < 0) {
        mr_log(MR_ERROR, "worker cannot start", MR_S("error", err.msg));
        status = 1;
    }
    mr_conf_free(conf);
    return status;
}
