/* Any body becomes either a request that Kafka's readers take, or one clean error object. */
#include "gateway/openai.h"

#include <stdlib.h>

static const char *const models[] = {"small"}, *const star[] = {"*"};

static const mr_gateway_conf conf = {
    .models = {(const char **)models, 1}, .vision_models = {(const char **)star, 1}, .max_tokens = 100};

static void must(int truth) {
    if (!truth) abort();
}

static void check_request(const mr_openai_request *r) {
    mr_error err;
    mr_buf packed;
    mr_buf_init(&packed, 64u << 20);
    must(mr_pack(&mr_chat_request_def, &r->chat, &packed, &err) == 0 && !packed.failed);
    mr_buf_done(&packed);
}

static void check_error(const mr_api_error *e) {
    json_t *j = mr_api_error_json(e);
    must(j && e->status >= 400 && e->message[0]);
    json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const mr_openai_caller caller = {.id = MR_STR("chatcmpl-1"), .tenant = MR_STR("default")};
    mr_arena *a = mr_arena_new(64u << 20);
    mr_openai_request r;
    mr_feedback f;
    mr_api_error e;
    mr_str body = {(const char *)data, n};
    if (!a) return 0;
    if (mr_openai_parse(&conf, &caller, body, a, &r, &e) == 0) {
        check_request(&r);
    } else {
        check_error(&e);
    }
    if (mr_openai_feedback(body, a, &f, &e) < 0) check_error(&e);
    mr_arena_free(a);
    return 0;
}
