/* The gateway as a whole: the OpenAI-compatible API on one side, topics on the other. Everything runs on the loop's
 * thread. */
#ifndef MR_GATEWAY_H
#define MR_GATEWAY_H

#include "base/conf.h"
#include "base/loop.h"
#include "gateway/conf.h"

typedef struct mr_gateway mr_gateway;

/* Listens, connects, and drains when the loop does. The configurations are borrowed. */
mr_gateway *mr_gateway_new(const mr_gateway_conf *conf, const mr_kafka_conf *kafka,
                           const mr_redis_conf *redis, mr_loop *l, mr_error *err);
void mr_gateway_free(mr_gateway *g);

int mr_gateway_port(const mr_gateway *g);
/* True when requests are taken: Kafka is connected, and the answers' partition is being read. */
bool mr_gateway_ready(const mr_gateway *g, char *why, size_t why_size);
void mr_gateway_metrics(mr_gateway *g, mr_buf *out);

#endif
