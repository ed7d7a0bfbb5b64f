/* chat.control, as far as a worker cares: cancels.
 *
 * A cancel may overtake its request (another topic, another partition), so the last few thousand are remembered.
 * Belongs to the loop's thread.
 */
#ifndef MR_CONTROL_H
#define MR_CONTROL_H

#include "base/bus.h"

typedef struct mr_control_reader mr_control_reader;
typedef void mr_cancel_cb(void *arg, mr_str request);

mr_control_reader *mr_control_new(const mr_kafka_conf *kafka, mr_loop *l, mr_metrics *m, mr_cancel_cb *cb,
                                  void *arg, mr_error *err);
void mr_control_free(mr_control_reader *c);
bool mr_control_cancelled(const mr_control_reader *c, mr_str request);
bool mr_control_caught_up(const mr_control_reader *c);

#endif
