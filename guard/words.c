/* Compiling lists, and scanning with them; see words.h. A match of Hyperscan is only a sequence of letters; whether it is
 * a hit is seen from the gaps within and around it, when the letter after it is known. */
#include "guard/words.h"

#include "guard/fold.h"

#include <errno.h>
#include <hs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    LINE_MAX_BYTES = 2000,
    PATTERNS_MAX = 1000000, /* of all rules, alternatives counted */
    ALTERNATIVES_MAX = 20000,
    BATCH = 1024,                                                /* letters that are scanned at once */
    WINDOW = BATCH + MR_FOLD_LETTERS + MR_GUARD_LETTERS_MAX + 2, /* letters that are remembered */
    FOUND_MAX = 1 << 18,
    FOLDED_MAX = 1 << 28,
};

/* One sequence of letters that a rule names. */
typedef struct pattern {
    uint32_t rule, letters, bytes;
    size_t at;     /* of its letters in the set's text */
    uint64_t gaps; /* bit i: the word itself has a gap before letter i */
    bool dense;
} pattern;

struct mr_words {
    mr_guard_rule *rules;
    pattern *patterns;
    size_t nrules, rules_cap, npatterns, patterns_cap;
    mr_buf text;
    unsigned letters; /* of the longest pattern */
    hs_database_t *db;
    hs_scratch_t *scratch;
    int holders;
};

/* ---- the set ---- */

mr_words *mr_words_new(mr_error *err) {
    mr_words *w = calloc(1, sizeof *w);
    if (!w) {
        mr_fail(err, MR_ENOMEM, "no memory for a list of words");
        return NULL;
    }
    mr_buf_init(&w->text, FOLDED_MAX);
    w->holders = 1;
    return w;
}

mr_words *mr_words_hold(mr_words *w) {
    w->holders++;
    return w;
}

void mr_words_release(mr_words *w) {
    if (!w || --w->holders > 0) return;
    hs_free_database(w->db);
    hs_free_scratch(w->scratch);
    mr_buf_done(&w->text);
    free(w->rules);
    free(w->patterns);
    free(w);
}

int mr_words_count(const mr_words *w) {
    return (int)w->nrules;
}

static void *grown(void *v, size_t n, size_t *cap, size_t each) {
    if (n < *cap) return v;
    size_t more = *cap ? 2 * *cap : 64;
    void *p = realloc(v, more * each);
    if (p) *cap = more;
    return p;
}

static void put_letter(mr_buf *out, int32_t c) {
    utf8proc_uint8_t bytes[4] = {(utf8proc_uint8_t)c};
    mr_buf_put(out, bytes, c < 0x80 ? 1 : (size_t)utf8proc_encode_char(c, bytes));
}

/* Its letters go to the end of the set's text. */
static int fold_word(mr_words *w, mr_str word, pattern *p, mr_error *err) {
    mr_fold f = {0};
    mr_letter letter[MR_FOLD_LETTERS];
    size_t used;
    for (size_t at = 0; at < word.n; at += used) {
        int n = mr_fold_char(&f, word, at, letter, &used);
        for (int i = 0; i < n; i++) {
            if (p->letters == MR_GUARD_LETTERS_MAX) {
                return mr_fail(err, MR_ETOOBIG, "a word has more than %d letters", MR_GUARD_LETTERS_MAX);
            }
            if (letter[i].gap != MR_GAP_NONE && p->letters > 0) p->gaps |= (uint64_t)1 << p->letters;
            p->dense |= letter[i].kind == MR_LETTER_DENSE;
            p->letters++;
            put_letter(&w->text, letter[i].c);
        }
    }
    if (p->letters == 0) {
        return mr_fail(err, MR_EINVAL, "the word \"%.*s\" has no letter and no digit", MR_FMT(word));
    }
    if (w->text.failed) return mr_fail(err, MR_ENOMEM, "no memory for the words");
    return 0;
}

static int add_pattern(mr_words *w, mr_str word, mr_error *err) {
    pattern p = {.rule = (uint32_t)w->nrules, .at = w->text.n};
    if (w->npatterns == PATTERNS_MAX) {
        return mr_fail(err, MR_ETOOBIG, "there are more than %d words", PATTERNS_MAX);
    }
    if (fold_word(w, word, &p, err) < 0) return -1;
    p.bytes = (uint32_t)(w->text.n - p.at);
    pattern *v = grown(w->patterns, w->npatterns, &w->patterns_cap, sizeof *v);
    if (!v) return mr_fail(err, MR_ENOMEM, "no memory for the words");
    w->patterns = v;
    v[w->npatterns++] = p;
    if (p.letters > w->letters) w->letters = p.letters;
    return 0;
}

/* Each way to read the rest of a word, after what was read of it. */
static int add_alternatives(mr_words *w, mr_buf *read, mr_str rest, int *left, mr_error *err) {
    const char *open = memchr(rest.p, '(', rest.n);
    size_t kept = read->n;
    if (!open) {
        mr_buf_put(read, rest.p, rest.n);
        int rc = --*left < 0
                     ? mr_fail(err, MR_ETOOBIG, "a word has more than %d alternatives", ALTERNATIVES_MAX)
                     : add_pattern(w, mr_buf_str(read), err);
        read->n = kept;
        return rc;
    }
    const char *end = rest.p + rest.n, *close = memchr(open, ')', (size_t)(end - open));
    if (!close) return mr_fail(err, MR_EINVAL, "a ( in a word has no )");
    mr_str after = {close + 1, (size_t)(end - close - 1)};
    for (const char *p = open + 1, *bar; p <= close; p = bar + 1) {
        bar = memchr(p, '|', (size_t)(close - p));
        if (!bar) bar = close;
        mr_buf_put(read, rest.p, (size_t)(open - rest.p));
        mr_buf_put(read, p, (size_t)(bar - p));
        int rc = add_alternatives(w, read, after, left, err);
        read->n = kept;
        if (rc < 0) return -1;
    }
    return 0;
}

int mr_words_add(mr_words *w, mr_str word, const char *id, const char *category, mr_guard_action action,
                 mr_error *err) {
    int left = ALTERNATIVES_MAX;
    mr_buf read;
    mr_guard_rule *v = grown(w->rules, w->nrules, &w->rules_cap, sizeof *v);
    if (!v) return mr_fail(err, MR_ENOMEM, "no memory for the words");
    w->rules = v;
    v[w->nrules] = (mr_guard_rule){.action = action, .substitute = "***"};
    snprintf(v[w->nrules].id, sizeof v->id, "%s", id);
    snprintf(v[w->nrules].category, sizeof v->category, "%s", category);
    mr_buf_init(&read, 2 * LINE_MAX_BYTES);
    int rc = add_alternatives(w, &read, word, &left, err);
    mr_buf_done(&read);
    w->nrules += rc == 0;
    return rc;
}

/* ---- files ---- */

static int parse_action(mr_str name, mr_guard_action *out, mr_error *err) {
    static const struct {
        const char *name;
        mr_guard_action action;
    } known[] = {{"block", MR_GUARD_BLOCK},
                 {"replace", MR_GUARD_REPLACE},
                 {"flag", MR_GUARD_FLAG},
                 {"allow", MR_GUARD_ALLOW}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!mr_str_eqz(name, known[i].name)) continue;
        *out = known[i].action;
        return 0;
    }
    return mr_fail(err, MR_EINVAL, "the action is \"%.*s\", expected block, replace, flag or allow",
                   MR_FMT(name));
}

static mr_str next_column(mr_str *line) {
    const char *tab = line->n ? memchr(line->p, '\t', line->n) : NULL;
    mr_str out = {line->p, tab ? (size_t)(tab - line->p) : line->n};
    size_t used = out.n + (tab != NULL);
    *line = (mr_str){line->p + used, line->n - used};
    return out;
}

/* It becomes a label of a metric. */
static bool is_label(mr_str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!plain && c < 0x80 && c != '_' && c != '-') return false;
    }
    return true;
}

static int add_line(mr_words *w, mr_str line, const char *id, mr_error *err) {
    mr_guard_action action = MR_GUARD_OFF;
    char category[MR_GUARD_CATEGORY_MAX + 1];
    if (!mr_str_is_utf8(line)) return mr_fail(err, MR_EINVAL, "the line is not UTF-8");
    mr_str word = next_column(&line), name = next_column(&line), kind = next_column(&line);
    if (parse_action(name, &action, err) < 0) return -1;
    if (kind.n > MR_GUARD_CATEGORY_MAX) {
        return mr_fail(err, MR_ETOOBIG, "the category is longer than %d bytes", MR_GUARD_CATEGORY_MAX);
    }
    if (!is_label(kind)) {
        return mr_fail(err, MR_EINVAL, "the category \"%.*s\" is not of letters, digits, _ and -",
                       MR_FMT(kind));
    }
    if (kind.n == 0) kind = MR_STR("words");
    mr_str_copy(kind, category, sizeof category);
    return mr_words_add(w, word, id, category, action, err);
}

static mr_str trimmed(const char *line, size_t n) {
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
    if (n >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) line += 3, n -= 3;
    return (mr_str){line, n};
}

static int read_lines(mr_words *w, FILE *in, const char *path, mr_error *err) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *line = NULL, id[MR_GUARD_ID_MAX + 1];
    size_t cap = 0;
    ssize_t n;
    int rc = 0;
    for (int number = 1; rc == 0 && (n = getline(&line, &cap, in)) >= 0; number++) {
        mr_str text = trimmed(line, (size_t)n);
        if (text.n == 0 || text.p[0] == '#') continue;
        snprintf(id, sizeof id, "%.80s:%d", name, number);
        rc = text.n > LINE_MAX_BYTES
                 ? mr_fail(err, MR_ETOOBIG, "the line is longer than %d bytes", LINE_MAX_BYTES)
                 : add_line(w, text, id, err);
        if (rc < 0) mr_fail_in(err, "%s:%d", path, number);
    }
    if (rc == 0 && ferror(in)) rc = mr_fail(err, MR_EIO, "%s: %s", path, strerror(errno));
    free(line);
    return rc;
}

int mr_words_add_file(mr_words *w, const char *path, mr_error *err) {
    FILE *in = fopen(path, "re");
    if (!in) return mr_fail(err, MR_EIO, "list of words %s: %s", path, strerror(errno));
    int rc = read_lines(w, in, path, err);
    fclose(in);
    return rc;
}

static int compile_all(mr_words *w, const char **texts, unsigned *ids, unsigned *flags, size_t *lengths,
                       mr_error *err) {
    hs_compile_error_t *why = NULL;
    for (size_t i = 0; i < w->npatterns; i++) {
        texts[i] = w->text.p + w->patterns[i].at;
        lengths[i] = w->patterns[i].bytes;
        ids[i] = (unsigned)i;
    }
    int rc = hs_compile_lit_multi(texts, flags, ids, lengths, (unsigned)w->npatterns, HS_MODE_STREAM, NULL,
                                  &w->db, &why);
    if (rc == HS_SUCCESS && hs_alloc_scratch(w->db, &w->scratch) == HS_SUCCESS) return 0;
    mr_fail(err, MR_EINVAL, "the words cannot be compiled: %s", why ? why->message : "out of memory");
    hs_free_compile_error(why);
    return -1;
}

int mr_words_compile(mr_words *w, mr_error *err) {
    size_t n = w->npatterns;
    if (n == 0) return 0;
    const char **texts = calloc(n, sizeof *texts);
    unsigned *ids = calloc(n, sizeof *ids), *flags = calloc(n, sizeof *flags);
    size_t *lengths = calloc(n, sizeof *lengths);
    int rc = texts && ids && flags && lengths ? compile_all(w, texts, ids, flags, lengths, err)
                                              : mr_fail(err, MR_ENOMEM, "no memory to compile the words");
    free(texts);
    free(ids);
    free(flags);
    free(lengths);
    return rc;
}

/* ---- scanning ---- */

typedef struct place {
    size_t start, end; /* in the text */
    uint64_t to;       /* where it ends in the folded text */
    uint8_t gap, kind;
} place;

/* A match, and later a hit. */
typedef struct found {
    uint32_t pattern;
    bool checked;
    uint64_t first;    /* letter */
    size_t start, end; /* in the text, once it is checked */
} found;

struct mr_scan {
    mr_words *words;
    hs_stream_t *stream;
    mr_fold fold;
    place window[WINDOW]; /* the last letters */
    size_t nwindow;
    uint64_t seen;   /* letters in all; the window ends there */
    size_t text_at;  /* bytes of text */
    uint64_t folded; /* bytes of folded text, those of the batch included */
    mr_buf batch;    /* not given to Hyperscan yet */
    found *found;    /* undecided */
    size_t nfound, found_cap;
    bool failed;
};

static int scan_open(mr_scan *s, mr_error *err) {
    if (!s->words->db || hs_open_stream(s->words->db, 0, &s->stream) == HS_SUCCESS) return 0;
    return mr_fail(err, MR_ENOMEM, "no memory to look for words");
}

mr_scan *mr_scan_new(mr_words *w, mr_error *err) {
    mr_scan *s = calloc(1, sizeof *s);
    if (!s) {
        mr_fail(err, MR_ENOMEM, "no memory to look for words");
        return NULL;
    }
    s->words = mr_words_hold(w);
    mr_buf_init(&s->batch, 4 * WINDOW);
    if (scan_open(s, err) == 0) return s;
    mr_scan_free(s);
    return NULL;
}

void mr_scan_free(mr_scan *s) {
    if (!s) return;
    if (s->stream) hs_close_stream(s->stream, NULL, NULL, NULL);
    mr_words_release(s->words);
    mr_buf_done(&s->batch);
    free(s->found);
    free(s);
}

/* The letter in the window that ends there in the folded text; -1: none. */
static int64_t letter_ending(const mr_scan *s, uint64_t to) {
    size_t low = 0, high = s->nwindow;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->window[middle].to < to) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->nwindow && s->window[low].to == to ? (int64_t)low : -1;
}

static int on_match(unsigned id, unsigned long long from, unsigned long long to, unsigned flags, void *arg) {
    mr_scan *s = arg;
    const pattern *p = &s->words->patterns[id];
    int64_t last = letter_ending(s, to);
    (void)from;
    (void)flags;
    if (last < 0 || last + 1 < (int64_t)p->letters) return 0;
    found *v = s->nfound < FOUND_MAX ? grown(s->found, s->nfound, &s->found_cap, sizeof *v) : NULL;
    if (!v) {
        s->failed = true;
        return 1;
    }
    s->found = v;
    v[s->nfound++] = (found){.pattern = id, .first = s->seen - s->nwindow + (uint64_t)last + 1 - p->letters};
    return 0;
}

/* Whether a border of words is between two letters that follow each other. */
static bool is_border(const place *before, const place *after) {
    return after->gap != MR_GAP_NONE || before->kind != after->kind || after->kind == MR_LETTER_DENSE;
}

static bool gaps_are_odd(const mr_scan *s, const pattern *p, size_t first) {
    bool closed = false;
    enum mr_gap widest = MR_GAP_NONE;
    for (uint32_t i = 1; i < p->letters; i++) {
        enum mr_gap gap = (enum mr_gap)s->window[first + i].gap;
        if (gap == MR_GAP_LONG) return false;
        if (p->gaps >> i & 1) continue;
        closed |= gap == MR_GAP_NONE;
        if (gap > widest) widest = gap;
    }
    if (widest <= MR_GAP_MARK) return true;
    if (closed) return false; /* words that happen to stand beside each other */
    return p->letters > 2 || (p->dense && widest == MR_GAP_SPACE);
}

/* Whether a match is a hit; the letter after it is in the window, or the text is over. */
static bool check(mr_scan *s, found *f) {
    const pattern *p = &s->words->patterns[f->pattern];
    size_t first = (size_t)(f->first + s->nwindow - s->seen), last = first + p->letters - 1;
    const place *w = s->window;
    if (first > 0 && !is_border(&w[first - 1], &w[first])) return false;
    if (last + 1 < s->nwindow && !is_border(&w[last], &w[last + 1])) return false;
    if (!gaps_are_odd(s, p, first)) return false;
    f->checked = true;
    f->start = w[first].start;
    f->end = w[last].end;
    return true;
}

static const mr_guard_rule *rule_of(const mr_scan *s, const found *f) {
    return &s->words->rules[s->words->patterns[f->pattern].rule];
}

static bool is_allowed(const mr_scan *s, const found *f) {
    for (size_t i = 0; i < s->nfound; i++) {
        const found *a = &s->found[i];
        if (rule_of(s, a)->action == MR_GUARD_ALLOW && a->checked && a->start <= f->start && a->end >= f->end)
            return true;
    }
    return false;
}

static int by_start(const void *a, const void *b) {
    const found *x = a, *y = b;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return (x->pattern > y->pattern) - (x->pattern < y->pattern);
}

static void check_matches(mr_scan *s, bool over) {
    size_t kept = 0;
    for (size_t i = 0; i < s->nfound; i++) {
        found *f = &s->found[i];
        bool known = over || f->first + s->words->patterns[f->pattern].letters < s->seen;
        if (f->checked || !known || check(s, f)) s->found[kept++] = *f;
    }
    s->nfound = kept;
}

/* Says what is sure: an allowed phrase that covers a hit may end a longest pattern after the hit's start. When the text is
 * over, or after so long a gap that no word goes on, all of it is. */
static void decide(mr_scan *s, bool over, mr_guard_hit_cb *cb, void *arg) {
    uint64_t longest = s->words->letters;
    size_t kept = 0;
    check_matches(s, over);
    if (s->nfound == 0) return;
    qsort(s->found, s->nfound, sizeof *s->found, by_start);
    for (size_t i = 0; i < s->nfound; i++) {
        const found *f = &s->found[i];
        const mr_guard_rule *rule = rule_of(s, f);
        if (rule->action == MR_GUARD_ALLOW || (!over && f->first + longest >= s->seen)) continue;
        if (!is_allowed(s, f)) cb(arg, &(mr_guard_hit){rule, f->start, f->end});
    }
    for (size_t i = 0; i < s->nfound && !over; i++) {
        const found *f = &s->found[i];
        uint64_t stay = rule_of(s, f)->action == MR_GUARD_ALLOW ? 2 * longest : longest;
        if (f->first + stay >= s->seen) s->found[kept++] = *f;
    }
    s->nfound = kept;
}

/* Gives the batch to Hyperscan; all but the last letters are forgotten. */
static int flush(mr_scan *s, bool over, mr_guard_hit_cb *cb, void *arg, mr_error *err) {
    size_t keep = s->words->letters + 2;
    if (s->stream && s->batch.n > 0) {
        int rc =
            hs_scan_stream(s->stream, s->batch.p, (unsigned)s->batch.n, 0, s->words->scratch, on_match, s);
        if (rc != HS_SUCCESS || s->failed || s->batch.failed) {
            return mr_fail(err, MR_ENOMEM, "no memory for all words that were found");
        }
    }
    mr_buf_clear(&s->batch);
    decide(s, over || s->fold.gap == MR_GAP_LONG, cb, arg);
    if (s->nwindow > keep) {
        memmove(s->window, s->window + s->nwindow - keep, keep * sizeof *s->window);
        s->nwindow = keep;
    }
    return 0;
}

int mr_scan_feed(mr_scan *s, mr_str text, mr_guard_hit_cb *cb, void *arg, mr_error *err) {
    mr_letter letter[MR_FOLD_LETTERS];
    size_t used;
    if (!s->stream) {
        s->text_at += text.n;
        return 0;
    }
    for (size_t at = 0; at < text.n; at += used) {
        int n = mr_fold_char(&s->fold, text, at, letter, &used);
        for (int i = 0; i < n; i++) {
            size_t before = s->batch.n;
            put_letter(&s->batch, letter[i].c);
            s->folded += s->batch.n - before;
            s->window[s->nwindow++] = (place){s->text_at, s->text_at + used, s->folded,
                                              (uint8_t)letter[i].gap, (uint8_t)letter[i].kind};
            s->seen++;
        }
        s->text_at += used;
        if (s->nwindow + MR_FOLD_LETTERS > WINDOW && flush(s, false, cb, arg, err) < 0) return -1;
    }
    return flush(s, false, cb, arg, err);
}

static void forget(mr_scan *s) {
    s->fold = (mr_fold){0};
    s->nwindow = s->nfound = 0;
    s->seen = s->folded = 0;
    s->text_at = 0;
    s->failed = false;
    mr_buf_clear(&s->batch);
}

int mr_scan_finish(mr_scan *s, mr_guard_hit_cb *cb, void *arg, mr_error *err) {
    int rc = s->stream ? flush(s, true, cb, arg, err) : 0;
    forget(s);
    if (s->stream && hs_reset_stream(s->stream, 0, NULL, NULL, NULL) != HS_SUCCESS && rc == 0) {
        rc = mr_fail(err, MR_ENOMEM, "no memory to look for words");
    }
    return rc;
}

size_t mr_scan_settled(const mr_scan *s) {
    size_t longest = s->words->letters;
    if (s->nwindow == 0 || s->fold.gap == MR_GAP_LONG) return s->text_at; /* no word goes on over that */
    return s->window[s->nwindow > longest ? s->nwindow - longest : 0].start;
}
