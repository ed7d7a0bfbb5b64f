/* What comes back from Kafka: the records of this gateway's own partition of answers, those of the log for whoever goes on
 * with an answer, and chat.control, of which a gateway wants to know whose client went on elsewhere. All of them are
 * handed to the requests in flight. Loop's thread. */
#ifndef MR_RECORDS_H
#define MR_RECORDS_H

#include "base/conf.h"
#include "gateway/stream.h"

typedef struct mr_records mr_records;

/* Borrows everything but the error. `streams` gets its log from here (mr_streams_use_log), and must be freed before this. */
mr_records *mr_records_new(const mr_gateway_conf *conf, const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                           mr_streams *streams, mr_error *err);
void mr_records_free(mr_records *k);

/* What is not read up to its end yet, in words; NULL: everything is. */
const char *mr_records_missing(const mr_records *k);
/* Before this place of the own partition nothing of an answer can be that is asked for now. */
int64_t mr_records_position(const mr_records *k);
/* Partitions that answers may be in. */
int mr_records_partitions(const mr_records *k);

#endif
