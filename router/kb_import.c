/* Import and export of the knowledge base; see kb_import.h. One thread, blocking. */
#include "router/kb_import.h"

#include "base/str.h"
#include "router/kb_schema.h"
#include "router/kb_text.h"
#include "text/text_norm.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail_sql(sqlite3 *db, mr_error *err) {
    return mr_fail(err, MR_EIO, "SQLite says: %s", db ? sqlite3_errmsg(db) : "out of memory");
}

static int run_sql(sqlite3 *db, const char *sql, mr_error *err) {
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail_sql(db, err);
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
        rc = fail_sql(old, err);
    }
    sqlite3_finalize(s);
    sqlite3_close(old);
    return rc;
}

static int read_int(void *arg, int n, char **values, char **names) {
    (void)n;
    (void)names;
    *(int *)arg = atoi(values[0]);
    return 0;
}

static int check_old(const build *b, mr_error *err) {
    int id = 0, version = 0;
    if (sqlite3_exec(b->db, "PRAGMA application_id", read_int, &id, NULL) != SQLITE_OK ||
        sqlite3_exec(b->db, "PRAGMA user_version", read_int, &version, NULL) != SQLITE_OK) {
        return fail_sql(b->db, err);
    }
    if (id == MR_KB_APPLICATION_ID && version == MR_KB_VERSION) return 0;
    return mr_fail(err, MR_EINVAL,
                   "it is not a knowledge base of this version: choose another file, or --replace it");
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
        return fail_sql(b->db, err);
    if (keep && check_old(b, err) < 0) return -1;
    char header[100];
    snprintf(header, sizeof header, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             MR_KB_APPLICATION_ID, MR_KB_VERSION);
    if (run_sql(b->db, header, err) < 0) return -1;
    if (run_sql(b->db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", err) < 0) return -1;
    return run_sql(b->db, MR_KB_SCHEMA, err);
}

/* Puts the new file in its place, on disk before it has the name. */
static int build_commit(build *b, mr_error *err) {
    if (run_sql(
            b->db,
            "INSERT INTO by_word(by_word) VALUES('rebuild'); INSERT INTO by_word(by_word) VALUES('optimize');"
            "INSERT INTO by_trigram(by_trigram) VALUES('rebuild');"
            "INSERT INTO by_trigram(by_trigram) VALUES('optimize'); ANALYZE",
            err) < 0) {
        return -1;
    }
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

enum { FIND, INSERT, UPDATE, STATEMENTS };

static const char *const sql[STATEMENTS] = {
    [FIND] = "SELECT id FROM entry WHERE norm = ?1",
    [INSERT] = "INSERT INTO entry(question, answer, norm, words) VALUES(?1, ?2, ?3, ?4)",
    [UPDATE] = "UPDATE entry SET question = ?1, answer = ?2 WHERE norm = ?3",
};

typedef struct writer {
    sqlite3 *db;
    sqlite3_stmt *stmt[STATEMENTS];
    mr_buf norm, words;
    mr_kb_counts *counts;
} writer;

static void bind_str(sqlite3_stmt *s, int i, mr_str v) {
    sqlite3_bind_text(s, i, v.p, (int)v.n, SQLITE_STATIC);
}

static void add_word(void *arg, mr_kb_feature_kind kind, mr_str text) {
    mr_buf *words = arg;
    if (kind != MR_KB_WORD) return;
    mr_buf_put(words, text.p, text.n);
    mr_buf_put(words, " ", 1);
}

static int check_entry(mr_str question, mr_str answer, mr_error *err) {
    if (!mr_str_is_utf8(question) || !mr_str_is_utf8(answer))
        return mr_fail(err, MR_EINVAL, "is not valid UTF-8");
    if (question.n > MR_KB_QUESTION_MAX) {
        return mr_fail(err, MR_ETOOBIG, "the question has %zu bytes, at most %d are allowed", question.n,
                       MR_KB_QUESTION_MAX);
    }
    if (answer.n == 0) return mr_fail(err, MR_EINVAL, "the answer is empty");
    if (answer.n <= MR_KB_ANSWER_MAX) return 0;
    return mr_fail(err, MR_ETOOBIG, "the answer has %zu bytes, at most %d are allowed", answer.n,
                   MR_KB_ANSWER_MAX);
}

static int write_entry(writer *w, mr_str question, mr_str answer, mr_error *err) {
    mr_buf_clear(&w->norm);
    mr_buf_clear(&w->words);
    if (check_entry(question, answer, err) < 0 || mr_text_words(question, &w->norm, err) < 0) return -1;
    if (w->norm.n == 0) return mr_fail(err, MR_EINVAL, "the question has no word in it");
    if (w->norm.n > MR_KB_QUESTION_MAX)
        return mr_fail(err, MR_ETOOBIG, "the question is too long in normal form");
    mr_kb_features(mr_buf_str(&w->norm), add_word, &w->words);
    if (w->words.failed) return mr_fail(err, MR_ENOMEM, "no memory for the question's words");
    bind_str(w->stmt[FIND], 1, mr_buf_str(&w->norm));
    bool known = sqlite3_step(w->stmt[FIND]) == SQLITE_ROW;
    sqlite3_reset(w->stmt[FIND]);
    sqlite3_stmt *s = w->stmt[known ? UPDATE : INSERT];
    bind_str(s, 1, question);
    bind_str(s, 2, answer);
    bind_str(s, 3, mr_buf_str(&w->norm));
    if (!known) bind_str(s, 4, mr_buf_str(&w->words));
    int rc = sqlite3_step(s) == SQLITE_DONE ? 0 : fail_sql(w->db, err);
    sqlite3_reset(s);
    known ? w->counts->changed++ : w->counts->added++;
    return rc;
}

/* ---- TSV ---- */

/* In place; returns the new length. */
static size_t unescape(char *p, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        char next = p[i] == '\\' && i + 1 < n ? p[i + 1] : '\0';
        char c = next == 'n' ? '\n' : next == 't' ? '\t' : next == '\\' ? '\\' : '\0';
        if (c) i++;
        p[out++] = c ? c : p[i];
    }
    return out;
}

static int import_line(writer *w, char *line, size_t n, mr_error *err) {
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
    if (n == 0 || line[0] == '#') return 0;
    char *tab = memchr(line, '\t', n);
    if (!tab) return mr_fail(err, MR_EINVAL, "expected question<TAB>answer, found no tab");
    size_t left = n - (size_t)(tab + 1 - line);
    if (memchr(tab + 1, '\t', left)) {
        return mr_fail(err, MR_EINVAL, "expected question<TAB>answer, found a second tab (write it as \\t)");
    }
    mr_str question = {line, unescape(line, (size_t)(tab - line))};
    mr_str answer = {tab + 1, unescape(tab + 1, left)};
    return write_entry(w, question, answer, err);
}

static int import_lines(writer *w, const char *tsv, mr_error *err) {
    FILE *in = fopen(tsv, "re");
    if (!in) return mr_fail(err, MR_ENOTFOUND, "%s: %m", tsv);
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = 0;
    for (int number = 1; rc == 0 && (n = getline(&line, &cap, in)) >= 0; number++) {
        char *text = line;
        /* Spreadsheets put a byte order mark before the first line. */
        if (number == 1 && n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3, n -= 3;
        if (import_line(w, text, (size_t)n, err) < 0) rc = mr_fail_in(err, "%s:%d", tsv, number);
    }
    if (rc == 0 && !feof(in)) rc = mr_fail(err, MR_EIO, "%s: %m", tsv);
    free(line);
    fclose(in);
    return rc;
}

static int import_into(sqlite3 *db, const char *tsv, mr_kb_counts *counts, mr_error *err) {
    writer w = {.db = db, .counts = counts};
    mr_buf_init(&w.norm, 1 << 16);
    mr_buf_init(&w.words, 1 << 16);
    int rc = run_sql(db, "BEGIN", err);
    for (int i = 0; rc == 0 && i < STATEMENTS; i++) {
        if (sqlite3_prepare_v2(db, sql[i], -1, &w.stmt[i], NULL) != SQLITE_OK) rc = fail_sql(db, err);
    }
    if (rc == 0) rc = import_lines(&w, tsv, err);
    for (int i = 0; i < STATEMENTS; i++) sqlite3_finalize(w.stmt[i]);
    if (rc == 0) rc = run_sql(db, "COMMIT", err);
    if (rc == 0 &&
        sqlite3_exec(db, "SELECT count(*) FROM entry", read_int, &counts->total, NULL) != SQLITE_OK) {
        rc = fail_sql(db, err);
    }
    mr_buf_done(&w.norm);
    mr_buf_done(&w.words);
    return rc;
}

int mr_kb_import(const char *db, const char *tsv, bool replace, mr_kb_counts *counts, mr_error *err) {
    build b;
    *counts = (mr_kb_counts){0};
    int rc = build_begin(&b, db, replace, err);
    if (rc < 0) mr_fail_in(err, "knowledge base %s", db);
    if (rc == 0) rc = import_into(b.db, tsv, counts, err);
    if (rc == 0) rc = build_commit(&b, err);
    build_done(&b, rc == 0);
    return rc;
}

/* ---- export ---- */

static void put_escaped(FILE *out, sqlite3_stmt *s, int column) {
    const char *p = (const char *)sqlite3_column_text(s, column);
    for (int n = sqlite3_column_bytes(s, column); n > 0; n--, p++) {
        if (*p == '\n' || *p == '\t' || *p == '\\') {
            fprintf(out, "\\%c", *p == '\n' ? 'n' : *p == '\t' ? 't' : '\\');
        } else {
            putc(*p, out);
        }
    }
}

int mr_kb_export(const char *path, FILE *out, mr_error *err) {
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    int rc;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "SELECT question, answer FROM entry ORDER BY id", -1, &s, NULL) != SQLITE_OK) {
        rc = SQLITE_ERROR;
    } else {
        while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
            put_escaped(out, s, 0);
            putc('\t', out);
            put_escaped(out, s, 1);
            putc('\n', out);
        }
    }
    int failed = rc == SQLITE_DONE ? 0 : fail_sql(db, err);
    if (failed) mr_fail_in(err, "knowledge base %s", path);
    if (!failed && fflush(out) != 0) failed = mr_fail(err, MR_EIO, "writing the export: %m");
    sqlite3_finalize(s);
    sqlite3_close(db);
    return failed;
}
