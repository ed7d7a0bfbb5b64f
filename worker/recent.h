/* A bounded memory of the last strings: cancels that came before their request, records that were finished.
 *
 * Adding over the capacity forgets the oldest. Not thread-safe; owns copies of what it holds.
 */
#ifndef MR_RECENT_H
#define MR_RECENT_H

#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>

typedef struct mr_recent mr_recent;

mr_recent *mr_recent_new(int capacity, mr_error *err);
void mr_recent_free(mr_recent *r);

/* A failure to remember (out of memory) is not an error: the memory is an aid. */
void mr_recent_add(mr_recent *r, mr_str s);
bool mr_recent_has(const mr_recent *r, mr_str s);

#endif
