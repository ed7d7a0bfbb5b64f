/* The routing decision; see route.h. */
#include "router/route.h"

#include "base/log.h"
#include "base/loop.h"
#include "base/random.h"
#include "router/kb_answer.h"
#include "router/kb_context.h"
#include "router/purpose.h"

#include <stdio.h>

enum { HITS = 8 };

/* 53 bits, so that the seed survives a trip through JavaScript. */
static int random_seed(int64_t *out, mr_error *err) {
    uint64_t bits;
    if (!mr_random(&bits, sizeof bits)) return mr_fail(err, MR_EIO, "the system gave no random seed: %m");
    *out = (int64_t)(bits >> 11);
    return 0;
}

int mr_route_complete(const mr_routing *r, mr_chat_request *q, int64_t record_ms, mr_error *err) {
    int64_t seed = 0, now = mr_now_ms();
    if (!MR_HAS(q, MR_CHAT_REQUEST_CREATED_MS)) {
        MR_SET(q, MR_CHAT_REQUEST_CREATED_MS, created_ms, record_ms > 0 ? record_ms : now);
    }
    /* A clock that is ahead must not give its requests more time. */
    if (q->created_ms > now) q->created_ms = now;
    if (!MR_HAS(q, MR_CHAT_REQUEST_DEADLINE_MS)) {
        MR_SET(q, MR_CHAT_REQUEST_DEADLINE_MS, deadline_ms,
               q->created_ms + 1000 * r->conf->request_timeout_s);
    }
    if (!MR_HAS(q, MR_CHAT_REQUEST_ATTEMPT)) MR_SET(q, MR_CHAT_REQUEST_ATTEMPT, attempt, 1);
    MR_SET(q, MR_CHAT_REQUEST_PURPOSE, purpose, mr_request_purpose(q));
    if (MR_HAS(&q->sampling, MR_SAMPLING_SEED)) return 0;
    if (random_seed(&seed, err) < 0) return -1;
    MR_SET(&q->sampling, MR_SAMPLING_SEED, seed, seed);
    MR_MARK(q, MR_CHAT_REQUEST_SAMPLING);
    return 0;
}

/* An ordinary question, from someone who wants an answer and no properties of a model's output. */
static bool may_be_routine(const mr_chat_request *q) {
    const mr_sampling *s = &q->sampling;
    bool shaped = MR_HAS(q, MR_CHAT_REQUEST_RESPONSE_FORMAT) && q->response_format.type != MR_FORMAT_TEXT;
    bool calls =
        q->tools.n > 0 && !(MR_HAS(q, MR_CHAT_REQUEST_TOOL_CHOICE) && q->tool_choice.type == MR_TOOLS_NONE);
    bool measures = s->logprobs || s->ignore_eos || s->min_tokens > 0;
    bool begun = MR_HAS(q, MR_CHAT_REQUEST_FORCED);
    return q->purpose == MR_PURPOSE_CHAT && !measures && !shaped && !calls && !begun;
}

/* Whether the message is a routine one as far as its intent goes. */
static bool guess_intent(const mr_routing *r, mr_str question, mr_route *out) {
    mr_intent_guess g;
    mr_error err;
    if (!r->intent) return true;
    int64_t start = mr_mono_us();
    int rc = mr_intent_classify(r->intent, question, &g, &err);
    mr_histogram_observe(r->intent_seconds, (double)(mr_mono_us() - start) * 1e-6);
    if (rc < 0) {
        mr_log(MR_ERROR, "no intent could be guessed", MR_S("error", err.msg));
        return false;
    }
    mr_counter_add(g.routine ? r->routine : r->unsure, 1);
    out->intent = g.label;
    out->confidence = g.confidence;
    out->probability = g.probability;
    return g.routine;
}

static void no_search(const mr_error *err) {
    mr_log(MR_ERROR, "the knowledge base failed, the model answers", MR_S("error", err->msg));
}

/* As many hits as the model may get, but at least the one that may be the answer. -1 is logged already. */
static int search(const mr_routing *r, mr_str question, mr_kb_hit hits[HITS]) {
    mr_error err;
    int64_t start = mr_mono_us();
    int max = r->conf->kb_context > 1 ? (int)r->conf->kb_context : 1;
    int n = mr_kb_search(r->kb, question, r->intent, hits, max, &err);
    mr_histogram_observe(r->kb_seconds, (double)(mr_mono_us() - start) * 1e-6);
    if (n < 0) no_search(&err);
    return n;
}

static bool reply(const mr_routing *r, const mr_kb_hit *hit, const mr_chat_request *q, mr_arena *a,
                  mr_route *out) {
    mr_error err;
    if (mr_kb_reply(r->kb, r->conf, hit, q, a, &out->answer, &err) == 0) return true;
    mr_log(MR_ERROR, "the knowledge base has no usable answer, the model answers", MR_S("error", err.msg));
    return false;
}

/* In the very words of an entry the question needs no guess and no search. */
static bool answer_same_words(const mr_routing *r, const mr_chat_request *q, mr_str question, mr_arena *a,
                              mr_route *out) {
    mr_kb_hit hit;
    mr_error err;
    int64_t start = mr_mono_us();
    int rc = mr_kb_same_words(r->kb, question, &hit, &err);
    if (rc < 0) no_search(&err);
    if (rc == 1) mr_histogram_observe(r->kb_seconds, (double)(mr_mono_us() - start) * 1e-6);
    return rc == 1 && reply(r, &hit, q, a, out);
}

/* A number alone means the title that stands behind it at the end of the answer before. */
static bool answer_picked(const mr_routing *r, const mr_chat_request *q, mr_str said, mr_arena *a,
                          mr_route *out) {
    if (q->messages.n < 2) return false;
    const mr_chat_message *before = &q->messages.v[q->messages.n - 2];
    if (before->role != MR_ROLE_ASSISTANT) return false;
    mr_str title = mr_kb_answer_pick(before->content, said);
    return title.n > 0 && answer_same_words(r, q, title, a, out);
}

static void add_context(const mr_routing *r, const mr_kb_hit *hits, int n, const mr_chat_request *q,
                        mr_arena *a, mr_route *out) {
    mr_error err;
    if (mr_kb_context(r->conf, hits, n, q, a, &out->context, &err) == 0) return;
    out->context = MR_STR("");
    mr_log(MR_ERROR, "the model gets no entries of the knowledge base", MR_S("error", err.msg));
}

static bool answer_from_kb(const mr_routing *r, const mr_chat_request *q, mr_arena *a, mr_route *out) {
    mr_kb_hit hits[HITS];
    if ((!r->kb && !r->intent) || !may_be_routine(q)) return false;
    mr_str question = mr_request_question(q, a);
    if (question.n == 0) return false;
    if (r->kb && answer_picked(r, q, question, a, out)) return true;
    if (r->kb && answer_same_words(r, q, question, a, out)) return true;
    bool routine = guess_intent(r, question, out);
    int n = r->kb ? search(r, question, hits) : 0;
    if (routine && n > 0 && hits[0].confidence >= r->conf->kb_threshold && reply(r, &hits[0], q, a, out)) {
        return true;
    }
    add_context(r, hits, n, q, a, out);
    return false;
}

void mr_route_choose(const mr_routing *r, const mr_chat_request *q, int64_t now_ms, mr_arena *a,
                     mr_route *out) {
    mr_str pool = mr_router_pool(r->conf, q->model);
    *out = (mr_route){.kind = MR_ROUTE_MODEL,
                      .intent = MR_STR(""),
                      .context = MR_STR(""),
                      .key = q->session.n > 0 ? q->session : q->id};
    mr_str_copy(pool, out->pool, sizeof out->pool);
    out->color = mr_weights_color(r->weights, pool, out->key);
    if (q->deadline_ms <= now_ms) {
        out->kind = MR_ROUTE_EXPIRED;
    } else if (answer_from_kb(r, q, a, out)) {
        out->kind = MR_ROUTE_KB;
    }
}
