/* The SQLite file of the knowledge base, as kb_file.c reads it and kb_import.c writes it. */
#ifndef MR_KB_SCHEMA_H
#define MR_KB_SCHEMA_H

/* In the file's header, so that another SQLite file is told apart; the version is raised when a table or what a token is
 * changes. */
#define MR_KB_APPLICATION_ID 1296649035 /* "MILK": Millrace's knowledge */
#define MR_KB_VERSION        3

/* An entry is an answer; its phrasings are the questions that it answers, the lowest id first: that one is its title.
 * `follow` names other entries, with commas between; `alone` is 1 where no other entry has the same intent. `words` is a
 * phrasing in words form, `tokens` the hashes of its distinct tokens (kb_text.h), 32 bits each, little-endian, `weight` the
 * sum of the squares of what they weigh, which is known when an import has seen all of them. The index holds no text of
 * its own, and only which phrasing has what. `setting` is how sure the base is of itself (kb_fuse.h). */
#define MR_KB_SCHEMA                                                                                         \
    "CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, name TEXT UNIQUE, answer TEXT NOT NULL,"       \
    " intent TEXT NOT NULL, follow TEXT NOT NULL, alone INTEGER);"                                           \
    "CREATE TABLE IF NOT EXISTS phrasing(id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, text TEXT NOT "     \
    "NULL, words TEXT NOT NULL, tokens BLOB NOT NULL, weight REAL);"                                         \
    "CREATE INDEX IF NOT EXISTS phrasing_entry ON phrasing(entry, id);"                                      \
    "CREATE INDEX IF NOT EXISTS phrasing_words ON phrasing(words, entry);"                                   \
    "CREATE INDEX IF NOT EXISTS entry_intent ON entry(intent);"                                              \
    "CREATE TABLE IF NOT EXISTS setting(name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;"          \
    "CREATE VIRTUAL TABLE IF NOT EXISTS by_token USING fts5(text, content='phrasing', content_rowid='id',"   \
    " detail=none, columnsize=0, tokenize='millrace');"                                                      \
    "CREATE VIRTUAL TABLE IF NOT EXISTS token_counts USING fts5vocab(by_token, row);"

#endif
