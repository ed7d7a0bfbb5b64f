/* An answer asked for again, from what was sent of it on: where another attempt's text differs from that. */
#ifndef MR_REGENERATE_H
#define MR_REGENERATE_H

#include "gateway/stream_entry.h"

/* Keeps the packed request, where there is room. */
void mr_regenerate_keep(mr_choice *c, mr_str packed);
/* Asks for the rest of the answer again, after what was sent of it. False when that can't be: it was tried often enough,
 * or not all that is needed is known. */
bool mr_regenerate(mr_choice *c);
/* Asks once more where Kafka did not take it, for accept_timeout_s in all. False when the entry is gone. */
bool mr_regenerate_tick(mr_stream *st, int64_t now_us);

#endif
