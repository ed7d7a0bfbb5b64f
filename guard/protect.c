/* Decisions on requests, and their records; see protect.h. */
#include "guard/protect.h"

#include "base/log.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EDITS_MAX = 1 << 18 };

typedef struct edit {
    size_t start, end;
    const char *substitute;
} edit;

struct mr_protect {
    mr_guard *guard;
    mr_tally *tally;
    mr_histogram *seconds;
    mr_gauge *rules;
    bool audit_text;
    /* of the last request */
    char request[MR_ID_MAX + 1], tenant[MR_NAME_MAX + 1];
    mr_findings findings;
    bool blocked;
    /* of the text that is looked through */
    mr_str text;
    bool fresh, orders; /* it is new; it is the system's */
    edit *edits;
    size_t nedits, edits_cap;
    bool failed;
};

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
    mr_tally_count(p->tally, MR_LAYER_INPUT, hit->rule->category, action);
    mr_findings_add(&p->findings, hit->rule, action, (mr_str){p->text.p + hit->start, hit->end - hit->start});
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
    mr_str_copy(q->id, p->request, sizeof p->request);
    mr_str_copy(q->tenant, p->tenant, sizeof p->tenant);
    for (uint32_t i = 0; rc == 0 && i < q->messages.n; i++) {
        p->fresh = i >= fresh;
        rc = protect_message(p, &q->messages.v[i], a, err);
    }
    *blocked = p->blocked;
    mr_histogram_observe(p->seconds, (double)(mr_mono_us() - start) * 1e-6);
    return rc;
}

int mr_protect_remark(mr_protect *p, mr_str *text, mr_arena *a, mr_error *err) {
    p->fresh = p->orders = false;
    int rc = protect_text(p, text, a, err);
    mr_protect_forget(p);
    return rc;
}

void mr_protect_forget(mr_protect *p) {
    mr_findings_clear(&p->findings);
    p->blocked = false;
}

/* ---- records ---- */

int mr_protect_audit(mr_protect *p, mr_protect_audit_cb *cb, void *arg, mr_error *err) {
    mr_audit audit;
    for (int i = 0; i < p->findings.n; i++) {
        mr_finding_record(&p->findings.v[i], MR_LAYER_INPUT, mr_str_of(p->request), mr_str_of(p->tenant),
                          p->audit_text, &audit);
        if (cb(arg, &audit, err) < 0) return -1;
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

mr_protect *mr_protect_new(const mr_protect_options *o, mr_tally *tally, mr_metrics *m, mr_error *err) {
    mr_guard_options guard = {o->lists, action_of(o->injection), action_of(o->personal)};
    char name[80];
    mr_protect *p = calloc(1, sizeof *p);
    if (!p) {
        mr_fail(err, MR_ENOMEM, "no memory for the guard");
        return NULL;
    }
    p->tally = tally;
    p->audit_text = o->audit_text;
    p->guard = mr_guard_open(&guard, err);
    if (!p->guard) {
        mr_fail_in(err, "%s.guard_lists", o->part);
        mr_protect_free(p);
        return NULL;
    }
    snprintf(name, sizeof name, "millrace_%s_guard_seconds", o->part);
    p->seconds = mr_histogram_new(m, name, NULL, "Looking through a request.");
    snprintf(name, sizeof name, "millrace_%s_guard_rules", o->part);
    p->rules = mr_gauge_new(m, name, NULL, "Words and phrases that are looked for.");
    mr_gauge_set(p->rules, mr_guard_rules(p->guard));
    return p;
}

void mr_protect_free(mr_protect *p) {
    if (!p) return;
    mr_guard_close(p->guard);
    mr_findings_done(&p->findings);
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
