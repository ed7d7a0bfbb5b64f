/* The guard: everything that is looked for in a text, as one: lists of words with an allow-list, phrases of prompt injection
 * (injection.def), personal data. It says what it found and where; what is done about it is the caller's, the router's
 * with requests and the gateway's with answers, which both may use this folder.
 *
 * A guard belongs to one thread. Lists are files; whoever makes new ones replaces them, and mr_guard_refresh notices.
 */
#ifndef MR_GUARD_H
#define MR_GUARD_H

#include "base/conf.h"
#include "guard/personal.h"
#include "guard/words.h"

#define MR_GUARD_INJECTION "injection" /* categories */
#define MR_GUARD_PERSONAL  "personal"

typedef struct mr_guard_options {
    mr_strlist lists;          /* paths; borrowed, must outlive the guard */
    mr_guard_action injection; /* OFF, FLAG or BLOCK */
    mr_guard_action personal;  /* OFF, FLAG or MASK */
} mr_guard_options;

typedef struct mr_guard mr_guard;

mr_guard *mr_guard_open(const mr_guard_options *o, mr_error *err);
void mr_guard_close(mr_guard *g);
int mr_guard_rules(const mr_guard *g);
/* The lists that are in service now; hold them to use them beyond the next refresh. */
mr_words *mr_guard_words(mr_guard *g);

/* Calls back for what is in a whole text: the words in order, then the personal data in order. */
int mr_guard_scan(mr_guard *g, mr_str text, mr_guard_hit_cb *cb, void *arg, mr_error *err);

/* Loads the lists again when one was replaced or changed: 1 when they were, 0 when nothing changed, -1 when a new one is
 * unusable (the old ones stay in service, and the same files are not tried again). */
int mr_guard_refresh(mr_guard *g, mr_error *err);

#endif
