/* The text and the end of an answer on their way to the client: as events at once, or collected for one JSON. */
#ifndef MR_STREAM_REPLY_H
#define MR_STREAM_REPLY_H

#include "gateway/stream_entry.h"

/* `fresh` is what the delta adds to the answer, which has it already. The entry may be gone afterwards. */
void mr_choice_text(mr_choice *c, const mr_response_delta *d, mr_str fresh, bool call_begins);
/* The choice has ended well; `whole` is its end with the usage of all that have. The entry is gone after the last one. */
void mr_choice_finish(mr_choice *c, const mr_response_end *whole);
void mr_stream_fail_memory(mr_stream *st);

#endif
