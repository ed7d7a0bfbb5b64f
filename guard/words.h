/* Lists of words to be found in text whatever it is dressed up as, by Hyperscan in streaming mode.
 *
 * A list is TSV, a line a word or phrase: word<TAB>action[<TAB>category], # begins a comment. The action is `block`,
 * `replace` (with ***), `flag` (only said) or `allow`: what lies within an allowed phrase is no hit. `(a|b)` in a word
 * stands for each of the two, one of which may be empty. Words are found in folded text (fold.h): at the borders of words
 * where the script has such, and with gaps between their letters only where these give away an intention: marks within
 * a word, or a gap between every two letters.
 *
 * mr_words is a compiled set, immutable and counted: each mr_scan holds it until its end, so a set may be replaced while
 * texts are being read. A scan may be fed in pieces cut anywhere between characters and finds the same. One thread.
 */
#ifndef MR_GUARD_WORDS_H
#define MR_GUARD_WORDS_H

#include "base/error.h"
#include "base/str.h"

typedef enum {
    MR_GUARD_OFF = -1,
    MR_GUARD_FLAG,
    MR_GUARD_REPLACE,
    MR_GUARD_MASK,
    MR_GUARD_BLOCK,
    MR_GUARD_ALLOW
} mr_guard_action;

#define MR_GUARD_ID_MAX       100
#define MR_GUARD_CATEGORY_MAX 40
#define MR_GUARD_LETTERS_MAX  64 /* of a word */

typedef struct mr_guard_rule {
    char id[MR_GUARD_ID_MAX + 1]; /* of a list: FILE:LINE, which does not give the word away */
    char category[MR_GUARD_CATEGORY_MAX + 1];
    const char *substitute; /* for REPLACE and MASK */
    mr_guard_action action;
} mr_guard_rule;

typedef struct mr_guard_hit {
    const mr_guard_rule *rule; /* as long as the set */
    size_t start, end;         /* bytes of the text, from the beginning of the scan */
} mr_guard_hit;

typedef struct mr_words mr_words;
typedef struct mr_scan mr_scan;

/* In order of their starts; they may overlap. */
typedef void mr_guard_hit_cb(void *arg, const mr_guard_hit *hit);

mr_words *mr_words_new(mr_error *err);
mr_words *mr_words_hold(mr_words *w);
void mr_words_release(mr_words *w); /* NULL is fine */

/* Before mr_words_compile. */
int mr_words_add(mr_words *w, mr_str word, const char *id, const char *category, mr_guard_action action,
                 mr_error *err);
int mr_words_add_file(mr_words *w, const char *path, mr_error *err);
int mr_words_compile(mr_words *w, mr_error *err);
int mr_words_count(const mr_words *w); /* of rules */

mr_scan *mr_scan_new(mr_words *w, mr_error *err);
void mr_scan_free(mr_scan *s);
int mr_scan_feed(mr_scan *s, mr_str text, mr_guard_hit_cb *cb, void *arg, mr_error *err);
/* The text is over; the scan can then take another one. */
int mr_scan_finish(mr_scan *s, mr_guard_hit_cb *cb, void *arg, mr_error *err);
/* Bytes from the beginning of the text of which everything is known: no hit will begin before. */
size_t mr_scan_settled(const mr_scan *s);

#endif
