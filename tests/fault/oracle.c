/* See oracle.h. */
#include "fault/oracle.h"

#include "schemas/hash.h"
#include "worker/simulated/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT_MAX   (1u << 20)
#define SLOTS      (1u << 20)
#define HURTS_MAX  100000
#define SAID_MAX   50 /* violations that are printed */
#define STRIKES    3  /* a request that was started so often, and took its worker down, is given up */
#define FREED_US   (ORACLE_FREED_S * 1000000LL)
#define CANCELS_US 5000000 /* a gateway has said by then that a client went away */
#define BOUNDS_MS  5000
#define DEADLINE_US                                                                                          \
    480000000 /* gateway.request_timeout_s, less what the clocks of gateway and worker may differ by */

static const char *const failure_names[FAILURES] = {"lost",  "twice",  "differing",
                                                    "error", "cancel", "process"};

/* ---- what was asked ---- */

int64_t oracle_ask(oracle *o, oracle_want want, int64_t tokens) {
    if (o->nasked == o->room) {
        o->room = o->room ? 2 * o->room : 1024;
        o->asked = realloc(o->asked, (size_t)o->room * sizeof(asked));
        assert_non_null(o->asked);
    }
    o->asked[o->nasked] = (asked){.want = want, .tokens = tokens, .asked_us = mr_mono_us(), .entry = -1};
    return o->nasked++;
}

/* As worker/simulated does it for a request with this seed and no choice, with scripts. */
void oracle_text(const asked *a, int64_t number, mr_buf *out) {
    const int64_t numbers[] = {0, ORACLE_SEED + number, 0};
    mr_sim_text t;
    mr_sim_text_init(
        &t, mr_text_hash_feed(mr_text_hash_init(), (mr_str){(const char *)numbers, sizeof(numbers)}));
    for (int64_t i = 0; i < a->tokens; i++) {
        int64_t token = mr_sim_text_next(&t, i + 1 >= a->tokens, false);
        mr_sim_text_take(&t, token);
        mr_str bytes = mr_sim_token_bytes(token);
        mr_buf_put(out, bytes.p, bytes.n);
    }
}

void oracle_note_hurt(oracle *o, bool gateway) {
    if (o->nhurts == HURTS_MAX) return;
    o->hurts[o->nhurts].at_us = mr_mono_us();
    o->hurts[o->nhurts++].gateway = gateway;
}

/* Of a poison each of those that run beside it loses two starts; its third is alone. */
static int poisoned_starts(const oracle *o, int64_t since_us, int64_t until_us) {
    int n = 0;
    for (int64_t i = 0; i < o->nasked; i++) {
        const asked *a = &o->asked[i];
        if (a->want != WANT_POISON || a->asked_us > until_us) continue;
        bool over = a->entry >= 0 && o->entries[a->entry].ends && o->entries[a->entry].end_us < since_us;
        n += over ? 0 : STRIKES - 1;
    }
    return n;
}

/* Whether so many were hurt between these that a request may have been given up, poisons beside it included; by those alone
 * none is. */
static bool may_give_up(const oracle *o, int64_t since_us, int64_t until_us) {
    int n = 0;
    for (int i = o->nhurts; i-- > 0 && o->hurts[i].at_us >= since_us;)
        n += !o->hurts[i].gateway && o->hurts[i].at_us <= until_us;
    return n >= STRIKES || (n && n + poisoned_starts(o, since_us, until_us) >= STRIKES);
}

bool oracle_explains(const oracle *o, const asked *a, const char *code, int64_t ended_us) {
    if (strcmp(code, "deadline_exceeded") == 0) return ended_us - a->asked_us >= DEADLINE_US;
    return strcmp(code, "request_failed_repeatedly") == 0 && may_give_up(o, a->asked_us, ended_us);
}

/* Whoever would have said that its client went away was hurt itself. */
static bool cancel_may_be_lost(const oracle *o, const asked *a) {
    for (int i = 0; i < o->nhurts; i++) {
        int64_t at = o->hurts[i].at_us;
        if (o->hurts[i].gateway && at >= a->asked_us && at <= a->closed_us + CANCELS_US) return true;
    }
    return false;
}

/* ---- entries ---- */

static entry *entry_of(oracle *o, mr_str id) {
    uint32_t i = (uint32_t)mr_text_hash_feed(mr_text_hash_init(), id) & (o->nslots - 1);
    for (; o->slots[i]; i = (i + 1) & (o->nslots - 1)) {
        entry *e = &o->entries[o->slots[i] - 1];
        if (mr_str_eqz(id, e->id)) return e;
    }
    assert_true((uint32_t)o->nentries < o->nslots / 2 && id.n < sizeof(((entry *)0)->id));
    if (o->nentries == o->entries_room) {
        o->entries_room = o->entries_room ? 2 * o->entries_room : 1024;
        o->entries = realloc(o->entries, (size_t)o->entries_room * sizeof(entry));
        assert_non_null(o->entries);
    }
    entry *e = &o->entries[o->nentries++];
    *e = (entry){.number = -1, .hash = mr_text_hash_init()};
    mr_str_copy(id, e->id, sizeof(e->id));
    o->slots[i] = o->nentries;
    return e;
}

/* A piece that is partly known by now goes on with the rest of it; its hash proves that both are of one answer. */
static void join(oracle *o, entry *e, const mr_response_delta *d) {
    if (e->ends) { /* nobody reads on behind the end; another attempt begins anew, and may be longer */
        o->again += !e->again;
        e->again = true;
        return;
    }
    e->said_us = mr_mono_us();
    mr_str text = d->text;
    int64_t known = e->bytes - d->offset;
    uint64_t hash;
    if (known < 0 || d->index > e->next_token) e->hole = true;
    /* also where its text is known: two attempts may cut before and after a token without text */
    if (d->index + d->tokens > e->next_token) e->next_token = d->index + d->tokens;
    if (known < 0 || known >= (int64_t)text.n) return;
    text.p += known;
    text.n -= (size_t)known;
    e->hash = mr_text_hash_feed(e->hash, text);
    e->bytes += (int64_t)text.n;
    if (!mr_text_hash_parse(d->hash, &hash) || hash != e->hash) e->differs = true;
}

static bool is_whole(int finish) {
    return finish == MR_FINISH_STOP || finish == MR_FINISH_LENGTH;
}

static void end(oracle *o, entry *e, const mr_response_end *d) {
    uint64_t hash;
    if (e->ends++) {
        if (is_whole(e->finish) && is_whole(d->finish_reason) &&
            (!mr_text_hash_parse(d->hash, &hash) || hash != e->hash))
            e->changed = true;
        o->repeated++;
        return;
    }
    e->finish = d->finish_reason;
    e->status = (int)d->error.status;
    e->end_us = mr_mono_us();
    mr_str_copy(d->error.code, e->code, sizeof(e->code));
    if (!is_whole(e->finish)) return;
    if (d->offset != e->bytes) e->hole = true;
    if (!mr_text_hash_parse(d->hash, &hash) || hash != e->hash) e->differs = true;
}

/* ---- the logs ---- */

static bool on_response(void *arg, const mr_record *r) {
    oracle *o = arg;
    union {
        mr_response_delta delta;
        mr_response_end end;
    } msg;
    mr_error err;
    bool ends = mr_str_eqz(mr_record_header(r, "type"), mr_response_end_def.name);
    mr_arena_reset(o->arena);
    if (mr_unpack(ends ? &mr_response_end_def : &mr_response_delta_def, r->value, o->arena, &msg, &err)) {
        oracle_fail(o, FAILED_DIFFERING, -1, "a record of chat.responses cannot be read: %s", err.msg);
    } else if (ends) {
        end(o, entry_of(o, msg.end.request), &msg.end);
    } else {
        join(o, entry_of(o, msg.delta.request), &msg.delta);
    }
    return true;
}

static void keep_last(oracle *o, const mr_record *r) {
    o->last.key.n = o->last.value.n = 0;
    mr_buf_put(&o->last.key, r->key.p, r->key.n);
    mr_buf_put(&o->last.value, r->value.p, r->value.n);
    mr_str_copy(mr_record_header(r, "content-type"), o->last.type, sizeof(o->last.type));
}

static bool on_request(void *arg, const mr_record *r) {
    oracle *o = arg;
    mr_chat_request q;
    mr_error err;
    mr_arena_reset(o->arena);
    if (mr_decode(&mr_chat_request_def, r->value, mr_record_header(r, "content-type"), o->arena, &q, &err))
        return true; /* garbage, which is a part of the load */
    entry *e = entry_of(o, q.id);
    o->accepted += e->records++ == 0;
    e->number = q.sampling.seed - ORACLE_SEED;
    if (e->number >= 0 && e->number < o->nasked) {
        o->asked[e->number].entry = (int)(e - o->entries);
        if (o->asked[e->number].want == WANT_TEXT) keep_last(o, r);
    }
    return true;
}

static bool on_dead(void *arg, const mr_record *r) {
    (void)r;
    ((oracle *)arg)->letters++;
    return true;
}

bool oracle_ended(const oracle *o, int64_t number) {
    int i = o->asked[number].entry;
    return i >= 0 && o->entries[i].ends > 0;
}

bool oracle_keeps(oracle *o, int32_t partition, int64_t offset) {
    char topic[250];
    int64_t low, high;
    mr_error err;
    mr_bus_topic(o->conf, MR_TOPIC_RESPONSES, topic);
    if (mr_reader_bounds(o->bounds, topic, partition, BOUNDS_MS, &low, &high, &err) == 0)
        return low <= offset;
    printf("where chat.responses begins is not known: %s\n", err.msg);
    return true;
}

int oracle_open(const oracle *o) {
    int n = 0;
    for (int i = 0; i < o->nentries; i++) n += o->entries[i].records && !o->entries[i].ends;
    return n;
}

/* ---- producing ---- */

static bool put(oracle *o, mr_str key, mr_str value, const char *type) {
    char topic[250];
    mr_error err;
    const mr_header h = {"content-type", mr_str_of(type)};
    mr_bus_topic(o->conf, MR_TOPIC_REQUESTS, topic);
    const mr_produce rec = {
        .topic = topic, .partition = -1, .key = key, .value = value, .headers = &h, .nheaders = 1};
    return mr_producer_send(o->producer, &rec, &err) == 0;
}

bool oracle_produce(oracle *o, int64_t number, const char *script, const char *tenant) {
    mr_chat_message m = {.set = 0};
    mr_chat_request r = {.set = 0};
    mr_error err;
    mr_buf body;
    char id[64];
    snprintf(id, sizeof(id), "direct-%lld", (long long)number);
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, mr_str_of(script));
    r.messages.v = &m;
    r.messages.n = 1;
    MR_MARK(&r, MR_CHAT_REQUEST_MESSAGES);
    MR_SET(&r, MR_CHAT_REQUEST_V, v, MR_SCHEMA_VERSION);
    MR_SET(&r, MR_CHAT_REQUEST_ID, id, mr_str_of(id));
    MR_SET(&r, MR_CHAT_REQUEST_CREATED_MS, created_ms, mr_now_ms());
    MR_SET(&r, MR_CHAT_REQUEST_TENANT, tenant, mr_str_of(tenant));
    MR_SET(&r.sampling, MR_SAMPLING_SEED, seed, ORACLE_SEED + number);
    MR_MARK(&r, MR_CHAT_REQUEST_SAMPLING);
    mr_buf_init(&body, TEXT_MAX);
    bool ok = mr_pack(&mr_chat_request_def, &r, &body, &err) == 0 &&
              put(o, mr_str_of(id), mr_buf_str(&body), "application/msgpack");
    mr_buf_done(&body);
    return ok;
}

bool oracle_produce_garbage(oracle *o) {
    return put(o, MR_STR("garbage"), MR_STR("no request"), "application/msgpack");
}

bool oracle_produce_again(oracle *o) {
    return o->last.value.n && put(o, mr_buf_str(&o->last.key), mr_buf_str(&o->last.value), o->last.type);
}

/* ---- verdicts ---- */

int oracle_failed(const oracle *o) {
    int n = 0;
    for (int i = 0; i < FAILURES; i++) n += o->failures[i];
    return n;
}

void oracle_fail(oracle *o, oracle_failure kind, int64_t number, const char *fmt, ...) {
    char what[500];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    o->failures[kind]++;
    if (oracle_failed(o) > SAID_MAX) return;
    int i = number >= 0 ? o->asked[number].entry : -1;
    printf("VIOLATION (%s) seed %llu, request %lld %s: %s\n", failure_names[kind],
           (unsigned long long)o->seed, (long long)number, i >= 0 ? o->entries[i].id : "(no id known)", what);
}

static void judge_text(oracle *o, const entry *e) {
    mr_buf text;
    mr_buf_init(&text, TEXT_MAX);
    oracle_text(&o->asked[e->number], e->number, &text);
    if (e->bytes != (int64_t)text.n || e->hash != mr_text_hash_feed(mr_text_hash_init(), mr_buf_str(&text)))
        oracle_fail(o, FAILED_DIFFERING, e->number, "%lld bytes of text, undisturbed %zu",
                    (long long)e->bytes, text.n);
    mr_buf_done(&text);
}

static void judge_end(oracle *o, const entry *e) {
    const asked *a = &o->asked[e->number];
    if (is_whole(e->finish)) {
        if (a->want == WANT_TEXT) judge_text(o, e);
        if (a->want == WANT_POISON) oracle_fail(o, FAILED_ERROR, e->number, "a poison ended well");
    } else if (e->finish == MR_FINISH_CANCELLED) {
        if (!a->excused) oracle_fail(o, FAILED_ERROR, e->number, "cancelled, though its client was there");
    } else if (a->want == WANT_TEXT && !oracle_explains(o, a, e->code, e->end_us)) {
        oracle_fail(o, FAILED_ERROR, e->number, "ended with %d %s", e->status, e->code);
    }
}

/* An engine that has it says something of it all the time. One that waits in line, or in Kafka, holds no slot. What is said behind its
 * end is of a record that came again: it was answered, and its gateway had nothing to cancel. */
static void judge_cancel(oracle *o, const entry *e) {
    const asked *a = &o->asked[e->number];
    if (e->said_us - a->closed_us > FREED_US)
        oracle_fail(o, FAILED_CANCEL, e->number, "computed until %.1f s after its client went away",
                    (double)(e->said_us - a->closed_us) / 1e6);
    double waited = (double)(e->end_us - a->closed_us) / 1e6;
    if (waited > o->longest_cancel_s) o->longest_cancel_s = waited;
    o->waited += e->end_us - a->closed_us > FREED_US;
}

static void judge(oracle *o, const entry *e) {
    const asked *a = &o->asked[e->number];
    if (!e->ends) {
        oracle_fail(o, FAILED_LOST, e->number, "accepted, and no terminal record; %lld bytes came",
                    (long long)e->bytes);
        return;
    }
    if (e->changed) oracle_fail(o, FAILED_TWICE, e->number, "%d terminal records, not the same", e->ends);
    if (e->hole || e->differs)
        oracle_fail(o, FAILED_DIFFERING, e->number, e->hole ? "a hole in its text" : "its hashes differ");
    if (a->closed_us && !cancel_may_be_lost(o, a)) judge_cancel(o, e);
    judge_end(o, e);
}

void oracle_judge(oracle *o) {
    for (int i = 0; i < o->nentries; i++) {
        const entry *e = &o->entries[i];
        if (e->records && e->number >= 0 && e->number < o->nasked) judge(o, e);
    }
}

/* ---- life ---- */

static mr_consumer *reader_of(oracle *o, mr_metrics *m, const char *name, mr_record_cb *cb) {
    char topic[250];
    mr_error err;
    mr_bus_topic(o->conf, name, topic);
    const mr_consumer_options opt = {
        .topics = {topic}, .partition = -1, .start = MR_FROM_BEGINNING, .on_record = cb, .arg = o};
    mr_consumer *c = mr_consumer_new(o->conf, &opt, o->loop, m, name + strlen("chat."), &err);
    if (!c) fail_msg("%s", err.msg);
    return c;
}

void oracle_init(oracle *o, mr_loop *l, mr_metrics *m, const mr_kafka_conf *conf, uint64_t seed) {
    mr_error err;
    *o = (oracle){.loop = l, .conf = conf, .nslots = SLOTS, .seed = seed, .arena = mr_arena_new(16 << 20)};
    o->slots = calloc(SLOTS, sizeof(*o->slots));
    o->hurts = calloc(HURTS_MAX, sizeof(*o->hurts));
    assert_true(o->slots && o->hurts && o->arena);
    mr_buf_init(&o->last.key, TEXT_MAX);
    mr_buf_init(&o->last.value, TEXT_MAX);
    o->producer = mr_producer_new(conf, l, m, "oracle", NULL, o, &err);
    if (!o->producer) fail_msg("%s", err.msg);
    o->bounds = mr_reader_new(conf, &(mr_reader_options){.arg = o}, l, m, "oracle", &err);
    if (!o->bounds) fail_msg("%s", err.msg);
    o->requests = reader_of(o, m, MR_TOPIC_REQUESTS, on_request);
    o->responses = reader_of(o, m, MR_TOPIC_RESPONSES, on_response);
    o->dead = reader_of(o, m, MR_TOPIC_DEAD, on_dead);
}

void oracle_done(oracle *o) {
    mr_producer_free(o->producer, 1000);
    mr_reader_free(o->bounds);
    mr_consumer_free(o->requests);
    mr_consumer_free(o->responses);
    mr_consumer_free(o->dead);
    mr_buf_done(&o->last.key);
    mr_buf_done(&o->last.value);
    mr_arena_free(o->arena);
    free(o->asked);
    free(o->entries);
    free(o->slots);
    free(o->hurts);
}
