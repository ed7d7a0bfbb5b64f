/* What SQLite answered lately, as bytes by number: so it is not asked for common words and common answers again and again.
 * Bounded: the oldest make room for new ones. It belongs to the thread that searches, and what is in it to one opened file:
 * another one's tokens, phrasings and entries have other numbers. */
#ifndef MR_KB_RECENT_H
#define MR_KB_RECENT_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mr_kb_recent mr_kb_recent;

/* Of so many bytes, a multiple of 8. */
mr_kb_recent *mr_kb_recent_new(size_t bytes, mr_error *err);
void mr_kb_recent_free(mr_kb_recent *r); /* NULL: nothing */
/* Of another file nothing is known. */
void mr_kb_recent_forget(mr_kb_recent *r);

/* What was kept under a key, with its length; NULL: it is not there. Borrowed until the next begin. */
const void *mr_kb_recent_find(const mr_kb_recent *r, uint64_t key, size_t *n);
/* Room for at most so many bytes, aligned to 8; they are there once mr_kb_recent_end has said how many there are. NULL: too many. */
void *mr_kb_recent_begin(mr_kb_recent *r, size_t most);
void mr_kb_recent_end(mr_kb_recent *r, uint64_t key, size_t n);

#endif
