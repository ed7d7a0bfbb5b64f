/* What is asked, until it is on its way or refused. See chats.h. */
#include "gateway/chats.h"

#include "base/log.h"
#include "schemas/estimate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MAX_S 600

struct mr_chats {
    mr_chats_parts p;
    mr_arena *arena; /* of one request at a time, unless it waits */
    int waiting;     /* for the limiter */
    mr_counter *refused;
};

mr_chats *mr_chats_new(const mr_chats_parts *parts, mr_metrics *m, mr_error *err) {
    mr_chats *c = calloc(1, sizeof(*c));
    if (c) c->arena = mr_openai_arena(parts->conf);
    if (!c || !c->arena) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        mr_chats_free(c);
        return NULL;
    }
    c->p = *parts;
    c->refused = mr_counter_new(m, "millrace_gateway_refused_waits_total", NULL,
                                "Requests refused because they would have waited beyond their deadline.");
    return c;
}

void mr_chats_free(mr_chats *c) {
    if (!c) return;
    mr_arena_free(c->arena);
    free(c);
}

/* ---- what a request says ---- */

/* x-millrace-resume: the seconds that an answer goes on without its client. */
static int read_grace(const mr_chats *c, const mr_call *call, mr_stream_origin *from, mr_api_error *e) {
    const char *given = mr_call_header(call, "x-millrace-resume");
    from->grace_s = c->p.conf->resume_grace_s;
    if (given && (!*given || strlen(given) > 5 || given[strspn(given, "0123456789")])) {
        return mr_refuse(e, 400, "invalid_value", "x-millrace-resume", "x-millrace-resume: expected seconds");
    }
    if (given) from->grace_s = atoi(given);
    if (from->grace_s > c->p.conf->request_timeout_s) from->grace_s = c->p.conf->request_timeout_s;
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
static int check_wait(mr_chats *c, const char *model, mr_api_error *e) {
    int64_t wait = mr_view_model_wait_ms(c->p.workers, mr_str_of(model), mr_now_ms());
    int64_t over = wait - c->p.conf->request_timeout_s * 1000;
    if (wait < 0 || over <= 0) return 0;
    mr_counter_add(c->refused, 1);
    mr_refuse(e, 503, "overloaded", NULL,
              "The service is overloaded: an answer would take longer than %lld s. Please try again later.",
              (long long)c->p.conf->request_timeout_s);
    e->retry_after_s = (int)(over / 1000 < RETRY_MAX_S ? over / 1000 + 1 : RETRY_MAX_S);
    return -1;
}

static int model_number(const mr_chats *c, const char *model) {
    int i = 0;
    while (i < c->p.conf->models.n && strcmp(c->p.conf->models.v[i], model) != 0) i++;
    return i;
}

static int no_randomness(mr_api_error *e) {
    return mr_refuse(e, 500, "no_randomness", NULL, "The system has no randomness.");
}

/* The request's id says where its answer will be, for whoever goes on with it. */
static int name_request(mr_chats *c, mr_call *call, mr_str tenant, mr_openai_request *req,
                        char id[MR_REQUEST_ID_LEN + 1], mr_api_error *e) {
    const mr_request_place at = {.partition = (int32_t)c->p.conf->partition,
                                 .position = mr_records_position(c->p.records),
                                 .created_s = mr_now_ms() / 1000,
                                 .n = req->n,
                                 .usage = req->include_usage,
                                 .form = req->form,
                                 .model = model_number(c, req->model)};
    if (mr_request_id(&at, tenant, id) < 0) return no_randomness(e);
    req->chat.id = mr_str_of(id);
    mr_call_set_header(call, "x-request-id", id);
    return 0;
}

/* A chat between its arrival and its place among those in flight. */
typedef struct admission {
    mr_chats *of;
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
    mr_chats *c = a->of;
    if (a->blocked) {
        return mr_streams_refuse(c->p.streams, a->call, &a->req, &a->from, a->hold,
                                 mr_str_of(c->p.conf->guard_refusal), e);
    }
    return mr_streams_start(c->p.streams, a->call, &a->req, &a->from, a->hold, e);
}

/* With the limiter's verdict: on its way, or refused. Takes over the hold. */
static int enter(admission *a, const mr_limit_verdict *v, mr_api_error *e) {
    set_limit_headers(a->call, "requests", &v->requests);
    set_limit_headers(a->call, "tokens", &v->tokens);
    if (v->refused != MR_LIMIT_NONE) {
        refuse_limit(v, e);
        return mr_access_refused(a->of->p.access, a->call, "limit", a->who.tenant, e);
    }
    if (launch(a, e) == 0) return 0;
    mr_hold_return(a->hold);
    return -1;
}

static void admission_free(admission *a) {
    a->of->waiting--;
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
static int64_t guess_cost(const mr_chats *c, const mr_openai_request *req) {
    int64_t answer = req->chat.sampling.max_tokens;
    if (answer > c->p.conf->limits_answer) answer = c->p.conf->limits_answer;
    return mr_prompt_tokens(&req->chat) + req->n * answer;
}

/* Before anything of it is stored. Log probabilities would tell what a filter of answers takes out. */
static int protect(admission *a, mr_arena *arena, mr_api_error *e) {
    mr_protection *p = a->of->p.access->protection;
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
    mr_chats *c = a->of;
    const mr_openai_caller caller = {.id = mr_str_of(a->id),
                                     .tenant = mr_str_of(a->who.tenant),
                                     .style = a->who.style,
                                     .may_go_ahead = mr_grant_allows(&a->who, MR_SCOPE_PRIORITY),
                                     .session = mr_call_header(a->call, "x-millrace-session")};
    if (mr_openai_parse(c->p.conf, &caller, mr_call_body(a->call), arena, &a->req, e) < 0) return -1;
    if (mr_ready_check(c->p.ready, e) < 0 || check_wait(c, a->req.model, e) < 0) return -1;
    if (read_grace(c, a->call, &a->from, e) < 0) return -1;
    if (name_request(c, a->call, caller.tenant, &a->req, a->id, e) < 0) return -1;
    origin(a->call, &a->who, &a->from);
    return protect(a, arena, e);
}

/* A chat that limits apply to: it outlives this call while it waits for their verdict. */
static int admit_limited(admission *a, mr_api_error *e) {
    mr_chats *c = a->of;
    mr_limit_verdict v;
    a->arena = mr_openai_arena(c->p.conf);
    if (!a->arena) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    if (parse(a, a->arena, e) < 0) return -1;
    if (!mr_limiter_take(c->p.limiter, &a->who, a->id, guess_cost(c, &a->req), &a->hold, &v, on_verdict, a)) {
        mr_call_on_close(a->call, on_waiting_closed, a);
        return 1;
    }
    return enter(a, &v, e);
}

/* Admits it now, or once the limits have been asked. */
static int admit(mr_chats *c, mr_call *call, const admission *given, mr_api_error *e) {
    admission now = *given, *a;
    if (mr_access_check(c->p.access, call, MR_SCOPE_CHAT, &now.who, e) < 0) return -1;
    if (!mr_limiter_applies(c->p.limiter, &now.who)) {
        if (parse(&now, c->arena, e) < 0) return -1;
        return launch(&now, e);
    }
    if (mr_streams_count(c->p.streams) + c->waiting >= c->p.conf->max_in_flight) {
        return mr_refuse(e, 429, "too_many_requests", NULL, "Too many requests at once; please try again.");
    }
    if (!(a = malloc(sizeof(*a)))) return mr_refuse(e, 500, "out_of_memory", NULL, "Out of memory.");
    *a = now;
    c->waiting++;
    int rc = admit_limited(a, e);
    if (rc != 1) admission_free(a);
    return rc < 0 ? -1 : 0;
}

void mr_chats_begin(mr_chats *c, mr_call *call) {
    admission a = {.of = c, .call = call};
    mr_api_error e;
    mr_arena_reset(c->arena);
    if (mr_request_id(&(mr_request_place){.n = 1}, MR_STR(""), a.id) < 0) { /* of an error that it may get */
        no_randomness(&e);
    } else {
        mr_call_set_header(call, "x-request-id", a.id);
        if (admit(c, call, &a, &e) == 0) return;
    }
    mr_call_error(call, &e);
}

/* ---- going on with an answer ---- */

static int read_resume(mr_chats *c, mr_call *call, mr_grant *who, mr_resume *q, mr_api_error *e) {
    char seen[MR_EVENT_ID_MAX] = "", stream[8] = "";
    const char *last = mr_call_header(call, "Last-Event-ID");
    if (mr_access_check(c->p.access, call, MR_SCOPE_CHAT, who, e) < 0) return -1;
    q->id = mr_str_of(strstr(mr_call_path(call), "completions/") + strlen("completions/"));
    if (!mr_request_id_read(q->id, mr_str_of(who->tenant), &q->at) ||
        q->at.partition >= mr_records_partitions(c->p.records)) {
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

static int resume(mr_chats *c, mr_call *call, mr_api_error *e) {
    mr_resume q = {0};
    mr_stream_origin from;
    mr_grant who;
    if (read_resume(c, call, &who, &q, e) < 0 || mr_ready_check(c->p.ready, e) < 0 ||
        read_grace(c, call, &from, e) < 0)
        return -1;
    origin(call, &who, &from);
    mr_call_set_header(call, "x-request-id", q.id.p);
    return mr_streams_resume(c->p.streams, call, &q, &from, e);
}

void mr_chats_resume(mr_chats *c, mr_call *call) {
    mr_api_error e;
    if (resume(c, call, &e) < 0) mr_call_error(call, &e);
}
