/* millrace-router: see router.h. */
#include "base/main.h"
#include "base/log.h"
#include "router/router.h"

static int run(const mr_router_conf *conf, const mr_kafka_conf *kafka, mr_error *err) {
    mr_loop *loop = mr_loop_new(err);
    if (!loop) return -1;
    int rc = -1;
    mr_router *r = mr_router_new(conf, kafka, loop, err);
    if (r) {
        mr_log(MR_INFO, "router started", MR_S("knowledge_base", conf->kb[0] ? conf->kb : "none"));
        rc = mr_loop_run(loop);
        if (mr_router_failed(r)) rc = 1;
        mr_router_free(r);
    }
    mr_loop_free(loop);
    return rc;
}

int main(int argc, char **argv) {
    mr_router_conf router;
    mr_kafka_conf kafka;
    mr_log_conf log;
    mr_conf_group groups[] = {{"router", mr_router_keys, &router},
                              {"kafka", mr_kafka_keys, &kafka},
                              {"log", mr_log_keys, &log},
                              {NULL}};
    mr_main_options options = {
        .name = "millrace-router",
        .part = "router",
        .about = "Answers routine chats from the knowledge base, and gives the others to workers.",
        .groups = groups,
        .log = &log};
    mr_error err;
    int status;
    mr_conf *conf = mr_main_init(argc, argv, &options, &status);
    if (!conf) return status;
    int rc = run(&router, &kafka, &err);
    if (rc < 0) mr_log(MR_ERROR, "router cannot start", MR_S("reason", err.msg));
    mr_conf_free(conf);
    return rc == 0 ? 0 : 1;
}
