/* The router's work on each record, and the life of the process's parts; see router.h. */
#include "router/router.h"

#include "base/log.h"
#include "guard/protect.h"
#include "router/answer.h"
#include "router/forwarder.h"
#include "router/kb.h"
#include "router/kb_context.h"
#include "router/pools.h"
#include "router/recall.h"
#include "router/route.h"
#include "router/share.h"
#include "router/weights.h"
#include "schemas/messages.h"
#include "schemas/sender.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARENA_MAX =
        64 << 20, /* a decoded request; a record is under 4 MB, its structs may be several times that */
    BYTES_MAX = 64 << 20, /* of parcels on their way */
    DEAD_OVERHEAD = 8192, /* of a Dead record around the record in it */
    TICK_MS = 50,
    KB_CHECK_TICKS = 20,
    FLUSH_MS = 5000,
};

typedef enum {
    OUT_MODEL,
    OUT_KB,
    OUT_EXPIRED,
    OUT_INVALID,
    OUT_BLOCKED,
    OUT_DEAD,
    OUT_UNDELIVERED,
    OUTCOMES
} outcome;

static const char *const outcome_names[OUTCOMES] = {"model",   "kb",   "expired",    "invalid",
                                                    "blocked", "dead", "undelivered"};

struct mr_router {
    const mr_router_conf *conf;
    const mr_kafka_conf *kafka;
    const mr_redis_conf *redis;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_forwarder *forwarder;
    mr_consumer *control, *requests;
    mr_timer *timer;
    mr_weights *weights;
    mr_pools *pools;
    mr_kb *kb;
    mr_intent *intent;
    mr_tally *tally;
    mr_protect *protect;
    mr_recall *recall;
    size_t waiting_bytes; /* of records that wait for Redis */
    mr_share share;
    mr_routing routing;
    mr_arena *arena, *control_arena;
    bool stalled; /* a record was sent back because there was no room */
    bool closing, failed;
    unsigned ticks;
    char requests_topic[250], responses_topic[250], control_topic[250], dead_topic[250], audit_topic[250],
        group[300];
    mr_counter *count[OUTCOMES];
    mr_histogram *seconds;
    mr_gauge *kb_entries, *intent_threshold, *ai_share, *out_of_band;
};

/* One record of chat.requests, from its arrival until everything that it led to is delivered. */
typedef struct job {
    int32_t partition;
    int64_t offset, start_us;
    outcome outcome;
    mr_router *of;
    mr_buf record;         /* while it waits for Redis: the record's value… */
    char content_type[40]; /* …and what that is */
    int64_t record_ms;
    bool traced;   /* a header said of which trace it is; else the record says so, if anything does */
    bool answered; /* its user has an answer or an error in the parcel, or nobody to answer was found */
    mr_reply_to reply;
} job;

/* ---- a job's parcels ---- */

static job *job_new(mr_router *r, const mr_record *rec, mr_error *err) {
    job *j = calloc(1, sizeof *j);
    if (!j) {
        mr_fail(err, MR_ENOMEM, "no memory for a request");
        return NULL;
    }
    j->of = r;
    j->partition = rec->partition;
    j->offset = rec->offset;
    j->start_us = mr_mono_us();
    j->reply.topic = r->responses_topic;
    j->reply.partition = -1;
    j->reply.accepted_ms = rec->timestamp_ms > 0 ? rec->timestamp_ms : mr_now_ms();
    j->traced = mr_record_header(rec, "traceparent").n > 0;
    if (j->traced) mr_trace_child(mr_record_header(rec, "traceparent"), j->reply.traceparent);
    return j;
}

static void log_outcome(const job *j, const char *reason) {
    bool bad = j->outcome != OUT_MODEL && j->outcome != OUT_KB && j->outcome != OUT_BLOCKED;
    mr_log(bad ? MR_WARN : MR_DEBUG, "request routed", MR_S("request", j->reply.id),
           MR_S("outcome", outcome_names[j->outcome]), MR_S("reason", reason ? reason : ""),
           MR_I("partition", j->partition), MR_I("offset", j->offset),
           MR_S("traceparent", j->reply.traceparent));
}

static void ship(mr_router *r, job *j, mr_parcel *p, outcome what, const char *reason) {
    j->outcome = what;
    mr_counter_add(r->count[what], 1);
    log_outcome(j, reason);
    mr_parcel_send(p);
}

typedef struct audit_parcel {
    const mr_router *r;
    const job *j;
    mr_parcel *p;
} audit_parcel;

static int add_audit(void *arg, const mr_audit *audit, mr_error *err) {
    const audit_parcel *to = arg;
    mr_address address = {.topic = to->r->audit_topic,
                          .partition = -1,
                          .key = audit->request,
                          .traceparent = to->j->reply.traceparent};
    return mr_parcel_add(to->p, &address, &mr_audit_def, audit, err);
}

/* With the records of what the guard decided, which so arrive whenever the rest does. */
static mr_parcel *parcel_new(mr_router *r, job *j, mr_error *err) {
    mr_parcel *p = mr_parcel_new(r->forwarder, j, err);
    if (!p || mr_protect_audit(r->protect, add_audit, &(audit_parcel){r, j, p}, err) == 0) return p;
    mr_parcel_free(p);
    return NULL;
}

/* The user gets an error in place of an answer. */
static int refuse(mr_router *r, job *j, outcome what, int status, const char *code, const char *message,
                  mr_error *err) {
    mr_parcel *p = parcel_new(r, j, err);
    if (!p) return -1;
    j->answered = true;
    if (mr_answer_error(p, &j->reply, status, code, message, err) < 0) {
        mr_parcel_free(p);
        return -1;
    }
    ship(r, j, p, what, message);
    return 0;
}

/* MR_ETOOBIG: Kafka takes no record of this size. */
static int send_on(mr_router *r, job *j, const mr_address *to, const mr_chat_request *q, mr_error *err) {
    mr_parcel *p = parcel_new(r, j, err);
    if (!p) return -1;
    if (mr_parcel_add(p, to, &mr_chat_request_def, q, err) == 0) {
        ship(r, j, p, OUT_MODEL, NULL);
        return 0;
    }
    mr_parcel_free(p);
    return -1;
}

static int forward(mr_router *r, job *j, mr_chat_request *q, const mr_route *route, mr_error *err) {
    char topic[250];
    mr_address to = {.topic = topic, .partition = -1, .key = route->key, .traceparent = j->reply.traceparent};
    mr_bus_generate_topic(r->kafka, route->pool, route->color, topic);
    MR_SET(q, MR_CHAT_REQUEST_TRACE, trace, mr_str_of(j->reply.traceparent));
    bool context = route->context.n > 0 && mr_kb_context_put(q, route->context, r->arena);
    int rc = send_on(r, j, &to, q, err);
    if (rc < 0 && context && err->code == MR_ETOOBIG) { /* the conversation itself may fit */
        mr_kb_context_take(q);
        context = false;
        rc = send_on(r, j, &to, q, err);
    }
    if (rc == 0 && context) mr_counter_add(r->routing.context, 1);
    if (rc == 0 || err->code != MR_ETOOBIG) return rc;
    return refuse(r, j, OUT_INVALID, 413, "request_too_large", "The conversation is too large; shorten it.",
                  err);
}

static int answer(mr_router *r, job *j, const mr_chat_request *q, mr_str text, mr_error *err) {
    mr_parcel *p = parcel_new(r, j, err);
    if (!p) return -1;
    j->answered = true;
    if (mr_answer_kb(p, &j->reply, text, err) < 0) {
        mr_parcel_free(p);
        return -1;
    }
    mr_recall_keep(r->recall, q, text);
    ship(r, j, p, OUT_KB, NULL);
    return 0;
}

/* The user gets the sentence of refusal as an answer. */
static int block(mr_router *r, job *j, mr_error *err) {
    mr_parcel *p = parcel_new(r, j, err);
    if (!p) return -1;
    j->answered = true;
    if (mr_answer_refusal(p, &j->reply, mr_str_of(r->conf->guard_refusal), err) < 0) {
        mr_parcel_free(p);
        return -1;
    }
    ship(r, j, p, OUT_BLOCKED, NULL);
    return 0;
}

/* ---- what cannot be decoded ---- */

static int add_dead(mr_router *r, const job *j, mr_parcel *p, const mr_record *rec, const char *reason,
                    mr_error *err) {
    mr_dead d = {0};
    mr_address to = {.topic = r->dead_topic,
                     .partition = -1,
                     .key = mr_str_of(j->reply.id),
                     .traceparent = j->reply.traceparent};
    size_t room = (size_t)r->kafka->message_max - DEAD_OVERHEAD;
    mr_str kept = {rec->value.p, rec->value.n < room ? rec->value.n : room};
    MR_SET(&d, MR_DEAD_V, v, MR_SCHEMA_VERSION);
    if (j->reply.id[0]) MR_SET(&d, MR_DEAD_REQUEST, request, mr_str_of(j->reply.id));
    MR_SET(&d, MR_DEAD_TOPIC, topic, mr_str_of(rec->topic));
    MR_SET(&d, MR_DEAD_PARTITION, partition, rec->partition);
    MR_SET(&d, MR_DEAD_OFFSET, offset, rec->offset);
    MR_SET(&d, MR_DEAD_STAGE, stage, MR_STR("router"));
    MR_SET(&d, MR_DEAD_REASON, reason, mr_str_of(reason));
    MR_SET(&d, MR_DEAD_CREATED_MS, created_ms, mr_now_ms());
    MR_SET(&d, MR_DEAD_RECORD, record, kept);
    if (kept.n < rec->value.n) MR_SET(&d, MR_DEAD_TRUNCATED, truncated, true);
    return mr_parcel_add(p, &to, &mr_dead_def, &d, err);
}

static void read_sender(mr_router *r, const mr_record *rec, job *j) {
    mr_reply_to *reply = &j->reply;
    mr_sender from;
    mr_arena_reset(r->arena);
    if (!j->traced) mr_trace_new(reply->traceparent);
    if (!mr_sender_read(rec->value, mr_record_header(rec, "content-type"), r->arena, &from)) return;
    mr_str_copy(from.id, reply->id, sizeof reply->id);
    if (MR_HAS(&from, MR_SENDER_REPLY_TO)) reply->partition = (int32_t)from.reply_to;
    if (!j->traced) mr_trace_child(from.trace, reply->traceparent);
}

static int bury(mr_router *r, job *j, const mr_record *rec, const char *reason, mr_error *err) {
    read_sender(r, rec, j);
    mr_parcel *p = parcel_new(r, j, err);
    if (!p) return -1;
    j->answered = true;
    int rc = add_dead(r, j, p, rec, reason, err);
    if (rc == 0 && j->reply.id[0]) rc = mr_answer_error(p, &j->reply, 400, "invalid_request", reason, err);
    if (rc < 0) {
        mr_parcel_free(p);
        return -1;
    }
    ship(r, j, p, OUT_DEAD, reason);
    return 0;
}

/* ---- records ---- */

static void set_reply(job *j, const mr_chat_request *q) {
    mr_reply_to *to = &j->reply;
    mr_str_copy(q->id, to->id, sizeof to->id);
    mr_str_copy(q->model, to->model, sizeof to->model);
    to->attempt = q->attempt;
    to->accepted_ms = q->created_ms;
    if (MR_HAS(q, MR_CHAT_REQUEST_REPLY_TO)) to->partition = (int32_t)q->reply_to;
}

/* The share of chats that the model gets is what capacity is planned by. */
static void count_share(mr_router *r, const mr_chat_request *q, const mr_route *route) {
    const mr_router_conf *c = r->conf;
    if (q->purpose != MR_PURPOSE_CHAT || route->kind == MR_ROUTE_EXPIRED) return;
    mr_share_add(&r->share, route->kind == MR_ROUTE_MODEL);
    double share = mr_share_value(&r->share);
    mr_gauge_set(r->ai_share, share);
    if (!r->intent || !mr_share_crossed(&r->share, c->ai_share_min, c->ai_share_max)) return;
    mr_gauge_set(r->out_of_band, r->share.outside);
    mr_log(r->share.outside ? MR_WARN : MR_INFO,
           r->share.outside ? "the share of chats for the model is out of its band"
                            : "the share of chats for the model is back in its band",
           MR_F("share", share), MR_F("min", c->ai_share_min), MR_F("max", c->ai_share_max));
}

/* With what Redis found, NULL where it was not asked. */
static int route_request(mr_router *r, job *j, mr_chat_request *q, const mr_recollection *found,
                         mr_error *err) {
    mr_route route;
    bool blocked;
    if (mr_recall_apply(r->recall, found, q, r->arena, err) < 0) return -1;
    if (mr_protect_request(r->protect, q, r->arena, &blocked, err) < 0) return -1;
    if (blocked) return block(r, j, err);
    mr_route_choose(&r->routing, q, mr_now_ms(), r->arena, &route);
    count_share(r, q, &route);
    if (route.intent.n > 0) {
        mr_log(MR_DEBUG, "intent guessed", MR_S("request", j->reply.id), MR_SS("intent", route.intent),
               MR_F("confidence", route.confidence), MR_F("probability", route.probability));
    }
    switch (route.kind) {
    case MR_ROUTE_KB: return answer(r, j, q, route.answer, err);
    case MR_ROUTE_MODEL: return forward(r, j, q, &route, err);
    case MR_ROUTE_EXPIRED: break;
    }
    return refuse(r, j, OUT_EXPIRED, 504, "deadline_exceeded", "The request waited longer than its deadline.",
                  err);
}

static void on_undelivered(mr_router *r, job *j, const mr_error *why);

static void forget_record(job *j) {
    j->of->waiting_bytes -= j->record.n;
    mr_buf_done(&j->record);
}

/* Redis has answered, or is away: the record is decoded once more, because nothing of it was kept but its bytes. */
static void on_recalled(void *arg, const mr_recollection *found) {
    job *j = arg;
    mr_router *r = j->of;
    mr_chat_request q;
    mr_error err;
    if (r->closing) { /* whoever runs next gets it again */
        forget_record(j);
        free(j);
        return;
    }
    mr_arena_reset(r->arena);
    mr_protect_forget(r->protect);
    int rc = mr_decode(&mr_chat_request_def, mr_buf_str(&j->record), mr_str_of(j->content_type), r->arena, &q,
                       &err);
    if (rc == 0) rc = mr_route_complete(&r->routing, &q, j->record_ms, &err);
    if (rc == 0) {
        mr_recall_wanted(r->recall, &q);
        rc = route_request(r, j, &q, found, &err);
    }
    forget_record(j);
    if (rc < 0 && err.code == MR_ETOOBIG) {
        rc = refuse(r, j, OUT_INVALID, 413, "request_too_large", "The conversation is too large; shorten it.",
                    &err);
    }
    if (rc < 0) on_undelivered(r, j, &err);
}

static int wait_for_redis(mr_router *r, job *j, const mr_record *rec, const mr_chat_request *q,
                          mr_error *err) {
    mr_str_copy(mr_record_header(rec, "content-type"), j->content_type, sizeof(j->content_type));
    j->record_ms = rec->timestamp_ms;
    mr_buf_init(&j->record, rec->value.n);
    mr_buf_put(&j->record, rec->value.p, rec->value.n);
    r->waiting_bytes += j->record.n;
    if (!j->record.failed && mr_recall_ask(r->recall, q, on_recalled, j) == 0) return 0;
    forget_record(j);
    return mr_fail(err, MR_ENOMEM, "no memory for a request that waits for Redis");
}

static int begin(mr_router *r, job *j, const mr_record *rec, mr_chat_request *q, mr_error *err) {
    if (mr_route_complete(&r->routing, q, rec->timestamp_ms, err) < 0) return -1;
    set_reply(j, q);
    if (!j->traced) mr_trace_child(q->trace, j->reply.traceparent);
    if (mr_recall_wanted(r->recall, q)) return wait_for_redis(r, j, rec, q, err);
    return route_request(r, j, q, NULL, err);
}

static int take(mr_router *r, const mr_record *rec, mr_error *err) {
    mr_chat_request q;
    job *j = job_new(r, rec, err);
    if (!j) return -1;
    mr_arena_reset(r->arena);
    int rc =
        mr_decode(&mr_chat_request_def, rec->value, mr_record_header(rec, "content-type"), r->arena, &q, err);
    if (rc == 0) rc = begin(r, j, rec, &q, err);
    /* The record's own fault: trying again would hold up those behind it for ever. */
    if (rc < 0 && (err->code == MR_EINVAL || err->code == MR_ETOOBIG)) {
        mr_error why = *err;
        rc = bury(r, j, rec, why.msg, err);
    }
    mr_protect_forget(r->protect);
    if (rc < 0) free(j);
    return rc;
}

static bool has_room(const mr_router *r, int percent) {
    int64_t requests = mr_forwarder_parcels(r->forwarder) + mr_recall_waits(r->recall);
    return requests * 100 < r->conf->max_in_flight * percent &&
           mr_forwarder_bytes(r->forwarder) + r->waiting_bytes < (size_t)BYTES_MAX / 100 * (size_t)percent;
}

/* Goes on where on_request said that there is no room, or not yet. */
static void resume(mr_router *r) {
    if (!r->stalled || !mr_consumer_caught_up(r->control) || !has_room(r, 75)) return;
    r->stalled = false;
    mr_consumer_resume(r->requests);
}

static bool on_request(void *arg, const mr_record *rec) {
    mr_router *r = arg;
    mr_error err;
    if (!mr_loop_draining(r->loop) && mr_consumer_caught_up(r->control) && has_room(r, 100)) {
        if (take(r, rec, &err) == 0) return true;
        mr_log(MR_ERROR, "a request is tried again later", MR_I("offset", rec->offset),
               MR_S("error", err.msg));
    }
    r->stalled = true;
    mr_consumer_pause(r->requests);
    return false;
}

static bool on_control(void *arg, const mr_record *rec) {
    mr_router *r = arg;
    mr_error err;
    mr_arena_reset(r->control_arena);
    if (mr_weights_update(r->weights, rec->key, rec->value, r->control_arena, &err) < 0) {
        mr_log(MR_WARN, "a record of chat.control is ignored", MR_I("offset", rec->offset),
               MR_S("reason", err.msg));
    }
    return true;
}

/* ---- deliveries ---- */

static void job_done(mr_router *r, job *j) {
    mr_histogram_observe(r->seconds, (double)(mr_mono_us() - j->start_us) * 1e-6);
    mr_bus_done(r->requests, r->requests_topic, j->partition, j->offset);
    free(j);
}

/* Neither the request nor an answer got through. It stays unfinished, so whoever runs next gets it again. */
static void give_up(mr_router *r, job *j, const char *why) {
    mr_log(MR_ERROR, "Kafka does not take the answer to a request, the router ends",
           MR_S("request", j->reply.id), MR_I("offset", j->offset), MR_S("error", why));
    free(j);
    r->failed = true;
    mr_loop_drain(r->loop);
}

/* Tells the user that the request, or the answer to it, did not get through. */
static void on_undelivered(mr_router *r, job *j, const mr_error *why) {
    mr_error err = *why;
    int rc = -1;
    mr_log(MR_ERROR, "a request could not be forwarded or answered", MR_S("request", j->reply.id),
           MR_S("error", why->msg));
    if (!j->answered) {
        rc = refuse(r, j, OUT_UNDELIVERED, 503, "unavailable", "No worker can be reached; please try again.",
                    &err);
    } else if (why->code == MR_ENOTFOUND && j->reply.partition >= 0) {
        /* Nobody can be waiting there, and the requests behind must not wait either. */
        j->reply.partition = -1;
        rc = refuse(r, j, OUT_INVALID, 400, "invalid_reply_to", "reply_to is no partition of chat.responses.",
                    &err);
    }
    if (rc < 0) give_up(r, j, err.msg);
}

static void on_parcel(void *arg, void *tag, const mr_error *err) {
    mr_router *r = arg;
    job *j = tag;
    if (!j) return; /* a pool's status: another one follows */
    if (!err) {
        job_done(r, j);
        if (!r->closing && !mr_loop_draining(r->loop)) resume(r);
    } else if (r->closing) {
        free(j);
    } else {
        on_undelivered(r, j, err);
    }
}

/* ---- housekeeping ---- */

static void refresh_kb(mr_router *r) {
    mr_error err;
    if (!r->kb) return;
    int rc = mr_kb_refresh(r->kb, &err);
    if (rc < 0) {
        mr_log(MR_ERROR, "the knowledge base was not loaded again, the old one goes on",
               MR_S("error", err.msg));
    }
    if (rc == 1) mr_log(MR_INFO, "knowledge base loaded again", MR_I("entries", mr_kb_entries(r->kb)));
    mr_gauge_set(r->kb_entries, mr_kb_entries(r->kb));
}

static void refresh_intent(mr_router *r) {
    mr_error err;
    if (!r->intent) return;
    int rc = mr_intent_refresh(r->intent, &err);
    if (rc < 0) {
        mr_log(MR_ERROR, "the model of intents was not loaded again, the old one goes on",
               MR_S("error", err.msg));
    }
    if (rc == 1)
        mr_log(MR_INFO, "model of intents loaded again", MR_I("labels", mr_intent_labels(r->intent)));
    mr_gauge_set(r->intent_threshold, mr_intent_threshold(r->intent));
}

static void on_tick(void *arg) {
    mr_router *r = arg;
    if (mr_loop_draining(r->loop)) {
        if (mr_forwarder_parcels(r->forwarder) + mr_recall_waits(r->recall) == 0) mr_loop_stop(r->loop);
        return;
    }
    resume(r);
    if (mr_consumer_caught_up(r->control)) mr_pools_tick(r->pools, r->weights, r->forwarder);
    if (r->kb && mr_kb_loading(r->kb)) refresh_kb(r);
    if (r->ticks++ % KB_CHECK_TICKS != 0) return;
    refresh_kb(r);
    refresh_intent(r);
    mr_protect_refresh(r->protect);
}

static void on_drain(void *arg) {
    mr_router *r = arg;
    mr_log(MR_INFO, "router drains", MR_I("requests", mr_forwarder_parcels(r->forwarder)));
    mr_consumer_pause(r->requests);
}

bool mr_router_ready(const mr_router *r, char *why, size_t why_size) {
    const char *missing = NULL;
    if (mr_loop_draining(r->loop)) {
        missing = "shutting down";
    } else if (!mr_forwarder_connected(r->forwarder)) {
        missing = "Kafka is not connected";
    } else if (!mr_consumer_caught_up(r->control)) {
        missing = "chat.control is not read up to its end yet";
    } else if (mr_consumer_assigned(r->requests) == 0) {
        missing = "no partition of chat.requests is assigned yet";
    }
    snprintf(why, why_size, "%s", missing ? missing : "");
    return !missing;
}

static bool on_ready(void *arg, char *why, size_t why_size) {
    return mr_router_ready(arg, why, why_size);
}

bool mr_router_failed(const mr_router *r) {
    return r->failed;
}

mr_metrics *mr_router_metrics(mr_router *r) {
    return r->metrics;
}

/* ---- making the parts ---- */

static void name_topics(mr_router *r) {
    mr_bus_topic(r->kafka, MR_TOPIC_REQUESTS, r->requests_topic);
    mr_bus_topic(r->kafka, MR_TOPIC_RESPONSES, r->responses_topic);
    mr_bus_topic(r->kafka, MR_TOPIC_CONTROL, r->control_topic);
    mr_bus_topic(r->kafka, MR_TOPIC_DEAD, r->dead_topic);
    mr_bus_topic(r->kafka, MR_TOPIC_AUDIT, r->audit_topic);
    snprintf(r->group, sizeof r->group, "%smillrace-router", r->kafka->prefix);
}

static void make_intent_metrics(mr_router *r) {
    static const char name[] = "millrace_router_intent_total",
                      help[] = "Guesses of intents by what they say.";
    r->routing.routine = mr_counter_new(r->metrics, name, "guess=\"routine\"", help);
    r->routing.unsure = mr_counter_new(r->metrics, name, "guess=\"ai\"", help);
    r->routing.intent_seconds =
        mr_histogram_new(r->metrics, "millrace_router_intent_seconds", NULL, "A guess of an intent.");
    r->intent_threshold =
        mr_gauge_new(r->metrics, "millrace_router_intent_threshold_ratio", NULL,
                     "Probability of being routine from which the model of intents calls a chat so.");
    r->ai_share = mr_gauge_new(r->metrics, "millrace_router_ai_share_ratio", NULL,
                               "Share of the last 1000 chats that the language model got.");
    r->out_of_band = mr_gauge_new(r->metrics, "millrace_router_ai_share_out_of_band", NULL,
                                  "1 while that share is outside of router.ai_share_min to ai_share_max.");
}

static int make_metrics(mr_router *r, mr_error *err) {
    static const char name[] = "millrace_router_requests_total";
    char label[40];
    r->metrics = mr_metrics_new(err);
    if (!r->metrics) return -1;
    for (int i = 0; i < OUTCOMES; i++) {
        snprintf(label, sizeof label, "outcome=\"%s\"", outcome_names[i]);
        r->count[i] = mr_counter_new(r->metrics, name, label, "Requests by what became of them.");
    }
    r->seconds = mr_histogram_new(r->metrics, "millrace_router_request_seconds", NULL,
                                  "From reading a request until what it led to was acknowledged.");
    r->routing.kb_seconds =
        mr_histogram_new(r->metrics, "millrace_router_kb_seconds", NULL, "A search of the knowledge base.");
    r->routing.context = mr_counter_new(r->metrics, "millrace_router_kb_context_total", NULL,
                                        "Chats that the model got with entries of the knowledge base.");
    r->kb_entries =
        mr_gauge_new(r->metrics, "millrace_router_kb_entries", NULL, "Entries that the knowledge base has.");
    make_intent_metrics(r);
    refresh_intent(r);
    const mr_router_conf *c = r->conf;
    r->tally = mr_tally_new(r->metrics, "router", err);
    if (!r->tally) return -1;
    r->protect = mr_protect_new(&(mr_protect_options){.part = "router",
                                                      .lists = c->guard_lists,
                                                      .injection = c->guard_injection,
                                                      .personal = c->guard_personal,
                                                      .audit_text = c->guard_audit_text},
                                r->tally, r->metrics, err);
    if (!r->protect) return -1;
    return mr_metrics_serve(r->metrics, r->loop, c->metrics_host, (int)c->metrics_port, on_ready, r, err);
}

static int make_rules(mr_router *r, mr_error *err) {
    r->arena = mr_arena_new(ARENA_MAX);
    r->control_arena = mr_arena_new(1 << 20);
    if (!r->arena || !r->control_arena) return mr_fail(err, MR_ENOMEM, "no memory for the router");
    r->weights = mr_weights_new(err);
    if (!r->weights) return -1;
    if (r->conf->kb[0]) {
        r->kb = mr_kb_open(r->conf->kb, err);
        if (!r->kb) return -1;
    }
    if (r->conf->intent_model[0]) {
        r->intent = mr_intent_open(r->conf->intent_model, err);
        if (!r->intent) return -1;
    }
    r->routing.intent = r->intent;
    r->routing.conf = r->conf;
    r->routing.weights = r->weights;
    r->routing.kb = r->kb;
    return 0;
}

static int connect_bus(mr_router *r, mr_error *err) {
    r->recall = mr_recall_new(r->conf, r->redis, r->loop, r->metrics, err);
    if (!r->recall) return -1;
    r->forwarder = mr_forwarder_new(r->kafka, r->loop, r->metrics, on_parcel, r, err);
    if (!r->forwarder) return -1;
    mr_consumer_options control = {.topics = {r->control_topic},
                                   .partition = -1,
                                   .start = MR_FROM_BEGINNING,
                                   .on_record = on_control,
                                   .arg = r};
    r->control = mr_consumer_new(r->kafka, &control, r->loop, r->metrics, "router_control", err);
    if (!r->control) return -1;
    r->pools = mr_pools_new(r->conf, r->kafka, r->loop, r->metrics, err);
    if (!r->pools) return -1;
    mr_consumer_options requests = {.group = r->group,
                                    .topics = {r->requests_topic},
                                    .start = MR_FROM_COMMITTED,
                                    .on_record = on_request,
                                    .arg = r};
    r->requests = mr_consumer_new(r->kafka, &requests, r->loop, r->metrics, "router", err);
    if (!r->requests) return -1;
    r->timer = mr_timer_new(r->loop, TICK_MS, on_tick, r, err);
    return r->timer ? 0 : -1;
}

mr_router *mr_router_new(const mr_router_conf *conf, const mr_kafka_conf *kafka, const mr_redis_conf *redis,
                         mr_loop *loop, mr_error *err) {
    mr_router *r = calloc(1, sizeof *r);
    if (!r) {
        mr_fail(err, MR_ENOMEM, "no memory for the router");
        return NULL;
    }
    r->conf = conf;
    r->kafka = kafka;
    r->redis = redis;
    r->loop = loop;
    name_topics(r);
    if (mr_router_conf_check(conf, err) < 0 || make_rules(r, err) < 0 || make_metrics(r, err) < 0 ||
        connect_bus(r, err) < 0) {
        mr_router_free(r);
        return NULL;
    }
    mr_loop_on_drain(loop, (int)(conf->drain_s * 1000), on_drain, r);
    return r;
}

void mr_router_free(mr_router *r) {
    if (!r) return;
    r->closing = true;
    mr_timer_free(r->timer);
    mr_recall_free(r->recall);
    mr_forwarder_free(r->forwarder, FLUSH_MS);
    mr_consumer_free(r->requests);
    mr_consumer_free(r->control);
    mr_pools_free(r->pools);
    mr_kb_close(r->kb);
    mr_intent_close(r->intent);
    mr_protect_free(r->protect);
    mr_tally_free(r->tally);
    mr_weights_free(r->weights);
    mr_arena_free(r->arena);
    mr_arena_free(r->control_arena);
    mr_metrics_free(r->metrics);
    free(r);
}
