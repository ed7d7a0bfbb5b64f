/* What the knowledge base puts into a request: the text that it answers with, or its best entries for the model, when it is
 * not sure enough. Pure functions but for the base, whose thread they belong to. */
#ifndef MR_KB_CONTEXT_H
#define MR_KB_CONTEXT_H

#include "router/conf.h"
#include "router/kb.h"
#include "schemas/messages.h"

/* The whole answer: with its placeholders filled in by the request, and the list of what follows. In the arena. */
int mr_kb_reply(mr_kb *kb, const mr_router_conf *conf, const mr_kb_hit *hit, const mr_chat_request *q,
                mr_arena *a, mr_str *out, mr_error *err);

/* The text that tells the model of the hits that are at least router.kb_context_min sure: as many as router.kb_context, best
 * first, within router.kb_context_tokens (estimated); an entry that is too long gives way to the next one. Empty: there is
 * none. In the arena. */
int mr_kb_context(const mr_router_conf *conf, const mr_kb_hit *hits, int n, const mr_chat_request *q,
                  mr_arena *a, mr_str *out, mr_error *err);

/* Puts it into the request, as a system message right before the last one: so what the worker's cache knows of the
 * conversation stays as it was. False: the request has no room for it. */
bool mr_kb_context_put(mr_chat_request *q, mr_str context, mr_arena *a);
/* Takes it out again. */
void mr_kb_context_take(mr_chat_request *q);

#endif
