/* Writing the knowledge base: what `millrace kb` does. Blocking; not for an event loop.
 *
 * An import builds the new file beside the old one (FILE.new) and puts it in its place by rename, so readers see the old
 * content or the new one, whole, and a crash in between changes nothing. Two imports at once: the second one is refused.
 *
 * The files are described in kb_format.h. An entry whose name is there already, or else its question (in words form),
 * takes the place of that one with all its phrasings. Answers may hold the placeholders of kb_answer.h.
 */
#ifndef MR_KB_IMPORT_H
#define MR_KB_IMPORT_H

#include "base/error.h"
#include "router/kb_format.h"
#include "router/kb_fuse.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct mr_kb_counts {
    int added, changed, total; /* entries */
    int phrasings;             /* of all of them, their questions included */
} mr_kb_counts;

/* All of the file or, with an error naming its line, nothing. A missing `db` is made; `replace` drops what it held. */
int mr_kb_import(const char *db, const char *file, bool replace, mr_kb_counts *counts, mr_error *err);
/* Writes every entry, in the order of import. */
int mr_kb_export(const char *db, mr_kb_format format, FILE *out, mr_error *err);
/* Keeps the coefficients by which the base is sure of itself; by rename, as an import. */
int mr_kb_set_fusion(const char *db, const mr_kb_fusion *f, mr_error *err);

#endif
