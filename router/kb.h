/* The knowledge base: routine questions and their answers, in one SQLite file with an FTS5 index.
 *
 * An entry is an answer with the phrasings of the question that it answers. A search takes four steps. (1) The question in
 * words form (text_norm.h) is looked up as it stands: the entry that has it is sure, and nothing else is looked for. (2) Its rarest tokens (kb_text.h) are
 * asked of the index, trigrams for words that it has not; how many postings are read is bounded, so a search stays well under a millisecond. (3) The best
 * phrasings so found, and the titles of the entries whose intent is likely, are compared with the question by
 *
 *     similarity = S(q,d) / sqrt(S(q,q) * S(d,d)),   S(a,b) = sum over the distinct tokens in both of (k * idf)^2
 *     idf = ln(1 + (N - n + 0.5) / (n + 0.5)),  N phrasings, n of them with the token;  k = 1 for words, see kb_file.c
 *
 * which is 1 for the same wording, 0 for nothing in common, and sinks with everything that the question says and the
 * phrasing does not. These are BM25's weights (S. Robertson, H. Zaragoza, "The probabilistic relevance framework: BM25 and
 * beyond", 2009) for texts that say no word twice, with the cosine in place of its parameter b: so the scale is the same
 * for every question. (4) An entry's phrasings and its intent are fused into the probability that it is meant (kb_fuse.h):
 * the number that router.kb_threshold is compared with.
 *
 * An mr_kb belongs to one thread (the router's loop); another one loads (kb_loader.h). The file is opened read-only; imports replace it by rename
 * (kb_import.h), and mr_kb_refresh notices. Searching never waits for a writer.
 */
#ifndef MR_KB_H
#define MR_KB_H

#include "base/error.h"
#include "base/str.h"
#include "router/intent.h"
#include "router/kb_fuse.h"

typedef struct mr_kb mr_kb;

typedef struct mr_kb_hit {
    double confidence; /* that this answer is right, 0 to 1; 1: the same wording, and no other answer to it */
    double similarity; /* of the nearest phrasing, 0 to 1 */
    mr_kb_evidence evidence;
    /* Borrowed until the next search, refresh or close. `title` is the entry's first phrasing, `follow` the names of
     * others with commas between; empty where there is none. */
    mr_str title, name, answer, intent, follow;
} mr_kb_hit;

#define MR_KB_HITS_MAX 20

mr_kb *mr_kb_open(const char *path, mr_error *err);
void mr_kb_close(mr_kb *kb);
int mr_kb_entries(const mr_kb *kb);

/* Whether entries have the question's very words, and all of them give the same answer: 1, with the first of them, or 0; -1. Much
 * cheaper than a search, and a search of the same question goes on from it. */
int mr_kb_same_words(mr_kb *kb, mr_str question, mr_kb_hit *hit, mr_error *err);

/* The `max` (<= MR_KB_HITS_MAX) best entries, best first; returns their number, or -1. `intents` has classified this very
 * question last; NULL: no model. Where the very words are sure, only entries that have them. A question that is too long for a routine one, or has no word in it, finds nothing. */
int mr_kb_search(mr_kb *kb, mr_str question, const mr_intent *intents, mr_kb_hit *hits, int max,
                 mr_error *err);

/* Whether an entry has this name or this intent: 1 or 0; -1 on failure. */
int mr_kb_has(mr_kb *kb, mr_str label, mr_error *err);

/* The title of the entry of this name, borrowed as a hit is; empty: there is none. -1 on failure. */
int mr_kb_title(mr_kb *kb, mr_str name, mr_str *title, mr_error *err);

/* Opens the file again when it was replaced or changed, in a thread: searches go on with the old content until it is loaded. To be
 * called now and then: 1 when new content has come into service, 0 when nothing changed or it is still loading, -1 when the
 * new file is unusable (the old content stays in service, and the same file is not tried again). */
int mr_kb_refresh(mr_kb *kb, mr_error *err);
bool mr_kb_loading(const mr_kb *kb);

#endif
