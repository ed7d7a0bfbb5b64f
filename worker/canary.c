/* See canary.h. */
#include "worker/canary.h"

#include "base/log.h"
#include "schemas/messages.h"

#include <stdlib.h>
#include <string.h>

#define TOKENS        8
#define REQUEST_BYTES 4096

typedef struct answer {
    int64_t tokens[TOKENS];
    uint32_t n;
} answer;

struct mr_canary {
    int64_t period_us, due_us;
    mr_buf request;
    answer first, now; /* first.n 0: none yet */
    bool running;
};

static int pack_request(mr_buf *out, mr_error *err) {
    mr_chat_message say = {.set = 0};
    MR_SET(&say, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&say, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("Count from one to ten."));
    mr_chat_request r = {.set = 0};
    MR_SET(&r, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&r, MR_CHAT_REQUEST_ID, id, MR_STR("canary"));
    r.messages.v = &say;
    r.messages.n = 1;
    MR_MARK(&r, MR_CHAT_REQUEST_MESSAGES);
    MR_SET(&r.sampling, MR_SAMPLING_TEMPERATURE, temperature, 0);
    MR_SET(&r.sampling, MR_SAMPLING_SEED, seed, 1);
    MR_SET(&r.sampling, MR_SAMPLING_MAX_TOKENS, max_tokens, TOKENS);
    MR_SET(&r.sampling, MR_SAMPLING_IGNORE_EOS, ignore_eos, true);
    MR_MARK(&r, MR_CHAT_REQUEST_SAMPLING);
    return mr_pack(&mr_chat_request_def, &r, out, err);
}

mr_canary *mr_canary_new(int64_t period_ms, mr_error *err) {
    mr_canary *c = calloc(1, sizeof(*c));
    if (!c) {
        mr_fail(err, MR_ENOMEM, "out of memory for the canary");
        return NULL;
    }
    c->period_us = period_ms * 1000;
    mr_buf_init(&c->request, REQUEST_BYTES);
    if (pack_request(&c->request, err) == 0) return c;
    mr_canary_free(c);
    return NULL;
}

void mr_canary_free(mr_canary *c) {
    if (!c) return;
    mr_buf_done(&c->request);
    free(c);
}

void mr_canary_hurry(mr_canary *c) {
    c->due_us = 0;
}

bool mr_canary_ask(mr_canary *c, mr_host *h, bool idle) {
    mr_error err;
    int64_t now = mr_mono_us();
    if (!c->period_us || c->running || now < c->due_us) return false;
    if (!idle && now < c->due_us + c->period_us) return false;
    mr_frame f = {.type = MR_FRAME_SUBMIT};
    f.submit.id = MR_CANARY_ID;
    f.submit.request = mr_buf_str(&c->request);
    if (mr_host_send(h, &f, &err)) return false;
    c->due_us = now + c->period_us;
    c->now.n = 0;
    c->running = true;
    return true;
}

bool mr_canary_running(const mr_canary *c) {
    return c->running;
}

void mr_canary_forget(mr_canary *c) {
    c->running = false;
}

void mr_canary_tokens(mr_canary *c, const mr_frame_tokens *f) {
    for (uint32_t i = 0; i < f->tokens.n && c->now.n < TOKENS; i++)
        c->now.tokens[c->now.n++] = f->tokens.v[i];
}

bool mr_canary_end(mr_canary *c, const mr_frame_end *f) {
    c->running = false;
    bool whole = f->finish == MR_FINISH_LENGTH && c->now.n == TOKENS;
    if (whole && c->first.n == 0) c->first = c->now;
    bool same = whole && memcmp(c->first.tokens, c->now.tokens, sizeof(c->now.tokens)) == 0;
    if (!same)
        mr_log(MR_ERROR, "the engine answers its canary prompt otherwise than at first",
               MR_S("finish", mr_finish_names[f->finish]), MR_I("tokens", c->now.n),
               MR_SS("message", f->message));
    return same;
}
