/* Any bytes as tokenizer.json and tokenizer_config.json, the two with a NUL between: an error that says something, or a
 * tokenizer that encodes text into ids of its own vocabulary, each of which has a piece. */
#include "engine/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { IDS_MAX = 4096 };

static void encode(const tokenizer *t, bool parse_special) {
    static const char text[] =
        "The river's  wheel\r\n\tturns 1234 times, 你好 e\u0301 <s>\xFF\xE4\xBD don't\u00A0";
    static int32_t ids[IDS_MAX];
    engine_error err = {0};
    int64_t count = tokenizer_encode(t, text, sizeof text - 1, parse_special, ids, IDS_MAX, &err);

    if (count < 0 && !err.msg[0]) abort();
    for (int64_t i = 0; i < count && i < IDS_MAX; i++) {
        size_t len;
        bool special;
        if (!tokenizer_piece(t, ids[i], &len, &special)) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *json = (const char *)data, *end = memchr(data, 0, n);
    const char *config = end ? end + 1 : NULL;
    size_t json_n = end ? (size_t)(end - json) : n;
    engine_error err = {0};
    tokenizer *t = tokenizer_parse(json, json_n, config, config ? n - json_n - 1 : 0, &err);

    if (!t && !err.msg[0]) abort();
    if (t) {
        encode(t, true);
        encode(t, false);
    }
    tokenizer_free(t);
    return 0;
}
