/* What a request is for. The NextChat web app sends two kinds of its own accord: one asks for a title of the
 * conversation, one for a summary of it. They look like chat, but must never be answered from the knowledge base.
 * Pure functions; any thread.
 */
#ifndef MR_PURPOSE_H
#define MR_PURPOSE_H

#include "schemas/messages.h"

/* What the request says itself, or what its last message gives away. */
enum mr_purpose mr_request_purpose(const mr_chat_request *r);

/* The last message when it is a user's and holds text only, joined from its parts with line breaks; empty otherwise (also
 * when the arena is full). */
mr_str mr_request_question(const mr_chat_request *r, mr_arena *a);

#endif
