/* Entries of the knowledge base as text: a line of TSV or of JSONL each. Pure functions over borrowed text; any thread.
 *
 * TSV: question<TAB>answer[<TAB>intent[<TAB>name[<TAB>follow]]], where follow is names with commas between; \n, \r, \t, \\
 * and \# stand for a line break, a carriage return, a tab, a backslash and a number sign at the beginning. A line without
 * an answer is one more phrasing of the entry of that name, or else of the entry above it.
 * JSONL: {"question": …, "answer": …, "intent": …, "name": …, "follow": [names], "also": [more phrasings]}.
 * In both, empty lines are skipped; in TSV those that begin with '#' too.
 */
#ifndef MR_KB_FORMAT_H
#define MR_KB_FORMAT_H

#include "base/error.h"
#include "base/str.h"

#include <stdio.h>

#define MR_KB_ANSWER_MAX 32768 /* bytes */
#define MR_KB_INTENT_MAX 200
#define MR_KB_NAME_MAX   64
#define MR_KB_FOLLOW_MAX 9 /* names */
#define MR_KB_ALSO_MAX   1000
#define MR_KB_LINE_MAX   (1 << 20) /* bytes */

typedef enum { MR_KB_TSV, MR_KB_JSONL } mr_kb_format;

/* JSONL for names that end in .jsonl, .ndjson or .json. */
mr_kb_format mr_kb_format_of(const char *path);

/* One line, or one entry. Empty strings where there is nothing. */
typedef struct mr_kb_entry {
    mr_str question, answer, intent, name, follow;
    const mr_str *also;
    int also_n;
} mr_kb_entry;

/* Reads a line without its end, UTF-8, and checks all but the placeholders and whether `follow` exists. Everything is copied
 * into the arena. 1: there is an entry, 0: nothing to import, -1. */
int mr_kb_entry_read(mr_kb_format format, mr_str line, mr_arena *a, mr_kb_entry *out, mr_error *err);
/* Writes an entry: one line of JSONL, or as many of TSV as it has phrasings. Errors show in ferror(out), or are no memory. */
int mr_kb_entry_write(mr_kb_format format, const mr_kb_entry *e, FILE *out, mr_error *err);

/* The next of the names in `follow`, which is cut; empty at the end. */
mr_str mr_kb_next_name(mr_str *follow);

#endif
