/* millrace-gateway: the OpenAI-compatible edge. */
#include "base/main.h"
#include "base/log.h"
#include "gateway/gateway.h"

#include <sys/resource.h>

/* A connection is a file descriptor, and the usual soft limit of 1024 is soon reached. */
static void raise_file_limit(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0) mr_log(MR_WARN, "the limit of open files stays as it is");
}

static int run(const mr_gateway_conf *conf, const mr_kafka_conf *kafka, mr_error *err) {
    mr_loop *loop = mr_loop_new(err);
    if (!loop) return -1;
    int rc = -1;
    mr_gateway *g = mr_gateway_new(conf, kafka, loop, err);
    if (g) {
        mr_log(MR_INFO, "gateway listens", MR_S("host", conf->host), MR_I("port", mr_gateway_port(g)),
               MR_S("keys", conf->keys.n > 0 ? "required" : "none: open to this machine"));
        rc = mr_loop_run(loop);
        mr_gateway_free(g);
    }
    mr_loop_free(loop);
    return rc;
}

int main(int argc, char **argv) {
    mr_gateway_conf gateway;
    mr_kafka_conf kafka;
    mr_log_conf log;
    mr_conf_group groups[] = {{"gateway", mr_gateway_keys, &gateway},
                              {"kafka", mr_kafka_keys, &kafka},
                              {"log", mr_log_keys, &log},
                              {0}};
    mr_main_options options = {.name = "millrace-gateway",
                               .part = "gateway",
                               .about =
                                   "Serves the OpenAI-compatible API, and carries chats to and from Kafka.",
                               .groups = groups,
                               .log = &log};
    mr_error err;
    int status;
    mr_conf *conf = mr_main_init(argc, argv, &options, &status);
    if (!conf) return status;
    raise_file_limit();
    int rc = run(&gateway, &kafka, &err);
    if (rc < 0) mr_log(MR_ERROR, "gateway cannot start", MR_S("reason", err.msg));
    mr_conf_free(conf);
    return rc == 0 ? 0 : 1;
}
