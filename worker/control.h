/* chat.control, as far as a worker cares: cancels, rollouts of its pool, and orders to its color or to itself.
 *
 * A cancel may overtake its request (another topic, another partition), so the last few thousand are remembered.
 * Belongs to the loop's thread.
 */
#ifndef MR_CONTROL_H
#define MR_CONTROL_H

#include "base/bus.h"

typedef struct mr_control_reader mr_control_reader;

typedef struct mr_control_orders {
    const char *worker, *pool, *color; /* of this worker; borrowed */
    void (*cancel)(void *arg, mr_str request);
    void (*drain)(void *arg);                  /* given since this worker started, as the next one */
    void (*recycle)(void *arg, int64_t order); /* it is to replace its engine host */
    void (*rollout)(void *arg, bool going_on); /* its pool's, also one from before */
    void *arg;
} mr_control_orders;

mr_control_reader *mr_control_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m,
                                  const mr_control_orders *orders, mr_error *err);
void mr_control_free(mr_control_reader *c);
bool mr_control_cancelled(const mr_control_reader *c, mr_str request);
/* What was said before this worker started has been read. */
bool mr_control_caught_up(const mr_control_reader *c);

#endif
