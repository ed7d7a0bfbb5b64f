/* Tokens of a text, guessed from its bytes where no tokenizer is at hand: rather too many than too few. Pure functions; any
 * thread. */
#ifndef MR_ESTIMATE_H
#define MR_ESTIMATE_H

#include "schemas/messages.h"

#define MR_IMAGE_TOKENS 1000 /* what a picture counts for */

int64_t mr_text_tokens(mr_str text);
int64_t mr_message_tokens(const mr_chat_message *m);
/* The whole prompt: messages, tools, the form of the answer. */
int64_t mr_prompt_tokens(const mr_chat_request *q);

#endif
