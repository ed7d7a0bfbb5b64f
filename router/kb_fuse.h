/* How sure the knowledge base is of an answer: what the words say and what the model of intents says, fused into one
 * probability an entry.
 *
 * For a question q with candidates e = 1…n the chance that e is what was asked for is
 *
 *     P(e | q) = exp(u_e) / (1 + sum over j of exp(u_j)),    u_e = b + s * best_e + v * votes_e + l * ln P(label_e | q)
 *
 * and what is missing to 1 is the chance that none is: a conditional logit with an outside option (D. McFadden,
 * "Conditional logit analysis of qualitative choice behavior", 1974). As each u_e is a sum of log-odds, it is a weighted
 * logarithmic opinion pool of both witnesses (C. Genest, J. Zidek, "Combining probability distributions", Statistical
 * Science 1, 1986). best_e is the similarity (kb.h) of the entry's nearest phrasing, votes_e the sum of the squares
 * of the four after it, label_e its intent. What an intent says of an entry depends on whether it is the intent of others too, so there
 * are three sets of coefficients. They are fitted by maximum likelihood (kb_fit.h), which is what makes P calibrated.
 * Pure functions; any thread.
 */
#ifndef MR_KB_FUSE_H
#define MR_KB_FUSE_H

typedef enum { MR_KB_BIAS, MR_KB_BEST, MR_KB_VOTES, MR_KB_LABEL, MR_KB_TERMS } mr_kb_term;

/* What is known of an entry's intent. */
typedef enum {
    MR_KB_PLAIN,    /* nothing: it has none, or there is no model that knows it */
    MR_KB_CATEGORY, /* its probability; other entries have it too */
    MR_KB_OWN,      /* the same, of an intent that is this entry's alone */
    MR_KB_KINDS
} mr_kb_kind;

/* What is known of a candidate. */
typedef struct mr_kb_evidence {
    mr_kb_kind kind;
    double best, votes;
    double label; /* P(label | q), unless plain */
} mr_kb_evidence;

typedef struct mr_kb_fusion {
    double w[MR_KB_KINDS][MR_KB_TERMS]; /* of plain ones the last is not used */
} mr_kb_fusion;

/* Where none was fitted: what fits the training parts of public data. */
extern const mr_kb_fusion mr_kb_fusion_default;

/* Coefficients are named by both in a file's settings: "plain.bias"… */
extern const char *const mr_kb_kind_names[MR_KB_KINDS], *const mr_kb_term_names[MR_KB_TERMS];

/* The terms that u is the weighted sum of. */
void mr_kb_terms(const mr_kb_evidence *e, double x[MR_KB_TERMS]);
/* P(e | q) of each of n candidates. */
void mr_kb_fuse(const mr_kb_fusion *f, const mr_kb_evidence *e, int n, double *probability);

#endif
