/* The way back to Kafka: what one request leads to is a parcel of records, which arrive all, or the router hears
 * why not. Records that were not delivered are sent again a few times before that: a reader may see one twice, as it may
 * anyway.
 *
 * Everything belongs to the loop's thread. A parcel is the caller's until it is sent, then the forwarder's; the callback
 * comes exactly once for each parcel sent, never from inside mr_parcel_send.
 */
#ifndef MR_FORWARDER_H
#define MR_FORWARDER_H

#include "base/bus.h"
#include "schemas/codec.h"

typedef struct mr_forwarder mr_forwarder;
typedef struct mr_parcel mr_parcel;

/* err is NULL when the brokers have every record of the parcel. `closing` parcels of mr_forwarder_free come with an error,
 * too. The parcel is freed afterwards. */
typedef void mr_parcel_cb(void *arg, void *job, const mr_error *err);

mr_forwarder *mr_forwarder_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, mr_parcel_cb *cb,
                               void *arg, mr_error *err);
/* Waits up to flush_ms for what is in the air. */
void mr_forwarder_free(mr_forwarder *f, int flush_ms);

int mr_forwarder_parcels(const mr_forwarder *f); /* on their way */
size_t mr_forwarder_bytes(const mr_forwarder *f);
bool mr_forwarder_connected(const mr_forwarder *f);

mr_parcel *mr_parcel_new(mr_forwarder *f, void *job, mr_error *err);
void mr_parcel_free(mr_parcel *p); /* one that was not sent */

typedef struct mr_address {
    const char *topic; /* with prefix */
    int32_t partition; /* -1: by the key */
    mr_str key;
    const char *traceparent;
} mr_address;

/* Packs the message into the parcel. MR_ETOOBIG when it is larger than a record may be. */
int mr_parcel_add(mr_parcel *p, const mr_address *to, const mr_message_def *def, const void *msg,
                  mr_error *err);
void mr_parcel_send(mr_parcel *p);

#endif
