/* Routes, admission, the records that come back, readiness and draining (see gateway.h). */
#include "gateway/gateway.h"

#include "base/log.h"
#include "base/metrics.h"
#include "gateway/auth.h"
#include "gateway/catalog.h"
#include "gateway/http.h"
#include "gateway/limits.h"
#include "gateway/openai.h"
#include "gateway/outbox.h"
#include "gateway/protection.h"
#include "gateway/stream.h"
#include "pool/view.h"
#include "schemas/estimate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS        250
#define FLUSH_MS       3000
#define DRAIN_GRACE_MS 5000 /* after drain_s, for error texts to reach their clients */
#define RECORD_ARENA   (8u << 20)
#define STATUS_KINDS   64
#define RETRY_MAX_S    600
#define CONTROL_ARENA  (1u << 20)

/* One line of millrace_gateway_requests_total. */
typedef struct status_count {
    const char *route;
    int status;
    mr_counter *count;
} status_count;

struct mr_gateway {
    const mr_gateway_conf *conf;
    const mr_kafka_conf *kafka;
    const mr_redis_conf *redis;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_auth *auth;
    mr_limiter *limiter;
    int admissions; /* chats that wait for the limiter */
    mr_outbox *outbox;
    mr_consumer *responses, *control;
    mr_log_reader *log;
    mr_protection *protection;
    mr_streams *streams;
    mr_view *workers;
    mr_counter *refused;
    mr_tls *tls; /* NULL: plain HTTP */
    mr_http *http;
    mr_timer *timer;
    mr_arena *request_arena, *record_arena, *control_arena;
    char responses_topic[250];
    int64_t started_ms, drain_until_us; /* 0 while not draining */
    status_count statuses[STATUS_KINDS];
    int nstatuses;
};

/* ---- readiness ---- */

bool mr_gateway_ready(const mr_gateway *g, char *why, size_t why_size) {
    const char *missing = NULL;
    if (g->drain_until_us) {
        missing = "shutting down";
    } else if (!mr_outbox_connected(g->outbox)) {
        missing = "Kafka is not connected";
    } else if (!mr_consumer_caught_up(g->responses)) {
        missing = "the partition of answers is not being read yet";
    } else if (!mr_consumer_caught_up(g->control)) {
        missing = "chat.control is not being read yet";
    }
    snprintf(why, why_size, "%s", missing ? missing : "");
    return !missing;
}

static bool on_ready(void *arg, char *why, size_t why_size) {
    return mr_gateway_ready(arg, why, why_size);
}

static int check_ready(const mr_gateway *g, mr_api_error *e) {
    char why[100];
    if (mr_gateway_ready(g, why, sizeof(why))) return 0;
    return mr_refuse(e, 503, "unavailable", NULL, "The service is not available (%s); please try again.",
                     why);
}

/* ---- small pages ---- */

static int refuse_key(mr_auth_verdict v, mr_api_error *e) {
    switch (v) {
    case MR_AUTH_MISSING:
        return mr_refuse(e, 401, "invalid_api_key", NULL, "An API key is needed: Authorization: Bearer KEY.");
    case MR_AUTH_EXPIRED: return mr_refuse(e, 401, "expired_api_key", NULL, "The API key has expired.");
    default: return mr_refuse(e, 401, "invalid_api_key", NULL, "The API key is not valid.");
    }
}

/* A refusal of access goes on record, with the id that the request has or gets now. Returns -1. */
static int put_on_record(mr_gateway *g, mr_call *call, const char *category, const char *tenant,
                         const mr_api_error *e) {
    const char *id = mr_call_own_header(call, "x-request-id");
    char made[MR_REQUEST_ID_LEN + 1], trace[MR_TRACEPARENT_LEN + 1];
    if (!id && mr_request_id(&(mr_request_place){.n = 1}, MR_STR(""), made) == 0) {
        mr_call_set_header(call, "x-request-id", made);
        id = made;
    }
    mr_trace_child(mr_str_of(mr_call_header(call, "traceparent")), trace);
    if (id) mr_protection_refused(g->protection, category, e->code, mr_str_of(id), mr_str_of(tenant), trace);
    return -1;
}

static int authorize(mr_gateway *g, mr_call *call, unsigned scope, mr_grant *grant, mr_api_error *e) {
    mr_auth_verdict v = mr_auth_check(g->auth, mr_call_header(call, "Authorization"), mr_now_ms(), grant);
    if (v != MR_AUTH_OK) {
        refuse_key(v, e);
        return put_on_record(g, call, "key", "", e);
    }
    if (mr_grant_allows(grant, scope)) return 0;
    mr_refuse(e, 403, "insufficient_scope", NULL, "This API key is not meant for that.");
    return put_on_record(g, call, "scope", grant->tenant, e);
}

static void reply_authorized(mr_gateway *g, mr_call *call, unsigned scope, json_t *page) {
    mr_grant grant;
    mr_api_error e;
    if (authorize(g, call, scope, &grant, &e) == 0) {
        mr_call_json(call, 200, page);
        return;
    }
    json_decref(page);
    mr_call_error(call, &e);
}

static json_t *model_json(const mr_gateway *g, const char *name, size_t n) {
    return json_pack("{s:s%, s:s, s:I, s:s}", "id", name, n, "object", "model", "created",
                     (json_int_t)(g->started_ms / 1000), "owned_by", "millrace");
}

static void on_models(void *arg, mr_call *call) {
    mr_gateway *g = arg;
    json_t *list = json_array();
    for (int i = 0; list && i < g->conf->models.n; i++) {
        const char *name = g->conf->models.v[i];
        json_array_append_new(list, model_json(g, name, strlen(name)));
    }
    for (int i = 0; list && i < g->conf->aliases.n; i++) {
        const char *name = g->conf->aliases.v[i];
        size_t n = (size_t)(strrchr(name, '=') - name);
        if (n > 1 || *name != '*') json_array_append_new(list, model_json(g, name, n));
    }
    reply_authorized(g, call, MR_SCOPE_MODELS, json_pack("{s:s, s:o}", "object", "list", "data", list));
}

static void on_model(void *arg, mr_call *call) {
    mr_gateway *g = arg;
    const char *name = strstr(mr_call_path(call), "models/") + strlen("models/");
    mr_grant grant;
    mr_api_error e;
    if (authorize(g, call, MR_SCOPE_MODELS, &grant, &e) == 0) {
        if (mr_catalog_find(g->conf, mr_str_of(name))) {
            mr_call_json(call, 200, model_json(g, name, strlen(name)));
            return;
        }
        mr_refuse(&e, 404, "model_not_found", "model", "The model `%.100s` does not exist.", name);
    }
    mr_call_error(call, &e);
}

/* NextChat's settings page shows these two. Nothing is billed here, so nothing is used up. */
static void on_usage(void *arg, mr_call *call) {
    reply_authorized(arg, call, MR_SCOPE_BILLING,
                     json_pack("{s:s, s:[], s:i}", "object", "list", "daily_costs", "total_usage", 0));
}

static void on_subscription(void *arg, mr_call *call) {
    reply_authorized(arg, call, MR_SCOPE_BILLING,
                     json_pack("{s:s, s:b, s:i, s:i, s:i}", "object", "billing_subscription",
                               "has_payment_method", 1, "soft_limit_usd", 1000000, "hard_limit_usd", 1000000,
                               "system_hard_limit_usd", 1000000));
}

static void on_livez(void *arg, mr_call *call) {
    (void)arg;
    mr_call_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

static void on_readyz(void *arg, mr_call *call) {
    char why[100];
    if (mr_gateway_ready(arg, why, sizeof(why))) {
        mr_call_json(call, 200, json_pack("{s:s}", "status", "ready"));
    } else {
        mr_call_json(call, 503, json_pack("{s:s, s:s}", "status", "not ready", "reason", why));
    }
}

/* ---- chat ---- */

/* x-millrace-resume: the seconds that an answer goes on without its client. */
static int read_grace(const mr_gateway *g, const mr_call *call, mr_stream_origin *from, mr_api_error *e) {
    const char *given = mr_call_header(call, "x-millrace-resume");
    from->grace_s = g->conf->resume_grace_s;
    if (given && (!*given || strlen(given) > 5 || given[strspn(given, "0123456789")])) {
        return mr_refuse(e, 400, "invalid_value", "x-millrace-resume", "x-millrace-resume: expected seconds");
    }
    if (given) from->grace_s = atoi(given);
    if (from->grace_s > g->conf->request_timeout_s) from->grace_s = g->conf->request_timeout_s;
    return 0;
}

static void origin(const mr_call *call, const mr_grant *who, mr_stream_origin *from) {
    const char *own = mr_call_header(call, "x-request-id");
    mr_trace_child(mr_str_of(mr_call_header(call, "traceparent")), from->trace);
    snprintf(from->tenant, sizeof(from->tenant), "%s", who->tenant);
    from->client_request[0] = '\0';
    if (own && strlen(own) < sizeof(from->client_request) && mr_id_ok(mr_str_of(own))) {
        snprintf(from->client_request, sizeof(from->client_request), "%s", own);
    }
}

/* A request that would only wait until nobody wants its answer any more is better refused now, while its user can do
 * something else. Where the wait is not known, nobody is refused. */
static int check_wait(mr_gateway *g, const char *model, mr_api_error *e) {
    int64_t wait = mr_view_model_wait_ms(g->workers, mr_str_of(model), mr_now_ms());
    int64_t over = wait - g->conf->request_timeout_s * 1000;
    if (wait < 0 || over <= 0) return 0;
    mr_counter_add(g->refused, 1);
    mr_refuse(e, 503, "overloaded", NULL,
              "The service is overloaded: an answer would take longer than %lld s. Please try again later.",
              (long long)g->conf->request_timeout_s);
    e->retry_after_s = (int)(over / 1000 < RETRY_MAX_S ? over / 1000 + 1 : RETRY_MAX_S);
    return -1;
}

static int model_number(const mr_gateway *g, const char *model) {
    int i = 0;
    while (i < g->conf->models.n && strcmp(g->conf->models.v[i], model) != 0) i++;
    return i;
}

static int no_randomness(mr_api_error *e) {
    return mr_refuse(e, 500, "no_randomness", NULL, "The system has no randomness.");
}

/* The request's id says where its answer will be, for whoever goes on with it. */
static int name_request(mr_gateway *g, mr_call *call, mr_str tenant, mr_openai_request *req,
                        char id[MR_REQUEST_ID_LEN + 1], mr_api_error *e) {
    const mr_request_place at = {
        .partition = (int32_t)g->conf->partition,
        .position = mr_consumer_position(g->responses, g->responses_topic, (int32_t)g->conf->partition),
        .created_s = mr_now_ms() / 1000,
        .n = req->n,
        .usage = req->include_usage,
        .form = req->form,
        .model = model_number(g, req->model)};
    if (mr_request_id(&at, tenant, id) < 0) return no_randomness(e);
    req->chat.id = mr_str_of(id);
    mr_call_set_header(call, "x-request-id", id);
    return 0;
}

/* A chat between its arrival and its place among those in flight. */
typedef struct admission {
    mr_gateway *g;
    mr_call *call;
    char id[MR_REQUEST_ID_LEN + 1];
    mr_grant who; /* with the tenant that the request names */
    mr_openai_request req;
    mr_stream_origin from;
    bool blocked;
    mr_arena *arena; /* of the request, while it waits for the limiter */
    mr_hold *hold;
} admission;

static void set_limit_headers(mr_call *call, const char *what, const mr_limit_left *left) {
    char name[64], value[MR_LIMIT_TIME_MAX];
    if (left->limit == 0) return;
    snprintf(name, sizeof(name), "x-ratelimit-limit-%s", what);
    snprintf(value, sizeof(value), "%lld", (long long)left->limit);
    mr_call_set_header(call, name, value);
    snprintf(name, sizeof(name), "x-ratelimit-remaining-%s", what);
    snprintf(value, sizeof(value), "%lld", (long long)left->left);
    mr_call_set_header(call, name, value);
    snprintf(name, sizeof(name), "x-ratelimit-reset-%s", what);
    mr_limit_time(left->full_ms, value);
    mr_call_set_header(call, name, value);
}

static int refuse_limit(const mr_limit_verdict *v, mr_api_error *e) {
    char wait[MR_LIMIT_TIME_MAX];
    const char *whose = strcmp(v->scope ? v->scope : "", "global") == 0 ? "this service"
                        : v->scope ? v->scope
                                   : "";
    mr_limit_time(v->retry_ms, wait);
    switch (v->refused) {
    case MR_LIMIT_REQUESTS:
    case MR_LIMIT_TOKENS:
        mr_refuse(e, 429, "rate_limit_exceeded", NULL,
                  "Rate limit reached: %s a minute of %s%s. Please try again in %s.",
                  v->refused == MR_LIMIT_REQUESTS ? "requests" : "tokens",
                  strcmp(whose, "this service") == 0 ? "" : "this ", whose, wait);
        break;
    case MR_LIMIT_CONCURRENT:
        mr_refuse(e, 429, "too_many_requests", NULL, "Too many requests at once; please try again.");
        break;
    default:
        return mr_refuse(e, 503, "limits_unavailable", NULL,
                         "The service cannot count requests at the moment; please try again.");
    }
    e->retry_after_s = (int)(v->retry_ms / 1000 < RETRY_MAX_S ? v->retry_ms / 1000 + 1 : RETRY_MAX_S);
    return -1;
}

/* On its way; or answered here, where it was blocked. */
static int launch(admission *a, mr_api_error *e) {
    mr_gateway *g = a->g;
    if (a->blocked) {
        return mr_streams_refuse(g->streams, a->call, &a->req, &a->from, a->hold,
                                 mr_str_of(g->conf->guard_refusal), e);
    }
    return mr_streams_start(g->streams, a->call, &a->req, &a->from, a->hold, e);
}

/* With the limiter's verdict: on its way, or refused. Takes over the hold. */
static int enter(admission *a, const mr_limit_verdict *v, mr_api_error *e) {
    set_limit_headers(a->call, "requests", &v->requests);
    set_limit_headers(a->call, "tokens", &v->tokens);
    if (v->refused != MR_LIMIT_NONE) {
        refuse_limit(v, e);
        return put_on_record(a->g, a->call, "limit", a->who.tenant, e);
    }
    if (launch(a, e) == 0) return 0;
    mr_hold_return(a->hold);
    return -1;
}

static void admission_free(admission *a) {
    a->g->admissions--;
    mr_arena_free(a->arena);
    free(a);
}

static void on_verdict(void *arg, const mr_limit_verdict *v) {
    admission *a = arg;
    mr_api_error e;
    mr_call_on_close(a->call, NULL, NULL);
    if (enter(a, v, &e) < 0) mr_call_error(a->call, &e);
    admission_free(a);
}

static void on_waiting_closed(void *arg) {
    admission *a = arg;
    mr_hold_abandon(a->hold);
    admission_free(a);
}

/* Tokens that the request is taken to cost until it has ended. */
static int64_t guess_cost(const mr_gateway *g, const mr_openai_request *req) {
    int64_t answer = req->chat.sampling.max_tokens;
    if (answer > g->conf->limits_answer) answer = g->conf->limits_answer;
    return mr_prompt_tokens(&req->chat) + req->n * answer;
}

/* Before anything of it is stored. Log probabilities would tell what a filter of answers takes out. */
static int protect(admission *a, mr_arena *arena, mr_api_error *e) {
    mr_protection *p = a->g->protection;
    mr_error err;
    if (a->req.chat.sampling.logprobs && mr_protection_filters(p)) {
        return mr_refuse(e, 400, "unsupported_parameter", "logprobs",
                         "logprobs: are not given here, because answers are filtered");
    }
    if (mr_protection_request(p, &a->req.chat, arena, a->from.trace, &a->blocked, &err) == 0) return 0;
    mr_log(MR_ERROR, "a request could not be looked through", MR_S("request", a->id),
           MR_S("reason", err.msg));
    return err.code == MR_ETOOBIG
               ? mr_refuse(e, 413, "request_too_large", NULL, "The conversation is too large; shorten it.")
               : mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
}

/* Everything that can refuse a request, before any header of its answer is out. */
static int parse(admission *a, mr_arena *arena, mr_api_error *e) {
    mr_gateway *g = a->g;
    const mr_openai_caller caller = {.id = mr_str_of(a->id),
                                     .tenant = mr_str_of(a->who.tenant),
                                     .style = a->who.style,
                                     .may_go_ahead = mr_grant_allows(&a->who, MR_SCOPE_PRIORITY),
                                     .session = mr_call_header(a->call, "x-millrace-session")};
    if (mr_openai_parse(g->conf, &caller, mr_call_body(a->call), arena, &a->req, e) < 0) return -1;
    if (check_ready(g, e) < 0 || check_wait(g, a->req.model, e) < 0) return -1;
    if (read_grace(g, a->call, &a->from, e) < 0) return -1;
    if (name_request(g, a->call, caller.tenant, &a->req, a->id, e) < 0) return -1;
    origin(a->call, &a->who, &a->from);
    return protect(a, arena, e);
}

static mr_arena *new_request_arena(const mr_gateway *g) {
    return mr_arena_new(4 * (size_t)g->conf->body_max + (1u << 20));
}

/* A chat that limits apply to: it outlives this call while it waits for their verdict. */
static int admit_limited(admission *a, mr_api_error *e) {
    mr_gateway *g = a->g;
    mr_limit_verdict v;
    a->arena = new_request_arena(g);
    if (!a->arena) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    if (parse(a, a->arena, e) < 0) return -1;
    if (!mr_limiter_take(g->limiter, &a->who, a->id, guess_cost(g, &a->req), &a->hold, &v, on_verdict, a)) {
        mr_call_on_close(a->call, on_waiting_closed, a);
        return 1;
    }
    return enter(a, &v, e);
}

/* Admits it now, or once the limits have been asked. */
static int admit(mr_gateway *g, mr_call *call, const admission *given, mr_api_error *e) {
    admission now = *given, *a;
    if (authorize(g, call, MR_SCOPE_CHAT, &now.who, e) < 0) return -1;
    if (!mr_limiter_applies(g->limiter, &now.who)) {
        if (parse(&now, g->request_arena, e) < 0) return -1;
        return launch(&now, e);
    }
    if (mr_streams_count(g->streams) + g->admissions >= g->conf->max_in_flight) {
        return mr_refuse(e, 429, "too_many_requests", NULL, "Too many requests at once; please try again.");
    }
    if (!(a = malloc(sizeof(*a)))) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    *a = now;
    g->admissions++;
    int rc = admit_limited(a, e);
    if (rc != 1) admission_free(a);
    return rc < 0 ? -1 : 0;
}

static void on_chat(void *arg, mr_call *call) {
    mr_gateway *g = arg;
    admission a = {.g = g, .call = call};
    mr_api_error e;
    mr_arena_reset(g->request_arena);
    if (mr_request_id(&(mr_request_place){.n = 1}, MR_STR(""), a.id) < 0) { /* of an error that it may get */
        no_randomness(&e);
    } else {
        mr_call_set_header(call, "x-request-id", a.id);
        if (admit(g, call, &a, &e) == 0) return;
    }
    mr_call_error(call, &e);
}

/* ---- going on with an answer ---- */

static int read_resume(mr_gateway *g, mr_call *call, mr_grant *who, mr_resume *q, mr_api_error *e) {
    char seen[MR_EVENT_ID_MAX] = "", stream[8] = "";
    const char *last = mr_call_header(call, "Last-Event-ID");
    if (authorize(g, call, MR_SCOPE_CHAT, who, e) < 0) return -1;
    q->id = mr_str_of(strstr(mr_call_path(call), "completions/") + strlen("completions/"));
    if (!mr_request_id_read(q->id, mr_str_of(who->tenant), &q->at) ||
        q->at.partition >= mr_consumer_partitions(g->responses, g->responses_topic)) {
        return mr_refuse(e, 404, "unknown_request", NULL, "There is no answer with this id.");
    }
    if (!last && mr_call_query(call, "last_event_id", seen, sizeof(seen))) last = seen;
    if (!mr_event_id_read(mr_str_of(last), q->at.n, q->seen)) {
        return mr_refuse(e, 400, "invalid_value", "last_event_id",
                         "last_event_id: expected the id of an event");
    }
    q->streamed = !mr_call_query(call, "stream", stream, sizeof(stream)) || strcmp(stream, "false") != 0;
    return 0;
}

static int resume(mr_gateway *g, mr_call *call, mr_api_error *e) {
    mr_resume q = {0};
    mr_stream_origin from;
    mr_grant who;
    if (read_resume(g, call, &who, &q, e) < 0 || check_ready(g, e) < 0 || read_grace(g, call, &from, e) < 0)
        return -1;
    origin(call, &who, &from);
    mr_call_set_header(call, "x-request-id", q.id.p);
    return mr_streams_resume(g->streams, call, &q, &from, e);
}

static void on_resume(void *arg, mr_call *call) {
    mr_api_error e;
    if (resume(arg, call, &e) < 0) mr_call_error(call, &e);
}

/* ---- feedback ---- */

static void on_feedback_acked(void *arg, const mr_error *err) {
    mr_call *call = arg;
    mr_api_error e;
    mr_call_on_close(call, NULL, NULL);
    if (!err) {
        mr_call_json(call, 200, json_pack("{s:s}", "object", "feedback"));
        return;
    }
    mr_refuse(&e, 503, "not_accepted", NULL, "The feedback could not be stored; please try again.");
    mr_call_error(call, &e);
}

static void on_feedback_closed(void *arg) {
    mr_ticket_forget(arg);
}

static int take_feedback(mr_gateway *g, mr_call *call, mr_api_error *e) {
    mr_feedback f;
    mr_grant grant;
    mr_error err;
    mr_ticket *ticket;
    mr_stream_origin from;
    if (authorize(g, call, MR_SCOPE_FEEDBACK, &grant, e) < 0) return -1;
    if (mr_openai_feedback(mr_call_body(call), g->request_arena, &f, e) < 0) return -1;
    if (check_ready(g, e) < 0) return -1;
    origin(call, &grant, &from);
    if (MR_HAS(&f, MR_FEEDBACK_COMMENT) &&
        mr_protection_remark(g->protection, &f.comment, g->request_arena, &err) < 0) {
        return mr_refuse(e, 413, "request_too_large", "comment", "comment: is too long to be looked through");
    }
    MR_SET(&f, MR_FEEDBACK_CREATED_MS, created_ms, mr_now_ms());
    mr_outbox_record rec = {MR_TOPIC_FEEDBACK, f.request, &mr_feedback_def, &f, from.trace};
    if (mr_outbox_send(g->outbox, &rec, on_feedback_acked, call, &ticket, &err) < 0) {
        return mr_refuse(e, 503, "not_accepted", NULL, "The feedback could not be stored; please try again.");
    }
    mr_call_on_close(call, on_feedback_closed, ticket);
    return 0;
}

static void on_feedback(void *arg, mr_call *call) {
    mr_gateway *g = arg;
    mr_api_error e;
    mr_arena_reset(g->request_arena);
    if (take_feedback(g, call, &e) < 0) mr_call_error(call, &e);
}

static const mr_route routes[] = {
    {"POST", "/v1/chat/completions", "chat", on_chat},
    {"POST", "/chat/completions", "chat", on_chat}, /* DeepSeek's form of the path */
    {"GET", "/v1/chat/completions/*", "resume", on_resume},
    {"GET", "/chat/completions/*", "resume", on_resume},
    {"POST", "/v1/feedback", "feedback", on_feedback},
    {"GET", "/v1/models", "models", on_models},
    {"GET", "/models", "models", on_models},
    {"GET", "/v1/models/*", "models", on_model},
    {"GET", "/models/*", "models", on_model},
    {"GET", "/dashboard/billing/usage", "billing", on_usage},
    {"GET", "/dashboard/billing/subscription", "billing", on_subscription},
    {"GET", "/v1/dashboard/billing/usage", "billing", on_usage},
    {"GET", "/v1/dashboard/billing/subscription", "billing", on_subscription},
    {"GET", "/livez", "health", on_livez},
    {"GET", "/readyz", "health", on_readyz},
    {0},
};

/* ---- requests that are over ---- */

static void count_status(mr_gateway *g, const mr_call_done *done) {
    char labels[64];
    int i = 0;
    while (i < g->nstatuses && (g->statuses[i].status != done->status || g->statuses[i].route != done->route))
        i++;
    if (i == STATUS_KINDS) return;
    if (i == g->nstatuses) {
        snprintf(labels, sizeof(labels), "route=\"%s\",status=\"%d\"", done->route, done->status);
        g->statuses[g->nstatuses++] = (status_count){
            done->route, done->status,
            mr_counter_new(g->metrics, "millrace_gateway_requests_total", labels,
                           "HTTP requests by route and status; 499 is a client that went away.")};
    }
    mr_counter_add(g->statuses[i].count, 1);
}

static void on_done(void *arg, const mr_call_done *done) {
    count_status(arg, done);
    if (done->logged) return;
    mr_log(strcmp(done->route, "health") == 0 ? MR_DEBUG : MR_INFO, "request answered",
           MR_S("route", done->route), MR_I("status", done->status), MR_F("seconds", done->seconds));
}

/* ---- records ---- */

/* from: NULL for a record of the own partition. */
static void take_record(mr_gateway *g, const mr_record *r, const mr_log_place *from) {
    mr_str type = mr_record_header(r, "type"), content = mr_record_header(r, "content-type");
    mr_error err;
    union {
        mr_response_delta delta;
        mr_response_end end;
    } msg;
    bool end = mr_str_eqz(type, mr_response_end_def.name);
    const mr_message_def *def = end ? &mr_response_end_def : &mr_response_delta_def;
    mr_arena_reset(g->record_arena);
    if (mr_decode(def, r->value, content, g->record_arena, &msg, &err) < 0) {
        mr_log(MR_WARN, "a record of chat.responses cannot be read", MR_I("offset", r->offset),
               MR_S("reason", err.msg));
    } else if (end) {
        mr_streams_end(g->streams, &msg.end, from);
    } else {
        mr_streams_delta(g->streams, &msg.delta, from);
    }
}

static bool on_record(void *arg, const mr_record *r) {
    take_record(arg, r, NULL);
    return true;
}

static void on_log_record(void *arg, const mr_record *r, int64_t round) {
    mr_gateway *g = arg;
    const mr_log_place from = {r->partition, r->offset, round};
    if (mr_streams_resumes(g->streams, r->key)) take_record(g, r, &from);
}

static void on_log_end(void *arg, int32_t partition, int64_t round) {
    mr_streams_log_end(((mr_gateway *)arg)->streams, partition, round);
}

static void on_log_gone(void *arg, int32_t partition, int64_t round, int64_t position) {
    mr_streams_log_gone(((mr_gateway *)arg)->streams, partition, round, position);
}

/* Of what is said to everybody, a gateway wants to know whose client went on elsewhere. */
static bool on_control(void *arg, const mr_record *r) {
    mr_gateway *g = arg;
    mr_control c;
    mr_error err;
    mr_arena_reset(g->control_arena);
    if (r->value.n > 0 &&
        mr_decode(&mr_control_def, r->value, mr_record_header(r, "content-type"), g->control_arena, &c,
                  &err) == 0 &&
        c.kind == MR_CONTROL_IS_RESUME) {
        mr_streams_came_back(g->streams, c.request, c.epoch);
    }
    return true;
}

/* ---- time and end ---- */

static void drain_step(mr_gateway *g) {
    mr_api_error e;
    if (mr_streams_count(g->streams) > 0 && mr_mono_us() > g->drain_until_us) {
        mr_refuse(&e, 503, "shutting_down", NULL, "The server is being restarted; please ask again.");
        mr_streams_fail_all(g->streams, &e);
    }
    if (mr_streams_count(g->streams) == 0 && mr_http_calls(g->http) == 0) mr_loop_stop(g->loop);
}

static void on_tick(void *arg) {
    mr_gateway *g = arg;
    mr_auth_refresh(g->auth);
    mr_streams_tick(g->streams);
    mr_protection_tick(g->protection);
    if (g->tls) mr_tls_refresh(g->tls);
    if (g->drain_until_us) drain_step(g);
}

static void on_drain(void *arg) {
    mr_gateway *g = arg;
    mr_http_stop_accepting(g->http);
    mr_streams_let_go(g->streams);
    g->drain_until_us = mr_mono_us() + g->conf->drain_s * 1000000;
    drain_step(g);
}

/* ---- the whole ---- */

static int open_bus(mr_gateway *g, mr_error *err) {
    char control[250];
    const mr_log_events events = {on_log_record, on_log_end, on_log_gone, g};
    mr_bus_topic(g->kafka, MR_TOPIC_RESPONSES, g->responses_topic);
    mr_bus_topic(g->kafka, MR_TOPIC_CONTROL, control);
    mr_consumer_options opt = {.topics = {g->responses_topic},
                               .partition = (int32_t)g->conf->partition,
                               .start = MR_FROM_END,
                               .on_record = on_record,
                               .arg = g};
    g->outbox = mr_outbox_new(g->kafka, g->loop, g->metrics, err);
    if (!g->outbox) return -1;
    g->protection = mr_protection_new(g->conf, g->outbox, g->metrics, err);
    if (!g->protection) return -1;
    g->streams = mr_streams_new(g->conf, g->outbox, g->protection, g->metrics, err);
    if (!g->streams) return -1;
    g->workers = mr_view_new(g->kafka, g->loop, g->metrics, "gateway_workers", err);
    if (!g->workers) return -1;
    g->refused = mr_counter_new(g->metrics, "millrace_gateway_refused_waits_total", NULL,
                                "Requests refused because they would have waited beyond their deadline.");
    g->log = mr_log_reader_new(g->kafka, g->loop, g->metrics, &events, err);
    if (!g->log) return -1;
    mr_streams_use_log(g->streams, g->log);
    g->responses = mr_consumer_new(g->kafka, &opt, g->loop, g->metrics, "gateway", err);
    if (!g->responses) return -1;
    opt = (mr_consumer_options){
        .topics = {control}, .partition = -1, .start = MR_FROM_END, .on_record = on_control, .arg = g};
    g->control = mr_consumer_new(g->kafka, &opt, g->loop, g->metrics, "gateway_control", err);
    return g->control ? 0 : -1;
}

static int open_tls(mr_gateway *g, mr_error *err) {
    const mr_gateway_conf *c = g->conf;
    if (!*c->tls_cert && !*c->tls_key) return 0;
    if (!*c->tls_cert || !*c->tls_key) {
        return mr_fail(err, MR_EINVAL, "gateway.%s is set but gateway.%s is empty: TLS needs both",
                       *c->tls_cert ? "tls_cert" : "tls_key", *c->tls_cert ? "tls_key" : "tls_cert");
    }
    g->tls = mr_tls_new(c->tls_cert, c->tls_key, err);
    return g->tls ? 0 : -1;
}

static int open_http(mr_gateway *g, mr_error *err) {
    mr_http_options o = {.host = g->conf->host,
                         .port = (int)g->conf->port,
                         .body_max = (size_t)g->conf->body_max,
                         .idle_timeout_s = (int)g->conf->idle_timeout_s,
                         .routes = routes,
                         .on_done = on_done,
                         .arg = g};
    if (open_tls(g, err) < 0) return -1;
    o.tls = g->tls;
    g->http = mr_http_new(g->loop, &o, err);
    if (!g->http) return -1;
    return mr_metrics_serve(g->metrics, g->loop, g->conf->metrics_host, (int)g->conf->metrics_port, on_ready,
                            g, err);
}

static int check_conf(const mr_gateway_conf *conf, const mr_kafka_conf *kafka, mr_error *err) {
    if (conf->body_max > kafka->message_max) {
        return mr_fail(err, MR_EINVAL, "gateway.body_max (%lld) is over kafka.message_max (%lld)",
                       (long long)conf->body_max, (long long)kafka->message_max);
    }
    return mr_catalog_check(conf, err);
}

static int start(mr_gateway *g, mr_error *err) {
    if (check_conf(g->conf, g->kafka, err) < 0) return -1;
    g->started_ms = mr_now_ms();
    g->auth = mr_auth_new(g->conf, err);
    if (!g->auth) return -1;
    g->request_arena = new_request_arena(g);
    g->record_arena = mr_arena_new(RECORD_ARENA);
    g->control_arena = mr_arena_new(CONTROL_ARENA);
    if (!g->request_arena || !g->record_arena || !g->control_arena)
        return mr_fail(err, MR_ENOMEM, "out of memory");
    g->metrics = mr_metrics_new(err);
    if (g->metrics) g->limiter = mr_limiter_new(g->conf, g->redis, g->loop, g->metrics, err);
    if (!g->limiter || open_bus(g, err) < 0 || open_http(g, err) < 0) return -1;
    g->timer = mr_timer_new(g->loop, TICK_MS, on_tick, g, err);
    if (!g->timer) return -1;
    mr_loop_on_drain(g->loop, (int)g->conf->drain_s * 1000 + DRAIN_GRACE_MS, on_drain, g);
    return 0;
}

mr_gateway *mr_gateway_new(const mr_gateway_conf *conf, const mr_kafka_conf *kafka,
                           const mr_redis_conf *redis, mr_loop *l, mr_error *err) {
    mr_gateway *g = calloc(1, sizeof(*g));
    if (!g) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    g->conf = conf;
    g->kafka = kafka;
    g->redis = redis;
    g->loop = l;
    if (start(g, err) == 0) return g;
    mr_gateway_free(g);
    return NULL;
}

void mr_gateway_free(mr_gateway *g) {
    if (!g) return;
    mr_timer_free(g->timer);
    mr_consumer_free(g->responses);
    mr_view_free(g->workers);
    mr_consumer_free(g->control);
    mr_streams_free(
        g->streams); /* settles its holds, takes back its tickets, before the outbox' last reports */
    mr_protection_free(g->protection);   /* sends its last records */
    mr_outbox_free(g->outbox, FLUSH_MS); /* those may answer calls that wait for them */
    mr_limiter_free(g->limiter);         /* answers calls that wait for it */
    mr_http_free(g->http);
    mr_tls_free(g->tls);
    mr_log_reader_free(g->log);
    mr_metrics_free(g->metrics);
    mr_arena_free(g->request_arena);
    mr_arena_free(g->record_arena);
    mr_arena_free(g->control_arena);
    mr_auth_free(g->auth);
    free(g);
}

int mr_gateway_port(const mr_gateway *g) {
    return mr_http_port(g->http);
}

void mr_gateway_metrics(mr_gateway *g, mr_buf *out) {
    mr_metrics_text(g->metrics, out);
}
