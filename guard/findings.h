/* What was found, and what was done about it: counted in metrics, and gathered rule by rule into records for chat.audit. */
#ifndef MR_GUARD_FINDINGS_H
#define MR_GUARD_FINDINGS_H

#include "base/metrics.h"
#include "guard/words.h"
#include "schemas/messages.h"

/* Counters of a process: millrace_<part>_guard_hits_total{layer,category,action}. */
typedef struct mr_tally mr_tally;

mr_tally *mr_tally_new(mr_metrics *m, const char *part, mr_error *err);
void mr_tally_free(mr_tally *t);
void mr_tally_count(mr_tally *t, enum mr_guard_layer layer, const char *category, mr_guard_action action);

#define MR_FINDING_TEXT_MAX 200 /* bytes of what was found that are kept */

/* What was done because of a rule. */
typedef struct mr_finding {
    char rule[MR_GUARD_ID_MAX + 1], category[MR_GUARD_CATEGORY_MAX + 1];
    mr_guard_action action;
    int64_t count;
    char text[MR_FINDING_TEXT_MAX + 1]; /* of the first; of personal data its mask */
} mr_finding;

/* Of one request or answer; zeroed is none. Beyond 32 rules, or without memory, findings are only counted. */
typedef struct mr_findings {
    mr_finding *v;
    int n, cap;
} mr_findings;

void mr_findings_add(mr_findings *f, const mr_guard_rule *rule, mr_guard_action action, mr_str text);
void mr_findings_clear(mr_findings *f); /* keeps the memory */
void mr_findings_done(mr_findings *f);

/* Its record, which borrows everything; with the text or without. */
void mr_finding_record(const mr_finding *f, enum mr_guard_layer layer, mr_str request, mr_str tenant,
                       bool with_text, mr_audit *out);

#endif
