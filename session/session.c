/* Conversations in Redis (see session.h). */
#include "session/session.h"

#include "base/log.h"
#include "schemas/estimate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    KEY_MAX = 600,
    ARG_MAX = 24,
    TURN_MAX = 4 * MR_SESSION_TEXT_MAX, /* packed: system line, question, answer */
};

/* ---- which requests ---- */

static bool is_system(const mr_chat_message *m) {
    return m->role == MR_ROLE_SYSTEM || m->role == MR_ROLE_DEVELOPER;
}

static uint32_t count_system(const mr_chat_request *q) {
    uint32_t n = 0;
    while (n < q->messages.n && is_system(&q->messages.v[n])) n++;
    return n;
}

bool mr_session_wanted(const mr_chat_request *q) {
    if (q->session.n == 0 || q->messages.n == 0) return false;
    if (MR_HAS(q, MR_CHAT_REQUEST_PURPOSE) && q->purpose != MR_PURPOSE_CHAT) return false;
    if (MR_HAS(q, MR_CHAT_REQUEST_HISTORY)) return q->history;
    return count_system(q) + 1 == q->messages.n && q->messages.v[q->messages.n - 1].role == MR_ROLE_USER;
}

static mr_str key_of(const mr_store *s, const mr_chat_request *q, char out[KEY_MAX]) {
    return mr_store_key(s, out, KEY_MAX, "session/%.*s/%.*s", MR_FMT(q->tenant), MR_FMT(q->session));
}

/* ---- reading ---- */

void mr_session_load(mr_store *s, const mr_chat_request *q, int turns, mr_store_cb *cb, void *arg) {
    char key[KEY_MAX], last[ARG_MAX];
    snprintf(last, sizeof(last), "%d", turns - 1);
    mr_store_command(s, cb, arg, 4,
                     (mr_str[]){MR_STR("ZREVRANGE"), key_of(s, q, key), MR_STR("0"), mr_str_of(last)});
}

/* The turns that are within the budget, newest first; what cannot be read ends them. */
static int read_turns(const redisReply *r, int64_t tokens, mr_arena *a,
                      mr_session_turn out[MR_SESSION_TURNS_MAX]) {
    int n = 0;
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements && n < MR_SESSION_TURNS_MAX; i++) {
        const redisReply *e = r->element[i];
        mr_error err;
        if (e->type != REDIS_REPLY_STRING ||
            mr_unpack(&mr_session_turn_def, (mr_str){e->str, e->len}, a, &out[n], &err) < 0) {
            break;
        }
        tokens -= mr_text_tokens(out[n].question) + mr_text_tokens(out[n].answer);
        if (tokens < 0) break;
        n++;
    }
    return n;
}

static void say(mr_chat_message *m, int role, mr_str text) {
    *m = (mr_chat_message){0};
    MR_SET(m, MR_CHAT_MESSAGE_ROLE, role, role);
    MR_SET(m, MR_CHAT_MESSAGE_CONTENT, content, text);
}

/* The system message of the session's newest turn counts first, and is there even when no turn is. */
static mr_str session_system(const redisReply *r, mr_arena *a) {
    mr_session_turn newest;
    mr_error err;
    if (r->type != REDIS_REPLY_ARRAY || r->elements == 0 || r->element[0]->type != REDIS_REPLY_STRING ||
        mr_unpack(&mr_session_turn_def, (mr_str){r->element[0]->str, r->element[0]->len}, a, &newest, &err) <
            0) {
        return MR_STR("");
    }
    return newest.system;
}

int mr_session_compose(mr_chat_request *q, const redisReply *r, int64_t tokens, mr_arena *a) {
    mr_session_turn turns[MR_SESSION_TURNS_MAX];
    uint32_t own_system = count_system(q), at = 0;
    mr_str system = own_system ? MR_STR("") : session_system(r, a);
    int n = read_turns(r, tokens - mr_text_tokens(system), a, turns);
    size_t all = q->messages.n + 2 * (size_t)n + 1;
    mr_chat_message *v = mr_arena_alloc(a, all * sizeof(*v));
    if (!v) return -1;
    memcpy(v, q->messages.v, own_system * sizeof(*v));
    at = own_system;
    if (system.n > 0) say(&v[at++], MR_ROLE_SYSTEM, system);
    for (int i = n - 1; i >= 0; i--) {
        say(&v[at++], MR_ROLE_USER, turns[i].question);
        say(&v[at++], MR_ROLE_ASSISTANT, turns[i].answer);
    }
    memcpy(v + at, q->messages.v + own_system, (q->messages.n - own_system) * sizeof(*v));
    q->messages.v = v;
    q->messages.n = at + q->messages.n - own_system;
    return n;
}

/* ---- writing ---- */

mr_str mr_session_cut(mr_str s) {
    if (s.n <= MR_SESSION_TEXT_MAX) return s;
    s.n = MR_SESSION_TEXT_MAX;
    while (s.n > 0 && ((unsigned char)s.p[s.n] & 0xC0) == 0x80) s.n--;
    return s;
}

static mr_str text_of(const mr_chat_message *m) {
    if (MR_HAS(m, MR_CHAT_MESSAGE_CONTENT)) return m->content;
    for (uint32_t i = 0; i < m->parts.n; i++) {
        if (m->parts.v[i].type == MR_PART_IS_TEXT) return m->parts.v[i].text;
    }
    return MR_STR("");
}

static void fill_turn(const mr_chat_request *q, mr_str answer, mr_session_turn *t) {
    const mr_chat_message *last = &q->messages.v[q->messages.n - 1];
    MR_SET(t, MR_SESSION_TURN_V, v, MR_SCHEMA_VERSION);
    MR_SET(t, MR_SESSION_TURN_REQUEST, request, q->id);
    MR_SET(t, MR_SESSION_TURN_QUESTION, question, mr_session_cut(text_of(last)));
    MR_SET(t, MR_SESSION_TURN_ANSWER, answer, mr_session_cut(answer));
    for (uint32_t i = 0; i < count_system(q); i++) {
        const mr_chat_message *m = &q->messages.v[i];
        if (mr_str_eqz(m->name, MR_PASSING_SYSTEM)) continue;
        MR_SET(t, MR_SESSION_TURN_SYSTEM, system, mr_session_cut(text_of(m)));
        return;
    }
}

/* Three commands in a row: the turn, no more than are kept, and how long. */
static void write_turn(mr_store *s, const mr_chat_request *q, mr_str turn) {
    char key[KEY_MAX], score[ARG_MAX], last[ARG_MAX], ttl[ARG_MAX];
    mr_str k = key_of(s, q, key);
    snprintf(score, sizeof(score), "%" PRId64, q->created_ms);
    snprintf(last, sizeof(last), "%d", -MR_SESSION_TURNS_MAX - 1);
    snprintf(ttl, sizeof(ttl), "%" PRId64, q->keep_s);
    mr_store_command(s, NULL, NULL, 4, (mr_str[]){MR_STR("ZADD"), k, mr_str_of(score), turn});
    mr_store_command(s, NULL, NULL, 4,
                     (mr_str[]){MR_STR("ZREMRANGEBYRANK"), k, MR_STR("0"), mr_str_of(last)});
    mr_store_command(s, NULL, NULL, 3, (mr_str[]){MR_STR("EXPIRE"), k, mr_str_of(ttl)});
}

void mr_session_keep(mr_store *s, const mr_chat_request *q, mr_str answer) {
    mr_session_turn t = {0};
    mr_buf b;
    mr_error err;
    if (q->keep_s <= 0 || q->messages.n == 0 || q->messages.v[q->messages.n - 1].role != MR_ROLE_USER) return;
    fill_turn(q, answer, &t);
    mr_buf_init(&b, TURN_MAX);
    if (mr_pack(&mr_session_turn_def, &t, &b, &err) == 0 && !b.failed) {
        write_turn(s, q, mr_buf_str(&b));
    } else {
        mr_log(MR_WARN, "a turn of a session is not kept", MR_SS("request", q->id));
    }
    mr_buf_done(&b);
}
