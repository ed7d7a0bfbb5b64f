/* Import and export of the knowledge base; see kb_import.h. One thread, blocking. */
#include "router/kb_import.h"

#include "base/str.h"
#include "router/kb_answer.h"
#include "router/kb_file.h"
#include "router/kb_schema.h"
#include "router/kb_text.h"
#include "router/kb_tokenizer.h"
#include "text/text_norm.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int run_sql(sqlite3 *db, const char *sql, mr_error *err) {
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : mr_kb_fail_sql(db, err);
}

/* ---- the file being built ---- */

typedef struct build {
    const char *target;
    char path[4096]; /* target.new */
    int lock;        /* holds the flock that keeps a second import away */
    sqlite3 *db;
} build;

/* Creates or takes over target.new, empty and locked. An import that has just ended may have renamed the file between
 * our open and our lock: then the name is no longer ours. */
static int build_lock(build *b, mr_error *err) {
    struct stat held, named;
    b->lock = open(b->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (b->lock < 0) return mr_fail(err, MR_EIO, "%s: %m", b->path);
    bool ours = flock(b->lock, LOCK_EX | LOCK_NB) == 0 && fstat(b->lock, &held) == 0 &&
                stat(b->path, &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev;
    if (!ours)
        return mr_fail(err, MR_ESTATE, "%s: another import is running, try again when it is done", b->target);
    if (ftruncate(b->lock, 0) < 0) return mr_fail(err, MR_EIO, "%s: %m", b->path);
    return 0;
}

/* Fills the new file with what the old one holds. */
static int copy_old(const build *b, mr_error *err) {
    sqlite3 *old = NULL;
    sqlite3_stmt *s = NULL;
    int rc = 0;
    if (sqlite3_open_v2(b->target, &old, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(old, "VACUUM INTO ?1", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_bind_text(s, 1, b->path, -1, SQLITE_STATIC) != SQLITE_OK || sqlite3_step(s) != SQLITE_DONE) {
        rc = mr_kb_fail_sql(old, err);
    }
    sqlite3_finalize(s);
    sqlite3_close(old);
    return rc;
}

static int build_begin(build *b, const char *target, bool replace, mr_error *err) {
    *b = (build){.target = target, .lock = -1};
    if (snprintf(b->path, sizeof b->path, "%s.new", target) >= (int)sizeof b->path) {
        return mr_fail(err, MR_EINVAL, "the path is too long");
    }
    if (build_lock(b, err) < 0) return -1;
    bool keep = !replace && access(target, F_OK) == 0;
    if (keep && copy_old(b, err) < 0) return -1;
    if (sqlite3_open_v2(b->path, &b->db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        return mr_kb_fail_sql(b->db, err);
    if (keep && mr_kb_file_check(b->db, err) < 0) return -1;
    if (mr_kb_tokenizer_register(b->db, err) < 0) return -1;
    char header[100];
    snprintf(header, sizeof header, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             MR_KB_APPLICATION_ID, MR_KB_VERSION);
    if (run_sql(b->db, header, err) < 0) return -1;
    if (run_sql(b->db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY",
                err) < 0)
        return -1;
    return run_sql(b->db, MR_KB_SCHEMA, err);
}

/* How much the tokens of each phrasing weigh, by `f`, whose weights are those of the new file. */
static int weigh_all(sqlite3 *db, const mr_kb_file *f, mr_error *err) {
    sqlite3_stmt *read = NULL, *write = NULL;
    int rc = SQLITE_ERROR;
    if (sqlite3_prepare_v2(db, "SELECT tokens, id FROM phrasing", -1, &read, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(db, "UPDATE phrasing SET weight = ?1 WHERE id = ?2", -1, &write, NULL) ==
            SQLITE_OK) {
        rc = sqlite3_step(read);
    }
    for (; rc == SQLITE_ROW; rc = sqlite3_step(read)) {
        mr_str tokens = mr_kb_column(read, 0);
        double sum = 0;
        for (size_t i = 0; i + sizeof(uint32_t) <= tokens.n; i += sizeof(uint32_t)) {
            uint32_t hash;
            memcpy(&hash, tokens.p + i, sizeof hash);
            sum += (double)mr_kb_file_weight(f, mr_kb_file_place(f, hash), false).square;
        }
        sqlite3_bind_double(write, 1, sum);
        sqlite3_bind_int64(write, 2, sqlite3_column_int64(read, 1));
        if (sqlite3_step(write) != SQLITE_DONE) break;
        sqlite3_reset(write);
    }
    int failed = rc == SQLITE_DONE ? 0 : mr_kb_fail_sql(db, err);
    sqlite3_finalize(read);
    sqlite3_finalize(write);
    return failed;
}

/* Builds the index of all phrasings, and then their weights, which depend on it. */
static int build_index(const build *b, mr_error *err) {
    mr_kb_file f;
    if (run_sql(b->db,
                "INSERT INTO by_token(by_token) VALUES('rebuild'); INSERT INTO by_token(by_token) "
                "VALUES('optimize'); ANALYZE; BEGIN",
                err) < 0 ||
        mr_kb_file_open(&f, b->path, err) < 0) {
        return -1;
    }
    int rc = weigh_all(b->db, &f, err);
    mr_kb_file_close(&f);
    if (rc < 0) return -1;
    return run_sql(
        b->db,
        "UPDATE entry SET alone = 0; UPDATE entry SET alone = 1 WHERE intent IN (SELECT intent FROM entry "
        "GROUP BY intent HAVING count(*) = 1); COMMIT",
        err);
}

/* Puts the new file in its place, on disk before it has the name. */
static int build_commit(build *b, mr_error *err) {
    sqlite3_close(b->db);
    b->db = NULL;
    if (fsync(b->lock) < 0 || rename(b->path, b->target) < 0)
        return mr_fail(err, MR_EIO, "%s: %m", b->target);
    return 0;
}

static void build_done(build *b, bool committed) {
    sqlite3_close(b->db);
    if (b->lock < 0) return;
    if (!committed && flock(b->lock, LOCK_EX | LOCK_NB) == 0) unlink(b->path);
    close(b->lock);
}

/* ---- entries ---- */

enum {
    FIND_NAME,
    FIND_TITLE,
    INSERT,
    UPDATE,
    CLEAR,
    FIND_PHRASING,
    ADD_PHRASING,
    NOTE_FOLLOW,
    COUNT_ENTRIES,
    COUNT_PHRASINGS,
    STATEMENTS
};

/* A question that an entry without a name has is that entry's; one with a name keeps it. */
static const char *const sql[STATEMENTS] = {
    [FIND_NAME] = "SELECT id FROM entry WHERE name = ?1",
    [FIND_TITLE] =
        ("SELECT p.entry FROM phrasing p JOIN entry e ON e.id = p.entry WHERE p.words = ?1 AND (?2 IS NULL "
         "OR "
         "e.name IS NULL) AND p.id = (SELECT min(id) FROM phrasing WHERE entry = p.entry) ORDER BY p.entry"),
    [INSERT] = "INSERT INTO entry(name, answer, intent, follow) VALUES(?1, ?2, ?3, ?4)",
    [UPDATE] =
        "UPDATE entry SET name = coalesce(?1, name), answer = ?2, intent = ?3, follow = ?4 WHERE id = ?5",
    [CLEAR] = "DELETE FROM phrasing WHERE entry = ?1",
    [FIND_PHRASING] = "SELECT 1 FROM phrasing WHERE words = ?1 AND entry = ?2",
    [ADD_PHRASING] = "INSERT INTO phrasing(entry, text, words, tokens) VALUES(?1, ?2, ?3, ?4)",
    [NOTE_FOLLOW] = "INSERT INTO temp.following(entry, line) VALUES(?1, ?2)",
    [COUNT_ENTRIES] = "SELECT count(*) FROM entry",
    [COUNT_PHRASINGS] = "SELECT count(*) FROM phrasing",
};

typedef struct writer {
    sqlite3 *db;
    sqlite3_stmt *stmt[STATEMENTS];
    const char *path;
    int line;
    int64_t above; /* the entry of the line before; 0: none */
    mr_buf words, tokens;
    mr_arena *arena;
    mr_kb_counts *counts;
} writer;

/* An empty string is NULL where a name is. */
static void bind_name(sqlite3_stmt *s, int i, mr_str v) {
    if (v.n > 0)
        sqlite3_bind_text(s, i, v.p, (int)v.n, SQLITE_STATIC);
    else
        sqlite3_bind_null(s, i);
}

static void bind_str(sqlite3_stmt *s, int i, mr_str v) {
    sqlite3_bind_text(s, i, v.p, (int)v.n, SQLITE_STATIC);
}

/* Runs a statement whose parameters are bound. The first column of its row, or 0 without one. */
static int run(writer *w, int statement, int64_t *value, mr_error *err) {
    sqlite3_stmt *s = w->stmt[statement];
    int rc = sqlite3_step(s);
    if (value) *value = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    int failed = rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : mr_kb_fail_sql(w->db, err);
    sqlite3_reset(s);
    return failed;
}

static int add_token(void *arg, mr_str token) {
    mr_buf *tokens = arg;
    uint32_t hash = mr_kb_token_hash(token);
    mr_buf_put(tokens, &hash, sizeof hash);
    return 0;
}

static int by_hash(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The distinct hashes of w->words. */
static int read_tokens(writer *w, mr_error *err) {
    mr_buf_clear(&w->tokens);
    mr_kb_tokens(mr_buf_str(&w->words), add_token, &w->tokens);
    if (w->tokens.failed) return mr_fail(err, MR_ENOMEM, "no memory for the question's tokens");
    uint32_t *v = (uint32_t *)w->tokens.p;
    size_t n = w->tokens.n / sizeof *v, kept = 0;
    qsort(v, n, sizeof *v, by_hash);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || v[kept - 1] != v[i]) v[kept++] = v[i];
    }
    w->tokens.n = kept * sizeof *v;
    return 0;
}

/* w->words are the question in words form. */
static int read_words(writer *w, mr_str question, mr_error *err) {
    mr_buf_clear(&w->words);
    if (mr_text_words(question, &w->words, err) < 0) return -1;
    if (w->words.n == 0) return mr_fail(err, MR_EINVAL, "the question has no word in it");
    if (w->words.n <= MR_KB_QUESTION_MAX) return 0;
    return mr_fail(err, MR_ETOOBIG, "the question is too long in normal form");
}

/* What the entry has already in other letters is not added. */
static int add_phrasing(writer *w, int64_t entry, mr_str text, mr_error *err) {
    int64_t known = 0;
    if (read_words(w, text, err) < 0 || read_tokens(w, err) < 0) return -1;
    bind_str(w->stmt[FIND_PHRASING], 1, mr_buf_str(&w->words));
    sqlite3_bind_int64(w->stmt[FIND_PHRASING], 2, entry);
    if (run(w, FIND_PHRASING, &known, err) < 0 || known) return known ? 0 : -1;
    sqlite3_stmt *s = w->stmt[ADD_PHRASING];
    sqlite3_bind_int64(s, 1, entry);
    bind_str(s, 2, text);
    bind_str(s, 3, mr_buf_str(&w->words));
    sqlite3_bind_blob(s, 4, w->tokens.p, (int)w->tokens.n, SQLITE_STATIC);
    return run(w, ADD_PHRASING, NULL, err);
}

/* The entry that has this name, or else this question; 0: none. */
static int find_entry(writer *w, const mr_kb_entry *e, int64_t *id, mr_error *err) {
    *id = 0;
    if (e->name.n > 0) {
        bind_name(w->stmt[FIND_NAME], 1, e->name);
        if (run(w, FIND_NAME, id, err) < 0) return -1;
    }
    if (*id || read_words(w, e->question, err) < 0) return *id ? 0 : -1;
    bind_str(w->stmt[FIND_TITLE], 1, mr_buf_str(&w->words));
    bind_name(w->stmt[FIND_TITLE], 2, e->name);
    return run(w, FIND_TITLE, id, err);
}

static int put_entry(writer *w, const mr_kb_entry *e, int64_t *id, mr_error *err) {
    bool known = *id != 0;
    sqlite3_stmt *s = w->stmt[known ? UPDATE : INSERT];
    bind_name(s, 1, e->name);
    bind_str(s, 2, e->answer);
    bind_str(s, 3, e->intent);
    bind_str(s, 4, e->follow);
    if (known) sqlite3_bind_int64(s, 5, *id);
    if (run(w, known ? UPDATE : INSERT, NULL, err) < 0) return -1;
    known ? w->counts->changed++ : w->counts->added++;
    if (!known) *id = sqlite3_last_insert_rowid(w->db);
    sqlite3_bind_int64(w->stmt[CLEAR], 1, *id);
    if (known && run(w, CLEAR, NULL, err) < 0) return -1;
    if (e->follow.n == 0) return 0;
    sqlite3_bind_int64(w->stmt[NOTE_FOLLOW], 1, *id);
    sqlite3_bind_int(w->stmt[NOTE_FOLLOW], 2, w->line);
    return run(w, NOTE_FOLLOW, NULL, err);
}

static int write_entry(writer *w, const mr_kb_entry *e, mr_error *err) {
    int64_t id = 0;
    if (mr_kb_answer_check(e->answer, err) < 0) return -1;
    if (find_entry(w, e, &id, err) < 0 || put_entry(w, e, &id, err) < 0) return -1;
    if (add_phrasing(w, id, e->question, err) < 0) return -1;
    for (int i = 0; i < e->also_n; i++) {
        if (add_phrasing(w, id, e->also[i], err) < 0) return -1;
    }
    w->above = id;
    return 0;
}

/* A line without an answer. */
static int write_phrasing(writer *w, const mr_kb_entry *e, mr_error *err) {
    int64_t id = w->above;
    if (e->name.n > 0) {
        bind_name(w->stmt[FIND_NAME], 1, e->name);
        if (run(w, FIND_NAME, &id, err) < 0) return -1;
        if (!id) return mr_fail(err, MR_EINVAL, "the answer is empty, and there is no entry '%s'", e->name.p);
    }
    if (!id) {
        return mr_fail(err, MR_EINVAL,
                       "the answer is empty, and there is no entry above for one more phrasing");
    }
    w->above = id;
    return add_phrasing(w, id, e->question, err);
}

/* ---- the file ---- */

static int import_line(writer *w, mr_kb_format format, mr_str line, mr_error *err) {
    mr_kb_entry e;
    while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r')) line.n--;
    /* Spreadsheets put a byte order mark before the first line. */
    if (w->line == 1 && line.n >= 3 && memcmp(line.p, "\xEF\xBB\xBF", 3) == 0) line.p += 3, line.n -= 3;
    mr_arena_reset(w->arena);
    int rc = mr_kb_entry_read(format, line, w->arena, &e, err);
    if (rc <= 0) return rc;
    return e.answer.n > 0 ? write_entry(w, &e, err) : write_phrasing(w, &e, err);
}

/* A line with its end, of at most MR_KB_LINE_MAX bytes: 1, 0 at the end of the file, -1. */
static int read_line(FILE *in, char *line, size_t *n, mr_error *err) {
    int c = EOF;
    for (*n = 0; (c = getc_unlocked(in)) != EOF && c != '\n'; line[(*n)++] = (char)c) {
        if (*n == MR_KB_LINE_MAX) {
            return mr_fail(err, MR_ETOOBIG, "the line has more than %d bytes", MR_KB_LINE_MAX);
        }
    }
    if (c == EOF && ferror(in)) return mr_fail(err, MR_EIO, "%m");
    return c != EOF || *n > 0;
}

static int import_lines(writer *w, mr_error *err) {
    FILE *in = fopen(w->path, "re");
    if (!in) return mr_fail(err, MR_ENOTFOUND, "%s: %m", w->path);
    char *line = malloc(MR_KB_LINE_MAX);
    mr_kb_format format = mr_kb_format_of(w->path);
    size_t n = 0;
    int rc = line ? 1 : mr_fail(err, MR_ENOMEM, "no memory to read %s", w->path);
    while (rc == 1) {
        w->line++;
        rc = read_line(in, line, &n, err);
        if (rc == 1 && import_line(w, format, (mr_str){line, n}, err) < 0) rc = -1;
        if (rc < 0) mr_fail_in(err, "%s:%d", w->path, w->line);
    }
    free(line);
    fclose(in);
    return rc;
}

/* Only when all lines are read is it known who may be followed. */
static int check_following(writer *w, mr_error *err) {
    sqlite3_stmt *s = NULL;
    int rc = SQLITE_ERROR, failed = 0;
    if (sqlite3_prepare_v2(
            w->db, "SELECT follow, line FROM temp.following f JOIN entry e ON e.id = f.entry ORDER BY line",
            -1, &s, NULL) == SQLITE_OK) {
        rc = sqlite3_step(s);
    }
    for (; !failed && rc == SQLITE_ROW; rc = sqlite3_step(s)) {
        mr_str follow = mr_kb_column(s, 0);
        while (!failed && follow.n > 0) {
            int64_t id = 0;
            mr_str name = mr_kb_next_name(&follow);
            bind_name(w->stmt[FIND_NAME], 1, name);
            failed = run(w, FIND_NAME, &id, err);
            if (failed || id) continue;
            failed = mr_fail(err, MR_EINVAL, "%s:%d: '%.*s' follows, but there is no entry of this name",
                             w->path, sqlite3_column_int(s, 1), MR_FMT(name));
        }
    }
    if (!failed && rc != SQLITE_DONE) failed = mr_kb_fail_sql(w->db, err);
    sqlite3_finalize(s);
    return failed;
}

static int count_all(writer *w, mr_error *err) {
    int64_t total = 0, phrasings = 0;
    if (run(w, COUNT_ENTRIES, &total, err) < 0 || run(w, COUNT_PHRASINGS, &phrasings, err) < 0) return -1;
    w->counts->total = (int)total;
    w->counts->phrasings = (int)phrasings;
    return 0;
}

static int prepare(writer *w, mr_error *err) {
    if (run_sql(w->db, "CREATE TEMP TABLE following(entry INTEGER, line INTEGER); BEGIN", err) < 0) return -1;
    for (int i = 0; i < STATEMENTS; i++) {
        if (sqlite3_prepare_v2(w->db, sql[i], -1, &w->stmt[i], NULL) != SQLITE_OK)
            return mr_kb_fail_sql(w->db, err);
    }
    return 0;
}

static int import_into(sqlite3 *db, const char *path, mr_kb_counts *counts, mr_error *err) {
    writer w = {.db = db, .path = path, .counts = counts, .arena = mr_arena_new(4 * MR_KB_LINE_MAX)};
    mr_buf_init(&w.words, 1 << 16);
    mr_buf_init(&w.tokens, 1 << 16);
    int rc = w.arena ? prepare(&w, err) : mr_fail(err, MR_ENOMEM, "no memory to import %s", path);
    if (rc == 0) rc = import_lines(&w, err);
    if (rc == 0) rc = check_following(&w, err);
    if (rc == 0) rc = count_all(&w, err);
    for (int i = 0; i < STATEMENTS; i++) sqlite3_finalize(w.stmt[i]);
    if (rc == 0) rc = run_sql(db, "COMMIT", err);
    mr_buf_done(&w.words);
    mr_buf_done(&w.tokens);
    mr_arena_free(w.arena);
    return rc;
}

int mr_kb_import(const char *db, const char *file, bool replace, mr_kb_counts *counts, mr_error *err) {
    build b;
    *counts = (mr_kb_counts){0};
    int rc = build_begin(&b, db, replace, err);
    if (rc < 0) mr_fail_in(err, "knowledge base %s", db);
    if (rc == 0) rc = import_into(b.db, file, counts, err);
    if (rc == 0) rc = build_index(&b, err);
    if (rc == 0) rc = build_commit(&b, err);
    build_done(&b, rc == 0);
    return rc;
}

/* ---- settings ---- */

static int put_settings(sqlite3 *db, const mr_kb_fusion *f, mr_error *err) {
    for (int i = 0; i < MR_KB_KINDS * MR_KB_TERMS; i++) {
        int kind = i / MR_KB_TERMS, term = i % MR_KB_TERMS;
        char text[200];
        snprintf(text, sizeof text, "INSERT OR REPLACE INTO setting VALUES('%s.%s', %.17g)",
                 mr_kb_kind_names[kind], mr_kb_term_names[term], f->w[kind][term]);
        if (run_sql(db, text, err) < 0) return -1;
    }
    return 0;
}

int mr_kb_set_fusion(const char *db, const mr_kb_fusion *f, mr_error *err) {
    build b;
    int rc = build_begin(&b, db, false, err);
    if (rc == 0) rc = put_settings(b.db, f, err);
    if (rc == 0) rc = build_commit(&b, err);
    build_done(&b, rc == 0);
    return rc < 0 ? mr_fail_in(err, "knowledge base %s", db) : 0;
}

/* ---- export ---- */

typedef struct reader {
    sqlite3 *db;
    sqlite3_stmt *entries, *phrasings;
    mr_arena *arena;
} reader;

static int open_reader(reader *r, const char *path, mr_error *err) {
    *r = (reader){.arena = mr_arena_new(1 << 26)};
    if (!r->arena) return mr_fail(err, MR_ENOMEM, "no memory to export");
    if (sqlite3_open_v2(path, &r->db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
        return mr_kb_fail_sql(r->db, err);
    if (mr_kb_file_check(r->db, err) < 0) return -1;
    if (sqlite3_prepare_v2(r->db, "SELECT id, name, answer, intent, follow FROM entry ORDER BY id", -1,
                           &r->entries, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(r->db, "SELECT text FROM phrasing WHERE entry = ?1 ORDER BY id", -1, &r->phrasings,
                           NULL) != SQLITE_OK) {
        return mr_kb_fail_sql(r->db, err);
    }
    return 0;
}

/* The first is the question, the others are `also`. */
static int read_phrasings(reader *r, mr_kb_entry *e, mr_error *err) {
    int n = 0, cap = 16, rc;
    mr_str *v = mr_arena_alloc(r->arena, (size_t)cap * sizeof *v);
    sqlite3_bind_int64(r->phrasings, 1, sqlite3_column_int64(r->entries, 0));
    while (v && (rc = sqlite3_step(r->phrasings)) == SQLITE_ROW) {
        if (n == cap) {
            mr_str *bigger = mr_arena_alloc(r->arena, 2 * (size_t)cap * sizeof *v);
            if (bigger) memcpy(bigger, v, (size_t)n * sizeof *v);
            v = bigger;
            cap *= 2;
        }
        if (v) v[n] = mr_arena_str(r->arena, mr_kb_column(r->phrasings, 0));
        if (!v || !v[n++].p) break;
    }
    sqlite3_reset(r->phrasings);
    if (!v || n == 0 || !v[n - 1].p) return mr_fail(err, MR_ENOMEM, "no memory for an entry's phrasings");
    if (rc != SQLITE_DONE) return mr_kb_fail_sql(r->db, err);
    e->question = v[0];
    e->also = v + 1;
    e->also_n = n - 1;
    return 0;
}

static int export_entry(reader *r, mr_kb_format format, FILE *out, mr_error *err) {
    mr_kb_entry e = {.name = mr_kb_column(r->entries, 1),
                     .answer = mr_kb_column(r->entries, 2),
                     .intent = mr_kb_column(r->entries, 3),
                     .follow = mr_kb_column(r->entries, 4)};
    mr_arena_reset(r->arena);
    return read_phrasings(r, &e, err) < 0 ? -1 : mr_kb_entry_write(format, &e, out, err);
}

int mr_kb_export(const char *path, mr_kb_format format, FILE *out, mr_error *err) {
    reader r;
    int failed = open_reader(&r, path, err), rc = SQLITE_DONE;
    while (!failed && (rc = sqlite3_step(r.entries)) == SQLITE_ROW)
        failed = export_entry(&r, format, out, err);
    if (!failed && rc != SQLITE_DONE) failed = mr_kb_fail_sql(r.db, err);
    if (failed) mr_fail_in(err, "knowledge base %s", path);
    if (!failed && (fflush(out) != 0 || ferror(out))) failed = mr_fail(err, MR_EIO, "writing the export: %m");
    sqlite3_finalize(r.entries);
    sqlite3_finalize(r.phrasings);
    sqlite3_close(r.db);
    mr_arena_free(r.arena);
    return failed;
}
