/* millrace-broker: librdkafka's mock cluster as a process of its own, for a laptop and for tests.
 *
 * It speaks Kafka's protocol on one port, keeps everything in memory (5 MiB a partition, then the oldest goes), and
 * has the topics of the design from its start. The mock cluster listens on any free port; this executable places it by
 * a bind() of its own, which the dynamic linker prefers over libc's. For a moment it listens already and lacks topics:
 * mr_bus_create_topics waits for them. */
#include "base/log.h"
#include "base/loop.h"
#include "base/main.h"
#include "ops/cli/topics.h"
#include "router/conf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static mr_kafka_conf kafka;
static mr_router_conf router; /* its pools have topics of their own */
static mr_log_conf logging;

static const mr_conf_group groups[] = {
    {"kafka", mr_kafka_keys, &kafka},
    {"router", mr_router_keys, &router},
    {"log", mr_log_keys, &logging},
    {0},
};

/* Set before the cluster starts (by the main thread), used by its first bind. */
static struct {
    in_port_t port;
    int error;
} placed;

/* The mock cluster asks for 127.0.0.1:0; it gets the configured port, once. */
int bind(int fd, const struct sockaddr *addr, socklen_t len) {
    struct sockaddr_in in;
    if (placed.port == 0 || addr->sa_family != AF_INET || len < sizeof(in)) {
        return (int)syscall(SYS_bind, fd, addr, len);
    }
    static const int on = 1;
    memcpy(&in, addr, sizeof(in));
    in.sin_port = htons(placed.port);
    placed.port = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        syscall(SYS_bind, fd, &in, sizeof(in)) != 0) {
        placed.error = errno;
        return -1;
    }
    return 0;
}

/* "127.0.0.1:9092" of kafka.brokers: the broker is where its clients look for it. */
static int parse_port(const char *brokers, in_port_t *port, mr_error *err) {
    static const char host[] = "127.0.0.1:";
    char *end = NULL;
    long p = strncmp(brokers, host, sizeof(host) - 1) == 0 ? strtol(brokers + sizeof(host) - 1, &end, 10) : 0;
    if (p < 1 || p > 65535 || *end != '\0') {
        return mr_fail(
            err, MR_EINVAL,
            "kafka.brokers is \"%s\"; the embedded broker listens on this machine only: 127.0.0.1:PORT",
            brokers);
    }
    *port = (in_port_t)p;
    return 0;
}

static rd_kafka_t *open_client(mr_error *err) {
    char why[300];
    rd_kafka_conf_t *c = rd_kafka_conf_new();
    /* it never connects, and would say that it has nobody to connect to */
    rd_kafka_conf_set(c, "log_level", "4", NULL, 0);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, c, why, sizeof(why));
    if (rk) return rk;
    rd_kafka_conf_destroy(c);
    mr_fail(err, MR_EKAFKA, "the embedded broker cannot start: %s", why);
    return NULL;
}

static int create_topics(rd_kafka_mock_cluster_t *mc, const mr_topic_list *list, mr_error *err) {
    for (int i = 0; i < list->n; i++) {
        const mr_topic_spec *s = &list->specs[i];
        rd_kafka_resp_err_t e = rd_kafka_mock_topic_create(mc, s->name, s->partitions, 1);
        if (e != RD_KAFKA_RESP_ERR_NO_ERROR) {
            return mr_fail(err, MR_EKAFKA, "topic %s cannot be created: %s", s->name, rd_kafka_err2str(e));
        }
    }
    return 0;
}

static void on_drain(void *arg) {
    mr_loop_stop(arg);
}

static int serve(mr_loop *loop, mr_error *err) {
    rd_kafka_mock_cluster_t *mc = NULL;
    rd_kafka_t *rk = NULL;
    mr_topic_list list;
    int rc = -1;
    if (mr_topic_list_fill(&list, &kafka, router.pools, MR_PARTITIONS, err) != 0 ||
        parse_port(kafka.brokers, &placed.port, err) != 0) {
        goto out;
    }
    rk = open_client(err);
    if (!rk) goto out;
    mc = rd_kafka_mock_cluster_new(rk, 1);
    if (!mc) {
        mr_fail(err, MR_EIO, "cannot listen at %s: %s; choose another port with --brokers 127.0.0.1:PORT",
                kafka.brokers, strerror(placed.error ? placed.error : EIO));
        goto out;
    }
    if (create_topics(mc, &list, err) != 0) goto out;
    mr_log(MR_WARN,
           "embedded broker: in memory, for trying out; 5 MiB a partition, then the oldest records go",
           MR_S("brokers", rd_kafka_mock_cluster_bootstraps(mc)), MR_I("topics", list.n));
    mr_loop_on_drain(loop, 1000, on_drain, loop);
    rc = mr_loop_run(loop);
out:
    if (mc) rd_kafka_mock_cluster_destroy(mc);
    if (rk) rd_kafka_destroy(rk);
    return rc;
}

int main(int argc, char **argv) {
    const mr_main_options options = {
        .name = "millrace-broker",
        .part = "kafka",
        .about = "An embedded broker that speaks Kafka's protocol, in memory, for trying out.",
        .groups = groups,
        .log = &logging,
    };
    return mr_main_serve(argc, argv, &options, serve);
}
