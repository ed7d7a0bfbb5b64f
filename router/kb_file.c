/* Opens a knowledge base and loads what a search needs at hand; see kb_file.h. */
#include "router/kb_file.h"

#include "router/kb_schema.h"
#include "router/kb_text.h"
#include "router/kb_tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MMAP_BYTES = 1 << 30, FIRST_CAP = 4096, INTENTS_MAX = 1 << 28 };

/* Trigrams of a word repeat what the word says; half the weight each keeps the word ahead and still forgives endings and
 * typos. */
static const double TRIGRAM = 0.5;

#define TITLE(entry) "(SELECT text FROM phrasing WHERE entry = " entry " ORDER BY id LIMIT 1)"

static const char *const sql[MR_KB_STATEMENTS] = {
    [MR_KB_FIND_WORDS] = "SELECT DISTINCT entry FROM phrasing WHERE words = ?1 ORDER BY entry",
    [MR_KB_FIND_TOKEN] = "SELECT rowid FROM by_token WHERE by_token MATCH ?1",
    [MR_KB_ENTRY] = "SELECT " TITLE("?1") ", name, answer, intent, follow FROM entry WHERE id = ?1",
    [MR_KB_BY_NAME] = "SELECT id, " TITLE("entry.id") " FROM entry WHERE name = ?1",
    [MR_KB_HAS] =
        "SELECT 1 FROM entry WHERE name = ?1 UNION ALL SELECT 1 FROM entry WHERE intent = ?1 LIMIT 1",
};

int mr_kb_fail_sql(sqlite3 *db, mr_error *err) {
    return mr_fail(err, MR_EIO, "SQLite says: %s", db ? sqlite3_errmsg(db) : "out of memory");
}

int mr_kb_file_step(mr_kb_file *f, sqlite3_stmt *s, mr_error *err) {
    int rc = sqlite3_step(s);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : mr_kb_fail_sql(f->db, err);
}

mr_str mr_kb_column(sqlite3_stmt *s, int i) {
    const char *p = sqlite3_column_blob(s, i);
    return (mr_str){p ? p : "", (size_t)sqlite3_column_bytes(s, i)};
}

static int read_number(sqlite3 *db, const char *query, double *out, mr_error *err) {
    sqlite3_stmt *s = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(db, query, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW) {
        rc = mr_kb_fail_sql(db, err);
    } else {
        *out = sqlite3_column_double(s, 0);
    }
    sqlite3_finalize(s);
    return rc;
}

/* ---- weights ---- */

static mr_kb_weight *weight_slot(mr_kb_weight *v, uint32_t cap, uint32_t hash) {
    uint32_t i = hash & (cap - 1);
    while (v[i].hash != 0 && v[i].hash != hash) i = (i + 1) & (cap - 1);
    return &v[i];
}

static double square_of(const mr_kb_file *f, uint32_t phrasings, bool trigram) {
    double n = phrasings, idf = log(1 + (f->phrasings - n + 0.5) / (n + 0.5));
    return idf * idf * (trigram ? TRIGRAM * TRIGRAM : 1);
}

static int weights_grow(mr_kb_file *f, mr_error *err) {
    uint32_t cap = f->cap ? 2 * f->cap : FIRST_CAP;
    mr_kb_weight *bigger = calloc(cap, sizeof *bigger);
    if (!bigger) return mr_fail(err, MR_ENOMEM, "no memory for the weights of %u tokens", f->tokens);
    for (uint32_t i = 0; i < f->cap; i++) {
        if (f->weights[i].hash != 0) *weight_slot(bigger, cap, f->weights[i].hash) = f->weights[i];
    }
    free(f->weights);
    f->weights = bigger;
    f->cap = cap;
    return 0;
}

static int load_weights(mr_kb_file *f, mr_error *err) {
    sqlite3_stmt *s = NULL;
    int rc = 1;
    if (sqlite3_prepare_v2(f->db, "SELECT term, doc FROM token_counts", -1, &s, NULL) != SQLITE_OK) {
        rc = mr_kb_fail_sql(f->db, err);
    }
    while (rc == 1 && (rc = mr_kb_file_step(f, s, err)) == 1) {
        mr_str token = mr_kb_column(s, 0);
        uint32_t hash = mr_kb_token_hash(token), n = (uint32_t)sqlite3_column_int64(s, 1);
        if (2 * f->tokens >= f->cap && weights_grow(f, err) < 0) rc = -1;
        if (rc < 0) break;
        mr_kb_weight *w = weight_slot(f->weights, f->cap, hash);
        f->tokens += w->hash == 0;
        *w = (mr_kb_weight){hash, n, (float)square_of(f, n, mr_kb_is_trigram(token))};
    }
    sqlite3_finalize(s);
    return rc;
}

mr_kb_weight mr_kb_file_weight(const mr_kb_file *f, int64_t place, bool trigram) {
    if (place >= 0) return f->weights[place];
    return (mr_kb_weight){.square = (float)square_of(f, 0, trigram)};
}

int64_t mr_kb_file_place(const mr_kb_file *f, uint32_t hash) {
    const mr_kb_weight *w = f->cap ? weight_slot(f->weights, f->cap, hash) : NULL;
    return w && w->hash != 0 ? w - f->weights : -1;
}

/* ---- intents ---- */

static int by_entry(const void *a, const void *b) {
    const mr_kb_labelled *x = a, *y = b;
    return (x->entry > y->entry) - (x->entry < y->entry);
}

/* The rows come intent by intent. */
static int add_labelled(mr_kb_file *f, sqlite3_stmt *s, mr_error *err) {
    mr_str intent = mr_kb_column(s, 1);
    if (f->labelled_n == f->entries) return mr_fail(err, MR_EIO, "it changed while it was read");
    if (f->intents_n == 0 || !mr_str_eq(f->intents[f->intents_n - 1], intent)) {
        mr_str copy = mr_arena_str(f->arena, intent);
        if (!copy.p) return mr_fail(err, MR_ENOMEM, "no memory for the intents of %d entries", f->entries);
        f->intents[f->intents_n++] = copy;
    }
    f->labelled[f->labelled_n++] = (mr_kb_labelled){.entry = sqlite3_column_int64(s, 0),
                                                    .intent = (uint32_t)(f->intents_n - 1),
                                                    .alone = sqlite3_column_int(s, 2) != 0};
    return 0;
}

/* Sorts the entries by their ids, and says where those of each intent are. */
static int part_by_intent(mr_kb_file *f, mr_error *err) {
    f->of_first = calloc((size_t)f->intents_n + 2, sizeof *f->of_first);
    f->of = calloc((size_t)f->labelled_n + 1, sizeof *f->of);
    f->labels = calloc((size_t)f->intents_n + 1, sizeof *f->labels);
    if (!f->of_first || !f->of || !f->labels) {
        return mr_fail(err, MR_ENOMEM, "no memory for the intents of %d entries", f->entries);
    }
    qsort(f->labelled, (size_t)f->labelled_n, sizeof *f->labelled, by_entry);
    uint32_t *next = f->of_first + 1; /* of each, shifted by one until all are in their places */
    for (int i = 0; i < f->labelled_n; i++) next[f->labelled[i].intent + 1]++;
    for (int i = 0; i < f->intents_n; i++) next[i + 1] += next[i];
    for (int i = 0; i < f->labelled_n; i++) f->of[next[f->labelled[i].intent]++] = (uint32_t)i;
    return 0;
}

static int load_labelled(mr_kb_file *f, mr_error *err) {
    static const char query[] = "SELECT id, intent, alone FROM entry WHERE intent <> '' ORDER BY intent";
    sqlite3_stmt *s = NULL;
    int rc = 1;
    f->arena = mr_arena_new(INTENTS_MAX);
    f->labelled = calloc((size_t)f->entries + 1, sizeof *f->labelled);
    f->intents = calloc((size_t)f->entries + 1, sizeof *f->intents);
    if (!f->arena || !f->labelled || !f->intents) {
        return mr_fail(err, MR_ENOMEM, "no memory for the intents of %d entries", f->entries);
    }
    if (sqlite3_prepare_v2(f->db, query, -1, &s, NULL) != SQLITE_OK) rc = mr_kb_fail_sql(f->db, err);
    while (rc == 1 && (rc = mr_kb_file_step(f, s, err)) == 1) {
        if (add_labelled(f, s, err) < 0) rc = -1;
    }
    sqlite3_finalize(s);
    return rc == 0 ? part_by_intent(f, err) : rc;
}

static mr_kb_labelled *find_labelled(const mr_kb_file *f, int64_t entry) {
    const mr_kb_labelled key = {.entry = entry};
    /* Ids count from 1, and are without gaps unless entries were replaced. */
    if (entry > 0 && entry <= f->labelled_n && f->labelled[entry - 1].entry == entry) {
        return &f->labelled[entry - 1];
    }
    return bsearch(&key, f->labelled, (size_t)f->labelled_n, sizeof key, by_entry);
}

const mr_kb_labelled *mr_kb_file_labelled(const mr_kb_file *f, int64_t entry) {
    return find_labelled(f, entry);
}

static int by_bytes(mr_str a, mr_str b) {
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

const uint32_t *mr_kb_file_of_intent(const mr_kb_file *f, mr_str intent, uint32_t *n) {
    int low = 0, high = f->intents_n;
    *n = 0;
    while (low < high) {
        int middle = low + (high - low) / 2, order = by_bytes(f->intents[middle], intent);
        if (order == 0) {
            *n = f->of_first[middle + 1] - f->of_first[middle];
            return f->of + f->of_first[middle];
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- phrasings ---- */

static int add_phrasing(mr_kb_file *f, sqlite3_stmt *s, int n, uint32_t *tokens, uint32_t most,
                        mr_error *err) {
    mr_str hashes = mr_kb_column(s, 2);
    uint32_t count = (uint32_t)(hashes.n / sizeof(uint32_t)), hash;
    bool whole = n < f->phrasings && count <= most - *tokens;
    for (uint32_t i = 0; whole && i < count; i++) {
        memcpy(&hash, hashes.p + i * sizeof hash, sizeof hash);
        int64_t place = mr_kb_file_place(f, hash);
        f->phrased[*tokens + i] = (uint32_t)place;
        whole = place >= 0;
    }
    if (!whole)
        return mr_fail(err, MR_EIO,
                       "its index does not fit its phrasings: import its entries anew with --replace");
    f->phrasing[n] = (mr_kb_phrasing){sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1),
                                      sqlite3_column_double(s, 3), *tokens, count};
    *tokens += count;
    return 0;
}

/* Phrasings come by their ids, so the first of an entry is its title. */
static void mark_titles(mr_kb_file *f) {
    for (int i = f->phrasings - 1; i >= 0; i--) {
        mr_kb_labelled *l = find_labelled(f, f->phrasing[i].entry);
        if (l) l->title = (uint32_t)i;
    }
}

static int load_phrasings(mr_kb_file *f, mr_error *err) {
    sqlite3_stmt *s = NULL;
    double bytes = 0;
    uint32_t tokens = 0;
    int rc = 1, n = 0;
    if (read_number(f->db, "SELECT total(length(tokens)) FROM phrasing", &bytes, err) < 0) return -1;
    if (bytes > UINT32_MAX)
        return mr_fail(err, MR_ETOOBIG, "its phrasings are too many for one knowledge base");
    f->phrasing = calloc((size_t)f->phrasings + 1, sizeof *f->phrasing);
    f->phrased = malloc((size_t)bytes + sizeof *f->phrased);
    f->asked = calloc((size_t)f->cap + 1, sizeof *f->asked);
    f->piled = calloc((size_t)f->phrasings + 1, sizeof *f->piled);
    if (!f->phrasing || !f->phrased || !f->asked || !f->piled) {
        return mr_fail(err, MR_ENOMEM, "no memory for %d phrasings", f->phrasings);
    }
    if (sqlite3_prepare_v2(f->db, "SELECT id, entry, tokens, weight FROM phrasing ORDER BY id", -1, &s,
                           NULL) != SQLITE_OK) {
        rc = mr_kb_fail_sql(f->db, err);
    }
    while (rc == 1 && (rc = mr_kb_file_step(f, s, err)) == 1) {
        if (add_phrasing(f, s, n++, &tokens, (uint32_t)bytes / sizeof *f->phrased, err) < 0) rc = -1;
    }
    sqlite3_finalize(s);
    if (rc == 0) mark_titles(f);
    return rc;
}

static int by_id(const void *a, const void *b) {
    const mr_kb_phrasing *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

const mr_kb_phrasing *mr_kb_file_phrasing(const mr_kb_file *f, int64_t id) {
    const mr_kb_phrasing key = {.id = id};
    if (f->phrasings == 0 || id < 1 || id > f->phrasing[f->phrasings - 1].id) return NULL;
    /* Ids count from 1, and are without gaps unless entries were replaced: a phrasing is that much before its place at most. */
    int64_t gaps = f->phrasing[f->phrasings - 1].id - f->phrasings;
    if (gaps == 0) return &f->phrasing[id - 1]; /* without a look at it: it may not be in the cache */
    int64_t from = id - 1 - gaps, to = id < f->phrasings ? id : f->phrasings;
    if (from < 0) from = 0;
    return bsearch(&key, f->phrasing + from, (size_t)(to - from), sizeof key, by_id);
}

/* ---- opening ---- */

int mr_kb_file_check(sqlite3 *db, mr_error *err) {
    double id = 0, version = 0;
    if (read_number(db, "PRAGMA application_id", &id, err) < 0) return -1;
    if (read_number(db, "PRAGMA user_version", &version, err) < 0) return -1;
    if (id != MR_KB_APPLICATION_ID) {
        return mr_fail(err, MR_EINVAL,
                       "this is not a knowledge base: make one with `millrace kb import FILE.tsv`");
    }
    if (version == MR_KB_VERSION) return 0;
    return mr_fail(err, MR_EINVAL,
                   "it has format %.0f, this program reads %d: import its entries anew with --replace",
                   version, MR_KB_VERSION);
}

static void take_setting(mr_kb_fusion *f, mr_str name, double value) {
    for (int kind = 0; kind < MR_KB_KINDS; kind++) {
        for (int i = 0; i < MR_KB_TERMS; i++) {
            char known[40];
            snprintf(known, sizeof known, "%s.%s", mr_kb_kind_names[kind], mr_kb_term_names[i]);
            if (mr_str_eqz(name, known)) f->w[kind][i] = value;
        }
    }
}

static int load_settings(mr_kb_file *f, mr_error *err) {
    sqlite3_stmt *s = NULL;
    int rc = 1;
    f->fusion = mr_kb_fusion_default;
    if (sqlite3_prepare_v2(f->db, "SELECT name, value FROM setting", -1, &s, NULL) != SQLITE_OK) {
        rc = mr_kb_fail_sql(f->db, err);
    }
    while (rc == 1 && (rc = mr_kb_file_step(f, s, err)) == 1) {
        double value = sqlite3_column_double(s, 1);
        if (isfinite(value)) take_setting(&f->fusion, mr_kb_column(s, 0), value);
    }
    sqlite3_finalize(s);
    return rc;
}

void mr_kb_file_close(mr_kb_file *f) {
    for (int i = 0; i < MR_KB_STATEMENTS; i++) sqlite3_finalize(f->stmt[i]);
    sqlite3_close(f->db);
    free(f->weights);
    free(f->phrasing);
    free(f->phrased);
    free(f->asked);
    free(f->piled);
    free(f->labelled);
    free(f->intents);
    free(f->of_first);
    free(f->of);
    free(f->labels);
    mr_arena_free(f->arena);
    *f = (mr_kb_file){0};
}

static int prepare(mr_kb_file *f, mr_error *err) {
    double entries = 0, phrasings = 0;
    char settings[120];
    /* One transaction that reads for as long as the file is open, not one for each of a search's statements: nobody writes to
     * it. */
    snprintf(settings, sizeof settings, "PRAGMA mmap_size = %d; PRAGMA locking_mode = EXCLUSIVE; BEGIN",
             MMAP_BYTES);
    if (sqlite3_exec(f->db, settings, NULL, NULL, NULL) != SQLITE_OK) return mr_kb_fail_sql(f->db, err);
    for (int i = 0; i < MR_KB_STATEMENTS; i++) {
        if (sqlite3_prepare_v3(f->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &f->stmt[i], NULL) !=
            SQLITE_OK) {
            return mr_kb_fail_sql(f->db, err);
        }
    }
    if (read_number(f->db, "SELECT count(*) FROM entry", &entries, err) < 0) return -1;
    if (read_number(f->db, "SELECT count(*) FROM phrasing", &phrasings, err) < 0) return -1;
    f->entries = (int)entries;
    f->phrasings = (int)phrasings;
    if (load_settings(f, err) < 0 || load_labelled(f, err) < 0 || load_weights(f, err) < 0) return -1;
    return load_phrasings(f, err);
}

int mr_kb_file_open(mr_kb_file *f, const char *path, mr_error *err) {
    *f = (mr_kb_file){0};
    int rc = 0;
    if (sqlite3_open_v2(path, &f->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        rc = mr_kb_fail_sql(f->db, err);
    }
    if (rc == 0) rc = mr_kb_file_check(f->db, err);
    if (rc == 0) rc = mr_kb_tokenizer_register(f->db, err);
    if (rc == 0) rc = prepare(f, err);
    if (rc < 0) mr_kb_file_close(f);
    return rc;
}
