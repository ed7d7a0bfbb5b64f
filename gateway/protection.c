/* See protection.h. */
#include "gateway/protection.h"

#include "base/log.h"
#include "base/loop.h"
#include "guard/protect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REFUSALS_MAX = 64, /* kinds in a second; more are only counted */
    PERIOD_US = 1000000,
};

typedef struct refusal {
    mr_finding what;
    char request[MR_ID_MAX + 1], tenant[MR_NAME_MAX + 1], trace[MR_TRACEPARENT_LEN + 1];
} refusal;

struct mr_protection {
    const mr_gateway_conf *conf;
    mr_outbox *out;
    mr_tally *tally;
    mr_protect *requests; /* NULL: nothing is looked for in them */
    mr_guard *answers;    /* likewise */
    refusal refusals[REFUSALS_MAX];
    int nrefusals;
    int64_t looked_us; /* at the lists */
};

/* ---- records ---- */

static void send_record(mr_protection *p, const mr_audit *audit, const char *trace) {
    mr_error err;
    mr_outbox_record rec = {MR_TOPIC_AUDIT, audit->request, &mr_audit_def, audit, trace};
    if (mr_outbox_send(p->out, &rec, NULL, NULL, NULL, &err) < 0) {
        mr_log(MR_ERROR, "a record of chat.audit was not sent", MR_SS("request", audit->request),
               MR_SS("rule", audit->rule), MR_S("reason", err.msg));
    }
}

typedef struct audit_to {
    mr_protection *p;
    const char *trace;
} audit_to;

static int send_found(void *arg, const mr_audit *audit, mr_error *err) {
    const audit_to *to = arg;
    (void)err;
    send_record(to->p, audit, to->trace);
    return 0;
}

/* ---- requests ---- */

int mr_protection_request(mr_protection *p, mr_chat_request *q, mr_arena *a, const char *trace, bool *blocked,
                          mr_error *err) {
    *blocked = false;
    if (!p->requests) return 0;
    int rc = mr_protect_request(p->requests, q, a, blocked, err);
    if (rc == 0) (void)mr_protect_audit(p->requests, send_found, &(audit_to){p, trace}, err);
    mr_protect_forget(p->requests);
    return rc;
}

int mr_protection_remark(mr_protection *p, mr_str *text, mr_arena *a, mr_error *err) {
    return p->requests ? mr_protect_remark(p->requests, text, a, err) : 0;
}

/* ---- answers ---- */

bool mr_protection_filters(const mr_protection *p) {
    return p->answers != NULL;
}

mr_filter *mr_protection_filter(mr_protection *p, size_t skip, mr_filter_cb *cb, void *arg, mr_error *err) {
    bool stop = strcmp(p->conf->guard_answers, "stop") == 0;
    return mr_filter_new(mr_guard_words(p->answers), stop, skip, cb, arg, err);
}

void mr_protection_found(mr_protection *p, mr_findings *f, const mr_guard_rule *rule, mr_guard_action done,
                         mr_str text) {
    mr_tally_count(p->tally, MR_LAYER_OUTPUT, rule->category, done);
    mr_findings_add(f, rule, done, text);
}

void mr_protection_report(mr_protection *p, mr_findings *f, mr_str request, mr_str tenant,
                          const char *trace) {
    mr_audit audit;
    for (int i = 0; i < f->n; i++) {
        mr_finding_record(&f->v[i], MR_LAYER_OUTPUT, request, tenant, p->conf->guard_audit_text, &audit);
        send_record(p, &audit, trace);
    }
    mr_findings_clear(f);
}

/* ---- access ---- */

void mr_protection_refused(mr_protection *p, const char *category, const char *code, mr_str request,
                           mr_str tenant, const char *trace) {
    int i = 0;
    mr_tally_count(p->tally, MR_LAYER_ACCESS, category, MR_GUARD_BLOCK);
    while (i < p->nrefusals &&
           (strcmp(p->refusals[i].what.rule, code) != 0 || !mr_str_eqz(tenant, p->refusals[i].tenant)))
        i++;
    if (i == REFUSALS_MAX) return;
    refusal *r = &p->refusals[i];
    if (i == p->nrefusals) {
        p->nrefusals++;
        *r = (refusal){.what.action = MR_GUARD_BLOCK};
        snprintf(r->what.category, sizeof(r->what.category), "%s", category);
        snprintf(r->what.rule, sizeof(r->what.rule), "%s", code);
        mr_str_copy(request, r->request, sizeof(r->request));
        mr_str_copy(tenant, r->tenant, sizeof(r->tenant));
        snprintf(r->trace, sizeof(r->trace), "%s", trace);
    }
    r->what.count++;
}

static void report_refusals(mr_protection *p) {
    mr_audit audit;
    for (int i = 0; i < p->nrefusals; i++) {
        const refusal *r = &p->refusals[i];
        mr_finding_record(&r->what, MR_LAYER_ACCESS, mr_str_of(r->request), mr_str_of(r->tenant), false,
                          &audit);
        send_record(p, &audit, r->trace);
    }
    p->nrefusals = 0;
}

/* ---- life ---- */

static int open_requests(mr_protection *p, mr_metrics *m, mr_error *err) {
    const mr_gateway_conf *c = p->conf;
    const mr_protect_options o = {.part = "gateway",
                                  .lists = c->guard_lists,
                                  .injection = c->guard_injection,
                                  .personal = c->guard_personal,
                                  .audit_text = c->guard_audit_text};
    if (c->guard_lists.n == 0 && strcmp(c->guard_injection, "off") == 0 &&
        strcmp(c->guard_personal, "off") == 0)
        return 0;
    p->requests = mr_protect_new(&o, p->tally, m, err);
    return p->requests ? 0 : -1;
}

static int open_answers(mr_protection *p, mr_error *err) {
    const mr_guard_options o = {p->conf->guard_lists, MR_GUARD_OFF, MR_GUARD_OFF};
    if (o.lists.n == 0 || strcmp(p->conf->guard_answers, "off") == 0) return 0;
    p->answers = mr_guard_open(&o, err);
    if (!p->answers) mr_fail_in(err, "gateway.guard_lists");
    return p->answers ? 0 : -1;
}

mr_protection *mr_protection_new(const mr_gateway_conf *conf, mr_outbox *out, mr_metrics *m, mr_error *err) {
    mr_protection *p = calloc(1, sizeof(*p));
    if (!p) {
        mr_fail(err, MR_ENOMEM, "out of memory");
        return NULL;
    }
    p->conf = conf;
    p->out = out;
    p->tally = mr_tally_new(m, "gateway", err);
    if (p->tally && open_requests(p, m, err) == 0 && open_answers(p, err) == 0) return p;
    mr_protection_free(p);
    return NULL;
}

void mr_protection_free(mr_protection *p) {
    if (!p) return;
    report_refusals(p);
    mr_protect_free(p->requests);
    mr_guard_close(p->answers);
    mr_tally_free(p->tally);
    free(p);
}

void mr_protection_tick(mr_protection *p) {
    mr_error err;
    int64_t now_us = mr_mono_us();
    if (now_us - p->looked_us < PERIOD_US) return;
    p->looked_us = now_us;
    report_refusals(p);
    if (p->requests) mr_protect_refresh(p->requests);
    if (p->answers && mr_guard_refresh(p->answers, &err) < 0) {
        mr_log(MR_ERROR, "the lists of words for answers were not loaded again, the old ones go on",
               MR_S("error", err.msg));
    }
}
