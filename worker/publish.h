/* The way out of the worker: the producer, and dead letters. Answers themselves are streams (stream.h).
 *
 * Everything belongs to the loop's thread.
 */
#ifndef MR_PUBLISH_H
#define MR_PUBLISH_H

#include "base/bus.h"
#include "schemas/messages.h"

typedef struct mr_publisher mr_publisher;

/* What a record carries through the producer: who hears of its delivery. Lives until then. */
typedef struct mr_tag {
    void (*delivered)(void *of, const mr_error *err); /* err is NULL when the brokers have it */
    void *of;
} mr_tag;

typedef struct mr_publisher_options {
    const mr_kafka_conf *kafka;
    const char *worker, *model; /* as answers name them; borrowed */
    /* The record at this place was given up, and its letter is in Kafka. */
    void (*buried)(void *arg, int32_t partition, int64_t offset);
    void *arg;
} mr_publisher_options;

mr_publisher *mr_publisher_new(const mr_publisher_options *opt, mr_loop *l, mr_metrics *m, mr_error *err);
/* Flushes for at most flush_ms. Tags hear of what is left as failed: streams must be closed or deaf by then. */
void mr_publisher_free(mr_publisher *p, int flush_ms);
bool mr_publisher_connected(const mr_publisher *p);
const mr_publisher_options *mr_publisher_describe(const mr_publisher *p);

/* One message to chat.responses. partition -1: by the key. Fails as mr_producer_send does. */
int mr_publisher_send(mr_publisher *p, const char *type, int32_t partition, mr_str key, mr_str body,
                      mr_str trace, mr_tag *tag, mr_error *err);
/* The worker's status to chat.workers; nobody hears of its delivery, because another one follows. */
int mr_publisher_status(mr_publisher *p, const mr_worker_status *s, mr_error *err);
/* Room to pack a message in; its content is good until the next use by anyone. */
mr_buf *mr_publisher_scratch(mr_publisher *p);

/* Sends a dead letter, again and again until it is delivered. With `last` the record is finished by it (`buried` follows);
 * else its terminal record finishes it. */
int mr_publisher_dead(mr_publisher *p, mr_dead *d, mr_str trace, bool last, mr_error *err);
/* A word to whoever reads chat.control, keyed `<kind>/<worker>`. */
int mr_publisher_control(mr_publisher *p, const mr_control *c, mr_error *err);
int mr_publisher_letters(const mr_publisher *p); /* not yet delivered */

#endif
