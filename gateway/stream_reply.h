/* The text and the end of an answer on their way to the client: as events at once, or collected for one JSON. */
#ifndef MR_STREAM_REPLY_H
#define MR_STREAM_REPLY_H

#include "gateway/stream_entry.h"

/* Where answers are filtered, only what the filter lets through goes out, and a word that must not stops the choice: it is
 * cancelled, and its end is made once its usage is known (mr_choice_stopped_end). */

/* `fresh` is what the delta adds to the answer, which has it already. The entry may be gone afterwards. */
void mr_choice_text(mr_choice *c, const mr_response_delta *d, mr_str fresh, bool call_begins);
/* Its text is over: what was held back goes out. It may have been stopped by that. False when the entry is gone. */
bool mr_choice_flush(mr_choice *c);
/* The end of a stopped choice, with the usage of `end`, or what was counted where that has none (or is NULL). */
mr_response_end mr_choice_stopped_end(const mr_choice *c, const mr_response_end *end);
/* The choice has ended well; `whole` is its end with the usage of all that have. The entry is gone after the last one. */
void mr_choice_finish(mr_choice *c, const mr_response_end *whole);
void mr_stream_fail_memory(mr_stream *st);

#endif
