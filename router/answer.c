/* Deltas and ends that come from the router; see answer.h. Loop thread only. */
#include "router/answer.h"

#include "base/loop.h"
#include "schemas/hash.h"

#include <string.h>

enum { DELTA_BYTES = 4096 };

static mr_address address_of(const mr_reply_to *to) {
    return (mr_address){.topic = to->topic,
                        .partition = to->partition,
                        .key = mr_str_of(to->id),
                        .traceparent = to->traceparent};
}

/* As much of the text as fits into a delta, cut between characters. */
static mr_str first_piece(mr_str text) {
    if (text.n <= DELTA_BYTES) return text;
    size_t n = DELTA_BYTES;
    while (n > 0 && ((unsigned char)text.p[n] & 0xC0) == 0x80) n--;
    return (mr_str){text.p, n};
}

static int add_delta(mr_parcel *p, const mr_reply_to *to, mr_str text, int64_t offset, const char *hash,
                     enum mr_source source, mr_error *err) {
    mr_response_delta d = {0};
    mr_address address = address_of(to);
    MR_SET(&d, MR_RESPONSE_DELTA_V, v, MR_SCHEMA_VERSION);
    MR_SET(&d, MR_RESPONSE_DELTA_REQUEST, request, mr_str_of(to->id));
    MR_SET(&d, MR_RESPONSE_DELTA_ATTEMPT, attempt, to->attempt);
    MR_SET(&d, MR_RESPONSE_DELTA_INDEX, index, 0);
    MR_SET(&d, MR_RESPONSE_DELTA_TOKENS, tokens, 0);
    MR_SET(&d, MR_RESPONSE_DELTA_OFFSET, offset, offset);
    MR_SET(&d, MR_RESPONSE_DELTA_CHANNEL, channel, MR_CHANNEL_CONTENT);
    MR_SET(&d, MR_RESPONSE_DELTA_TEXT, text, text);
    MR_SET(&d, MR_RESPONSE_DELTA_HASH, hash, mr_str_of(hash));
    MR_SET(&d, MR_RESPONSE_DELTA_SOURCE, source, source);
    return mr_parcel_add(p, &address, &mr_response_delta_def, &d, err);
}

static mr_response_end end_of(const mr_reply_to *to, int64_t offset, const char *hash, int finish) {
    mr_response_end e = {0};
    double age = (double)(mr_now_ms() - to->accepted_ms);
    MR_SET(&e, MR_RESPONSE_END_V, v, MR_SCHEMA_VERSION);
    MR_SET(&e, MR_RESPONSE_END_REQUEST, request, mr_str_of(to->id));
    MR_SET(&e, MR_RESPONSE_END_ATTEMPT, attempt, to->attempt);
    MR_SET(&e, MR_RESPONSE_END_TOKENS, tokens, 0);
    MR_SET(&e, MR_RESPONSE_END_OFFSET, offset, offset);
    MR_SET(&e, MR_RESPONSE_END_HASH, hash, mr_str_of(hash));
    MR_SET(&e, MR_RESPONSE_END_FINISH_REASON, finish_reason, finish);
    MR_SET(&e.timings, MR_TIMINGS_TOTAL_MS, total_ms, age > 0 ? age : 0);
    MR_MARK(&e, MR_RESPONSE_END_TIMINGS);
    if (to->model[0]) MR_SET(&e, MR_RESPONSE_END_MODEL, model, mr_str_of(to->model));
    return e;
}

static int add_answer(mr_parcel *p, const mr_reply_to *to, mr_str text, enum mr_source source, int finish,
                      mr_error *err) {
    char hex[MR_TEXT_HASH_LEN + 1];
    uint64_t hash = mr_text_hash_init();
    int64_t offset = 0;
    while (text.n > 0) {
        mr_str piece = first_piece(text);
        hash = mr_text_hash_feed(hash, piece);
        mr_text_hash_hex(hash, hex);
        if (add_delta(p, to, piece, offset, hex, source, err) < 0) return -1;
        offset += (int64_t)piece.n;
        text = (mr_str){text.p + piece.n, text.n - piece.n};
    }
    mr_text_hash_hex(hash, hex);
    mr_response_end e = end_of(to, offset, hex, finish);
    mr_address address = address_of(to);
    MR_SET(&e, MR_RESPONSE_END_SOURCE, source, source);
    MR_SET(&e.usage, MR_USAGE_PROMPT_TOKENS, prompt_tokens, 0);
    MR_SET(&e.usage, MR_USAGE_COMPLETION_TOKENS, completion_tokens, 0);
    MR_MARK(&e, MR_RESPONSE_END_USAGE);
    return mr_parcel_add(p, &address, &mr_response_end_def, &e, err);
}

int mr_answer_kb(mr_parcel *p, const mr_reply_to *to, mr_str text, mr_error *err) {
    return add_answer(p, to, text, MR_SOURCE_KB, MR_FINISH_STOP, err);
}

int mr_answer_refusal(mr_parcel *p, const mr_reply_to *to, mr_str text, mr_error *err) {
    return add_answer(p, to, text, MR_SOURCE_GUARD, MR_FINISH_CONTENT_FILTER, err);
}

int mr_answer_error(mr_parcel *p, const mr_reply_to *to, int status, const char *code, const char *message,
                    mr_error *err) {
    char hex[MR_TEXT_HASH_LEN + 1];
    mr_text_hash_hex(mr_text_hash_init(), hex);
    mr_response_end e = end_of(to, 0, hex, MR_FINISH_ERROR);
    mr_address address = address_of(to);
    MR_SET(&e.error, MR_RESPONSE_ERROR_STATUS, status, status);
    MR_SET(&e.error, MR_RESPONSE_ERROR_TYPE, type,
           status < 500 ? MR_STR("invalid_request_error") : MR_STR("server_error"));
    MR_SET(&e.error, MR_RESPONSE_ERROR_CODE, code, mr_str_of(code));
    MR_SET(&e.error, MR_RESPONSE_ERROR_MESSAGE, message, mr_str_of(message));
    MR_MARK(&e, MR_RESPONSE_END_ERROR);
    return mr_parcel_add(p, &address, &mr_response_end_def, &e, err);
}
