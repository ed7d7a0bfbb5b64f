/* Conversations in Redis, for programs that send only a session's id and the newest message.
 *
 * A session is a sorted set of SessionTurns by the time of their questions, under `session/<tenant>/<session>`. The router
 * reads it and puts it before the new message; whoever ends the answer (worker, or the router for the knowledge base)
 * writes the turn. A turn that is written again, because its request came again, is the same bytes and stays one.
 * Texts only: pictures of earlier turns are the first to go. Redis is an aid here: without it answers go on
 * without history.
 *
 * Functions on a store belong to its loop's thread; the others are pure.
 */
#ifndef MR_SESSION_H
#define MR_SESSION_H

#include "base/store.h"
#include "schemas/messages.h"

#define MR_SESSION_TURNS_MAX 16 /* that are kept of a session */
#define MR_SESSION_TEXT_MAX  MR_TURN_TEXT_MAX

/* The name that marks a system message which belongs to one request and not to the conversation. */
#define MR_PASSING_SYSTEM    "style"

/* Is this a request whose history is to be found in Redis: as its field `history` says, or else when it names a session and
 * brings one user's message, with at most system messages before it? */
bool mr_session_wanted(const mr_chat_request *q);

/* The newest `turns` of its session: an array reply for mr_session_compose, newest first, or what mr_store_cb says. */
void mr_session_load(mr_store *s, const mr_chat_request *q, int turns, mr_store_cb *cb, void *arg);

/* Puts the turns before the request's own messages: the newest as far as all are within `tokens` (estimated), after the
 * request's system messages, or the session's last where it brings none. Returns the number of turns; -1 when the arena is full. */
int mr_session_compose(mr_chat_request *q, const redisReply *turns, int64_t tokens, mr_arena *a);

/* Writes the turn of a request that has `keep_s`. Nothing waits for it. */
void mr_session_keep(mr_store *s, const mr_chat_request *q, mr_str answer);

/* The longest beginning of `s` that is kept, ending between characters. */
mr_str mr_session_cut(mr_str s);

#endif
