/* The FTS5 tokenizer; see kb_tokenizer.h. SQLite owns each instance, whose thread is that of its connection. */
#include "router/kb_tokenizer.h"

#include "router/kb_text.h"
#include "text/text_norm.h"

#include <stdlib.h>

/* A document may be a whole normal form longer than it was written; FTS5 is given no text that an import refused. */
enum { WORDS_MAX = 1 << 16 };

struct Fts5Tokenizer {
    mr_buf words;
};

typedef struct sink {
    int (*put)(void *, int, const char *, int, int,
               int); /* FTS5's: flags, token, its length, start and end */
    void *arg;
} sink;

static int create(void *context, const char **args, int n, Fts5Tokenizer **out) {
    (void)context;
    (void)args;
    if (n > 0) return SQLITE_ERROR;
    *out = calloc(1, sizeof **out);
    if (!*out) return SQLITE_NOMEM;
    mr_buf_init(&(*out)->words, WORDS_MAX);
    return SQLITE_OK;
}

static void delete (Fts5Tokenizer *t) {
    mr_buf_done(&t->words);
    free(t);
}

/* Where a token stands is not kept: the index has only which document has it. */
static int put_token(void *arg, mr_str token) {
    const sink *s = arg;
    return s->put(s->arg, 0, token.p, (int)token.n, 0, (int)token.n);
}

static int tokenize(Fts5Tokenizer *t, void *context, int flags, const char *text, int n,
                    int (*put)(void *, int, const char *, int, int, int)) {
    mr_error ignored;
    sink s = {put, context};
    mr_str in = {text, (size_t)n};
    if (n <= 0) return SQLITE_OK;
    if (flags & FTS5_TOKENIZE_QUERY) return put_token(&s, in);
    mr_buf_clear(&t->words);
    if (mr_text_words(in, &t->words, &ignored) < 0) return SQLITE_ERROR;
    return mr_kb_tokens(mr_buf_str(&t->words), put_token, &s);
}

/* FTS5 hands its functions out through a query. */
static fts5_api *find_api(sqlite3 *db) {
    fts5_api *api = NULL;
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db, "SELECT fts5(?1)", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_bind_pointer(s, 1, (void *)&api, "fts5_api_ptr", NULL) == SQLITE_OK) {
        sqlite3_step(s);
    }
    sqlite3_finalize(s);
    return api;
}

int mr_kb_tokenizer_register(sqlite3 *db, mr_error *err) {
    fts5_tokenizer functions = {create, delete, tokenize};
    fts5_api *api = find_api(db);
    if (!api) return mr_fail(err, MR_EINVAL, "this SQLite has no FTS5: use one that was built with it");
    if (api->xCreateTokenizer(api, "millrace", NULL, &functions, NULL) == SQLITE_OK) return 0;
    return mr_fail(err, MR_ENOMEM, "no memory for the tokenizer");
}
