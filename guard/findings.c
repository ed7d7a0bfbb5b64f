/* See findings.h. */
#include "guard/findings.h"

#include "base/loop.h"
#include "guard/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KINDS_MAX = 100, /* lines of the metric */
    FINDINGS_MAX = 32,
};

typedef struct kind_count {
    enum mr_guard_layer layer;
    char category[MR_GUARD_CATEGORY_MAX + 1];
    mr_guard_action action;
    mr_counter *count;
} kind_count;

struct mr_tally {
    mr_metrics *metrics;
    char name[80];
    kind_count kinds[KINDS_MAX];
    int nkinds;
};

/* ---- counting ---- */

mr_tally *mr_tally_new(mr_metrics *m, const char *part, mr_error *err) {
    mr_tally *t = calloc(1, sizeof *t);
    if (!t) {
        mr_fail(err, MR_ENOMEM, "no memory for the guard");
        return NULL;
    }
    t->metrics = m;
    snprintf(t->name, sizeof t->name, "millrace_%s_guard_hits_total", part);
    return t;
}

void mr_tally_free(mr_tally *t) {
    free(t);
}

static bool is_kind(const kind_count *k, enum mr_guard_layer layer, const char *category,
                    mr_guard_action action) {
    return k->layer == layer && k->action == action && strcmp(k->category, category) == 0;
}

void mr_tally_count(mr_tally *t, enum mr_guard_layer layer, const char *category, mr_guard_action action) {
    char labels[140];
    int i = 0;
    while (i < t->nkinds && !is_kind(&t->kinds[i], layer, category, action)) i++;
    if (i == KINDS_MAX) return;
    kind_count *k = &t->kinds[i];
    if (i == t->nkinds) {
        t->nkinds++;
        *k = (kind_count){.layer = layer, .action = action};
        snprintf(k->category, sizeof k->category, "%s", category);
        snprintf(labels, sizeof labels, "layer=\"%s\",category=\"%s\",action=\"%s\"",
                 mr_guard_layer_names[layer], category, mr_guard_action_names[action]);
        k->count =
            mr_counter_new(t->metrics, t->name, labels, "What the guard found in texts, and what was done.");
    }
    mr_counter_add(k->count, 1);
}

/* ---- gathering ---- */

/* As much of a text as is kept, cut between characters. */
static void keep_text(char out[MR_FINDING_TEXT_MAX + 1], mr_str text) {
    size_t n = text.n < MR_FINDING_TEXT_MAX ? text.n : MR_FINDING_TEXT_MAX;
    while (n > 0 && n < text.n && ((unsigned char)text.p[n] & 0xC0) == 0x80) n--;
    memcpy(out, text.p, n);
    out[n] = '\0';
}

/* Room for one more, or NULL. */
static mr_finding *more(mr_findings *f) {
    if (f->n == FINDINGS_MAX) return NULL;
    if (f->n == f->cap) {
        int cap = f->cap ? 2 * f->cap : 4;
        mr_finding *v = realloc(f->v, (size_t)cap * sizeof *v);
        if (!v) return NULL;
        f->v = v;
        f->cap = cap;
    }
    return &f->v[f->n++];
}

void mr_findings_add(mr_findings *f, const mr_guard_rule *rule, mr_guard_action action, mr_str text) {
    bool personal = strcmp(rule->category, MR_GUARD_PERSONAL) == 0;
    int i = 0;
    while (i < f->n && (f->v[i].action != action || strcmp(f->v[i].rule, rule->id) != 0)) i++;
    if (i < f->n) {
        f->v[i].count++;
        return;
    }
    mr_finding *v = more(f);
    if (!v) return;
    *v = (mr_finding){.action = action, .count = 1};
    snprintf(v->rule, sizeof v->rule, "%s", rule->id);
    snprintf(v->category, sizeof v->category, "%s", rule->category);
    keep_text(v->text, personal ? mr_str_of(rule->substitute) : text);
}

void mr_findings_clear(mr_findings *f) {
    f->n = 0;
}

void mr_findings_done(mr_findings *f) {
    free(f->v);
    *f = (mr_findings){0};
}

/* ---- records ---- */

void mr_finding_record(const mr_finding *f, enum mr_guard_layer layer, mr_str request, mr_str tenant,
                       bool with_text, mr_audit *out) {
    *out = (mr_audit){0};
    MR_SET(out, MR_AUDIT_V, v, MR_SCHEMA_VERSION);
    MR_SET(out, MR_AUDIT_REQUEST, request, request);
    if (tenant.n > 0) MR_SET(out, MR_AUDIT_TENANT, tenant, tenant);
    MR_SET(out, MR_AUDIT_LAYER, layer, layer);
    MR_SET(out, MR_AUDIT_CATEGORY, category, mr_str_of(f->category));
    MR_SET(out, MR_AUDIT_ACTION, action, f->action);
    MR_SET(out, MR_AUDIT_RULE, rule, mr_str_of(f->rule));
    MR_SET(out, MR_AUDIT_COUNT, count, f->count);
    MR_SET(out, MR_AUDIT_CREATED_MS, created_ms, mr_now_ms());
    if (with_text) MR_SET(out, MR_AUDIT_TEXT, text, mr_str_of(f->text));
}
