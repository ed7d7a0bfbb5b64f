/* See grammar.h. Marks the tokens that may come: most of a string's text by ready-made sets, the rest by walking the trie. */
#include "engine/grammar/grammar.h"

#include "engine/grammar/machine.h"
#include "engine/grammar/trie.h"
#include "engine/text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    PLAIN_SETS = 24,  /* sets of tokens by their number of characters; the last has all */
    CACHE_MASKS = 48, /* of one grammar */
    CURSOR_FRAMES = 1024,
    STORE_GRAMMARS = 16,
    ENDS_MAX = 16,
    STEPS_MAX = 1500000, /* of threads, for one mask: about 50 ms */
};

struct grammar_vocab {
    int n;
    size_t words; /* of a mask */
    trie plain,
        rest; /* tokens that are text of any string: whole characters, no quote, backslash, control; and the others */
    int32_t *twin;                    /* the next token of the same bytes; -1: none */
    uint64_t *plain_sets[PLAIN_SETS]; /* tokens of at most so many characters */
    uint32_t longest;                 /* characters of a plain token */
    int32_t ends[ENDS_MAX];
    int nends;
    /* work of one step at a time */
    place places[TRIE_DEPTH_MAX + 1];
    frames frames, scratch;
};

/* A place whose mask is known. Places are told apart by a hash of 128 bits of all that matters to what follows. */
typedef struct cached_mask {
    uint64_t key[2];
    uint64_t *mask;
} cached_mask;

struct grammar {
    int refs;
    grammar_vocab *vocab;
    grammar_arena arena;
    const node *root;
    cached_mask cache[CACHE_MASKS];
    uint64_t *masks;
    int oldest; /* of the cache: replaced next */
};

struct grammar_cursor {
    grammar *g;
    place at;
    frame frames[CURSOR_FRAMES];
};

/* ---- the vocabulary ---- */

static void set_bit(uint64_t *mask, int32_t id) {
    mask[id / 64] |= UINT64_C(1) << (id % 64);
}

/* Characters of a token that may stand in any string; 0 when it is another kind of token. */
static uint32_t plain_characters(const char *s, size_t n) {
    uint32_t count = 0, c;
    size_t len;
    for (size_t at = 0; at < n; at += len, count++) {
        if (utf8_next(s + at, n - at, &c, &len) != UTF8_WHOLE || c < 0x20 || c == '"' || c == '\\') return 0;
    }
    return count;
}

typedef struct sorted_words {
    trie_word *plain, *rest;
    size_t nplain, nrest;
    bool has[256]; /* bytes that are a token */
} sorted_words;

static void put_token(grammar_vocab *v, sorted_words *w, int32_t id, const char *s, size_t n) {
    uint32_t characters = plain_characters(s, n);
    trie_word word = {s, (uint32_t)n, id};
    if (n == 1) w->has[(unsigned char)s[0]] = true;
    if (!characters) {
        w->rest[w->nrest++] = word;
        return;
    }
    w->plain[w->nplain++] = word;
    if (characters > v->longest) v->longest = characters;
    for (uint32_t i = characters; i < PLAIN_SETS - 1; i++) set_bit(v->plain_sets[i], id);
    set_bit(v->plain_sets[PLAIN_SETS - 1], id);
}

/* With a token for each byte there is a way to write everything. */
static int check_bytes(const sorted_words *w, engine_error *err) {
    for (int b = 0x20; b < 0xF5; b++) {
        if (w->has[b] || b == 0x7F || b == 0xC0 || b == 0xC1) continue;
        return engine_fail(err, ENGINE_EINVAL,
                           "this model has no token for the byte 0x%02X, which structured output needs", b);
    }
    return 0;
}

static int build_tries(grammar_vocab *v, grammar_piece_fn piece, void *owner, engine_error *err) {
    sorted_words w = {.plain = calloc((size_t)v->n, sizeof *w.plain),
                      .rest = calloc((size_t)v->n, sizeof *w.rest)};
    int rc = -1;
    if (!w.plain || !w.rest) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory for a trie of %d tokens", v->n);
        goto done;
    }
    for (int32_t id = 0; id < v->n; id++) {
        size_t n;
        bool special = false;
        const char *s = piece(owner, id, &n, &special);
        if (s && !special && n > 0 && n <= TRIE_DEPTH_MAX) put_token(v, &w, id, s, n);
    }
    if (check_bytes(&w, err)) goto done;
    rc = trie_build(&v->plain, w.plain, w.nplain, v->twin) || trie_build(&v->rest, w.rest, w.nrest, v->twin);
    if (rc) rc = engine_fail(err, ENGINE_ENOMEM, "out of memory for a trie of %d tokens", v->n);
done:
    free(w.plain);
    free(w.rest);
    return rc;
}

static int allocate(grammar_vocab *v) {
    v->twin = malloc((size_t)v->n * sizeof *v->twin);
    if (!v->twin) return -1;
    for (int i = 0; i < v->n; i++) v->twin[i] = -1;
    for (int i = 0; i < PLAIN_SETS; i++) {
        v->plain_sets[i] = calloc(v->words, sizeof *v->plain_sets[i]);
        if (!v->plain_sets[i]) return -1;
    }
    return 0;
}

grammar_vocab *grammar_vocab_new(int vocab, grammar_piece_fn piece, void *owner, const int32_t *ends,
                                 int nends, engine_error *err) {
    grammar_vocab *v = calloc(1, sizeof *v);
    if (!v) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory for structured output");
        return NULL;
    }
    v->n = vocab;
    v->words = ((size_t)vocab + 63) / 64;
    for (int i = 0; i < nends && i < ENDS_MAX; i++) v->ends[v->nends++] = ends[i];
    if (allocate(v))
        engine_fail(err, ENGINE_ENOMEM, "out of memory for structured output");
    else if (build_tries(v, piece, owner, err) == 0)
        return v;
    grammar_vocab_free(v);
    return NULL;
}

void grammar_vocab_free(grammar_vocab *v) {
    if (!v) return;
    trie_done(&v->plain);
    trie_done(&v->rest);
    for (int i = 0; i < PLAIN_SETS; i++) free(v->plain_sets[i]);
    free(v->twin);
    free(v);
}

/* ---- grammars ---- */

typedef const node *(*compile_fn)(const char *text, size_t n, grammar_arena *a, engine_error *err);

static grammar *make(grammar_vocab *v, compile_fn compile, const char *text, size_t n, engine_error *err) {
    grammar *g = calloc(1, sizeof *g);
    if (g) g->masks = calloc(CACHE_MASKS * v->words, sizeof *g->masks);
    if (!g || !g->masks) {
        free(g);
        engine_fail(err, ENGINE_ENOMEM, "out of memory for a schema");
        return NULL;
    }
    g->refs = 1;
    g->vocab = v;
    for (int i = 0; i < CACHE_MASKS; i++) g->cache[i].mask = g->masks + (size_t)i * v->words;
    if (n > GRAMMAR_SCHEMA_MAX)
        engine_fail(err, ENGINE_EINVAL, "%s: the schema has %zu bytes, at most %d are taken",
                    compile == calls_compile ? "tools" : "json_schema", n, GRAMMAR_SCHEMA_MAX);
    else
        g->root = compile(text, n, &g->arena, err);
    if (g->root) return g;
    grammar_unref(g);
    return NULL;
}

grammar *grammar_new(grammar_vocab *v, const char *schema, size_t n, engine_error *err) {
    return make(v, schema_compile, schema, n, err);
}

grammar *grammar_ref(grammar *g) {
    g->refs++;
    return g;
}

void grammar_unref(grammar *g) {
    if (!g || --g->refs > 0) return;
    grammar_arena_done(&g->arena);
    free(g->masks);
    free(g);
}

typedef struct stored {
    grammar *g;
    char *schema; /* NULL: any object */
    size_t n;
    compile_fn compile;
    uint64_t used;
} stored;

struct grammar_store {
    grammar_vocab *vocab;
    stored v[STORE_GRAMMARS];
    uint64_t clock;
};

grammar_store *grammar_store_new(grammar_vocab *v, engine_error *err) {
    grammar_store *s = calloc(1, sizeof *s);
    if (!s)
        engine_fail(err, ENGINE_ENOMEM, "out of memory for structured output");
    else
        s->vocab = v;
    return s;
}

static void forget(stored *e) {
    grammar_unref(e->g);
    free(e->schema);
    *e = (stored){0};
}

void grammar_store_free(grammar_store *s) {
    if (!s) return;
    for (int i = 0; i < STORE_GRAMMARS; i++) forget(&s->v[i]);
    free(s);
}

static bool is_schema(const stored *e, compile_fn compile, const char *schema, size_t n) {
    if (!e->g || e->compile != compile || !schema != !e->schema) return false;
    return !schema || (e->n == n && memcmp(e->schema, schema, n) == 0);
}

static stored *least_used(grammar_store *s) {
    stored *least = &s->v[0];
    for (int i = 1; i < STORE_GRAMMARS; i++) {
        if (s->v[i].used < least->used) least = &s->v[i];
    }
    return least;
}

static grammar *find_or_make(grammar_store *s, compile_fn compile, const char *schema, size_t n,
                             engine_error *err) {
    for (int i = 0; i < STORE_GRAMMARS; i++) {
        if (!is_schema(&s->v[i], compile, schema, n)) continue;
        s->v[i].used = ++s->clock;
        return grammar_ref(s->v[i].g);
    }
    grammar *g = make(s->vocab, compile, schema, n, err);
    char *copy = g && schema ? malloc(n + 1) : NULL;
    if (!g || (schema && !copy)) return g; /* without a copy it is not remembered */
    if (copy) memcpy(copy, schema, n);
    stored *e = least_used(s);
    forget(e);
    *e = (stored){grammar_ref(g), copy, n, compile, ++s->clock};
    return g;
}

grammar *grammar_store_get(grammar_store *s, const char *schema, size_t n, engine_error *err) {
    return find_or_make(s, schema_compile, schema, n, err);
}

grammar *grammar_store_calls(grammar_store *s, const char *spec, size_t n, engine_error *err) {
    return find_or_make(s, calls_compile, spec, n, err);
}

/* ---- cursors ---- */

/* Puts the cursor's place where the machine works. */
static place *load(const grammar_cursor *c) {
    grammar_vocab *v = c->g->vocab;
    v->places[0].n = c->at.n;
    v->places[0].nframes = c->at.nframes;
    memcpy(v->places[0].v, c->at.v, c->at.n * sizeof *c->at.v);
    memcpy(v->frames.v, c->frames, c->at.nframes * sizeof *c->frames);
    v->frames.n = c->at.nframes;
    return &v->places[0];
}

static void store(grammar_cursor *c, place *p) {
    grammar_vocab *v = c->g->vocab;
    machine_compact(p, &v->frames, &v->scratch);
    while (p->nframes > CURSOR_FRAMES) {
        p->n--;
        machine_compact(p, &v->frames, &v->scratch);
    }
    c->at.n = p->n;
    c->at.nframes = p->nframes;
    memcpy(c->at.v, p->v, p->n * sizeof *p->v);
    memcpy(c->frames, v->frames.v, p->nframes * sizeof *c->frames);
}

grammar_cursor *grammar_cursor_new(grammar *g) {
    grammar_cursor *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->g = grammar_ref(g);
    place *p = &g->vocab->places[0];
    machine_start(g->root, p, &g->vocab->frames);
    store(c, p);
    return c;
}

void grammar_cursor_free(grammar_cursor *c) {
    if (!c) return;
    grammar_unref(c->g);
    free(c);
}

bool grammar_cursor_take(grammar_cursor *c, const char *s, size_t n) {
    place *p = load(c), *next = &c->g->vocab->places[1];
    for (size_t i = 0; i < n; i++) {
        machine_step(p, (unsigned char)s[i], next, &c->g->vocab->frames);
        if (!next->n) return false;
        place *t = p;
        p = next;
        next = t;
    }
    store(c, p);
    return true;
}

bool grammar_cursor_complete(const grammar_cursor *c, bool *extendable) {
    return machine_complete(&c->at, extendable);
}

/* ---- masks ---- */

static void mark(const grammar_vocab *v, uint64_t *mask, int32_t token) {
    for (; token >= 0; token = v->twin[token]) set_bit(mask, token);
}

/* Marks the tokens of a trie of which every byte can be taken. places[depth] is the place after so many bytes. A place of
 * many threads could hold up all other answers: when the steps are used up, only tokens of one byte are tried any more,
 * with which everything can be written. */
static void walk(grammar_vocab *v, const trie *t, uint64_t *mask) {
    uint32_t steps = 0;
    for (uint32_t i = 0; i < t->n;) {
        const trie_node *at = &t->v[i];
        if (steps > STEPS_MAX && at->depth > 1) {
            i += at->skip;
            continue;
        }
        steps += v->places[at->depth - 1].n;
        machine_step(&v->places[at->depth - 1], at->byte, &v->places[at->depth], &v->frames);
        if (!v->places[at->depth].n) {
            i += at->skip;
            continue;
        }
        mark(v, mask, at->token);
        i++;
    }
}

/* The same for a trie of plain tokens within a string with a pattern: its automaton alone decides. */
static void walk_pattern(const grammar_vocab *v, const thread *in, const regex_dfa *d, uint64_t *mask) {
    uint32_t state[TRIE_DEPTH_MAX + 1] = {in->dfa};
    const trie *t = &v->plain;
    for (uint32_t i = 0; i < t->n;) {
        const trie_node *at = &t->v[i];
        state[at->depth] = d->next[state[at->depth - 1]][at->byte];
        if (state[at->depth]) mark(v, mask, at->token);
        i += state[at->depth] ? 1 : at->skip;
    }
}

/* The set of plain tokens that one thread alone is known to take, when no other could take more; NULL: not known. */
static const uint64_t *plain_set(const grammar_vocab *v, const place *p) {
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t room;
        if (!machine_in_text(&p->v[i], &room)) continue;
        if (room >= v->longest) return v->plain_sets[PLAIN_SETS - 1];
        if (p->n == 1) return v->plain_sets[room < PLAIN_SETS - 1 ? room : PLAIN_SETS - 2];
    }
    return NULL;
}

static void compute(grammar_vocab *v, const place *p, uint64_t *mask) {
    const uint64_t *plain = plain_set(v, p);
    const regex_dfa *pattern = p->n == 1 ? machine_in_pattern(&p->v[0]) : NULL;
    bool extendable;
    memset(mask, 0, v->words * sizeof *mask);
    if (plain)
        memcpy(mask, plain, v->words * sizeof *mask);
    else if (pattern)
        walk_pattern(v, &p->v[0], pattern, mask);
    else
        walk(v, &v->plain, mask);
    walk(v, &v->rest, mask);
    if (!machine_complete(p, &extendable)) return;
    for (int i = 0; i < v->nends; i++) set_bit(mask, v->ends[i]);
}

static void mix(uint64_t key[2], uint64_t x) {
    key[0] = (key[0] ^ x) * UINT64_C(0x9E3779B97F4A7C15);
    key[0] ^= key[0] >> 29;
    key[1] = (key[1] + x) * UINT64_C(0xC2B2AE3D27D4EB4F);
    key[1] ^= key[1] >> 31;
}

static void mix_frames(uint64_t key[2], const frames *f, uint32_t at) {
    for (; at; at = f->v[at].parent) {
        mix(key, (uint64_t)(uintptr_t)f->v[at].node);
        mix(key, f->v[at].count);
    }
    mix(key, UINT64_MAX);
}

static void mix_thread(uint64_t key[2], const thread *t) {
    mix(key, (uint64_t)(uintptr_t)t->node);
    mix(key, (uint64_t)t->lo << 32 | t->hi);
    mix(key, (uint64_t)t->count << 32 | t->dfa);
    mix(key, (uint64_t)t->phase << 16 | (uint64_t)t->blanks << 8 | t->text);
    mix(key, (uint64_t)t->number.v);
    mix(key, (uint64_t)(t->number.v >> 64));
    mix(key, (uint64_t)t->number.digits << 32 | (uint64_t)t->number.after << 24 |
                 (uint64_t)t->number.exponent << 16 | (uint64_t)t->number.negative << 8 | t->number.point);
}

static void key_of(const place *p, const frames *f, uint64_t key[2]) {
    key[0] = 1;
    key[1] = 2;
    for (uint32_t i = 0; i < p->n; i++) {
        mix_thread(key, &p->v[i]);
        mix_frames(key, f, p->v[i].frame);
    }
}

const uint64_t *grammar_cursor_mask(grammar_cursor *c) {
    grammar *g = c->g;
    const place *p = load(c);
    uint64_t key[2];
    key_of(p, &g->vocab->frames, key);
    for (int i = 0; i < CACHE_MASKS; i++) {
        if (g->cache[i].key[0] == key[0] && g->cache[i].key[1] == key[1]) return g->cache[i].mask;
    }
    cached_mask *m = &g->cache[g->oldest];
    g->oldest = (g->oldest + 1) % CACHE_MASKS;
    memcpy(m->key, key, sizeof key);
    compute(g->vocab, p, m->mask);
    return m->mask;
}
