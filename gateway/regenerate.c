/* An answer asked for again, from what was sent of it on (see regenerate.h).
 *
 * The request goes to chat.requests as it did before, now with the tokens that were sent: the router sees those, leaves
 * the knowledge base aside, and forwards it to the pool's worker of the session, which goes on after them. */
#include "gateway/regenerate.h"

#include "base/log.h"
#include "gateway/stream_say.h"
#include "schemas/hash.h"

#include <stdio.h>

#define KEEP_MAX    (64u << 20) /* bytes of all requests that are kept */
#define GENERATIONS 3           /* two more than the first one */

void mr_regenerate_keep(mr_choice *c, mr_str packed) {
    mr_streams *s = c->of->table;
    if (s->kept + packed.n > KEEP_MAX) return;
    mr_buf_init(&c->request, packed.n);
    mr_buf_put(&c->request, packed.p, packed.n);
    if (c->request.failed) mr_buf_done(&c->request);
    s->kept += c->request.n;
}

static void give_up(mr_choice *c, const char *why) {
    mr_api_error e;
    mr_log(MR_ERROR, "an answer could not be asked for again", MR_S("request", c->id), MR_S("reason", why));
    mr_refuse(&e, 503, "not_accepted", NULL, "The answer was interrupted; please try again.");
    mr_stream_fail(c->of, c->of->table->cancelled_broken, &e);
}

/* Of one whose records come, Kafka has the request, whatever it said. */
static void on_acked(void *arg, const mr_error *err) {
    mr_choice *c = arg;
    c->ticket = NULL;
    if (!err || c->attempt > 0) return;
    c->unasked = true;
    mr_log(MR_WARN, "Kafka did not take the request for the rest of an answer", MR_S("request", c->id),
           MR_S("reason", err->msg));
}

static void force(const mr_choice *c, mr_chat_request *r, char hash[MR_TEXT_HASH_LEN + 1]) {
    mr_text_hash_hex(c->sent.hash, hash);
    r->forced.v = c->sent.ids;
    r->forced.n = c->sent.n;
    MR_MARK(r, MR_CHAT_REQUEST_FORCED);
    MR_SET(r, MR_CHAT_REQUEST_FORCED_BYTES, forced_bytes, (int64_t)c->sent.bytes);
    MR_SET(r, MR_CHAT_REQUEST_FORCED_HASH, forced_hash, mr_str_of(hash));
    MR_SET(r, MR_CHAT_REQUEST_ATTEMPT, attempt, c->generation);
}

static int ask_again(mr_choice *c, mr_error *err) {
    mr_streams *s = c->of->table;
    mr_chat_request r;
    char id[MR_RECORD_ID_LEN + 1], hash[MR_TEXT_HASH_LEN + 1];
    mr_arena_reset(s->arena);
    if (mr_unpack(&mr_chat_request_def, mr_buf_str(&c->request), s->arena, &r, err) < 0) return -1;
    mr_choice_record_id(c, id);
    r.id = mr_str_of(id);
    force(c, &r, hash);
    const mr_outbox_record rec = {MR_TOPIC_REQUESTS, r.session, &mr_chat_request_def, &r, c->of->from.trace};
    return mr_outbox_send(s->out, &rec, on_acked, c, &c->ticket, err);
}

bool mr_regenerate(mr_choice *c) {
    mr_streams *s = c->of->table;
    mr_error err;
    if (c->generation >= GENERATIONS || c->sent.n == 0 || c->request.n == 0) return false;
    if (c->ticket) mr_ticket_forget(c->ticket); /* of the generation before: its records came */
    c->ticket = NULL;
    mr_choice_cancel(c);
    c->generation++;
    c->attempt = 0;
    c->asked_us = mr_mono_us();
    c->unasked = ask_again(c, &err) < 0;
    if (c->unasked && err.code != MR_ESTATE) {
        mr_log(MR_ERROR, "an answer could not be asked for again", MR_S("request", c->id),
               MR_S("reason", err.msg));
        return false;
    }
    mr_counter_add(s->regenerated, 1);
    mr_log(MR_WARN, "the rest of an answer is generated again", MR_S("request", c->id),
           MR_I("generation", c->generation), MR_I("tokens_sent", c->sent.n), MR_I("bytes", c->answer.bytes));
    return true;
}

/* False when the entry is gone. */
static bool try_once_more(mr_choice *c, int64_t now_us) {
    mr_error err;
    if (now_us - c->asked_us >= c->of->table->conf->accept_timeout_s * 1000000) {
        give_up(c, "it was tried for too long");
        return false;
    }
    c->unasked = ask_again(c, &err) < 0;
    if (!c->unasked || err.code == MR_ESTATE) return true;
    give_up(c, err.msg);
    return false;
}

bool mr_regenerate_tick(mr_stream *st, int64_t now_us) {
    for (int i = 0; i < st->n; i++) {
        mr_choice *c = &st->choice[i];
        if (!c->unasked || c->state != CHOICE_ACCEPTED || c->attempt > 0) continue;
        if (!try_once_more(c, now_us)) return false;
    }
    return true;
}
