/* The partitions of a consumer, each from its first assignment on, found by its topic and number.
 *
 * Plain data of the loop's thread, owned by the consumer. Two share an entry: who hands its records over (bus_consumer.c), and who
 * says to the group what of it is finished (bus_offsets.c).
 */
#ifndef MR_BUS_PARTITIONS_H
#define MR_BUS_PARTITIONS_H

#include "base/bus_internal.h"

#define MR_CONSUMER_TOPICS 8

typedef struct mr_partition {
    char topic[250];
    int32_t number;
    bool assigned; /* it is ours now */
    /* handing over */
    bool eof_seen;            /* read up to its end at least once */
    bool retry;               /* `kept` may be handed over again: resume was called since */
    int64_t next;             /* lowest offset that was not handed over yet; -1 before the first record */
    rd_kafka_queue_t *queue;  /* its records and errors, while it is assigned */
    rd_kafka_message_t *kept; /* the record that there was no room for */
    mr_watermark done;        /* which records are unfinished */
    /* what the group knows of it */
    bool dirty;             /* there is something to commit */
    int64_t asked_until_us; /* what its last owner committed is being asked for; 0: it is known */
    mr_finished known;      /* by that, finished */
} mr_partition;

typedef struct mr_partitions {
    struct {
        char name[250];
        mr_partition **v; /* by number; NULL where never assigned */
        int n;
        int exist; /* partitions that it has; 0: not asked */
    } topics[MR_CONSUMER_TOPICS];
    int ntopics, nassigned;
} mr_partitions;

mr_partition *mr_partitions_find(const mr_partitions *all, const char *topic, int32_t number);
/* NULL: out of memory, or a topic that is not among them. */
mr_partition *mr_partitions_add(mr_partitions *all, const char *topic, int32_t number);
/* Their queues and kept records are the consumer's to free. */
void mr_partitions_free(mr_partitions *all);

/* for (each partition p that is assigned) */
mr_partition *mr_partitions_next(const mr_partitions *all, int *topic, int *number);
#define MR_FOR_ASSIGNED(all, p)                                                                              \
    for (int topic_ = 0, number_ = 0; ((p) = mr_partitions_next((all), &topic_, &number_)) != NULL;)

#endif
