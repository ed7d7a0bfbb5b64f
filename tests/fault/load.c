/* See load.h. */
#include "fault/load.h"

#include "gateway/auth.h"
#include "gateway/request_id.h"

#include <event2/bufferevent.h>
#include <event2/http.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SESSIONS  200
#define RETRY_US  200000
#define TRIES     1500 /* to go on with an answer */
#define RESUME_S  120
#define STARTS_US 180000000 /* on a busy machine */

static const char *const tenants[] = {"red", "amber", "blue"};

uint64_t soak_random(uint64_t *state) {
    uint64_t h = *state += UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 31;
}

/* ---- what is asked ---- */

typedef struct request {
    oracle_want want;
    manner how;
    int64_t tokens, pause_ms, think;
    int tenant, session;
    uint64_t more; /* random */
} request;

static int64_t between(uint64_t *rng, int64_t low, int64_t high) {
    return low + (int64_t)(soak_random(rng) % (uint64_t)(high - low + 1));
}

static manner choose_manner(uint64_t *rng) {
    int64_t r = between(rng, 0, 999);
    return r < 40    ? MANNER_CLOSES
           : r < 70  ? MANNER_VANISHES
           : r < 120 ? MANNER_SLOW
           : r < 200 ? MANNER_WHOLE
           : r < 260 ? MANNER_DIRECT
                     : MANNER_STREAM;
}

static request choose(uint64_t seed, int64_t number) {
    uint64_t rng = seed ^ (uint64_t)number * UINT64_C(0xd1342543de82ef95);
    int64_t fate = between(&rng, 0, 999);
    request r = {.want = fate < 2 ? WANT_POISON : fate < 6 ? WANT_ERROR : WANT_TEXT};
    r.how = r.want == WANT_TEXT ? choose_manner(&rng) : MANNER_STREAM;
    bool goes_on = between(&rng, 0, 9) == 0;
    r.tokens = goes_on ? between(&rng, 100, 400) : between(&rng, 4, 60);
    r.pause_ms = goes_on ? 10 : between(&rng, 0, 5);
    if (r.how == MANNER_CLOSES) r.tokens = 800, r.pause_ms = 50;
    if (between(&rng, 0, 9) == 0) r.think = r.tokens / 2;
    r.tenant = (int)between(&rng, 0, 2);
    r.session = (int)between(&rng, 0, SESSIONS - 1);
    r.more = soak_random(&rng);
    return r;
}

static void write_script(const request *r, int64_t number, char *out, size_t cap) {
    snprintf(out, cap, "tokens %lld slow %lld think %lld%s, request no. %lld", (long long)r->tokens,
             (long long)r->pause_ms, (long long)r->think,
             r->want == WANT_POISON  ? " crash 3"
             : r->want == WANT_ERROR ? " error"
                                     : "",
             (long long)number);
}

/* NULL: nobody listens. */
static member *choose_gateway(load *l, const request *r) {
    member *m = &l->fleet->members[r->more % 2], *other = &l->fleet->members[1 - r->more % 2];
    if (m->state == MEMBER_UP) return m;
    return other->state == MEMBER_UP ? other : NULL;
}

static void ask_http(load *l, client *x, const request *r, const char *script) {
    char session[20];
    bool stays = r->how != MANNER_CLOSES && r->how != MANNER_VANISHES;
    snprintf(session, sizeof(session), "s%d", r->session);
    x->close_bytes = r->how == MANNER_CLOSES ? 1 + r->more % 200 : 0;
    x->due_us = r->how == MANNER_VANISHES ? mr_mono_us() + (int64_t)(r->more % 60000) : 0;
    x->c = chat_ask(l->loop, x->gateway->port,
                    &(ask){.text = script,
                           .seed = ORACLE_SEED + x->number,
                           .max_tokens = 4000,
                           .whole = r->how == MANNER_WHOLE,
                           .usage = r->more % 3 == 0,
                           .resume_s = stays ? RESUME_S : 0,
                           .session = session});
}

static void ask_next(load *l, client *x) {
    char script[128];
    request r = choose(l->seed, l->oracle->nasked);
    member *gateway = choose_gateway(l, &r);
    if (r.how == MANNER_DIRECT ? !mr_producer_connected(l->oracle->producer) : !gateway) return;
    x->number = oracle_ask(l->oracle, r.want, r.tokens);
    x->how = r.how;
    x->gateway = gateway;
    x->due_us = x->wait_us = x->tries = 0;
    x->begun.n = 0;
    write_script(&r, x->number, script, sizeof(script));
    if (r.how == MANNER_DIRECT) {
        x->direct = oracle_produce(l->oracle, x->number, script, tenants[r.tenant]);
    } else {
        ask_http(l, x, &r, script);
    }
}

/* ---- how it ended ---- */

static void count(load *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void count(load *l, const char *fmt, ...) {
    char what[80];
    int i = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    while (i < l->noutcomes && strcmp(l->outcomes[i].what, what) != 0) i++;
    if (i == LOAD_KINDS) return;
    if (i == l->noutcomes) snprintf(l->outcomes[l->noutcomes++].what, sizeof(what), "%s", what);
    l->outcomes[i].n++;
}

static void note_times(load *l, const chat *c) {
    if (l->ntimes == l->times_room) {
        l->times_room = l->times_room ? 2 * l->times_room : 1024;
        l->first_s = realloc(l->first_s, (size_t)l->times_room * sizeof(double));
        l->total_s = realloc(l->total_s, (size_t)l->times_room * sizeof(double));
        assert_true(l->first_s && l->total_s);
    }
    l->first_s[l->ntimes] = (double)(c->first_us - c->asked_us) / 1e6;
    l->total_s[l->ntimes++] = (double)(c->over_us - c->asked_us) / 1e6;
}

/* A gateway says an error as text as well, for people whose client ignores error events; that is no answer. */
static size_t answer_bytes(const chat *c) {
    static const char sentence[] = "[Error: the answer could not be finished: ";
    size_t n = c->text.n;
    const char *at = *c->code && n ? memmem(c->text.p, n, sentence, sizeof(sentence) - 1) : NULL;
    if (!at) return n;
    n = (size_t)(at - c->text.p);
    return n >= 2 && memcmp(at - 2, "\n\n", 2) == 0 ? n - 2 : n;
}

/* Reasoning is the first part of the answer. */
static void take_text(client *x) {
    mr_buf_put(&x->begun, x->c->reasoning.p, x->c->reasoning.n);
    mr_buf_put(&x->begun, x->c->text.p, answer_bytes(x->c));
}

static void check_text(load *l, client *x) {
    asked *a = &l->oracle->asked[x->number];
    mr_buf text;
    mr_buf_init(&text, 1 << 20);
    oracle_text(a, x->number, &text);
    if (x->begun.n != text.n || (text.n && memcmp(x->begun.p, text.p, text.n) != 0))
        oracle_fail(l->oracle, FAILED_DIFFERING, x->number,
                    "its client has %zu bytes, undisturbed are %zu; %d tries to go on", x->begun.n, text.n,
                    x->tries);
    a->answered = true;
    mr_buf_done(&text);
}

/* A gateway that has just been started does not listen yet. */
static bool was_refused(const client *x) {
    const chat *c = x->c;
    return c->status == 429 || (c->status == 503 && !c->pieces) ||
           (!c->status && x->gateway->restarts && c->asked_us - x->gateway->back_us < STARTS_US);
}

static bool gateway_was_hurt(const client *x) {
    const member *m = x->gateway;
    /* one that dies at a place has broken its connections before it is seen to be dead */
    return m->hurt_us >= x->c->asked_us || m->state != MEMBER_UP || m->points_pause_us;
}

/* The log, which goes back only so far, has lost the beginning of what it goes on with. */
static bool is_expired(const load *l, const client *x) {
    mr_request_place at;
    return x->tries && mr_request_id_read(mr_str_of(x->id), MR_STR(MR_TENANT_DEFAULT), &at) &&
           !oracle_keeps(l->oracle, at.partition, at.position);
}

/* Not the whole answer, though its client waited for it. */
static void take_failure(load *l, client *x) {
    const chat *c = x->c;
    asked *a = &l->oracle->asked[x->number];
    if (was_refused(x)) {
        a->excused = true;
        x->wait_us = mr_mono_us() + RETRY_US;
        count(l, "refused: %d %s", c->status, c->status ? c->code : "no connection");
    } else if (gateway_was_hurt(x) && x->tries < TRIES) {
        a->excused = true;
        count(l, "its gateway was hurt before it knew its id: %s", *c->code ? c->code : "connection broken");
    } else if (a->want != WANT_TEXT && *c->code) {
        count(l, "wanted: %s", c->code);
    } else if (oracle_explains(l->oracle, a, c->code, c->over_us)) {
        count(l, "workers were hurt meanwhile: %s", c->code);
    } else if (strcmp(c->code, "answer_expired") == 0 && is_expired(l, x)) {
        count(l, "the broker kept it no longer: %s", c->code);
    } else {
        count(l, "unexplained: %s", *c->code ? c->code : "connection broken");
        oracle_fail(l->oracle, FAILED_ERROR, x->number, "status %d, %s%s %s, after %.1f s at %s", c->status,
                    c->broken ? "broken " : "", c->code, c->message, (double)(c->over_us - c->asked_us) / 1e6,
                    x->gateway->name);
    }
}

/* Its gateway is gone, but it knows the answer's name: another one goes on from the log. */
static bool can_go_on(const client *x) {
    const chat *c = x->c;
    bool stays = x->how == MANNER_STREAM || x->how == MANNER_SLOW;
    /* an error that was said is the answer's end, wherever it is asked for again */
    bool lost =
        (c->broken && !*c->code) || strcmp(c->code, "shutting_down") == 0 || (x->tries && c->status == 503);
    return stays && lost && *x->id && x->tries < TRIES && (x->tries || gateway_was_hurt(x));
}

static void go_on(load *l, client *x) {
    member *m = &l->fleet->members[x->tries++ % 2];
    x->wait_us = 0;
    x->gateway = m;
    x->c = chat_resume(l->loop, m->port, x->id, x->at);
}

static void keep_place(client *x) {
    if (*x->c->id) snprintf(x->id, sizeof(x->id), "%s", x->c->id);
    if (*x->c->at) snprintf(x->at, sizeof(x->at), "%s", x->c->at);
}

/* What is gone on with may have nothing left to say but its end. */
static bool is_complete(const client *x) {
    const chat *c = x->c;
    return chat_complete(c) || (x->tries && c->over && c->done && c->status == 200 && !*c->code);
}

static void take_answer(load *l, client *x) {
    const asked *a = &l->oracle->asked[x->number];
    count(l, x->tries ? "answered, the end of it by another gateway" : "answered");
    if (a->want == WANT_TEXT) check_text(l, x);
    if (a->want == WANT_TEXT && x->how == MANNER_STREAM && !x->tries) note_times(l, x->c);
}

static void take_end(load *l, client *x) {
    bool waits = false;
    x->wait_us = mr_mono_us() + l->pause_us;
    take_text(x);
    keep_place(x);
    if (is_complete(x)) {
        take_answer(l, x);
    } else if (can_go_on(x)) {
        x->wait_us = mr_mono_us() + RETRY_US;
        waits = true;
    } else {
        take_failure(l, x);
    }
    if (!waits) x->id[0] = x->at[0] = '\0';
    chat_free(x->c);
    x->c = NULL;
}

static void go_away(load *l, client *x) {
    asked *a = &l->oracle->asked[x->number];
    a->closed_us = mr_mono_us();
    a->excused = true;
    count(l, "its client went away");
    x->wait_us = a->closed_us + l->pause_us;
    x->id[0] = x->at[0] = '\0';
    chat_free(x->c);
    x->c = NULL;
}

/* ---- clients ---- */

static void stop_reading(client *x, bool stop) {
    struct bufferevent *b = evhttp_connection_get_bufferevent(x->c->connection);
    if (stop) bufferevent_disable(b, EV_READ);
    if (!stop) bufferevent_enable(b, EV_READ);
}

static void serve_http(load *l, client *x, int64_t now) {
    bool due = x->due_us && now >= x->due_us;
    if (x->c->over) {
        take_end(l, x);
    } else if ((x->how == MANNER_VANISHES && due) ||
               (x->how == MANNER_CLOSES && x->c->text.n + x->c->reasoning.n >= x->close_bytes)) {
        go_away(l, x);
    } else if (x->how == MANNER_SLOW && !x->due_us && x->c->pieces) {
        stop_reading(x, true);
        x->due_us = now + 1000000;
    } else if (x->how == MANNER_SLOW && due) {
        stop_reading(x, false);
        x->due_us = INT64_MAX;
    }
}

void load_tick(load *l) {
    int64_t now = mr_mono_us();
    for (client *x = l->clients; x < l->clients + l->nclients; x++) {
        if (x->c) serve_http(l, x, now);
        if (x->direct && oracle_ended(l->oracle, x->number)) {
            count(l, "answered on Kafka");
            x->direct = false;
            x->wait_us = now + l->pause_us;
        }
        if (x->c || x->direct || now < x->wait_us) continue;
        if (*x->id) {
            go_on(l, x);
        } else if (l->running) {
            ask_next(l, x);
        }
    }
}

bool load_idle(const load *l) {
    for (int i = 0; i < LOAD_CLIENTS; i++) {
        if (l->clients[i].c || l->clients[i].direct || *l->clients[i].id) return false;
    }
    return true;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double load_quantile(double *v, int n, double q) {
    if (n == 0) return 0;
    qsort(v, (size_t)n, sizeof(*v), by_size);
    return v[(int)(q * (n - 1))];
}

void load_init(load *l, mr_loop *loop, fleet *f, oracle *o, uint64_t seed, int nclients, int64_t pause_us) {
    *l = (load){
        .loop = loop, .fleet = f, .oracle = o, .seed = seed, .nclients = nclients, .pause_us = pause_us};
    for (int i = 0; i < LOAD_CLIENTS; i++) mr_buf_init(&l->clients[i].begun, 1 << 20);
}

void load_done(load *l) {
    for (int i = 0; i < LOAD_CLIENTS; i++) {
        chat_free(l->clients[i].c);
        mr_buf_done(&l->clients[i].begun);
    }
    free(l->first_s);
    free(l->total_s);
}
