/* What the gateway sends to Kafka: messages packed, given their headers, and tracked until the broker has them. Loop's
 * thread. */
#ifndef MR_OUTBOX_H
#define MR_OUTBOX_H

#include "base/bus.h"
#include "schemas/codec.h"

typedef struct mr_outbox mr_outbox;
typedef struct mr_ticket mr_ticket; /* a record on its way whose sender wants to know */

/* err is NULL when the brokers have it (acks=all). */
typedef void mr_acked_cb(void *arg, const mr_error *err);

typedef struct mr_outbox_record {
    const char *topic; /* MR_TOPIC_…, without prefix */
    mr_str key;
    const mr_message_def *def;
    const void *msg;
    const char *trace; /* W3C traceparent, or NULL */
} mr_outbox_record;

mr_outbox *mr_outbox_new(const mr_kafka_conf *conf, mr_loop *l, mr_metrics *m, mr_error *err);
/* Flushes for up to flush_ms; callbacks of what is not delivered by then are called with an error. */
void mr_outbox_free(mr_outbox *o, int flush_ms);
bool mr_outbox_connected(const mr_outbox *o);

/* cb may be NULL. The ticket (may be NULL too) is good until cb was called. Fails with MR_ETOOBIG or MR_ESTATE
 * as mr_producer_send does; cb is not called then. */
int mr_outbox_send(mr_outbox *o, const mr_outbox_record *rec, mr_acked_cb *cb, void *arg, mr_ticket **ticket,
                   mr_error *err);
/* The message of the last mr_outbox_send that did not fail, packed; borrowed until the next one. */
mr_str mr_outbox_packed(const mr_outbox *o);
/* The sender is going away: do not call its callback. */
void mr_ticket_forget(mr_ticket *t);

#endif
