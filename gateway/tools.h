/* Tools in OpenAI's requests: `tools`, `tool_choice` and `parallel_tool_calls` as ChatRequest has them. Whether the model has
 * tools, and can keep their schemas, is for the engine to say. Pure functions. */
#ifndef MR_TOOLS_H
#define MR_TOOLS_H

#include "gateway/api_error.h"

#include <jansson.h>

/* Puts what the body asks for into `chat`, a ChatRequest in JSON under way. */
int mr_tools_put(const json_t *body, json_t *chat, mr_api_error *e);

#endif
