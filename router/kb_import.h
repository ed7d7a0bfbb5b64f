/* Writing the knowledge base: what `millrace kb` does. Blocking; not for an event loop.
 *
 * An import builds the new file beside the old one (FILE.new) and puts it in its place by rename, so readers see the old
 * content or the new one, whole, and a crash in between changes nothing. Two imports at once: the second one is refused.
 *
 * TSV: question<TAB>answer, UTF-8, one entry a line; \n, \t and \\ stand for a line break, a tab and a backslash. Empty
 * lines and lines that begin with '#' are skipped. A question that is there already (in normal form) gets the new answer.
 */
#ifndef MR_KB_IMPORT_H
#define MR_KB_IMPORT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>

#define MR_KB_ANSWER_MAX 32768 /* bytes */

typedef struct mr_kb_counts {
    int added, changed, total;
} mr_kb_counts;

/* All of the TSV or, with an error naming its line, nothing. A missing `db` is made; `replace` drops what it held. */
int mr_kb_import(const char *db, const char *tsv, bool replace, mr_kb_counts *counts, mr_error *err);
/* Writes every entry as TSV, in the order of import. */
int mr_kb_export(const char *db, FILE *out, mr_error *err);

#endif
