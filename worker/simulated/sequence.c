/* See sequence.h. */
#include "worker/simulated/sequence.h"

#include "schemas/hash.h"

#include <stdlib.h>
#include <string.h>

#define BYTES_PER_TOKEN 4
#define HELD_MAX        65536
#define SCRIPT_TOKENS   16 /* of an answer whose script does not say */

/* ---- the request ---- */

static int64_t tokens_of(size_t bytes) {
    return (int64_t)(bytes / BYTES_PER_TOKEN) + 1;
}

static size_t message_bytes(const mr_chat_message *m) {
    size_t n = m->content.n;
    for (uint32_t i = 0; i < m->parts.n; i++) n += m->parts.v[i].text.n;
    return n;
}

static uint64_t feed_message(uint64_t h, const mr_chat_message *m) {
    h = mr_text_hash_feed(h, mr_str_of(mr_role_names[m->role]));
    h = mr_text_hash_feed(h, m->content);
    for (uint32_t i = 0; i < m->parts.n; i++) h = mr_text_hash_feed(h, m->parts.v[i].text);
    return h;
}

/* Of everything that the answer depends on. A script's words are not: they say how it comes, not what. */
static uint64_t key_of(const mr_chat_request *r, const mr_sim_conf *c) {
    uint64_t h = mr_text_hash_init();
    int64_t numbers[] = {c->text_seed, r->sampling.seed, r->choice};
    if (!MR_HAS(&r->sampling, MR_SAMPLING_SEED)) numbers[1] = (int64_t)mr_text_hash_feed(h, r->id);
    if (MR_HAS(&r->sampling, MR_SAMPLING_TEMPERATURE) && r->sampling.temperature == 0) numbers[1] = 0;
    h = mr_text_hash_feed(h, (mr_str){(const char *)numbers, sizeof(numbers)});
    for (uint32_t i = 0; i < r->messages.n && !c->scripts; i++) h = feed_message(h, &r->messages.v[i]);
    return h;
}

static void count_prompt(mr_sim_sequence *q, const mr_chat_request *r, const mr_sim_conf *c) {
    int64_t last = 0;
    for (uint32_t i = 0; i < r->messages.n; i++) {
        last = tokens_of(message_bytes(&r->messages.v[i]));
        q->prompt += last;
    }
    q->cached = (int64_t)(c->cached_share * (double)(q->prompt - last));
}

static int copy_stops(mr_sim_sequence *q, const mr_sampling *s, mr_error *err) {
    for (uint32_t i = 0; i < s->stop.n && q->nstop < MR_SIM_STOPS; i++) {
        if (s->stop.v[i].n == 0) continue; /* OpenAI's clients may send an empty one, which stops nothing */
        char *copy = strndup(s->stop.v[i].p, s->stop.v[i].n);
        if (!copy) return mr_fail(err, MR_EINVAL, "out of memory for the stop strings");
        q->stop[q->nstop++] = copy;
    }
    return 0;
}

static void set_length(mr_sim_sequence *q, const mr_sampling *s, const mr_sim_conf *c, int64_t room) {
    q->limit = room;
    if (MR_HAS(s, MR_SAMPLING_MAX_TOKENS) && s->max_tokens < room) q->limit = s->max_tokens;
    q->natural = (c->answer_tokens + 1) / 2 + (int64_t)(q->text.state % (uint64_t)(c->answer_tokens + 1));
    if (MR_HAS(s, MR_SAMPLING_MIN_TOKENS) && s->min_tokens > q->natural) q->natural = s->min_tokens;
    if (MR_HAS(s, MR_SAMPLING_IGNORE_EOS) && s->ignore_eos) q->natural = INT64_MAX;
}

/* ---- scripts ---- */

static int64_t number_after(const char *script, const char *word, int64_t otherwise) {
    const char *at = strstr(script, word);
    return at ? strtoll(at + strlen(word), NULL, 10) : otherwise;
}

static const char *last_user_text(const mr_chat_request *r) {
    for (uint32_t i = r->messages.n; i-- > 0;) {
        const mr_chat_message *m = &r->messages.v[i];
        if (m->role == MR_ROLE_USER && m->content.p) return m->content.p;
    }
    return "";
}

static void read_script(mr_sim_sequence *q, const char *text) {
    if (q->natural != INT64_MAX) q->natural = number_after(text, "tokens ", SCRIPT_TOKENS);
    q->reasoning = number_after(text, "think ", 0);
    q->crash = number_after(text, "crash ", -1);
    q->hang = number_after(text, "hang ", -1);
    q->pause_us = 1000 * number_after(text, "slow ", 0);
    q->fails = strstr(text, "error") != NULL;
}

/* ---- the answer ---- */

/* Of the first stop string in the held text; NULL: none is in it. */
static char *find_stop(const mr_sim_sequence *q) {
    char *first = NULL;
    for (int i = 0; i < q->nstop; i++) {
        size_t n = strlen(q->stop[i]);
        char *at = q->held.n >= n ? memmem(q->held.p, q->held.n, q->stop[i], n) : NULL;
        if (at && (!first || at < first)) first = at;
    }
    return first;
}

/* Bytes at the end of the held text that may not be said yet. */
static size_t undecided(const mr_sim_sequence *q) {
    size_t most = mr_sim_token_is_half(q->text.last) ? mr_sim_token_bytes(q->text.last).n : 0;
    for (int i = 0; i < q->nstop; i++) {
        size_t n = strlen(q->stop[i]);
        if (n > q->held.n) n = q->held.n + 1;
        while (--n > most) {
            if (memcmp(q->held.p + q->held.n - n, q->stop[i], n) == 0) most = n;
        }
    }
    return most;
}

mr_str mr_sim_sequence_take(mr_sim_sequence *q, int64_t token) {
    mr_str bytes = mr_sim_token_bytes(token);
    q->held.n -= q->said;
    if (q->said) memmove(q->held.p, q->held.p + q->said, q->held.n);
    mr_sim_text_take(&q->text, token);
    q->index++;
    mr_buf_put(&q->held, bytes.p, bytes.n);
    const char *stop = find_stop(q);
    q->stopped = stop != NULL;
    if (stop) q->held.n = (size_t)(stop - q->held.p);
    q->said = stop ? q->held.n : q->held.n - undecided(q);
    return (mr_str){q->held.p, q->said};
}

/* Half a character is no text. */
mr_str mr_sim_sequence_rest(const mr_sim_sequence *q) {
    size_t half = mr_sim_token_is_half(q->text.last) ? mr_sim_token_bytes(q->text.last).n : 0;
    size_t n = q->held.n - q->said;
    return (mr_str){q->held.p + q->said, n > half ? n - half : 0};
}

int mr_sim_sequence_channel(const mr_sim_sequence *q) {
    return q->index <= q->reasoning ? MR_CHANNEL_REASONING : MR_CHANNEL_CONTENT;
}

/* ---- life ---- */

/* The tokens it already has were said by another host; only what that one held back is still to be said. */
static int take_forced(mr_sim_sequence *q, const mr_i64s *forced, mr_error *err) {
    for (uint32_t i = 0; i < forced->n; i++) {
        if (mr_sim_token_bytes(forced->v[i]).n == 0)
            return mr_fail(err, MR_EINVAL, "token %lld of the answer so far is unknown to this model",
                           (long long)forced->v[i]);
        mr_sim_sequence_take(q, forced->v[i]);
    }
    return 0;
}

static int fill(mr_sim_sequence *q, const mr_sim_profile *p, const mr_chat_request *r, int64_t max_context,
                mr_error *err) {
    if (MR_HAS(r, MR_CHAT_REQUEST_RESPONSE_FORMAT) && r->response_format.type != MR_FORMAT_TEXT)
        return mr_fail(err, MR_EINVAL, "the simulated engine writes plain text only");
    count_prompt(q, r, &p->c);
    if (q->prompt >= max_context)
        return mr_fail(err, MR_ETOOBIG, "the conversation has %lld tokens, the limit is %lld",
                       (long long)q->prompt, (long long)max_context);
    mr_sim_text_init(&q->text, key_of(r, &p->c));
    set_length(q, &r->sampling, &p->c, max_context - q->prompt);
    q->reasoning = p->c.reasoning_tokens;
    q->logprobs = MR_HAS(&r->sampling, MR_SAMPLING_LOGPROBS) && r->sampling.logprobs;
    if (p->c.scripts) read_script(q, last_user_text(r));
    q->fails = q->fails || p->c.fails;
    return copy_stops(q, &r->sampling, err);
}

int mr_sim_sequence_init(mr_sim_sequence *q, const mr_sim_profile *p, const mr_frame_submit *f,
                         int64_t max_context, mr_arena *scratch, mr_error *err) {
    mr_chat_request r;
    *q = (mr_sim_sequence){.id = f->id, .crash = -1, .hang = -1};
    mr_buf_init(&q->held, HELD_MAX);
    if (mr_unpack(&mr_chat_request_def, f->request, scratch, &r, err)) return -1;
    if (fill(q, p, &r, max_context, err) || take_forced(q, &f->forced, err)) {
        mr_sim_sequence_done(q);
        return -1;
    }
    if (q->index) q->cached = (int64_t)(p->c.cached_share * (double)(q->prompt + q->index));
    q->todo = q->prompt - q->cached + q->index;
    return 0;
}

void mr_sim_sequence_done(mr_sim_sequence *q) {
    for (int i = 0; i < q->nstop; i++) free(q->stop[i]);
    q->nstop = 0;
    mr_buf_done(&q->held);
}
