/* The SQLite file of the knowledge base, as kb.c reads it and kb_import.c writes it. */
#ifndef MR_KB_SCHEMA_H
#define MR_KB_SCHEMA_H

/* In the file's header, so that another SQLite file is told apart; the version is raised when a table changes. */
#define MR_KB_APPLICATION_ID 1296649035 /* "MILK": Millrace's knowledge */
#define MR_KB_VERSION        2

/* `norm` is the question in normal form, `words` its word features with spaces between. Both indexes hold no text of
 * their own. Trigram order and places do not matter, so the indexes keep only which entry has what. */
#define MR_KB_SCHEMA                                                                                         \
    "CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL," \
    " norm TEXT NOT NULL UNIQUE, words TEXT NOT NULL);"                                                      \
    "CREATE VIRTUAL TABLE IF NOT EXISTS by_word USING fts5(words, content='entry', content_rowid='id',"      \
    " detail=column, tokenize=\"unicode61 remove_diacritics 0 categories 'L* M* N* Co'\");"                  \
    "CREATE VIRTUAL TABLE IF NOT EXISTS by_trigram USING fts5(norm, content='entry', content_rowid='id',"    \
    " detail=column, tokenize='trigram case_sensitive 1');"                                                  \
    "CREATE VIRTUAL TABLE IF NOT EXISTS word_counts USING fts5vocab(by_word, row);"                          \
    "CREATE VIRTUAL TABLE IF NOT EXISTS trigram_counts USING fts5vocab(by_trigram, row);"

#endif
