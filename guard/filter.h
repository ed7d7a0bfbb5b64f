/* The filter of a text that is still being written: what of it may go out, with the words of a set taken out.
 *
 * It holds back as much as could still become a word, at most the letters of the longest one. A word to be replaced goes
 * out as its substitute; one that blocks ends the text in front of it, for ever, or is replaced as well. What goes out
 * depends on the text alone, not on how it was cut. Positions are bytes of the text as it came in. One thread.
 */
#ifndef MR_GUARD_FILTER_H
#define MR_GUARD_FILTER_H

#include "guard/words.h"

typedef struct mr_filter mr_filter;

/* What was found, `text`, and what was done. */
typedef void mr_filter_cb(void *arg, const mr_guard_rule *rule, mr_guard_action done, mr_str text);

/* Of what comes before `skip` nothing goes out and nothing is said: whoever goes on with a text has it. A substitute that
 * stands for text on both sides does. */
mr_filter *mr_filter_new(mr_words *words, bool stop, size_t skip, mr_filter_cb *cb, void *arg, mr_error *err);
void mr_filter_free(mr_filter *f);

/* More of the text, whole characters; what may go out is appended. After the last of it, `over`, nothing is held back, and
 * the filter is only good to be freed. */
int mr_filter_feed(mr_filter *f, mr_str text, bool over, mr_buf *out, mr_error *err);
/* Bytes of the text that what went out stands for. */
size_t mr_filter_passed(const mr_filter *f);
/* A word has ended it. */
bool mr_filter_stopped(const mr_filter *f);

#endif
