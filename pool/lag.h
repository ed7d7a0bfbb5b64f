/* The lag of worker groups on their topics, read by a thread of its own, because the questions to the brokers block.
 *
 * Lag is the end of a partition less the group's committed offset, summed over the topic: what runs is counted, and so is
 * what ended before something older did. Asked for every `interval_ms`. Any thread may ask for the latest answer.
 */
#ifndef MR_LAG_H
#define MR_LAG_H

#include "base/bus.h"

typedef struct mr_lag_reader mr_lag_reader;

typedef struct mr_lag {
    int64_t at_us; /* monotonic time of the questions; 0: no answer yet, the rest is 0 */
    int64_t records;
    int64_t oldest_ms; /* unix time of the oldest record that is not committed; 0: none, or not known */
} mr_lag;

typedef struct mr_lag_source {
    char topic[250], group[300];
} mr_lag_source;

/* The topic and the group of a pool's workers. */
void mr_lag_of_workers(const mr_kafka_conf *kafka, const char *pool, const char *color, mr_lag_source *out);

/* sources are copied. Does not wait for the brokers. */
mr_lag_reader *mr_lag_reader_new(const mr_kafka_conf *kafka, const mr_lag_source *sources, int n,
                                 int interval_ms, mr_error *err);
/* Waits for the question that is in the air, a few seconds at most. */
void mr_lag_reader_free(mr_lag_reader *r);
/* Of source i. */
mr_lag mr_lag_get(mr_lag_reader *r, int i);

#endif
