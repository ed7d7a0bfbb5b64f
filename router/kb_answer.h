/* The text of the knowledge base's answers: placeholders, and the list of what may be asked next.
 *
 * An answer may hold {user}, {tenant}, {model}, {date} (2026-11-24), {time} (09:30) and {weekday} (Tuesday): what the request
 * says, and the router's local time. {user|friend} stands for "friend" where the request names no user; without a | nothing
 * stands there. "{{" is a brace. A brace that no small letter follows is text.
 *
 * The list stands at the end of the answer, a title a line with a number before it. Who answers "2" gets the second one: the
 * list is read from the conversation itself, so nothing has to be kept.
 * Pure functions; any thread.
 */
#ifndef MR_KB_ANSWER_H
#define MR_KB_ANSWER_H

#include "base/error.h"
#include "base/str.h"

#include <time.h>

/* Fails for an unknown placeholder, naming it and those that there are. */
int mr_kb_answer_check(mr_str answer, mr_error *err);

typedef struct mr_kb_values {
    mr_str user, tenant, model; /* empty: not said */
    time_t now;
} mr_kb_values;

/* Appends the answer with the values in place. What is no placeholder after all stays as it is. */
void mr_kb_answer_expand(mr_str answer, const mr_kb_values *v, mr_buf *out);

/* Appends line `number` (1…9) of the list. */
void mr_kb_answer_list(int number, mr_str title, mr_buf *out);

/* The title that was meant by somebody who said nothing but a number ("2", "2.", "２", "第二个") after this answer. Borrowed
 * from the answer; empty: it has no list at its end, or no such number in it, or more was said. */
mr_str mr_kb_answer_pick(mr_str answer, mr_str said);

#endif
