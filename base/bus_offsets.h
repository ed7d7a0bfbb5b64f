/* The offsets of a group, for the partitions of one member: what is finished is committed, and what the last owner committed is
 * asked for, so that nobody has a finished record again.
 *
 * A commit says which offsets are finished behind the lowest unfinished one (bus_internal.h has the text). A partition that is
 * assigned stands still until the group's coordinator has said what its last owner committed, or for some seconds. Nothing here
 * waits. Loop's thread; the client and the partitions are the consumer's.
 */
#ifndef MR_BUS_OFFSETS_H
#define MR_BUS_OFFSETS_H

#include "base/bus_partitions.h"

typedef struct mr_offsets {
    rd_kafka_t *rk;
    const char *group;
    mr_partitions *all;
    rd_kafka_queue_t *answers; /* about what was committed; NULL: it is not asked any more */
    int committing;            /* commits without an answer yet */
    int64_t committed_us;      /* when the last one was sent */
    bool plain;                /* the broker takes no metadata of the length that we need */
} mr_offsets;

/* All are borrowed. Answers wake w, and are to be served then. */
void mr_offsets_open(mr_offsets *o, rd_kafka_t *rk, const char *group, mr_partitions *all, mr_bus_wake *w);
/* Nothing is asked any more; commits go on. Before the client goes. */
void mr_offsets_close(mr_offsets *o);

/* These were just assigned: nothing of them is known, and it is asked for. */
void mr_offsets_ask(mr_offsets *o, const rd_kafka_topic_partition_list_t *list);
bool mr_offsets_asked(const mr_partition *p); /* and the answer may still come in time */
void mr_offsets_serve(mr_offsets *o);

/* Says to the group what is finished; the client's offset_commit_cb is to hand the answer to mr_offsets_committed. */
void mr_offsets_commit(mr_offsets *o);
void mr_offsets_commit_when_due(mr_offsets *o);
void mr_offsets_committed(mr_offsets *o, rd_kafka_resp_err_t all,
                          const rd_kafka_topic_partition_list_t *list);

#endif
