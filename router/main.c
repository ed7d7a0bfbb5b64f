/* millrace-router: see router.h. */
#include "base/main.h"
#include "base/log.h"
#include "router/router.h"

static mr_router_conf router;
static mr_kafka_conf kafka;
static mr_redis_conf redis;
static mr_log_conf logging;

static const mr_conf_group groups[] = {
    {"router", mr_router_keys, &router},
    {"kafka", mr_kafka_keys, &kafka},
    {"redis", mr_redis_keys, &redis},
    {"log", mr_log_keys, &logging},
    {0},
};

static int serve(mr_loop *loop, mr_error *err) {
    mr_router *r = mr_router_new(&router, &kafka, &redis, loop, err);
    if (!r) return -1;
    mr_log(MR_INFO, "router started", MR_S("knowledge_base", router.kb[0] ? router.kb : "none"));
    int rc = mr_loop_run(loop);
    if (mr_router_failed(r)) rc = 1;
    mr_router_free(r);
    return rc;
}

int main(int argc, char **argv) {
    const mr_main_options options = {
        .name = "millrace-router",
        .part = "router",
        .about = "Answers routine chats from the knowledge base, and gives the others to workers.",
        .groups = groups,
        .log = &logging,
    };
    return mr_main_serve(argc, argv, &options, serve);
}
