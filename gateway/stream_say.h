/* What is said to the client of a request in flight, what is said to the workers of a cancel, and the ways in which an entry
 * ends: after each of them it is gone. */
#ifndef MR_STREAM_SAY_H
#define MR_STREAM_SAY_H

#include "gateway/stream_entry.h"

/* From here on the entry hears when its client goes away. */
void mr_stream_watch(mr_stream *st);

/* A request, or all of an entry's, counts as accepted: the headers may go out. */
void mr_choice_accept(mr_choice *c);
void mr_stream_accept(mr_stream *st);

/* The id of an event that says all that was passed on so far. */
const char *mr_stream_event_id(mr_stream *st);
/* The headers of an accepted, streamed entry go out now, if they have not, with no word of the answer. */
bool mr_stream_open(mr_stream *st);
/* False when the entry is gone, because its client does not read. The second says what is in the table's `event`. What is said
 * first sends the headers, which name the source of the answer. */
bool mr_stream_say(mr_stream *st, mr_str bytes);
bool mr_stream_say_event(mr_stream *st);

/* Frees the worker's slot: of one choice; of all that still run, counted for a reason or not. */
void mr_choice_cancel(const mr_choice *c);
void mr_stream_cancel(const mr_stream *st, mr_counter *reason);
void mr_stream_cancel_rest(const mr_stream *st);

/* The one log line of a request, and its place in the metrics: for who ends it otherwise than by the following. */
void mr_stream_record(mr_stream *st, int status, const char *finish);
/* Ends it without a word, and without a cancel. */
void mr_stream_drop(mr_stream *st, const char *finish);
/* Ends it with an error, and without a cancel. */
void mr_stream_end_with(mr_stream *st, const mr_api_error *e);
/* Ends the whole request, with an error that its client sees; what still runs is cancelled. */
void mr_stream_fail(mr_stream *st, mr_counter *reason, const mr_api_error *e);

#endif
