/* The knowledge base's tokenizer for SQLite's FTS5, named "millrace": a document is brought into words form and gives the
 * tokens of kb_text.h; a query is one such token as it stands. Each connection that touches the index needs it. */
#ifndef MR_KB_TOKENIZER_H
#define MR_KB_TOKENIZER_H

#include "base/error.h"

#include <sqlite3.h>

int mr_kb_tokenizer_register(sqlite3 *db, mr_error *err);

#endif
