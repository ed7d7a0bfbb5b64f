/* Chat templates: from messages to token ids.
 *
 * There is no general Jinja here. The checkpoint's own template is recognised by its distinguishing marks as one of the
 * known ones; one that is not known is an error that names the known ones and the option to force one.
 * Control tokens are added by id; what users wrote is encoded without special-token parsing.
 */
#ifndef ENGINE_TEXT_TEMPLATE_H
#define ENGINE_TEXT_TEMPLATE_H

#include "engine/engine.h"
#include "engine/text/tokenizer.h"

typedef struct chat_template chat_template; /* immutable */

/* How a model that a template speaks to writes its tool calls. */
typedef enum {
    CALL_NONE,   /* the template has no tools */
    CALL_HERMES, /* <tool_call>\n{"name": …, "arguments": …}\n</tool_call>, one or several */
    CALL_LLAMA,  /* the whole answer is {"name": …, "parameters": …} */
} call_form;

/* name: one of chat_template_names, or NULL to recognise the checkpoint's. Borrows the tokenizer. */
chat_template *chat_template_new(const tokenizer *t, const char *name, engine_error *err);
void chat_template_free(chat_template *c);
const char *chat_template_name(const chat_template *c);
extern const char chat_template_names[]; /* "deepseek-llm, deepseek-v3, …", for messages to users */

/* Ids of the prompt, ending where the assistant's answer begins. Returns the count the prompt needs (> cap when it did
 * not fit), or -1 with err: no message, a role that the template does not know (developer is taken as system), or tools where
 * it has none. Tools and arguments are written as Python writes JSON, which is what `tojson` in a template does. */
int64_t chat_template_render(const chat_template *c, const engine_chat *chat, int32_t *out, size_t cap,
                             engine_error *err);

/* Tokens that end an answer (eos, and the template's own end-of-turn). Returns the count (<= 8). */
int chat_template_stops(const chat_template *c, int32_t out[8]);
/* True when the prompt itself opens a <think> block, so the answer begins as reasoning. */
bool chat_template_opens_thinking(const chat_template *c);
call_form chat_template_calls(const chat_template *c);

#endif
