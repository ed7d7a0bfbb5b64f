/* Records in, and records done. See parts.h. */
#include "base/log.h"
#include "schemas/hash.h"
#include "worker/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MR_TABLE "worker/sender.def"
#include "schemas/table_declare.h"
#define MR_TABLE "worker/sender.def"
#include "schemas/table_define.h"

#define LETTERS_MAX 64       /* on their way to chat.dead; more wait in Kafka */
#define CANCELS_US  30000000 /* that no more is waited for what was cancelled before this worker started */

/* ---- room ---- */

static bool has_room(const mr_supervisor *s, int share) {
    int waiting = mr_jobs_count(s->jobs) - s->running;
    size_t bytes = (size_t)s->opt.worker->queue_mb << 20;
    return waiting * 100 < s->opt.worker->queue * share &&
           mr_jobs_bytes(s->jobs) * 100 < bytes * (size_t)share &&
           mr_publisher_letters(s->publisher) * 100 < LETTERS_MAX * share;
}

/* A record may come at once to a worker that has just started, and may have been cancelled before. */
static bool knows_cancels(mr_supervisor *s) {
    if (s->knows_cancels) return true;
    bool late = mr_mono_us() - s->started_us > CANCELS_US;
    s->knows_cancels = late || mr_control_caught_up(s->control);
    if (s->knows_cancels && late)
        mr_log(MR_WARN, "chat.control is not read yet: what was cancelled before may be computed");
    return s->knows_cancels;
}

/* Not before a quarter is free: pausing and resuming flush what was fetched ahead. */
void mr_receive_resume(mr_supervisor *s) {
    if (!s->full || mr_loop_draining(s->loop) || !has_room(s, 75) || !knows_cancels(s)) return;
    s->full = false;
    mr_consumer_resume(s->consumer);
}

/* ---- records that come again ---- */

static mr_str place_key(const mr_job *j, char out[256]) {
    int n = snprintf(out, 256, "%" PRId32 "/%" PRId64 "/%s", j->partition, j->offset, j->id);
    return (mr_str){out, (size_t)n};
}

static mr_starts_record place_of(const mr_job *j) {
    return (mr_starts_record){mr_str_of(j->id), j->partition, j->offset, j->timestamp_ms};
}

/* Names a job that may be gone by the time that Redis answers. */
typedef struct claim {
    mr_supervisor *s;
    char id[MR_ID_MAX + 1];
} claim;

static void on_claimed_again(void *owner, int64_t starts, int64_t attempt, bool ended) {
    claim *c = owner;
    (void)starts;
    (void)ended;
    mr_job *j = c->s->closing ? NULL : mr_jobs_find(c->s->jobs, mr_str_of(c->id));
    if (j && attempt > j->stream.attempt) j->stream.attempt = attempt;
    free(c);
}

/* Whoever had the partition meanwhile may have said something: what is said from now on comes after that. */
static void claim_again(mr_supervisor *s, mr_job *j) {
    claim *c = malloc(sizeof(*c));
    if (j->uncounted) mr_starts_add(s->starts, mr_str_of(j->id), j->uncounted);
    j->uncounted = 0;
    if (!c) return;
    c->s = s;
    snprintf(c->id, sizeof(c->id), "%s", j->id);
    const mr_starts_record r = place_of(j);
    mr_starts_claim(s->starts, &r, on_claimed_again, c);
}

/* True when the record needs no job of its own. */
static bool recognise(mr_supervisor *s, const mr_record *r, mr_str id) {
    char key[256];
    mr_job *j = mr_jobs_find(s->jobs, id);
    int n = snprintf(key, sizeof(key), "%" PRId32 "/%" PRId64 "/%.*s", r->partition, r->offset, MR_FMT(id));
    if (j && j->partition == r->partition && j->offset == r->offset) {
        /* it came back to us after a rebalance, and is still in our hands */
        if (!j->ours) claim_again(s, j);
        j->ours = true;
    } else if (j || mr_recent_has(s->finished, (mr_str){key, (size_t)n})) {
        mr_bus_done(s->consumer, r->topic, r->partition, r->offset);
    } else {
        return false;
    }
    mr_counter_add(s->metrics.redelivered, 1);
    return true;
}

/* ---- a new job ---- */

/* Its prompt's, as estimated; the answer's tokens are spent when they come. */
static int64_t cost_of(const mr_record *r) {
    return (int64_t)(r->value.n / MR_BYTES_PER_TOKEN / MR_PROMPT_WEIGHT) + 1;
}

/* A request without a seed gets one that every attempt finds again. */
static void fill_in_seed(mr_chat_request *q) {
    if (MR_HAS(q, MR_CHAT_REQUEST_SAMPLING) && MR_HAS(&q->sampling, MR_SAMPLING_SEED)) return;
    int64_t seed = (int64_t)(mr_text_hash_feed(mr_text_hash_init(), q->id) >> 1);
    MR_SET(&q->sampling, MR_SAMPLING_SEED, seed, seed);
    MR_MARK(q, MR_CHAT_REQUEST_SAMPLING);
}

static void place(mr_job *j, const mr_record *r) {
    j->partition = r->partition;
    j->offset = r->offset;
    j->ours = true;
    j->created_ms = j->timestamp_ms = r->timestamp_ms;
    j->received_us = mr_mono_us();
    mr_str trace = mr_record_header(r, "traceparent");
    mr_str_copy(trace, j->trace, sizeof(j->trace));
}

/* What another attempt brought of the answer. The engine host gets it with the submit, not in the request. */
static int take_forced(mr_job *j, mr_chat_request *q, mr_stream_base *base, mr_error *err) {
    if (!MR_HAS(q, MR_CHAT_REQUEST_FORCED)) return 0;
    if (!mr_job_add_tokens(j, q->forced.v, q->forced.n)) {
        return mr_fail(err, MR_ENOMEM, "out of memory for the tokens of an answer");
    }
    j->nforced = j->ntokens;
    base->tokens = j->ntokens;
    base->bytes = q->forced_bytes;
    mr_text_hash_parse(q->forced_hash, &base->hash); /* checked with the message */
    MR_UNSET(q, MR_CHAT_REQUEST_FORCED);
    MR_UNSET(q, MR_CHAT_REQUEST_FORCED_BYTES);
    MR_UNSET(q, MR_CHAT_REQUEST_FORCED_HASH);
    return 0;
}

static int fill(mr_supervisor *s, mr_job *j, mr_chat_request *q, const mr_record *r, mr_error *err) {
    mr_stream_base base = {.hash = mr_text_hash_init()};
    place(j, r);
    if (MR_HAS(q, MR_CHAT_REQUEST_CREATED_MS)) j->created_ms = q->created_ms;
    if (MR_HAS(q, MR_CHAT_REQUEST_TRACE)) mr_str_copy(q->trace, j->trace, sizeof(j->trace));
    mr_str_copy(q->tenant, j->tenant, sizeof(j->tenant));
    j->ticket.cost = cost_of(r);
    j->ticket.priority = MR_HAS(q, MR_CHAT_REQUEST_PRIORITY) ? q->priority : 0;
    j->ticket.deadline_ms = MR_HAS(q, MR_CHAT_REQUEST_DEADLINE_MS) ? q->deadline_ms : 0;
    fill_in_seed(q);
    j->keeps = q->keep_s > 0 && q->forced.n == 0; /* of one that goes on, the beginning is not known here */
    mr_buf_init(&j->answer, MR_TURN_TEXT_MAX + 4);
    if (take_forced(j, q, &base, err)) return -1;
    if (mr_pack(&mr_chat_request_def, q, &j->request, err)) return -1;
    mr_jobs_weigh(s->jobs, j);
    int32_t reply_to = MR_HAS(q, MR_CHAT_REQUEST_REPLY_TO) ? (int32_t)q->reply_to : -1;
    return mr_answer_open(s, j, reply_to, &base, err);
}

/* What Redis knows of earlier starts. */
static void on_starts(void *owner, int64_t starts, int64_t attempt, bool ended) {
    mr_job *j = owner;
    mr_supervisor *s = j->of;
    j->starts = starts % MR_STARTS_ALONE;
    j->named = starts >= MR_STARTS_ALONE;
    j->stream.attempt = attempt;
    if (s->closing) {
        /* freed with the table */
    } else if (!j->ours) {
        mr_jobs_remove(s->jobs, j);
    } else if (ended) {
        mr_counter_add(s->metrics.redelivered, 1);
        mr_job_finished(s, j);
    } else if (j->stop != MR_STOP_NONE) {
        mr_answer_stopped(s, j, NULL);
    } else {
        mr_dispatch_wait(s, j, "received");
        mr_dispatch(s);
    }
}

static int take(mr_supervisor *s, mr_chat_request *q, const mr_record *r, mr_error *err) {
    mr_job *j = mr_jobs_add(s->jobs, q->id, err);
    if (!j) return -1;
    j->of = s;
    if (fill(s, j, q, r, err)) {
        mr_jobs_remove(s->jobs, j);
        return -1;
    }
    s->standby = false;
    if (mr_control_cancelled(s->control, q->id)) j->stop = MR_STOP_CANCEL;
    const mr_starts_record place = place_of(j);
    mr_starts_claim(s->starts, &place, on_starts, j);
    return 0;
}

/* ---- records that are no requests ---- */

int mr_receive_bury(mr_supervisor *s, const mr_burial *b, mr_error *err) {
    mr_dead d = {.set = 0};
    MR_SET(&d, MR_DEAD_V, v, MR_SCHEMA_VERSION);
    MR_SET(&d, MR_DEAD_TOPIC, topic, mr_str_of(s->topic));
    MR_SET(&d, MR_DEAD_PARTITION, partition, b->partition);
    MR_SET(&d, MR_DEAD_OFFSET, offset, b->offset);
    MR_SET(&d, MR_DEAD_STAGE, stage, MR_STR("worker"));
    MR_SET(&d, MR_DEAD_REASON, reason, mr_str_of(b->why));
    MR_SET(&d, MR_DEAD_ATTEMPTS, attempts, b->attempts);
    MR_SET(&d, MR_DEAD_CREATED_MS, created_ms, mr_now_ms());
    MR_SET(&d, MR_DEAD_RECORD, record, b->record);
    if (b->request.n) MR_SET(&d, MR_DEAD_REQUEST, request, b->request);
    mr_log(MR_WARN, "record given up", MR_I("partition", b->partition), MR_I("offset", b->offset),
           MR_SS("request", b->request), MR_S("reason", b->why));
    return mr_publisher_dead(s->publisher, &d, b->trace, b->last, err);
}

static int bury(mr_supervisor *s, const mr_record *r, const char *why, mr_str id, bool last, mr_error *err) {
    const mr_burial b = {.partition = r->partition,
                         .offset = r->offset,
                         .record = r->value,
                         .request = id,
                         .trace = mr_record_header(r, "traceparent"),
                         .why = why,
                         .last = last};
    return mr_receive_bury(s, &b, err);
}

/* Its sender is known, and waits. */
static int refuse(mr_supervisor *s, const mr_record *r, const mr_sender *from, const char *why,
                  mr_error *err) {
    if (recognise(s, r, from->id)) return 0;
    mr_job *j = mr_jobs_add(s->jobs, from->id, err);
    if (!j) return -1;
    j->of = s;
    place(j, r);
    int32_t reply_to = MR_HAS(from, MR_SENDER_REPLY_TO) ? (int32_t)from->reply_to : -1;
    if (mr_answer_open(s, j, reply_to, NULL, err) || bury(s, r, why, from->id, false, err)) {
        mr_jobs_remove(s->jobs, j);
        return -1;
    }
    mr_answer_error(s, j, 400, "invalid_request", why);
    return 0;
}

static int reject(mr_supervisor *s, const mr_record *r, const char *why, mr_error *err) {
    mr_sender from;
    mr_error unused;
    mr_arena_reset(s->arena);
    if (mr_decode(&mr_sender_def, r->value, mr_record_header(r, "content-type"), s->arena, &from, &unused) ==
            0 &&
        mr_id_ok(from.id)) {
        return refuse(s, r, &from, why, err);
    }
    return bury(s, r, why, MR_STR(""), true, err);
}

/* ---- callbacks of the consumer ---- */

static bool wait_for_room(mr_supervisor *s) {
    s->full = true;
    mr_consumer_pause(s->consumer);
    return false;
}

/* It was lost, and comes back before the last of it is out of the air. */
static bool is_being_dropped(const mr_supervisor *s, mr_str id) {
    const mr_job *j = mr_jobs_find(s->jobs, id);
    return j && j->stop == MR_STOP_LOST;
}

bool mr_receive(void *supervisor, const mr_record *r) {
    mr_supervisor *s = supervisor;
    mr_chat_request q;
    mr_error bad, err;
    if (mr_loop_draining(s->loop)) return false;
    if (!has_room(s, 100) || !knows_cancels(s)) return wait_for_room(s);
    mr_arena_reset(s->arena);
    int rc = 0;
    if (mr_decode(&mr_chat_request_def, r->value, mr_record_header(r, "content-type"), s->arena, &q, &bad)) {
        rc = reject(s, r, bad.msg, &err);
    } else if (is_being_dropped(s, q.id)) {
        return wait_for_room(s);
    } else if (!recognise(s, r, q.id)) {
        rc = take(s, &q, r, &err);
    }
    if (rc == 0) return true;
    mr_log(MR_ERROR, "record not taken, trying again", MR_I("offset", r->offset), MR_S("error", err.msg));
    return wait_for_room(s);
}

/* Lost: this process was frozen or cut off for so long that others were given the partition, and have begun. Otherwise
 * what has said nothing yet and doesn't run is dropped: it comes again, here or elsewhere. What has begun goes on, because the partition mostly
 * comes back, and then it is recognised; should another worker do it as well, readers join both by offset and hash.
 * It isn't the request's fault, so the start that is under way does not count; those that failed do, wherever it goes. */
static void let_go(mr_supervisor *s, mr_job *j, bool lost) {
    bool was_ours = j->ours;
    j->ours = false;
    if (was_ours && mr_dispatch_counts(j)) {
        mr_starts_add(s->starts, mr_str_of(j->id), -j->counted);
        j->uncounted += j->counted;
    }
    if (lost && j->state != MR_JOB_LOOKING && j->state != MR_JOB_ENDING) {
        mr_counter_add(s->metrics.dropped, 1);
        mr_dispatch_drop(s, j, "its partition went to another worker while this one was away");
    } else if (j->state == MR_JOB_WAITING && j->ntokens == j->nforced && !j->parked) {
        mr_admit_remove(&j->ticket);
        mr_jobs_remove(s->jobs, j);
    }
}

void mr_receive_revoked(void *supervisor, const char *topic, int32_t partition) {
    mr_supervisor *s = supervisor;
    (void)topic;
    if (s->closing) return;
    bool lost = mr_consumer_lost(s->consumer);
    for (mr_job *j = mr_jobs_first(s->jobs), *next; j; j = next) {
        next = j->next;
        if (j->partition == partition) let_go(s, j, lost);
    }
    mr_receive_resume(s);
}

void mr_receive_buried(void *supervisor, int32_t partition, int64_t offset) {
    mr_supervisor *s = supervisor;
    mr_bus_done(s->consumer, s->topic, partition, offset);
    mr_receive_resume(s);
}

void mr_job_finished(mr_supervisor *s, mr_job *j) {
    char key[256];
    mr_recent_add(s->finished, place_key(j, key));
    const mr_starts_record place = place_of(j);
    mr_starts_end(s->starts, &place);
    if (j->keeps) mr_answer_keep(s, j);
    if (j->ours) mr_bus_done(s->consumer, s->topic, j->partition, j->offset);
    mr_jobs_remove(s->jobs, j);
    mr_receive_resume(s);
}
