/* The log of answers, for connections that go on with one: all of them share one client of Kafka.
 *
 * Each partition that is wanted is read once, from the earliest place that is wanted of it, and then on as records come.
 * Who comes later with an earlier place waits until the end has been read, and then the partition is read again from there,
 * for all who wait: so nobody holds up the others for ever. A reading is a round; who wants a place belongs to the round
 * that mr_log_want returned, and ignores records of earlier ones. Loop's thread.
 */
#ifndef MR_LOG_READER_H
#define MR_LOG_READER_H

#include "base/bus.h"

typedef struct mr_log_reader mr_log_reader;

typedef struct mr_log_events {
    void (*on_record)(void *arg, const mr_record *r, int64_t round);
    void (*on_end)(void *arg, int32_t partition, int64_t round); /* read up to its end */
    /* The place from which the round began is not kept any more. Others of the round are served all the same. */
    void (*on_gone)(void *arg, int32_t partition, int64_t round, int64_t position);
    void *arg;
} mr_log_events;

/* Connects at the first mr_log_want. */
mr_log_reader *mr_log_reader_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                                 const mr_log_events *events, mr_error *err);
void mr_log_reader_free(mr_log_reader *r);

/* Returns the round from which on records are to be taken, or -1. */
int64_t mr_log_want(mr_log_reader *r, int32_t partition, int64_t position, mr_error *err);
void mr_log_release(mr_log_reader *r, int32_t partition);

#endif
