/* Decisions on requests, and their records; see protect.h. */
#include "router/protect.h"

#include "base/log.h"
#include "base/loop.h"
#include "guard/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KINDS_MAX = 100,    /* lines of millrace_router_guard_hits_total */
    DECISIONS_MAX = 32, /* records of a request; hits of more rules than that are only counted */
    EDITS_MAX = 1 << 18,
    TEXT_KEPT = 200, /* bytes of a hit in its record */
};

static const char layer[] = "input";

/* What was done because of a rule. */
typedef struct decision {
    char rule[MR_GUARD_ID_MAX + 1], category[MR_GUARD_CATEGORY_MAX + 1];
    mr_guard_action action;
    int64_t count;
    char text[TEXT_KEPT + 1];
} decision;

typedef struct edit {
    size_t start, end;
    const char *substitute;
} edit;

typedef struct kind_count {
    char category[MR_GUARD_CATEGORY_MAX + 1];
    mr_guard_action action;
    mr_counter *count;
} kind_count;

struct mr_protect {
    const mr_router_conf *conf;
    mr_guard *guard;
    mr_metrics *metrics;
    mr_histogram *seconds;
    mr_gauge *rules;
    char topic[250];
    kind_count kinds[KINDS_MAX];
    int nkinds;
    /* of the last request */
    char request[MR_ID_MAX + 1], tenant[MR_NAME_MAX + 1];
    decision decisions[DECISIONS_MAX];
    int ndecisions;
    bool blocked;
    /* of the text that is looked through */
    mr_str text;
    bool fresh, orders; /* it is new; it is the system's */
    edit *edits;
    size_t nedits, edits_cap;
    bool failed;
};

/* ---- counting ---- */

static void count(mr_protect *p, const char *category, mr_guard_action action) {
    char labels[120];
    int i = 0;
    while (i < p->nkinds && (p->kinds[i].action != action || strcmp(p->kinds[i].category, category) != 0))
        i++;
    if (i == KINDS_MAX) return;
    kind_count *k = &p->kinds[i];
    if (i == p->nkinds) {
        p->nkinds++;
        snprintf(k->category, sizeof k->category, "%s", category);
        k->action = action;
        snprintf(labels, sizeof labels, "layer=\"%s\",category=\"%s\",action=\"%s\"", layer, category,
                 mr_guard_action_names[action]);
        k->count = mr_counter_new(p->metrics, "millrace_router_guard_hits_total", labels,
                                  "What the guard found in requests, and what was done.");
    }
    mr_counter_add(k->count, 1);
}

/* As much of a text as is kept, cut between characters. */
static void keep_text(char out[TEXT_KEPT + 1], mr_str text) {
    size_t n = text.n < TEXT_KEPT ? text.n : TEXT_KEPT;
    while (n > 0 && n < text.n && ((unsigned char)text.p[n] & 0xC0) == 0x80) n--;
    memcpy(out, text.p, n);
    out[n] = '\0';
}

static void note(mr_protect *p, const mr_guard_hit *hit, mr_guard_action action) {
    const mr_guard_rule *rule = hit->rule;
    bool personal = strcmp(rule->category, MR_GUARD_PERSONAL) == 0;
    int i = 0;
    count(p, rule->category, action);
    while (i < p->ndecisions &&
           (p->decisions[i].action != action || strcmp(p->decisions[i].rule, rule->id) != 0))
        i++;
    if (i == DECISIONS_MAX) return;
    decision *d = &p->decisions[i];
    if (i == p->ndecisions) {
        p->ndecisions++;
        *d = (decision){.action = action};
        snprintf(d->rule, sizeof d->rule, "%s", rule->id);
        snprintf(d->category, sizeof d->category, "%s", rule->category);
        mr_str found = {p->text.p + hit->start, hit->end - hit->start};
        keep_text(d->text, personal ? mr_str_of(rule->substitute) : found);
    }
    d->count++;
}

/* ---- deciding ---- */

static void add_edit(mr_protect *p, const mr_guard_hit *hit) {
    if (p->nedits == p->edits_cap) {
        size_t more = p->edits_cap ? 2 * p->edits_cap : 64;
        edit *v = more <= EDITS_MAX ? realloc(p->edits, more * sizeof *v) : NULL;
        if (!v) {
            p->failed = true;
            return;
        }
        p->edits = v;
        p->edits_cap = more;
    }
    p->edits[p->nedits++] = (edit){hit->start, hit->end, hit->rule->substitute};
}

static void on_hit(void *arg, const mr_guard_hit *hit) {
    mr_protect *p = arg;
    mr_guard_action action = hit->rule->action;
    if (p->orders && strcmp(hit->rule->category, MR_GUARD_INJECTION) == 0) return;
    if (action == MR_GUARD_FLAG && !p->fresh) return; /* said when it was new */
    if (action == MR_GUARD_BLOCK && !p->fresh) action = MR_GUARD_REPLACE;
    note(p, hit, action);
    if (action == MR_GUARD_BLOCK) p->blocked = true;
    if (action == MR_GUARD_REPLACE || action == MR_GUARD_MASK) add_edit(p, hit);
}

/* ---- rewriting ---- */

static int by_start(const void *a, const void *b) {
    const edit *x = a, *y = b;
    if (x->start != y->start) return x->start < y->start ? -1 : 1;
    return (x->end < y->end) - (x->end > y->end);
}

/* The text with its edits; of those that overlap the first one's substitute stands for all. */
static int rewrite(mr_protect *p, mr_str *text, mr_arena *a, mr_error *err) {
    size_t extra = 0, done = 0;
    qsort(p->edits, p->nedits, sizeof *p->edits, by_start);
    for (size_t i = 0; i < p->nedits; i++) extra += strlen(p->edits[i].substitute);
    char *out = mr_arena_alloc(a, text->n + extra + 1), *end = out;
    if (!out) return mr_fail(err, MR_ETOOBIG, "the request is too large to be rewritten");
    for (size_t i = 0; i < p->nedits; i++) {
        const edit *e = &p->edits[i];
        if (i == 0 || e->start >= done) {
            memcpy(end, text->p + done, e->start - done);
            end += e->start - done;
            end = stpcpy(end, e->substitute);
        }
        if (e->end > done) done = e->end;
    }
    memcpy(end, text->p + done, text->n - done);
    end += text->n - done;
    *text = (mr_str){out, (size_t)(end - out)};
    return 0;
}

static int protect_text(mr_protect *p, mr_str *text, mr_arena *a, mr_error *err) {
    p->text = *text;
    p->nedits = 0;
    p->failed = false;
    if (mr_guard_scan(p->guard, *text, on_hit, p, err) < 0) return -1;
    if (p->failed)
        return mr_fail(err, MR_ETOOBIG, "there is too much in the request that has to be replaced");
    return p->nedits > 0 ? rewrite(p, text, a, err) : 0;
}

static int protect_message(mr_protect *p, mr_chat_message *m, mr_arena *a, mr_error *err) {
    p->orders = m->role == MR_ROLE_SYSTEM || m->role == MR_ROLE_DEVELOPER;
    if (MR_HAS(m, MR_CHAT_MESSAGE_CONTENT) && protect_text(p, &m->content, a, err) < 0) return -1;
    for (uint32_t i = 0; i < m->parts.n; i++) {
        if (m->parts.v[i].type == MR_PART_IS_TEXT && protect_text(p, &m->parts.v[i].text, a, err) < 0)
            return -1;
    }
    return 0;
}

static uint32_t first_new(const mr_chat_request *q) {
    uint32_t i = q->messages.n;
    while (i > 0 && q->messages.v[i - 1].role != MR_ROLE_ASSISTANT) i--;
    return i;
}

int mr_protect_request(mr_protect *p, mr_chat_request *q, mr_arena *a, bool *blocked, mr_error *err) {
    int64_t start = mr_mono_us();
    uint32_t fresh = first_new(q);
    int rc = 0;
    mr_protect_forget(p);
    snprintf(p->request, sizeof p->request, "%.*s", MR_FMT(q->id));
    snprintf(p->tenant, sizeof p->tenant, "%.*s", MR_FMT(q->tenant));
    for (uint32_t i = 0; rc == 0 && i < q->messages.n; i++) {
        p->fresh = i >= fresh;
        rc = protect_message(p, &q->messages.v[i], a, err);
    }
    *blocked = p->blocked;
    mr_histogram_observe(p->seconds, (double)(mr_mono_us() - start) * 1e-6);
    return rc;
}

void mr_protect_forget(mr_protect *p) {
    p->ndecisions = 0;
    p->blocked = false;
}

/* ---- records ---- */

static int add_record(mr_protect *p, const decision *d, mr_parcel *parcel, const char *traceparent,
                      mr_error *err) {
    mr_audit audit = {0};
    mr_address to = {
        .topic = p->topic, .partition = -1, .key = mr_str_of(p->request), .traceparent = traceparent};
    MR_SET(&audit, MR_AUDIT_V, v, MR_SCHEMA_VERSION);
    MR_SET(&audit, MR_AUDIT_REQUEST, request, mr_str_of(p->request));
    if (p->tenant[0]) MR_SET(&audit, MR_AUDIT_TENANT, tenant, mr_str_of(p->tenant));
    MR_SET(&audit, MR_AUDIT_LAYER, layer, MR_LAYER_INPUT);
    MR_SET(&audit, MR_AUDIT_CATEGORY, category, mr_str_of(d->category));
    MR_SET(&audit, MR_AUDIT_ACTION, action, d->action);
    MR_SET(&audit, MR_AUDIT_RULE, rule, mr_str_of(d->rule));
    MR_SET(&audit, MR_AUDIT_COUNT, count, d->count);
    MR_SET(&audit, MR_AUDIT_CREATED_MS, created_ms, mr_now_ms());
    if (p->conf->guard_audit_text) MR_SET(&audit, MR_AUDIT_TEXT, text, mr_str_of(d->text));
    return mr_parcel_add(parcel, &to, &mr_audit_def, &audit, err);
}

int mr_protect_audit(mr_protect *p, mr_parcel *parcel, const char *traceparent, mr_error *err) {
    for (int i = 0; i < p->ndecisions; i++) {
        if (add_record(p, &p->decisions[i], parcel, traceparent, err) < 0) return -1;
    }
    return 0;
}

/* ---- life ---- */

static mr_guard_action action_of(const char *name) {
    for (int i = 0; mr_guard_action_names[i]; i++) {
        if (strcmp(name, mr_guard_action_names[i]) == 0) return (mr_guard_action)i;
    }
    return MR_GUARD_OFF;
}

mr_protect *mr_protect_new(const mr_router_conf *conf, const mr_kafka_conf *kafka, mr_metrics *m,
                           mr_error *err) {
    mr_guard_options o = {conf->guard_lists, action_of(conf->guard_injection),
                          action_of(conf->guard_personal)};
    mr_protect *p = calloc(1, sizeof *p);
    if (!p) {
        mr_fail(err, MR_ENOMEM, "no memory for the guard");
        return NULL;
    }
    p->conf = conf;
    p->metrics = m;
    mr_bus_topic(kafka, MR_TOPIC_AUDIT, p->topic);
    p->guard = mr_guard_open(&o, err);
    if (!p->guard) {
        mr_fail_in(err, "router.guard_lists");
        mr_protect_free(p);
        return NULL;
    }
    p->seconds = mr_histogram_new(m, "millrace_router_guard_seconds", NULL, "Looking through a request.");
    p->rules = mr_gauge_new(m, "millrace_router_guard_rules", NULL, "Words and phrases that are looked for.");
    mr_gauge_set(p->rules, mr_guard_rules(p->guard));
    return p;
}

void mr_protect_free(mr_protect *p) {
    if (!p) return;
    mr_guard_close(p->guard);
    free(p->edits);
    free(p);
}

void mr_protect_refresh(mr_protect *p) {
    mr_error err;
    int rc = mr_guard_refresh(p->guard, &err);
    if (rc < 0)
        mr_log(MR_ERROR, "the lists of words were not loaded again, the old ones go on",
               MR_S("error", err.msg));
    if (rc == 1) mr_log(MR_INFO, "lists of words loaded again", MR_I("rules", mr_guard_rules(p->guard)));
    mr_gauge_set(p->rules, mr_guard_rules(p->guard));
}
