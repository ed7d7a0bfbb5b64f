/* The knowledge base: routine questions and their answers, in one SQLite file with two FTS5 indexes.
 *
 * A search takes three steps. (1) The question in normal form (kb_text.h) is looked up as it stands: a hit scores 1.
 * (2) Otherwise the index of words and the index of trigrams name the entries that have the rarest features of the
 * question; how many postings are read is bounded, so a search stays well under a millisecond. (3) The best of them
 * are scored by the cosine of the weighted features
 *
 *     score = S(q,d) / sqrt(S(q,q) * S(d,d)),   S(a,b) = sum over the distinct features in both of (k * idf)^2
 *     idf = ln(1 + (N - n + 0.5) / (n + 0.5)),  N entries, n of them with the feature;  k = 1 for words, see kb.c
 *
 * which is 1 for the same wording, 0 for nothing in common, and which sinks with everything that the question says and
 * the entry does not: the number that router.kb_threshold is compared with. BM25 alone has no such scale.
 *
 * An mr_kb belongs to one thread (the router's loop). The file is opened read-only; imports replace it by rename
 * (kb_import.h), and mr_kb_refresh notices. Searching never waits for a writer.
 */
#ifndef MR_KB_H
#define MR_KB_H

#include "base/error.h"
#include "base/str.h"

typedef struct mr_kb mr_kb;

typedef struct mr_kb_hit {
    double score;            /* 0 to 1 */
    mr_str question, answer; /* borrowed until the next search, refresh or close */
} mr_kb_hit;

#define MR_KB_HITS_MAX 20

mr_kb *mr_kb_open(const char *path, mr_error *err);
void mr_kb_close(mr_kb *kb);
int mr_kb_entries(const mr_kb *kb);

/* The `max` (<= MR_KB_HITS_MAX) best entries, best first; returns their number, or -1. A question that is too long for
 * a routine one, or has no word in it, finds nothing. */
int mr_kb_search(mr_kb *kb, mr_str question, mr_kb_hit *hits, int max, mr_error *err);

/* Whether the best of these hits is an answer: it scores at least `threshold`, and no other answer comes close. Of two that
 * do, neither is sure enough. The hits are best first, at least MR_KB_RIVALS of them were asked for. */
#define MR_KB_RIVALS 8
bool mr_kb_answers(const mr_kb_hit *hits, int n, double threshold);

/* Opens the file again when it was replaced or changed: 1 when it was, 0 when nothing changed, -1 when the new file
 * is unusable (the old content stays in service, and the same file is not tried again). */
int mr_kb_refresh(mr_kb *kb, mr_error *err);

#endif
