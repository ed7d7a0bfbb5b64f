/* Searching the knowledge base; see kb.h for the method. All scratch memory belongs to the mr_kb, whose thread is the
 * router's loop. */
#include "router/kb.h"

#include "router/kb_loader.h"
#include "router/kb_recent.h"
#include "router/kb_text.h"
#include "text/text_norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    TOKEN_SLOTS = 8192,   /* power of two, over 2 * MR_KB_TOKENS_MAX */
    WORDS_ASKED = 8,      /* tokens of the question that are asked of the index, */
    WORDS_POSTINGS = 900, /* how many postings it may have to read for them, */
    TRIGRAMS_ASKED = 4,   /* and the same for trigrams */
    TRIGRAMS_POSTINGS = 300,
    POSTINGS_MAX = WORDS_POSTINGS + TRIGRAMS_POSTINGS,
    COMPARED = 96,      /* phrasings */
    LABELS_ASKED = 3,   /* intents whose entries are candidates whatever they say */
    OF_INTENT_MAX = 4,  /* entries of each */
    SAME_WORDS_MAX = 8, /* entries that have the very words of a question */
    CANDIDATES = COMPARED + LABELS_ASKED * OF_INTENT_MAX + SAME_WORDS_MAX,
    CANDIDATE_SLOTS = 256,   /* power of two, over 2 * CANDIDATES */
    VOTES = 5,               /* nearest phrasings of an entry that count */
    NOT_LOOKED_UP = -2,      /* label */
    RECENT_BYTES = 4 << 20,  /* of postings, and of entries, that SQLite is not asked for again */
    RIVALS = SAME_WORDS_MAX, /* entries whose answers are compared, however few are asked for */
};

/* An intent less likely than this adds no candidates. */
static const double LIKELY = 0.05;
/* Another wording is never quite the same one. */
static const double ALMOST_SURE = 0.999;
/* An entry less sure than this adds nothing to another one with the same answer. */
static const double RIVAL = 0.002;

typedef struct token {
    uint32_t hash, phrasings;
    int64_t place; /* in the file's weights; -1: it is not there */
    float square;
    bool trigram, asked; /* may be asked for: a word, or a trigram of one that the index has not */
    uint8_t n;           /* bytes of its text; 0: too long to be asked for */
    char text[40];
} token;

/* The distinct tokens of the question, whose squares are in the file's `asked` as well. */
typedef struct token_set {
    token v[MR_KB_TOKENS_MAX];
    uint16_t slots[TOKEN_SLOTS]; /* open addressing by hash: index into v + 1, 0 = free */
    int n;
    double sum; /* of the squares */
} token_set;

/* Phrasings that the index named for a question; what each shares with it weighs as much as the file's `piled` says. */
typedef struct pile {
    uint32_t used[POSTINGS_MAX]; /* places of phrasings */
    int n;
} pile;

typedef struct posting {
    uint32_t place;
    float weight;
} posting;

typedef struct candidate {
    int64_t entry;
    double near[VOTES]; /* its nearest phrasings, nearest first */
    double confidence;
    mr_kb_evidence evidence;
    bool same_words;
} candidate;

struct mr_kb {
    char *path;
    mr_kb_file file;
    struct stat seen;     /* of the file last tried */
    bool missing;         /* said already that it is not there */
    mr_kb_loader *loader; /* of what has changed; NULL: nothing has */
    token_set query;      /* scratch, as all that follow */
    pile pile;
    uint64_t labels_version;          /* of the model that the file's `labels` are of; 0: of none */
    mr_kb_recent *postings, *entries; /* by the places of tokens, and by ids */
    candidate candidates[CANDIDATES];
    int n;
    uint8_t slots[CANDIDATE_SLOTS]; /* open addressing by entry: index into candidates + 1, 0 = free */
    bool known_word;                /* the word whose trigrams come next is in the index */
    mr_buf words, match;
    mr_arena *found; /* what the last search handed out */
    /* The question that was read last, and what has its very words. */
    mr_buf question;
    bool begun, sure; /* a search of it goes on from there; those entries give one answer */
    mr_kb_hit same[SAME_WORDS_MAX];
    int same_n;
};

/* ---- the question's tokens ---- */

/* The slot of this hash, or the free one where it belongs. */
static uint16_t *token_slot(token_set *set, uint32_t hash) {
    size_t i = hash & (TOKEN_SLOTS - 1);
    while (set->slots[i] != 0 && set->v[set->slots[i] - 1].hash != hash) i = (i + 1) & (TOKEN_SLOTS - 1);
    return &set->slots[i];
}

static int add_token(void *arg, mr_str text) {
    mr_kb *kb = arg;
    token_set *set = &kb->query;
    uint32_t hash = mr_kb_token_hash(text);
    bool trigram = mr_kb_is_trigram(text);
    uint16_t *slot = token_slot(set, hash);
    if (*slot == 0 && set->n < MR_KB_TOKENS_MAX) {
        int64_t place = mr_kb_file_place(&kb->file, hash);
        mr_kb_weight w = mr_kb_file_weight(&kb->file, place, trigram);
        token *t = &set->v[set->n++];
        *slot = (uint16_t)set->n;
        *t = (token){
            .hash = hash, .phrasings = w.phrasings, .place = place, .square = w.square, .trigram = trigram};
        if (t->place >= 0) kb->file.asked[t->place] = w.square;
        t->n = text.n <= sizeof t->text ? (uint8_t)text.n : 0;
        memcpy(t->text, text.p, t->n);
        set->sum += (double)w.square;
    }
    if (*slot == 0) return 0;
    token *t = &set->v[*slot - 1];
    if (!trigram) kb->known_word = t->phrasings > 0;
    if (!trigram || !kb->known_word) t->asked = true;
    return 0;
}

static void forget_question(mr_kb *kb) {
    token_set *set = &kb->query;
    /* Backwards: a slot is found past those that were taken before it. */
    for (int i = set->n - 1; i >= 0; i--) {
        *token_slot(set, set->v[i].hash) = 0;
        if (set->v[i].place >= 0) kb->file.asked[set->v[i].place] = 0;
    }
    set->n = 0;
    set->sum = 0;
}

static void read_question(mr_kb *kb) {
    forget_question(kb);
    mr_kb_tokens(mr_buf_str(&kb->words), add_token, kb);
}

static double similarity(mr_kb *kb, const mr_kb_phrasing *p) {
    const uint32_t *tokens = kb->file.phrased + p->first;
    const float *asked = kb->file.asked;
    /* Four sums, so that an addition need not wait for the one before it. */
    float sum[4] = {0};
    uint32_t i = 0;
    for (; i + 4 <= p->n; i += 4) {
        for (int k = 0; k < 4; k++) sum[k] += asked[tokens[i + (uint32_t)k]];
    }
    for (; i < p->n; i++) sum[0] += asked[tokens[i]];
    double shared = (double)(sum[0] + sum[1]) + (double)(sum[2] + sum[3]);
    return shared > 0 ? fmin(shared / sqrt(kb->query.sum * p->weight), 1) : 0;
}

/* ---- the index ---- */

static int by_rarity(const void *a, const void *b) {
    const token *x = *(token *const *)a, *y = *(token *const *)b;
    if (x->phrasings != y->phrasings) return x->phrasings < y->phrasings ? -1 : 1;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

/* The rarest tokens of one kind that the index knows, within the budget. */
static int choose_tokens(const token_set *set, bool trigrams, const token *chosen[MR_KB_TOKENS_MAX]) {
    int n = 0, within = 0, most = trigrams ? TRIGRAMS_ASKED : WORDS_ASKED;
    uint32_t budget = trigrams ? TRIGRAMS_POSTINGS : WORDS_POSTINGS;
    for (int i = 0; i < set->n; i++) {
        const token *t = &set->v[i];
        if (t->asked && t->trigram == trigrams && t->phrasings > 0 && t->n > 0) chosen[n++] = t;
    }
    qsort(chosen, (size_t)n, sizeof chosen[0], by_rarity);
    for (uint32_t postings = 0; within < n && within < most; within++) {
        postings += chosen[within]->phrasings;
        if (postings > budget) break;
    }
    return within;
}

static void pile_add(mr_kb *kb, uint32_t place, float weight) {
    pile *p = &kb->pile;
    if (kb->file.piled[place] == 0) {
        if (p->n == POSTINGS_MAX) return;
        p->used[p->n++] = place;
    }
    kb->file.piled[place] += weight;
}

static void pile_clear(mr_kb *kb) {
    for (int i = 0; i < kb->pile.n; i++) kb->file.piled[kb->pile.used[i]] = 0;
    kb->pile.n = 0;
}

/* The phrasings that have a token, as places, which so are kept; their number, or -1. */
static int ask_index(mr_kb *kb, const token *t, const uint32_t **out, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[MR_KB_FIND_TOKEN];
    uint32_t *list = mr_kb_recent_begin(kb->postings, t->phrasings * sizeof *list), n = 0;
    int rc;
    if (!list) return mr_fail(err, MR_ETOOBIG, "a word is in too many phrasings");
    mr_buf_clear(&kb->match);
    /* Words form has no quotation marks, so nothing needs to be escaped. */
    mr_buf_printf(&kb->match, "\"%.*s\"", (int)t->n, t->text);
    sqlite3_bind_text(s, 1, kb->match.p, (int)kb->match.n, SQLITE_STATIC);
    while ((rc = mr_kb_file_step(&kb->file, s, err)) == 1 && n < t->phrasings) {
        const mr_kb_phrasing *p = mr_kb_file_phrasing(&kb->file, sqlite3_column_int64(s, 0));
        if (p) list[n++] = (uint32_t)(p - kb->file.phrasing);
    }
    sqlite3_reset(s);
    if (rc < 0) return -1;
    mr_kb_recent_end(kb->postings, (uint64_t)t->place, n * sizeof *list);
    *out = list;
    return (int)n;
}

static int add_phrasings(mr_kb *kb, const token *t, mr_error *err) {
    size_t known = 0;
    const uint32_t *list = mr_kb_recent_find(kb->postings, (uint64_t)t->place, &known);
    int n = list ? (int)(known / sizeof *list) : ask_index(kb, t, &list, err);
    for (int i = 0; i < n; i++) pile_add(kb, list[i], t->square);
    return n < 0 ? -1 : 0;
}

static int ask_for_tokens(mr_kb *kb, mr_error *err) {
    const token *chosen[MR_KB_TOKENS_MAX];
    pile_clear(kb);
    for (int trigrams = 0; trigrams <= 1; trigrams++) {
        int n = choose_tokens(&kb->query, trigrams, chosen);
        for (int i = 0; i < n; i++) {
            if (add_phrasings(kb, chosen[i], err) < 0) return -1;
        }
    }
    return 0;
}

static bool is_better(posting a, posting b) {
    return a.weight > b.weight || (a.weight == b.weight && a.place < b.place);
}

static posting middle_one(posting a, posting b, posting c) {
    if (is_better(b, a)) {
        posting swapped = a;
        a = b;
        b = swapped;
    }
    return is_better(b, c) ? b : is_better(a, c) ? c : a;
}

/* Brings the n best of v[0, all) to its front, in any order (Hoare's FIND). */
static void select_best(posting *v, int all, int n) {
    int from = 0, to = all - 1;
    while (n < all && from < to) {
        posting pivot = middle_one(v[from], v[from + (to - from) / 2], v[to]);
        int low = from, high = to;
        while (low <= high) {
            while (is_better(v[low], pivot)) low++;
            while (is_better(pivot, v[high])) high--;
            if (low > high) break;
            posting swapped = v[low];
            v[low++] = v[high];
            v[high--] = swapped;
        }
        if (n <= high)
            to = high;
        else if (n > low)
            from = low;
        else
            return;
    }
}

/* The best postings, at the front. */
static int shortlist(const mr_kb *kb, posting all[POSTINGS_MAX]) {
    const int n = kb->pile.n;
    for (int i = 0; i < n; i++) all[i] = (posting){kb->pile.used[i], kb->file.piled[kb->pile.used[i]]};
    select_best(all, n, COMPARED);
    return n < COMPARED ? n : COMPARED;
}

/* ---- candidates ---- */

static candidate *candidate_of(mr_kb *kb, int64_t entry) {
    uint32_t i = (uint32_t)((uint64_t)entry * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (CANDIDATE_SLOTS - 1);
    while (kb->slots[i] != 0 && kb->candidates[kb->slots[i] - 1].entry != entry)
        i = (i + 1) & (CANDIDATE_SLOTS - 1);
    if (kb->slots[i] == 0) {
        kb->candidates[kb->n++] = (candidate){.entry = entry};
        kb->slots[i] = (uint8_t)kb->n;
    }
    return &kb->candidates[kb->slots[i] - 1];
}

static void add_near(candidate *c, double near) {
    int at = VOTES - 1;
    if (near <= c->near[at]) return;
    for (; at > 0 && c->near[at - 1] < near; at--) c->near[at] = c->near[at - 1];
    c->near[at] = near;
}

static int add_same_words(mr_kb *kb, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[MR_KB_FIND_WORDS];
    int rc;
    sqlite3_bind_text(s, 1, kb->words.p, (int)kb->words.n, SQLITE_STATIC);
    while ((rc = mr_kb_file_step(&kb->file, s, err)) == 1 && kb->n < SAME_WORDS_MAX) {
        candidate *c = candidate_of(kb, sqlite3_column_int64(s, 0));
        c->same_words = true;
        c->near[0] = 1;
    }
    sqlite3_reset(s);
    return rc < 0 ? -1 : 0;
}

/* Phrasings and their tokens lie all over memory, so those that come next are on their way to the cache while one is compared. */
static void fetch_ahead(const mr_kb *kb, const posting *next, int n) {
    const mr_kb_file *f = &kb->file;
    if (n > 8) __builtin_prefetch(&f->phrasing[next[8].place]);
    if (n > 3) __builtin_prefetch(f->phrased + f->phrasing[next[3].place].first);
}

static int add_similar(mr_kb *kb, mr_error *err) {
    posting best[POSTINGS_MAX];
    if (ask_for_tokens(kb, err) < 0) return -1;
    int n = shortlist(kb, best);
    for (int i = 0; i < n; i++) {
        fetch_ahead(kb, best + i, n - i);
        const mr_kb_phrasing *p = &kb->file.phrasing[best[i].place];
        add_near(candidate_of(kb, p->entry), similarity(kb, p));
    }
    return 0;
}

static void add_of_intent(mr_kb *kb, mr_str intent) {
    uint32_t n;
    const uint32_t *of = mr_kb_file_of_intent(&kb->file, intent, &n);
    for (uint32_t i = 0; i < n && i < OF_INTENT_MAX; i++) {
        const mr_kb_labelled *l = &kb->file.labelled[of[i]];
        int known = kb->n;
        candidate *c = candidate_of(kb, l->entry);
        if (kb->n > known) add_near(c, similarity(kb, &kb->file.phrasing[l->title]));
    }
}

static void add_likely(mr_kb *kb, const mr_intent *intents) {
    int labels[LABELS_ASKED], n = mr_intent_likeliest(intents, labels, LABELS_ASKED);
    for (int i = 0; i < n && mr_intent_label_probability(intents, labels[i]) >= LIKELY; i++) {
        add_of_intent(kb, mr_intent_label_name(intents, labels[i], NULL));
    }
}

/* ---- confidence ---- */

/* The model's number of an intent, -1: it has none. What was looked up once is known as long as model and content stay. */
static int label_of(mr_kb *kb, uint32_t intent, const mr_intent *intents) {
    int32_t *labels = kb->file.labels;
    if (kb->labels_version != mr_intent_version(intents)) {
        for (int i = 0; i < kb->file.intents_n; i++) labels[i] = NOT_LOOKED_UP;
        kb->labels_version = mr_intent_version(intents);
    }
    if (labels[intent] == NOT_LOOKED_UP) {
        labels[intent] = mr_intent_label_number(intents, kb->file.intents[intent]);
    }
    return labels[intent];
}

static void weigh_label(mr_kb *kb, candidate *c, const mr_intent *intents) {
    const mr_kb_labelled *l = mr_kb_file_labelled(&kb->file, c->entry);
    int label = l ? label_of(kb, l->intent, intents) : -1;
    if (label < 0) return;
    c->evidence.kind = l->alone ? MR_KB_OWN : MR_KB_CATEGORY;
    c->evidence.label = mr_intent_label_probability(intents, label);
}

static void judge(mr_kb *kb, const mr_intent *intents) {
    mr_kb_evidence evidence[CANDIDATES];
    double confidence[CANDIDATES];
    for (int i = 0; i < kb->n; i++) {
        candidate *c = &kb->candidates[i];
        c->evidence = (mr_kb_evidence){.best = c->near[0]};
        for (int k = 1; k < VOTES; k++) c->evidence.votes += c->near[k] * c->near[k];
        if (intents) weigh_label(kb, c, intents);
        evidence[i] = c->evidence;
    }
    mr_kb_fuse(&kb->file.fusion, evidence, kb->n, confidence);
    for (int i = 0; i < kb->n; i++) kb->candidates[i].confidence = confidence[i];
}

static bool is_surer(const candidate *x, const candidate *y) {
    if (x->same_words != y->same_words) return x->same_words;
    if (x->confidence != y->confidence) return x->confidence > y->confidence;
    return x->entry < y->entry;
}

/* Brings the n best candidates to the front, best first; there may be a hundred, of which a few are looked at. */
static void rank(mr_kb *kb, int n) {
    for (int i = 0; i < n && i < kb->n; i++) {
        int best = i;
        for (int k = i + 1; k < kb->n; k++) {
            if (is_surer(&kb->candidates[k], &kb->candidates[best])) best = k;
        }
        candidate c = kb->candidates[i];
        kb->candidates[i] = kb->candidates[best];
        kb->candidates[best] = c;
    }
}

/* An entry as it is kept: the lengths of its texts, and these, each with a NUL behind it. */
enum { TEXTS = 5 };

typedef struct kept {
    uint32_t n[TEXTS];
    char text[];
} kept;

static const kept *read_entry(mr_kb *kb, int64_t id, size_t *n, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[MR_KB_ENTRY];
    kept *k = NULL;
    sqlite3_bind_int64(s, 1, id);
    int rc = mr_kb_file_step(&kb->file, s, err);
    if (rc == 0) mr_fail(err, MR_EIO, "the entry %lld is not there: import it anew", (long long)id);
    if (rc == 1) {
        *n = sizeof *k + TEXTS;
        for (int i = 0; i < TEXTS; i++) *n += mr_kb_column(s, i).n;
        k = mr_kb_recent_begin(kb->entries, *n);
        if (!k) mr_fail(err, MR_ETOOBIG, "the entry %lld is too large: import it anew", (long long)id);
    }
    char *at = k ? k->text : NULL;
    for (int i = 0; k && i < TEXTS; i++) {
        mr_str text = mr_kb_column(s, i);
        k->n[i] = (uint32_t)text.n;
        memcpy(at, text.p, text.n);
        at[text.n] = '\0';
        at += text.n + 1;
    }
    if (k) mr_kb_recent_end(kb->entries, (uint64_t)id, *n);
    sqlite3_reset(s);
    return k;
}

static int hand_out(mr_kb *kb, const candidate *c, mr_kb_hit *hit, mr_error *err) {
    mr_str *out[TEXTS] = {&hit->title, &hit->name, &hit->answer, &hit->intent, &hit->follow};
    size_t n;
    const kept *k = mr_kb_recent_find(kb->entries, (uint64_t)c->entry, &n);
    if (!k) k = read_entry(kb, c->entry, &n, err);
    if (!k) return -1;
    *hit = (mr_kb_hit){.confidence = c->confidence, .similarity = c->near[0], .evidence = c->evidence};
    kept *copy = mr_arena_alloc(kb->found, n);
    if (!copy) return mr_fail(err, MR_ENOMEM, "no memory for an answer");
    memcpy(copy, k, n);
    const char *at = copy->text;
    for (int i = 0; i < TEXTS; i++) {
        *out[i] = (mr_str){at, copy->n[i]};
        at += copy->n[i] + 1;
    }
    return 0;
}

/* Whether all entries that have the very words give one answer. */
static bool is_sure(const mr_kb_hit *hits, int n) {
    for (int i = 1; i < n; i++) {
        if (!mr_str_eq(hits[i].answer, hits[0].answer)) return false;
    }
    return n > 0;
}

/* Entries with the same answer stand together for it. Only the very words are sure. */
static void settle(mr_kb_hit *hits, int n, bool sure) {
    for (int i = 0; i < n; i++) {
        for (int k = i + 1; k < n; k++) {
            if (mr_str_eq(hits[k].answer, hits[i].answer)) hits[i].confidence += hits[k].confidence;
        }
        if (hits[i].confidence > ALMOST_SURE) hits[i].confidence = ALMOST_SURE;
    }
    if (sure) hits[0].confidence = 1;
    for (int i = 1; i < n; i++) {
        mr_kb_hit hit = hits[i];
        int at = i;
        for (; at > 0 && hits[at - 1].confidence < hit.confidence; at--) hits[at] = hits[at - 1];
        hits[at] = hit;
    }
}

/* ---- search ---- */

/* How many of the candidates are handed out: as many as are wanted, and those whose answer may be another one's as well. */
static int worth_it(const mr_kb *kb, int max) {
    int n = kb->n < max ? kb->n : max;
    while (n < kb->n && n < RIVALS && kb->candidates[n].confidence >= RIVAL) n++;
    return n;
}

/* The entries that have the very words of the question, and whether they give one answer. */
static int find_same_words(mr_kb *kb, mr_error *err) {
    kb->n = 0;
    memset(kb->slots, 0, sizeof kb->slots);
    if (add_same_words(kb, err) < 0) return -1;
    judge(kb, NULL);
    for (kb->same_n = 0; kb->same_n < kb->n; kb->same_n++) {
        if (hand_out(kb, &kb->candidates[kb->same_n], &kb->same[kb->same_n], err) < 0) return -1;
    }
    kb->sure = is_sure(kb->same, kb->same_n);
    return 0;
}

static int find_similar(mr_kb *kb, const mr_intent *intents, mr_kb_hit all[MR_KB_HITS_MAX], int max,
                        mr_error *err) {
    read_question(kb);
    if (add_similar(kb, err) < 0) return -1;
    if (intents) add_likely(kb, intents);
    judge(kb, intents);
    rank(kb, max > RIVALS ? max : RIVALS);
    int n = worth_it(kb, max);
    for (int i = 0; i < n; i++) {
        if (hand_out(kb, &kb->candidates[i], &all[i], err) < 0) return -1;
    }
    return n;
}

/* Puts the question into kb->words: 1, or 0 when it is no routine one. */
static int read_words(mr_kb *kb, mr_str question, mr_error *err) {
    mr_arena_reset(kb->found);
    mr_buf_clear(&kb->words);
    if (question.n > MR_KB_QUESTION_MAX || !mr_str_is_utf8(question)) return 0;
    if (mr_text_words(question, &kb->words, err) < 0) return -1;
    return kb->words.n > 0 && kb->words.n <= MR_KB_QUESTION_MAX;
}

/* Reads the question and finds what has its very words: 1, or 0 when it is no routine one. */
static int begin(mr_kb *kb, mr_str question, mr_error *err) {
    kb->begun = false;
    int rc = read_words(kb, question, err);
    if (rc < 1) return rc;
    if (find_same_words(kb, err) < 0) return -1;
    mr_buf_clear(&kb->question);
    mr_buf_put(&kb->question, question.p, question.n);
    kb->begun = !kb->question.failed;
    return 1;
}

int mr_kb_same_words(mr_kb *kb, mr_str question, mr_kb_hit *hit, mr_error *err) {
    int rc = begin(kb, question, err);
    if (rc < 1 || !kb->sure) return rc < 0 ? -1 : 0;
    *hit = kb->same[0];
    hit->confidence = 1;
    return 1;
}

int mr_kb_search(mr_kb *kb, mr_str question, const mr_intent *intents, mr_kb_hit *hits, int max,
                 mr_error *err) {
    mr_kb_hit all[MR_KB_HITS_MAX];
    bool begun = kb->begun && mr_str_eq(mr_buf_str(&kb->question), question);
    int n, rc = begun ? 1 : begin(kb, question, err);
    kb->begun = false;
    if (rc < 1 || max < 1) return rc < 0 ? -1 : 0;
    if (max > MR_KB_HITS_MAX) max = MR_KB_HITS_MAX;
    if (kb->sure) {
        n = kb->same_n;
        memcpy(all, kb->same, (size_t)n * sizeof *all);
    } else if ((n = find_similar(kb, intents, all, max, err)) < 0) {
        return -1;
    }
    settle(all, n, kb->sure);
    if (n > max) n = max;
    memcpy(hits, all, (size_t)n * sizeof *hits);
    return n;
}

int mr_kb_title(mr_kb *kb, mr_str name, mr_str *title, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[MR_KB_BY_NAME];
    *title = MR_STR("");
    sqlite3_bind_text(s, 1, name.p, (int)name.n, SQLITE_STATIC);
    int rc = mr_kb_file_step(&kb->file, s, err);
    if (rc == 1) *title = mr_arena_str(kb->found, mr_kb_column(s, 1));
    sqlite3_reset(s);
    if (!title->p) rc = mr_fail(err, MR_ENOMEM, "no memory for a title");
    return rc < 0 ? -1 : 0;
}

int mr_kb_has(mr_kb *kb, mr_str label, mr_error *err) {
    sqlite3_stmt *s = kb->file.stmt[MR_KB_HAS];
    sqlite3_bind_text(s, 1, label.p, (int)label.n, SQLITE_STATIC);
    int rc = mr_kb_file_step(&kb->file, s, err);
    sqlite3_reset(s);
    return rc;
}

/* ---- opening ---- */

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int fail_missing(const mr_kb *kb, mr_error *err) {
    return mr_fail(err, MR_ENOTFOUND, "knowledge base %s: %m; make it with `millrace kb import FILE.tsv`",
                   kb->path);
}

/* Puts what is loaded into service. */
static int take_loaded(mr_kb *kb, mr_error *err) {
    mr_kb_file fresh;
    int rc = mr_kb_loader_take(kb->loader, &fresh, err);
    if (rc == 0) return 0;
    mr_kb_loader_free(kb->loader);
    kb->loader = NULL;
    if (rc < 0) return mr_fail_in(err, "knowledge base %s", kb->path);
    mr_arena_reset(kb->found);
    kb->begun = false;
    forget_question(kb); /* its tokens have places in the old file */
    kb->pile.n = 0;
    kb->labels_version = 0;
    mr_kb_recent_forget(kb->postings);
    mr_kb_recent_forget(kb->entries);
    mr_kb_file_close(&kb->file);
    kb->file = fresh;
    return 1;
}

int mr_kb_refresh(mr_kb *kb, mr_error *err) {
    struct stat now;
    if (kb->loader) return take_loaded(kb, err);
    if (stat(kb->path, &now) < 0) {
        if (kb->missing) return 0;
        kb->missing = true;
        memset(&kb->seen, 0, sizeof kb->seen);
        return fail_missing(kb, err);
    }
    kb->missing = false;
    if (same_file(&now, &kb->seen)) return 0;
    kb->loader = mr_kb_loader_new(kb->path, err);
    if (!kb->loader) return mr_fail_in(err, "knowledge base %s", kb->path);
    kb->seen = now;
    return 0;
}

bool mr_kb_loading(const mr_kb *kb) {
    return kb->loader != NULL;
}

static int open_first(mr_kb *kb, mr_error *err) {
    if (stat(kb->path, &kb->seen) < 0) return fail_missing(kb, err);
    if (mr_kb_file_open(&kb->file, kb->path, err) < 0) return mr_fail_in(err, "knowledge base %s", kb->path);
    return 0;
}

mr_kb *mr_kb_open(const char *path, mr_error *err) {
    mr_kb *kb = calloc(1, sizeof *kb);
    if (kb) {
        kb->path = strdup(path);
        kb->found = mr_arena_new(4 << 20);
        mr_buf_init(&kb->words, 1 << 16);
        mr_buf_init(&kb->match, 1 << 10);
        mr_buf_init(&kb->question, MR_KB_QUESTION_MAX);
    }
    if (!kb || !kb->path || !kb->found) {
        mr_fail(err, MR_ENOMEM, "no memory to open the knowledge base %s", path);
    } else if ((kb->postings = mr_kb_recent_new(RECENT_BYTES, err)) &&
               (kb->entries = mr_kb_recent_new(RECENT_BYTES, err)) && open_first(kb, err) == 0) {
        return kb;
    }
    mr_kb_close(kb);
    return NULL;
}

void mr_kb_close(mr_kb *kb) {
    if (!kb) return;
    mr_kb_loader_free(kb->loader);
    mr_kb_file_close(&kb->file);
    mr_kb_recent_free(kb->postings);
    mr_kb_recent_free(kb->entries);
    mr_arena_free(kb->found);
    mr_buf_done(&kb->words);
    mr_buf_done(&kb->match);
    mr_buf_done(&kb->question);
    free(kb->path);
    free(kb);
}

int mr_kb_entries(const mr_kb *kb) {
    return kb->file.entries;
}
