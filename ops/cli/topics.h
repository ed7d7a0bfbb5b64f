/* The topics of the design, for those who create them. */
#ifndef MR_CLI_TOPICS_H
#define MR_CLI_TOPICS_H

#include "base/bus.h"

#define MR_TOPICS_MAX 64
#define MR_PARTITIONS 16 /* fixed early: adding partitions later moves the keys */

typedef struct mr_topic_list {
    mr_topic_spec specs[MR_TOPICS_MAX];
    char names[MR_TOPICS_MAX][250];
    int n;
} mr_topic_list;

/* Every topic that the pools need, with both colors. `pools` are "model=pool" as in router.pools; pool main is
 * always there. */
int mr_topic_list_fill(mr_topic_list *l, const mr_kafka_conf *kafka, mr_strlist pools, int partitions,
                       mr_error *err);

#endif
