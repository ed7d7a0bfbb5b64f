/* Tokens guessed from bytes (see estimate.h). */
#include "schemas/estimate.h"

enum {
    ASCII_PER_TOKEN = 3, /* English has about 4, code about 3 */
    MESSAGE_TOKENS = 4,  /* of a template around a message */
};

/* A character outside of ASCII counts as a whole token: Chinese takes about 0.6 of one. */
int64_t mr_text_tokens(mr_str text) {
    int64_t ascii = 0, other = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        ascii += c < 0x80;
        other += c >= 0xC0;
    }
    return (ascii + ASCII_PER_TOKEN - 1) / ASCII_PER_TOKEN + other;
}

int64_t mr_message_tokens(const mr_chat_message *m) {
    int64_t n = MESSAGE_TOKENS + mr_text_tokens(m->content);
    for (uint32_t i = 0; i < m->parts.n; i++) {
        const mr_part *p = &m->parts.v[i];
        n += p->type == MR_PART_IS_IMAGE ? MR_IMAGE_TOKENS : mr_text_tokens(p->text);
    }
    for (uint32_t i = 0; i < m->tool_calls.n; i++) n += mr_text_tokens(m->tool_calls.v[i].function.arguments);
    return n;
}

int64_t mr_prompt_tokens(const mr_chat_request *q) {
    int64_t n = mr_text_tokens(q->response_format.schema);
    for (uint32_t i = 0; i < q->messages.n; i++) n += mr_message_tokens(&q->messages.v[i]);
    for (uint32_t i = 0; i < q->tools.n; i++) {
        n += mr_text_tokens(q->tools.v[i].description) + mr_text_tokens(q->tools.v[i].parameters);
    }
    return n;
}
