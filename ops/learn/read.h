/* A topic read once, from a time to its present end, without a group: nobody's offsets move. */
#ifndef MR_LEARN_READ_H
#define MR_LEARN_READ_H

#include "base/bus.h"

/* Calls back for each record, which is the callback's until it returns; -1 with err ends the reading. Records from
 * before `from_ms` may come as well. Blocks, with a loop of its own; SIGINT and SIGTERM end it with an error. */
typedef int mr_topic_cb(void *arg, const mr_record *rec, mr_error *err);
int mr_topic_read(const mr_kafka_conf *kafka, const char *topic, int64_t from_ms, mr_topic_cb *cb, void *arg,
                  mr_error *err);

#endif
