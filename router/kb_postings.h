/* What the index answered lately: the phrasings that have a token, so that SQLite is not asked for the common ones again and
 * again. Bounded: MR_KB_POSTINGS_KEPT of them, the oldest lists make room for new ones. It belongs to the thread that
 * searches, and to one opened file: another one's tokens and phrasings have other places. */
#ifndef MR_KB_POSTINGS_H
#define MR_KB_POSTINGS_H

#include "base/error.h"

#include <stdint.h>

#define MR_KB_POSTINGS_KEPT (1 << 20) /* 4 bytes each */

typedef struct mr_kb_postings mr_kb_postings;

mr_kb_postings *mr_kb_postings_new(mr_error *err);
void mr_kb_postings_free(mr_kb_postings *p);
/* Of another file nothing is known. */
void mr_kb_postings_forget(mr_kb_postings *p);

/* The list of a token (its place in the file's weights), with its length; NULL: it is not there. Borrowed until the next
 * begin. */
const uint32_t *mr_kb_postings_find(const mr_kb_postings *p, uint32_t token, uint32_t *n);
/* Room for a list of at most `most`; it is there once mr_kb_postings_end has said how long it became. NULL: too long. */
uint32_t *mr_kb_postings_begin(mr_kb_postings *p, uint32_t most);
void mr_kb_postings_end(mr_kb_postings *p, uint32_t token, uint32_t n);

#endif
