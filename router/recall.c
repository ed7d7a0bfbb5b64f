/* What Redis knows of a request (see recall.h). */
#include "router/recall.h"

#include "base/log.h"
#include "session/profile.h"
#include "session/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mr_recall {
    const mr_router_conf *conf;
    mr_loop *loop;
    mr_store *store; /* NULL: sessions and profiles are off */
    mr_styles styles;
    int waits;
    mr_counter *built, *empty, *away, *unknown;
};

/* A question to Redis: one or two commands, answered in their order, the turns last. */
typedef struct asking {
    mr_recall *of;
    mr_recall_cb *cb;
    void *arg;
    mr_recollection found;
    bool turns;          /* are asked for */
    int left;            /* commands that are not answered */
    bool in_call;        /* of mr_recall_ask */
    struct event *later; /* what was answered in there */
} asking;

static bool wants_turns(const mr_recall *r, const mr_chat_request *q) {
    return r->store && r->conf->session_turns > 0 && q->history;
}

static bool wants_profile(const mr_recall *r, const mr_chat_request *q) {
    return r->store && r->conf->profiles && q->user.n > 0;
}

bool mr_recall_wanted(mr_recall *r, mr_chat_request *q) {
    bool history = r->store && r->conf->session_turns > 0 && mr_session_wanted(q);
    MR_SET(q, MR_CHAT_REQUEST_HISTORY, history, history);
    MR_UNSET(q, MR_CHAT_REQUEST_KEEP_S);
    q->keep_s = 0;
    /* Of several answers to a question the first one counts. */
    if (history && q->choice == 0) MR_SET(q, MR_CHAT_REQUEST_KEEP_S, keep_s, r->conf->session_ttl_s);
    return history || wants_profile(r, q);
}

/* ---- asking ---- */

static void finish(asking *a, const redisReply *turns) {
    if (a->turns && !turns) mr_counter_add(a->of->away, 1);
    a->found.turns = turns;
    a->of->waits--;
    a->cb(a->arg, &a->found);
    if (a->later) event_free(a->later);
    free(a);
}

static void answered(asking *a, const redisReply *turns) {
    if (--a->left == 0 && !a->in_call) finish(a, turns);
}

static void on_turns(void *arg, const redisReply *reply) {
    answered(arg, reply && reply->type == REDIS_REPLY_ARRAY ? reply : NULL);
}

static void on_style(void *arg, const redisReply *reply) {
    asking *a = arg;
    if (reply && reply->type == REDIS_REPLY_STRING && reply->len < sizeof(a->found.style)) {
        memcpy(a->found.style, reply->str, reply->len);
    }
    answered(a, NULL);
}

static void on_later(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    finish(arg, NULL);
}

int mr_recall_ask(mr_recall *r, const mr_chat_request *q, mr_recall_cb *cb, void *arg) {
    asking *a = calloc(1, sizeof(*a));
    if (!a) return -1;
    bool profile = wants_profile(r, q), turns = wants_turns(r, q);
    *a = (asking){.of = r, .cb = cb, .arg = arg, .turns = turns, .left = profile + turns, .in_call = true};
    a->later = event_new(mr_loop_base(r->loop), -1, 0, on_later, a);
    if (!a->later) {
        free(a);
        return -1;
    }
    r->waits++;
    if (profile) mr_profile_load(r->store, q->tenant, q->user, on_style, a);
    if (turns) mr_session_load(r->store, q, (int)r->conf->session_turns, on_turns, a);
    a->in_call = false;
    /* Redis is away: the answer comes with the loop's next turn, as the caller is never called back from its own call. */
    if (a->left == 0) event_active(a->later, EV_TIMEOUT, 0);
    return 0;
}

int mr_recall_waits(const mr_recall *r) {
    return r->waits;
}

/* ---- what was found ---- */

static int put_turns(mr_recall *r, const mr_recollection *found, mr_chat_request *q, mr_arena *a) {
    if (!found || !found->turns) return 0;
    int n = mr_session_compose(q, found->turns, r->conf->session_tokens, a);
    if (n >= 0) mr_counter_add(n > 0 ? r->built : r->empty, 1);
    return n;
}

static int put_style(mr_recall *r, mr_str name, mr_chat_request *q, mr_arena *a) {
    if (name.n == 0 || q->purpose != MR_PURPOSE_CHAT) return 0;
    const mr_style *s = mr_styles_find(&r->styles, name);
    if (s) return mr_style_apply(s, q, a);
    mr_counter_add(r->unknown, 1);
    return 0;
}

int mr_recall_apply(mr_recall *r, const mr_recollection *found, mr_chat_request *q, mr_arena *a,
                    mr_error *err) {
    mr_str style = found && found->style[0] ? mr_str_of(found->style) : q->style;
    if (put_turns(r, found, q, a) >= 0 && put_style(r, style, q, a) >= 0) return 0;
    return mr_fail(err, MR_ETOOBIG, "the conversation and its history are too large");
}

void mr_recall_keep(mr_recall *r, const mr_chat_request *q, mr_str answer) {
    if (r->store) mr_session_keep(r->store, q, answer);
}

/* ---- the whole ---- */

static void register_metrics(mr_recall *r, mr_metrics *m) {
    static const char name[] = "millrace_router_sessions_total";
    static const char help[] = "Requests whose history was to come from Redis, by what was found.";
    r->built = mr_counter_new(m, name, "found=\"turns\"", help);
    r->empty = mr_counter_new(m, name, "found=\"none\"", help);
    r->away = mr_counter_new(m, name, "found=\"away\"", help);
    r->unknown = mr_counter_new(m, "millrace_router_unknown_styles_total", NULL,
                                "Requests whose style is not in router.styles: answered without one.");
}

mr_recall *mr_recall_new(const mr_router_conf *conf, const mr_redis_conf *redis, mr_loop *l, mr_metrics *m,
                         mr_error *err) {
    mr_recall *r = calloc(1, sizeof(*r));
    if (!r) {
        mr_fail(err, MR_ENOMEM, "no memory for sessions");
        return NULL;
    }
    r->conf = conf;
    r->loop = l;
    register_metrics(r, m);
    if (mr_styles_read(&r->styles, &conf->styles, err) < 0) goto fail;
    if (conf->session_turns == 0 && !conf->profiles) return r;
    r->store = mr_store_new(redis, l, m, "router", err);
    if (r->store) return r;
fail:
    mr_recall_free(r);
    return NULL;
}

void mr_recall_free(mr_recall *r) {
    if (!r) return;
    mr_store_free(r->store);
    free(r);
}
