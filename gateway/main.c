/* millrace-gateway: the OpenAI-compatible edge. */
#include "base/main.h"
#include "base/log.h"
#include "gateway/gateway.h"

#include <sys/resource.h>

static mr_gateway_conf gateway;
static mr_kafka_conf kafka;
static mr_redis_conf redis;
static mr_log_conf logging;

static const mr_conf_group groups[] = {
    {"gateway", mr_gateway_keys, &gateway},
    {"kafka", mr_kafka_keys, &kafka},
    {"redis", mr_redis_keys, &redis},
    {"log", mr_log_keys, &logging},
    {0},
};

/* A connection is a file descriptor, and the usual soft limit of 1024 is soon reached. */
static void raise_file_limit(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0) mr_log(MR_WARN, "the limit of open files stays as it is");
}

static int serve(mr_loop *loop, mr_error *err) {
    raise_file_limit();
    mr_gateway *g = mr_gateway_new(&gateway, &kafka, &redis, loop, err);
    if (!g) return -1;
    mr_log(
        MR_INFO, "gateway listens", MR_S("host", gateway.host), MR_I("port", mr_gateway_port(g)),
        MR_S("tls", *gateway.tls_cert ? "yes" : "no"),
        MR_S("keys", gateway.keys.n > 0 || *gateway.keys_file ? "required" : "none: open to this machine"));
    int rc = mr_loop_run(loop);
    mr_gateway_free(g);
    return rc;
}

int main(int argc, char **argv) {
    const mr_main_options options = {
        .name = "millrace-gateway",
        .part = "gateway",
        .about = "Serves the OpenAI-compatible API, and carries chats to and from Kafka.",
        .groups = groups,
        .log = &logging,
    };
    return mr_main_serve(argc, argv, &options, serve);
}
