/* `millrace topics`: create the topics that are missing. */
#include "ops/cli/topics.h"

#include "base/main.h"
#include "ops/cli/commands.h"
#include "router/conf.h"

#include <stdio.h>
#include <string.h>

#define CREATE_MS  30000
#define WORKERS_MS (3600 * 1000LL) /* readers look at the last minute, people at the hour */

static int add(mr_topic_list *l, const char *name, int partitions, bool compacted, mr_error *err) {
    for (int i = 0; i < l->n; i++) {
        if (strcmp(l->names[i], name) == 0) return 0;
    }
    if (l->n == MR_TOPICS_MAX) {
        return mr_fail(err, MR_ETOOBIG, "router.pools names more pools than one pipeline takes (%d topics)",
                       MR_TOPICS_MAX);
    }
    snprintf(l->names[l->n], sizeof(l->names[0]), "%s", name);
    l->specs[l->n] =
        (mr_topic_spec){.name = l->names[l->n], .partitions = partitions, .compacted = compacted};
    l->n++;
    return 0;
}

static int add_pool(mr_topic_list *l, const mr_kafka_conf *kafka, const char *pool, int partitions,
                    mr_error *err) {
    static const char *const colors[] = {"blue", "green"};
    char name[250];
    for (int i = 0; i < 2; i++) {
        mr_bus_generate_topic(kafka, pool, colors[i], name);
        if (add(l, name, partitions, false, err) != 0) return -1;
    }
    return 0;
}

int mr_topic_list_fill(mr_topic_list *l, const mr_kafka_conf *kafka, mr_strlist pools, int partitions,
                       mr_error *err) {
    static const char *const plain[] = {MR_TOPIC_REQUESTS, MR_TOPIC_RESPONSES, MR_TOPIC_FEEDBACK,
                                        MR_TOPIC_DEAD, MR_TOPIC_AUDIT};
    char name[250];
    l->n = 0;
    for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++) {
        mr_bus_topic(kafka, plain[i], name);
        if (add(l, name, partitions, false, err) != 0) return -1;
    }
    /* one partition: every process reads all of it, in one order */
    mr_bus_topic(kafka, MR_TOPIC_CONTROL, name);
    if (add(l, name, 1, true, err) != 0) return -1;
    mr_bus_topic(kafka, MR_TOPIC_WORKERS, name);
    if (add(l, name, 1, false, err) != 0) return -1;
    l->specs[l->n - 1].retention_ms = WORKERS_MS;
    if (add_pool(l, kafka, MR_POOL_DEFAULT, partitions, err) != 0) return -1;
    for (int i = 0; i < pools.n; i++) {
        const char *equals = strrchr(pools.v[i], '=');
        if (equals && add_pool(l, kafka, equals + 1, partitions, err) != 0) return -1;
    }
    return 0;
}

int cmd_topics(int argc, char **argv) {
    mr_kafka_conf kafka;
    mr_router_conf router;
    mr_log_conf log;
    mr_conf_group groups[] = {{"kafka", mr_kafka_keys, &kafka},
                              {"router", mr_router_keys, &router},
                              {"log", mr_log_keys, &log},
                              {0}};
    mr_main_options options = {.name = "millrace topics",
                               .part = "kafka",
                               .about =
                                   "Creates the topics that are missing at the Kafka of the configuration.",
                               .groups = groups,
                               .log = &log};
    mr_topic_list list;
    mr_error err;
    int status;
    mr_conf *conf = mr_main_init(argc, argv, &options, &status);
    if (!conf) return status;
    status = 1;
    if (mr_router_conf_check(&router, &err) != 0 ||
        mr_topic_list_fill(&list, &kafka, router.pools, MR_PARTITIONS, &err) != 0 ||
        mr_bus_create_topics(&kafka, list.specs, list.n, CREATE_MS, &err) != 0) {
        fprintf(stderr, "millrace topics: %s\n", err.msg);
    } else {
        printf("%d topics are there at %s.\n", list.n, kafka.brokers);
        status = 0;
    }
    mr_conf_free(conf);
    return status;
}
