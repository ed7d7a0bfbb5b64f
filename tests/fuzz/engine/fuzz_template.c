/* Any bytes as a checkpoint's Jinja template: recognised or refused with an error. And a chat of any roles and contents, cut
 * out of the same bytes, rendered with each known template: an error, or a prompt of the size that it says. */
#include "engine/text/template.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MESSAGES_MAX = 8, IDS_MAX = 1 << 16 };

/* A tokenizer with all the control tokens that templates ask for. */
static const char json[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3},\"merges\":[\"a b\"]},"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"added_tokens\":["
    "{\"id\":4,\"content\":\"<s>\",\"special\":true},{\"id\":5,\"content\":\"</s>\",\"special\":true},"
    "{\"id\":6,\"content\":\"<｜User｜>\"},{\"id\":7,\"content\":\"<｜Assistant｜>\"},"
    "{\"id\":8,\"content\":\"<｜end▁of▁sentence｜>\"},{\"id\":9,\"content\":\"<|start_header_id|>\"},"
    "{\"id\":10,\"content\":\"<|end_header_id|>\"},{\"id\":11,\"content\":\"<|eot_id|>\"},"
    "{\"id\":12,\"content\":\"<|im_start|>\"},{\"id\":13,\"content\":\"<|im_end|>\"},{\"id\":14,\"content\":"
    "\"<think>\"}]}";

/* The template ends at the first NUL: tokenizer_config.json may not have any. */
static tokenizer *with_template(const uint8_t *source, size_t n) {
    engine_error err = {0};
    json_t *doc = json_pack("{s:s, s:s, s:o*}", "bos_token", "<s>", "eos_token", "</s>", "chat_template",
                            json_stringn((const char *)source, strnlen((const char *)source, n)));
    char *config = json_dumps(doc, 0);
    tokenizer *t = tokenizer_parse(json, sizeof json - 1, config, strlen(config), &err);

    if (!t) abort();
    free(config);
    json_decref(doc);
    return t;
}

/* Messages are what newlines separate; the first byte of each is its role. */
static int cut_messages(const uint8_t *data, size_t n, engine_message m[MESSAGES_MAX]) {
    static const char *const roles[] = {"user", "assistant", "system", "developer", "tool", "narrator"};
    int count = 0;

    while (n > 0 && count < MESSAGES_MAX) {
        const uint8_t *end = memchr(data, '\n', n);
        size_t len = end ? (size_t)(end - data) : n;
        if (len > 0) {
            m[count++] = (engine_message){
                .role = roles[data[0] % 6], .content = (const char *)data + 1, .content_len = len - 1};
        }
        len += end != NULL;
        data += len;
        n -= len;
    }
    return count;
}

static void render(const tokenizer *t, const char *name, const engine_message *m, int n) {
    static int32_t ids[IDS_MAX];
    engine_error err = {0};
    chat_template *c = chat_template_new(t, name, &err);
    if (!c && !err.msg[0]) abort();
    if (!c) return;
    int64_t count =
        chat_template_render(c, &(engine_chat){.messages = m, .nmessages = n}, ids, IDS_MAX, &err);
    if (count < 0 && !err.msg[0]) abort();
    if (chat_template_render(c, &(engine_chat){.messages = m, .nmessages = n}, NULL, 0, &err) != count)
        abort();
    for (int64_t i = 0; i < count && i < IDS_MAX; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer_vocab(t)) abort();
    }
    chat_template_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const names[] = {"deepseek-llm", "deepseek-v3", "deepseek-r1", "llama-3", "llama-3.1",
                                        "chatml",       "qwen2",       "qwen2.5",     "qwq"};
    engine_message m[MESSAGES_MAX];
    tokenizer *t = with_template(data, n);
    int count = cut_messages(data, n, m);

    render(t, NULL, m, count);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) render(t, names[i], m, count);
    tokenizer_free(t);
    return 0;
}
