/* Searching the knowledge base; see kb.h for the method. SQLite's connection, the prepared statements and the counts of
 * features belong to the mr_kb, whose thread is the router's loop. */
#include "router/kb.h"

#include "router/kb_schema.h"
#include "router/kb_text.h"
#include "text/text_norm.h"
#include "schemas/hash.h"

#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FEATURES_MAX = 3 * MR_KB_QUESTION_MAX + 8, /* a byte begins at most a word, a pair and a trigram */
    FEATURE_SLOTS = 8192,                      /* power of two, over 2 * FEATURES_MAX */
    TERMS_MAX = 10,                            /* of the question that are asked of an index */
    POSTINGS_MAX = 1000,                       /* that an index may have to read for them */
    PILE_SLOTS = 4096,                         /* power of two, over 2 * POSTINGS_MAX */
    CANDIDATES = 24,                           /* that are scored */
    MMAP_BYTES = 256 << 20,
};

/* Measured on three FAQ collections: at the same share of answered questions, up to a third fewer wrong answers. */
static const double MARGIN = 0.1;

/* Trigrams of a word repeat what the word says; half the weight each keeps the word ahead and still forgives
 * endings and typos. */
static const double feature_weight[] = {[MR_KB_WORD] = 1.0, [MR_KB_TRIGRAM] = 0.5};

typedef struct feature {
    uint64_t hash;
    mr_str text;
    mr_kb_feature_kind kind;
    uint32_t entries; /* that have it */
    double square;    /* of its weight */
} feature;

/* The distinct features of a text. */
typedef struct feature_set {
    feature v[FEATURES_MAX];
    uint16_t slots[FEATURE_SLOTS]; /* open addressing by hash: index into v + 1, 0 = free */
    int n;
    double norm; /* root of the sum of squares */
} feature_set;

/* In how many entries a feature occurs: open addressing, loaded from the indexes. */
typedef struct count_slot {
    uint64_t hash; /* 0 = free */
    uint32_t entries;
} count_slot;

typedef struct counts {
    count_slot *slots;
    size_t cap, n;
} counts;

typedef struct candidate {
    int64_t id;
    double score;
} candidate;

/* Entries that the indexes named for a question, each with the weight of what it shares with it. */
typedef struct pile {
    candidate slots[PILE_SLOTS]; /* open addressing by id; score 0 = free */
    uint16_t used[2 * POSTINGS_MAX];
    int n;
} pile;

enum { BEGIN, END, FIND_EXACT, FIND_WORD, FIND_TRIGRAM, FETCH, STATEMENTS };

static const char *const sql[STATEMENTS] = {
    [BEGIN] = "BEGIN",
    [END] = "ROLLBACK",
    [FIND_EXACT] = "SELECT id FROM entry WHERE norm = ?1",
    [FIND_WORD] = "SELECT rowid FROM by_word WHERE by_word MATCH ?1",
    [FIND_TRIGRAM] = "SELECT rowid FROM by_trigram WHERE by_trigram MATCH ?1",
    [FETCH] = "SELECT norm, question, answer FROM entry WHERE id = ?1",
};

/* One opened file; replaced as a whole when the file changes. */
typedef struct kb_file {
    sqlite3 *db;
    sqlite3_stmt *stmt[STATEMENTS];
    counts counts;
    int entries;
} kb_file;

struct mr_kb {
    char *path;
    kb_file file;
    struct stat seen;         /* of the file last tried */
    bool missing;             /* said already that it is not there */
    feature_set query, entry; /* scratch, as all that follow */
    pile pile;
    mr_buf norm, match;
    mr_arena *found; /* what the last search handed out */
};

static uint64_t feature_hash(mr_kb_feature_kind kind, mr_str text) {
    char tag = (char)('0' + kind);
    uint64_t h = mr_text_hash_feed(mr_text_hash_feed(mr_text_hash_init(), (mr_str){&tag, 1}), text);
    return h ? h : 1;
}

/* ---- counts ---- */

static count_slot *count_find(const counts *c, uint64_t hash) {
    size_t i = hash & (c->cap - 1);
    while (c->slots[i].hash != 0 && c->slots[i].hash != hash) i = (i + 1) & (c->cap - 1);
    return &c->slots[i];
}

static int counts_grow(counts *c, mr_error *err) {
    counts bigger = {.cap = c->cap ? 2 * c->cap : 4096, .n = c->n};
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots) return mr_fail(err, MR_ENOMEM, "no memory for the counts of %zu features", c->n);
    for (size_t i = 0; i < c->cap; i++) {
        if (c->slots[i].hash != 0) *count_find(&bigger, c->slots[i].hash) = c->slots[i];
    }
    free(c->slots);
    *c = bigger;
    return 0;
}

static int counts_add(counts *c, uint64_t hash, uint32_t entries, mr_error *err) {
    if (2 * c->n >= c->cap && counts_grow(c, err) < 0) return -1;
    count_slot *s = count_find(c, hash);
    c->n += s->hash == 0;
    *s = (count_slot){hash, entries};
    return 0;
}

static uint32_t counts_get(const counts *c, uint64_t hash) {
    return c->cap ? count_find(c, hash)->entries : 0;
}

/* ---- the file ---- */

static int fail_sql(sqlite3 *db, mr_error *err) {
    return mr_fail(err, MR_EIO, "SQLite says: %s", db ? sqlite3_errmsg(db) : "out of memory");
}

static mr_str column_text(sqlite3_stmt *s, int i) {
    const char *p = (const char *)sqlite3_column_text(s, i);
    return (mr_str){p ? p : "", (size_t)sqlite3_column_bytes(s, i)};
}

static int file_int(sqlite3 *db, const char *query, int64_t *out, mr_error *err) {
    sqlite3_stmt *s = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(db, query, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW) {
        rc = fail_sql(db, err);
    } else {
        *out = sqlite3_column_int64(s, 0);
    }
    sqlite3_finalize(s);
    return rc;
}

static int file_check(sqlite3 *db, mr_error *err) {
    int64_t id = 0, version = 0;
    if (file_int(db, "PRAGMA application_id", &id, err) < 0) return -1;
    if (file_int(db, "PRAGMA user_version", &version, err) < 0) return -1;
    if (id != MR_KB_APPLICATION_ID) {
        return mr_fail(err, MR_EINVAL,
                       "this is not a knowledge base: make one with `millrace kb import FILE.tsv`");
    }
    if (version == MR_KB_VERSION) return 0;
    return mr_fail(err, MR_EINVAL, "it has format %lld, this program reads %d: import its entries again",
                   (long long)version, MR_KB_VERSION);
}

static int load_counts(kb_file *f, mr_kb_feature_kind kind, mr_error *err) {
    static const char *const query[] = {[MR_KB_WORD] = "SELECT term, doc FROM word_counts",
                                        [MR_KB_TRIGRAM] = "SELECT term, doc FROM trigram_counts"};
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(f->db, query[kind], -1, &s, NULL), failed = 0;
    while (!failed && rc != SQLITE_ERROR && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        uint64_t hash = feature_hash(kind, column_text(s, 0));
        failed = counts_add(&f->counts, hash, (uint32_t)sqlite3_column_int64(s, 1), err);
    }
    if (!failed && rc != SQLITE_DONE) failed = fail_sql(f->db, err);
    sqlite3_finalize(s);
    return failed;
}

static void file_close(kb_file *f) {
    for (int i = 0; i < STATEMENTS; i++) sqlite3_finalize(f->stmt[i]);
    sqlite3_close(f->db);
    free(f->counts.slots);
    *f = (kb_file){0};
}

static int file_prepare(kb_file *f, mr_error *err) {
    int64_t entries = 0;
    char mmap[64];
    snprintf(mmap, sizeof mmap, "PRAGMA mmap_size = %d", MMAP_BYTES);
    if (sqlite3_exec(f->db, mmap, NULL, NULL, NULL) != SQLITE_OK) return fail_sql(f->db, err);
    for (int i = 0; i < STATEMENTS; i++) {
        if (sqlite3_prepare_v3(f->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &f->stmt[i], NULL) !=
            SQLITE_OK) {
            return fail_sql(f->db, err);
        }
    }
    if (file_int(f->db, "SELECT count(*) FROM entry", &entries, err) < 0) return -1;
    f->entries = (int)entries;
    if (load_counts(f, MR_KB_WORD, err) < 0) return -1;
    return load_counts(f, MR_KB_TRIGRAM, err);
}

static int file_open(kb_file *f, const char *path, mr_error *err) {
    *f = (kb_file){0};
    int rc = 0;
    if (sqlite3_open_v2(path, &f->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        rc = fail_sql(f->db, err);
    }
    if (rc == 0) rc = file_check(f->db, err);
    if (rc == 0) rc = file_prepare(f, err);
    if (rc < 0) file_close(f);
    return rc;
}

/* ---- features ---- */

/* The slot of this hash, or the free one where it belongs. */
static uint16_t *feature_slot(feature_set *set, uint64_t hash) {
    size_t i = hash & (FEATURE_SLOTS - 1);
    while (set->slots[i] != 0 && set->v[set->slots[i] - 1].hash != hash) i = (i + 1) & (FEATURE_SLOTS - 1);
    return &set->slots[i];
}

static void feature_set_add(void *arg, mr_kb_feature_kind kind, mr_str text) {
    feature_set *set = arg;
    uint64_t hash = feature_hash(kind, text);
    uint16_t *slot = feature_slot(set, hash);
    if (*slot != 0 || set->n == FEATURES_MAX) return;
    set->v[set->n++] = (feature){.hash = hash, .text = text, .kind = kind};
    *slot = (uint16_t)set->n;
}

static void feature_set_clear(feature_set *set) {
    /* Backwards: a slot is found past those that were taken before it. */
    for (int i = set->n - 1; i >= 0; i--) *feature_slot(set, set->v[i].hash) = 0;
    set->n = 0;
}

/* The features of a text in normal form, weighed by how rare they are in the file. They borrow from `norm`. */
static void feature_set_fill(feature_set *set, const kb_file *file, mr_str norm) {
    double sum = 0;
    feature_set_clear(set);
    mr_kb_features(norm, feature_set_add, set);
    for (int i = 0; i < set->n; i++) {
        feature *f = &set->v[i];
        f->entries = counts_get(&file->counts, f->hash);
        double idf = log(1 + (file->entries - (double)f->entries + 0.5) / (f->entries + 0.5));
        f->square = idf * idf * feature_weight[f->kind] * feature_weight[f->kind];
        sum += f->square;
    }
    set->norm = sqrt(sum);
}

static double cosine(feature_set *a, const feature_set *b) {
    double shared = 0;
    for (int i = 0; i < b->n; i++) {
        if (*feature_slot(a, b->v[i].hash) != 0) shared += b->v[i].square;
    }
    return shared > 0 ? shared / (a->norm * b->norm) : 0;
}

/* ---- search ---- */

static int by_rarity(const void *a, const void *b) {
    const feature *x = *(feature *const *)a, *y = *(feature *const *)b;
    if (x->entries != y->entries) return x->entries < y->entries ? -1 : 1;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

/* The rarest features of one kind that the index knows, within the budget. */
static int choose_terms(const feature_set *set, mr_kb_feature_kind kind, const feature *terms[FEATURES_MAX]) {
    int n = 0, chosen = 0;
    for (int i = 0; i < set->n; i++) {
        if (set->v[i].kind == kind && set->v[i].entries > 0) terms[n++] = &set->v[i];
    }
    qsort(terms, (size_t)n, sizeof terms[0], by_rarity);
    for (uint32_t postings = 0; chosen < n && chosen < TERMS_MAX; chosen++) {
        postings += terms[chosen]->entries;
        if (postings > POSTINGS_MAX) break;
    }
    return chosen;
}

static void pile_add(pile *p, int64_t id, double weight) {
    size_t i = (uint64_t)id & (PILE_SLOTS - 1);
    while (p->slots[i].score > 0 && p->slots[i].id != id) i = (i + 1) & (PILE_SLOTS - 1);
    if (p->slots[i].score == 0) {
        if (p->n == 2 * POSTINGS_MAX) return;
        p->used[p->n++] = (uint16_t)i;
    }
    p->slots[i].id = id;
    p->slots[i].score += weight;
}

static void pile_clear(pile *p) {
    for (int i = 0; i < p->n; i++) p->slots[p->used[i]].score = 0;
    p->n = 0;
}

/* Keeps the `max` best, best first. */
static void keep_best(candidate *best, int *n, int max, candidate c) {
    int at = *n;
    while (at > 0 && best[at - 1].score < c.score) at--;
    if (at == max) return;
    if (*n < max) (*n)++;
    memmove(best + at + 1, best + at, (size_t)(*n - 1 - at) * sizeof *best);
    best[at] = c;
}

/* Adds the entries of one feature to the pile. */
static int ask_index(mr_kb *kb, const feature *f, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[f->kind == MR_KB_WORD ? FIND_WORD : FIND_TRIGRAM];
    mr_buf_clear(&kb->match);
    /* Normal form has no quotation marks, so nothing needs to be escaped. */
    mr_buf_printf(&kb->match, "\"%.*s\"", MR_FMT(f->text));
    sqlite3_bind_text(s, 1, kb->match.p, (int)kb->match.n, SQLITE_STATIC);
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) pile_add(&kb->pile, sqlite3_column_int64(s, 0), f->square);
    int failed = rc == SQLITE_DONE ? 0 : fail_sql(kb->file.db, err);
    sqlite3_reset(s);
    return failed;
}

static int ask_indexes(mr_kb *kb, mr_error *err) {
    const feature *terms[FEATURES_MAX];
    pile_clear(&kb->pile);
    for (mr_kb_feature_kind kind = MR_KB_WORD; kind <= MR_KB_TRIGRAM; kind++) {
        int n = choose_terms(&kb->query, kind, terms);
        for (int i = 0; i < n; i++) {
            if (ask_index(kb, terms[i], err) < 0) return -1;
        }
    }
    return 0;
}

/* The row of an entry is the current one of the FETCH statement, which the caller resets. */
static int fetch(mr_kb *kb, int64_t id, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[FETCH];
    sqlite3_bind_int64(s, 1, id);
    return sqlite3_step(s) == SQLITE_ROW ? 0 : fail_sql(kb->file.db, err);
}

static int search_similar(mr_kb *kb, candidate *best, int *n, int max, mr_error *err) {
    candidate shortlist[CANDIDATES + 1];
    int listed = 0, rc = 0;
    feature_set_fill(&kb->query, &kb->file, mr_buf_str(&kb->norm));
    if (ask_indexes(kb, err) < 0) return -1;
    for (int i = 0; i < kb->pile.n; i++) {
        keep_best(shortlist, &listed, CANDIDATES, kb->pile.slots[kb->pile.used[i]]);
    }
    for (int i = 0; rc == 0 && i < listed; i++) {
        rc = fetch(kb, shortlist[i].id, err);
        if (rc == 0) {
            feature_set_fill(&kb->entry, &kb->file, column_text(kb->file.stmt[FETCH], 0));
            shortlist[i].score = cosine(&kb->query, &kb->entry);
            bool exact = *n > 0 && best[0].id == shortlist[i].id;
            if (!exact) keep_best(best, n, max, shortlist[i]);
        }
        sqlite3_reset(kb->file.stmt[FETCH]);
    }
    return rc;
}

static int search_exact(mr_kb *kb, candidate *best, int *n, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[FIND_EXACT];
    sqlite3_bind_text(s, 1, kb->norm.p, (int)kb->norm.n, SQLITE_STATIC);
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) best[(*n)++] = (candidate){sqlite3_column_int64(s, 0), 1.0};
    int failed = rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : fail_sql(kb->file.db, err);
    sqlite3_reset(s);
    return failed;
}

static int hand_out(mr_kb *kb, const candidate *c, mr_kb_hit *hit, mr_error *err) {
    int rc = fetch(kb, c->id, err);
    if (rc == 0) {
        sqlite3_stmt *s = kb->file.stmt[FETCH];
        *hit = (mr_kb_hit){.score = c->score,
                           .question = mr_arena_str(kb->found, column_text(s, 1)),
                           .answer = mr_arena_str(kb->found, column_text(s, 2))};
        if (!hit->question.p || !hit->answer.p) rc = mr_fail(err, MR_ENOMEM, "no memory for an answer");
    }
    sqlite3_reset(kb->file.stmt[FETCH]);
    return rc;
}

static int run(kb_file *f, int statement, mr_error *err) {
    int rc = sqlite3_step(f->stmt[statement]) == SQLITE_DONE ? 0 : fail_sql(f->db, err);
    sqlite3_reset(f->stmt[statement]);
    return rc;
}

/* With the question in kb->norm. */
static int search_all(mr_kb *kb, mr_kb_hit *hits, int max, mr_error *err) {
    candidate best[MR_KB_HITS_MAX + 1];
    int n = 0;
    if (search_exact(kb, best, &n, err) < 0) return -1;
    if (n < max && search_similar(kb, best, &n, max, err) < 0) return -1;
    for (int i = 0; i < n; i++) {
        if (hand_out(kb, &best[i], &hits[i], err) < 0) return -1;
    }
    return n;
}

int mr_kb_search(mr_kb *kb, mr_str question, mr_kb_hit *hits, int max, mr_error *err) {
    mr_arena_reset(kb->found);
    mr_buf_clear(&kb->norm);
    if (question.n > MR_KB_QUESTION_MAX || max < 1 || !mr_str_is_utf8(question)) return 0;
    if (mr_text_words(question, &kb->norm, err) < 0) return -1;
    if (kb->norm.n == 0 || kb->norm.n > MR_KB_QUESTION_MAX) return 0;
    /* One transaction: SQLite takes its file lock once, not for each of the forty statements. */
    if (run(&kb->file, BEGIN, err) < 0) return -1;
    int n = search_all(kb, hits, max < MR_KB_HITS_MAX ? max : MR_KB_HITS_MAX, err);
    mr_error ignored;
    run(&kb->file, END, &ignored);
    return n;
}

bool mr_kb_answers(const mr_kb_hit *hits, int n, double threshold) {
    if (n < 1 || hits[0].score < threshold) return false;
    for (int i = 1; i < n && hits[0].score < 1; i++) {
        if (!mr_str_eq(hits[i].answer, hits[0].answer)) return hits[0].score - hits[i].score >= MARGIN;
    }
    return true;
}

/* ---- opening ---- */

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int mr_kb_refresh(mr_kb *kb, mr_error *err) {
    struct stat now;
    kb_file fresh;
    if (stat(kb->path, &now) < 0) {
        if (kb->missing) return 0;
        kb->missing = true;
        memset(&kb->seen, 0, sizeof kb->seen);
        return mr_fail(err, MR_ENOTFOUND, "knowledge base %s: %m; make it with `millrace kb import FILE.tsv`",
                       kb->path);
    }
    kb->missing = false;
    if (same_file(&now, &kb->seen)) return 0;
    kb->seen = now;
    if (file_open(&fresh, kb->path, err) < 0) return mr_fail_in(err, "knowledge base %s", kb->path);
    mr_arena_reset(kb->found);
    file_close(&kb->file);
    kb->file = fresh;
    return 1;
}

mr_kb *mr_kb_open(const char *path, mr_error *err) {
    mr_kb *kb = calloc(1, sizeof *kb);
    if (kb) {
        kb->path = strdup(path);
        kb->found = mr_arena_new(4 << 20);
        mr_buf_init(&kb->norm, 1 << 16);
        mr_buf_init(&kb->match, 1 << 16);
    }
    if (!kb || !kb->path || !kb->found) {
        mr_fail(err, MR_ENOMEM, "no memory to open the knowledge base %s", path);
    } else if (mr_kb_refresh(kb, err) == 1) {
        return kb;
    }
    mr_kb_close(kb);
    return NULL;
}

void mr_kb_close(mr_kb *kb) {
    if (!kb) return;
    file_close(&kb->file);
    mr_arena_free(kb->found);
    mr_buf_done(&kb->norm);
    mr_buf_done(&kb->match);
    free(kb->path);
    free(kb);
}

int mr_kb_entries(const mr_kb *kb) {
    return kb->file.entries;
}
