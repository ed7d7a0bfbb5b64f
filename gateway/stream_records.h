/* What the records of an answer mean for its entry: mr_streams_delta and mr_streams_end of stream.h. */
#ifndef MR_STREAM_RECORDS_H
#define MR_STREAM_RECORDS_H

#include "gateway/stream_entry.h"

/* The usage of a choice that a word has stopped does not come: it ends without. The entry may be gone afterwards. */
void mr_choice_end_stopped(mr_choice *c);

#endif
