/* An opened knowledge base: the connection and the prepared statements, and what a search reads too often to ask SQLite for it:
 * what each token weighs, the phrasings' tokens, and the entries' intents. Internal to kb.c. A thread may open it and another
 * one use it. */
#ifndef MR_KB_FILE_H
#define MR_KB_FILE_H

#include "base/error.h"
#include "base/str.h"
#include "router/kb_fuse.h"

#include <sqlite3.h>

typedef enum {
    MR_KB_FIND_WORDS, /* entries that have a phrasing in these words */
    MR_KB_FIND_TOKEN, /* phrasings with this token */
    MR_KB_ENTRY,      /* title, name, answer, intent and follow of an entry */
    MR_KB_BY_NAME,    /* id and title of the entry of this name */
    MR_KB_HAS,        /* a row if an entry has this name or intent */
    MR_KB_STATEMENTS
} mr_kb_statement;

/* In how many phrasings a token is, and the square of its weight: open addressing by the token's hash. */
typedef struct mr_kb_weight {
    uint32_t hash; /* 0 = free */
    uint32_t phrasings;
    float square;
} mr_kb_weight;

typedef struct mr_kb_phrasing {
    int64_t id, entry;
    double weight;     /* the sum of the squares of its tokens */
    uint32_t first, n; /* of its tokens, in the file's */
} mr_kb_phrasing;

typedef struct mr_kb_labelled {
    int64_t entry;
    uint32_t intent; /* index into the file's intents */
    uint32_t title;  /* the phrasing that is the entry's title, as its place */
    bool alone;      /* no other entry has it */
} mr_kb_labelled;

typedef struct mr_kb_file {
    sqlite3 *db;
    sqlite3_stmt *stmt[MR_KB_STATEMENTS];
    mr_kb_weight *weights;
    uint32_t cap, tokens;
    int entries, phrasings;
    mr_kb_phrasing *phrasing; /* all of them, by their ids */
    uint32_t *phrased;        /* their tokens, as places in `weights` */
    /* Scratch of whoever searches, as long as `weights` and as `phrasing`, all 0 at first. */
    float *asked, *piled;
    mr_kb_fusion fusion;
    mr_kb_labelled *labelled; /* the entries that have an intent, by their ids */
    int labelled_n, intents_n;
    mr_str *intents;    /* in the arena, in the order of their bytes */
    uint32_t *of_first; /* [intents_n + 1] where those of an intent begin in… */
    int32_t *labels;    /* [intents_n] scratch: their numbers in a model of intents, see kb.c */
    uint32_t *of;       /* [labelled_n] …the entries' places in `labelled`, intent by intent */
    mr_arena *arena;
} mr_kb_file;

int mr_kb_file_open(mr_kb_file *f, const char *path, mr_error *err);
void mr_kb_file_close(mr_kb_file *f); /* any file, {0} too */

/* The place of a token in `weights`; -1: it is not there. */
int64_t mr_kb_file_place(const mr_kb_file *f, uint32_t hash);

/* The weight of a token by its place; of one that is not there, 0 phrasings and what the rarest one would weigh. */
mr_kb_weight mr_kb_file_weight(const mr_kb_file *f, int64_t place, bool trigram);

/* The entries of this intent, as places in `labelled` by their ids; their number. */
const uint32_t *mr_kb_file_of_intent(const mr_kb_file *f, mr_str intent, uint32_t *n);

/* The phrasing of this id, NULL: there is none. */
const mr_kb_phrasing *mr_kb_file_phrasing(const mr_kb_file *f, int64_t id);

/* The intent of an entry, NULL: it has none. */
const mr_kb_labelled *mr_kb_file_labelled(const mr_kb_file *f, int64_t entry);

/* The statement's next row: 1, 0 when there is none, -1. */
int mr_kb_file_step(mr_kb_file *f, sqlite3_stmt *s, mr_error *err);
mr_str mr_kb_column(sqlite3_stmt *s, int i); /* text or blob; borrowed until the next step */

int mr_kb_fail_sql(sqlite3 *db, mr_error *err);
/* Whether this is a knowledge base of this format. */
int mr_kb_file_check(sqlite3 *db, mr_error *err);

#endif
