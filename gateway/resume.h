/* Connections that go on with an answer from the log, beside mr_streams_resume of stream.h. */
#ifndef MR_RESUME_H
#define MR_RESUME_H

#include "gateway/stream_entry.h"

/* The next resumed choice that this record is for; NULL: no more. */
mr_choice *mr_resume_next(mr_streams *s, mr_str request, const mr_log_place *from);
/* The beginning of its answer is not kept any more. */
void mr_resume_gone(mr_stream *st);
/* False when the entry is gone. */
bool mr_resume_tick(mr_stream *st, int64_t now_us);

#endif
