/* Structured output in OpenAI's requests: `response_format` as ChatRequest has it. Whether its schema can be kept is for the
 * engine to say. Pure functions. */
#ifndef MR_STRUCTURED_H
#define MR_STRUCTURED_H

#include "gateway/api_error.h"

#include <jansson.h>

/* Puts what the body asks for into `chat`, a ChatRequest in JSON under way. */
int mr_structured_format(const json_t *body, json_t *chat, mr_api_error *e);

#endif
