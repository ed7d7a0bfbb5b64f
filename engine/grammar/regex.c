/* See regex.h. The pattern is parsed into a nondeterministic automaton (Thompson), whose subsets become states; with limits of
 * length a state is a subset and the number of characters so far. States that lead nowhere are dropped at the end. All
 * working memory is of the call. */
#include "engine/grammar/regex.h"

#include "engine/grammar/node.h"
#include "engine/grammar/regex_ranges.h"
#include "engine/text/utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_MAX = 4096,
    NFA_MAX = 20000,
    DFA_MAX = 8000,
    WORK_MAX = 20000000, /* steps of all patterns of a schema: some tenths of a second */
    REPEAT_MAX = 1000,
    GROUPS_MAX = 100, /* within each other */
    NONE = -1,
};

/* A state has one edge over bytes, or up to two that read nothing. */
typedef struct nfa_state {
    int out, other; /* other: only of empty edges */
    uint8_t lo, hi;
    bool reads;
} nfa_state;

/* A part of the automaton under construction: one way in, one way out. */
typedef struct part {
    int in, out;
} part;

typedef struct parser {
    const char *begin, *s, *end;
    nfa_state *states;
    int n, depth;
    engine_error *err;
    bool failed;
} parser;

static part fail(parser *p, const char *what) {
    if (!p->failed)
        engine_fail(p->err, ENGINE_EINVAL, "pattern has %s (at byte %zu), which is not supported", what,
                    (size_t)(p->s - p->begin));
    p->failed = true;
    return (part){0, 0};
}

/* ---- the automaton ---- */

static int add_state(parser *p) {
    if (p->n == NFA_MAX) {
        if (!p->failed) engine_fail(p->err, ENGINE_EINVAL, "pattern is too large");
        p->failed = true;
        return 0;
    }
    p->states[p->n] = (nfa_state){.out = NONE, .other = NONE};
    return p->n++;
}

static void link_states(parser *p, int from, int to) {
    if (p->failed) return;
    int *edge = p->states[from].out == NONE ? &p->states[from].out : &p->states[from].other;
    *edge = to;
}

static part empty_part(parser *p) {
    int s = add_state(p);
    return (part){s, s};
}

static part concatenation(parser *p, part a, part b) {
    link_states(p, a.out, b.in);
    return (part){a.in, b.out};
}

static part alternation(parser *p, part a, part b) {
    part r = {add_state(p), add_state(p)};
    link_states(p, r.in, a.in);
    link_states(p, r.in, b.in);
    link_states(p, a.out, r.out);
    link_states(p, b.out, r.out);
    return r;
}

static part optional(parser *p, part a) {
    return alternation(p, a, empty_part(p));
}

static part star(parser *p, part a) {
    part r = {add_state(p), add_state(p)};
    link_states(p, r.in, a.in);
    link_states(p, r.in, r.out);
    int again = add_state(p);
    link_states(p, a.out, again);
    link_states(p, again, a.in);
    link_states(p, again, r.out);
    return r;
}

typedef struct set_builder {
    parser *p;
    int in, out;
} set_builder;

static void add_sequence(void *ctx, const byte_range *r, int n) {
    set_builder *b = ctx;
    parser *p = b->p;
    int at = add_state(p);
    /* a chain of ways into the set, each with one sequence */
    link_states(p, b->in, at);
    int chain = add_state(p);
    link_states(p, b->in, chain);
    b->in = chain;
    for (int i = 0; i < n && !p->failed; i++) {
        int next = i == n - 1 ? b->out : add_state(p);
        p->states[at] = (nfa_state){.out = next, .other = NONE, .lo = r[i].lo, .hi = r[i].hi, .reads = true};
        at = next;
    }
}

static part set_part(parser *p, const code_set *s) {
    if (s->full) return fail(p, "a class of too many characters");
    part r = {add_state(p), add_state(p)};
    set_builder b = {p, r.in, r.out};
    for (int i = 0; i < s->n; i++) code_range_sequences(s->v[i], add_sequence, &b);
    return r;
}

static part any_part(parser *p, bool newlines) {
    code_set s = {0};
    if (!newlines) {
        code_set_add(&s, '\n', '\n');
        code_set_add(&s, '\r', '\r');
        code_set_add(&s, 0x2028, 0x2029);
        code_set_add(&s, 0x85, 0x85);
    }
    code_set_invert(&s);
    return set_part(p, &s);
}

/* ---- classes ---- */

/* What every dialect has in the class… */
static void add_least(code_set *s, char kind) {
    if (kind == 's') {
        code_set_add(s, '\t', '\r');
        code_set_add(s, ' ', ' ');
        return;
    }
    code_set_add(s, '0', '9');
    if (kind == 'd') return;
    code_set_add(s, 'A', 'Z');
    code_set_add(s, 'a', 'z');
    code_set_add(s, '_', '_');
}

/* …and what some dialect may have, which is left out where the class is negated. */
static void add_most(code_set *s, char kind) {
    add_least(s, kind);
    if (kind != 's') {
        code_set_add(s, 0x80, 0x10FFFF);
        return;
    }
    static const code_range blanks[] = {{0x1C, 0x1F},     {0x85, 0x85},     {0xA0, 0xA0},
                                        {0x1680, 0x1680}, {0x180E, 0x180E}, {0x2000, 0x200A},
                                        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                        {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    for (size_t i = 0; i < sizeof blanks / sizeof *blanks; i++) code_set_add(s, blanks[i].lo, blanks[i].hi);
}

/* Adds \d \w \s or an opposite; the class itself may be negated. */
static void add_shorthand(code_set *s, char letter, bool negated_class) {
    char kind = (char)tolower((unsigned char)letter);
    if (kind == letter && !negated_class) {
        add_least(s, kind);
    } else if (kind == letter) {
        add_most(s, kind);
    } else {
        code_set other = {0};
        if (negated_class)
            add_least(&other, kind);
        else
            add_most(&other, kind);
        code_set_invert(&other);
        for (int i = 0; i < other.n; i++) code_set_add(s, other.v[i].lo, other.v[i].hi);
    }
}

static bool is_shorthand(char c) {
    return c != 0 && strchr("dDwWsS", c) != NULL;
}

static bool hex_digits(parser *p, int n, uint32_t *c) {
    *c = 0;
    for (int i = 0; i < n; i++, p->s++) {
        if (p->s == p->end || !isxdigit((unsigned char)*p->s)) return false;
        int digit = isdigit((unsigned char)*p->s) ? *p->s - '0' : tolower((unsigned char)*p->s) - 'a' + 10;
        *c = *c * 16 + (uint32_t)digit;
    }
    return true;
}

/* The character of the escape whose letter is at the cursor. */
static uint32_t escaped_character(parser *p) {
    static const char letters[] = "nrtfv0", values[] = "\n\r\t\f\v";
    char letter = *p->s++;
    uint32_t c;
    const char *known = letter ? strchr(letters, letter) : NULL;
    if (known) return (uint32_t)(unsigned char)values[known - letters];
    if (letter == 'x' || letter == 'u') {
        if (hex_digits(p, letter == 'x' ? 2 : 4, &c) && (c < 0xD800 || c > 0xDFFF)) return c;
        fail(p, "a broken code point");
    } else if (isalnum((unsigned char)letter)) {
        fail(p, "an unknown escape");
    }
    return (uint32_t)(unsigned char)letter;
}

static uint32_t plain_character(parser *p) {
    size_t len;
    uint32_t c = utf8_first(p->s, p->end, &len);
    p->s += len;
    return c;
}

static uint32_t class_character(parser *p) {
    if (*p->s != '\\') return plain_character(p);
    p->s++;
    if (p->s == p->end) {
        fail(p, "a \\ at its end");
        return 0;
    }
    if (*p->s == 'b') {
        p->s++;
        return '\b';
    }
    return escaped_character(p);
}

static void class_item(parser *p, code_set *s, bool negated) {
    if (*p->s == '\\' && p->end - p->s > 1 && is_shorthand(p->s[1])) {
        add_shorthand(s, p->s[1], negated);
        p->s += 2;
        return;
    }
    uint32_t lo = class_character(p), hi = lo;
    bool range = p->end - p->s > 1 && p->s[0] == '-' && p->s[1] != ']';
    if (range) {
        p->s++;
        if (*p->s == '\\' && p->end - p->s > 1 && is_shorthand(p->s[1])) fail(p, "a range to a class");
        if (!p->failed) hi = class_character(p);
    }
    if (hi < lo) fail(p, "a range that runs backwards");
    code_set_add(s, lo, hi);
}

static part class(parser *p) {
    code_set s = {0};
    bool negated = p->s != p->end && *p->s == '^';
    p->s += negated;
    while (!p->failed && p->s != p->end && *p->s != ']') class_item(p, &s, negated);
    if (p->failed) return (part){0, 0};
    if (p->s == p->end) return fail(p, "a [ that is not closed");
    p->s++;
    if (negated) code_set_invert(&s);
    return set_part(p, &s);
}

/* ---- the grammar of patterns ---- */

static part alternatives(parser *p);

static part group(parser *p) {
    static const char plain[] = "?:";
    if (++p->depth > GROUPS_MAX) return fail(p, "too many groups within each other");
    if (p->s != p->end && *p->s == '?') {
        const char *name_end = memchr(p->s, '>', (size_t)(p->end - p->s));
        bool named = p->end - p->s > 2 && p->s[1] == '<' && isalpha((unsigned char)p->s[2]) && name_end;
        if (named)
            p->s = name_end + 1;
        else if (p->end - p->s > 1 && memcmp(p->s, plain, 2) == 0)
            p->s += 2;
        else
            return fail(p, "a look-around or an unknown kind of group");
    }
    part r = alternatives(p);
    if (p->failed) return r;
    if (p->s == p->end) return fail(p, "a ( that is not closed");
    p->s++;
    p->depth--;
    return r;
}

static part single(parser *p, uint32_t c) {
    code_set s = {0};
    code_set_add(&s, c, c);
    return set_part(p, &s);
}

static part escape(parser *p) {
    if (p->s == p->end) return fail(p, "a \\ at its end");
    char c = *p->s;
    if (is_shorthand(c)) {
        code_set s = {0};
        add_shorthand(&s, c, false);
        p->s++;
        return set_part(p, &s);
    }
    if (c == 'b' || c == 'B') return fail(p, "a \\b");
    if (c >= '1' && c <= '9') return fail(p, "a back-reference");
    return single(p, escaped_character(p));
}

static part atom(parser *p) {
    switch (*p->s) {
    case '(': p->s++; return group(p);
    case '[': p->s++; return class(p);
    case '\\': p->s++; return escape(p);
    case '.': p->s++; return any_part(p, false);
    case '^': return fail(p, "a ^ that is not at the beginning");
    case '$': return fail(p, "a $ that is not at the end");
    case '*':
    case '+':
    case '?': return fail(p, "a repetition of nothing");
    default: return single(p, plain_character(p));
    }
}

static bool read_count(parser *p, int *n) {
    const char *from = p->s;
    for (*n = 0; p->s != p->end && isdigit((unsigned char)*p->s); p->s++) {
        *n = *n * 10 + (*p->s - '0');
        if (*n > REPEAT_MAX) *n = REPEAT_MAX + 1;
    }
    return p->s != from;
}

/* * + ? {n} {n,} {n,m}: max < 0 is no limit. False: no repetition stands here. */
static bool read_repetition(parser *p, int *min, int *max) {
    char c = p->s == p->end ? 0 : *p->s;
    const char *from = p->s;
    *min = c == '+';
    *max = c == '?' ? 1 : -1;
    if (c == '*' || c == '+' || c == '?') {
        p->s++;
        return true;
    }
    if (c != '{') return false;
    p->s++;
    bool ok = read_count(p, min);
    *max = *min;
    if (ok && p->s != p->end && *p->s == ',') {
        p->s++;
        if (!read_count(p, max)) *max = -1;
    }
    if (ok && p->s != p->end && *p->s == '}') {
        p->s++;
        return true;
    }
    p->s = from; /* a { that is itself */
    return false;
}

/* Repetition by reading the atom's text once for each copy. */
static part repeated(parser *p, const char *from, int min, int max) {
    const char *after = p->s;
    part r = empty_part(p);
    int copies = max < 0 ? min + 1 : max;
    if (copies > REPEAT_MAX || (max >= 0 && max < min)) return fail(p, "a repetition that is too long");
    for (int i = 0; i < copies && !p->failed; i++) {
        p->s = from;
        part one = atom(p);
        if (max < 0 && i == copies - 1)
            one = star(p, one);
        else if (i >= min)
            one = optional(p, one);
        r = concatenation(p, r, one);
    }
    p->s = after;
    return r;
}

static part piece(parser *p) {
    const char *from = p->s;
    bool brace = *from == '{';
    int n = p->n, min, max;
    part one = brace ? (p->s++, single(p, '{')) : atom(p);
    if (p->failed || !read_repetition(p, &min, &max)) return one;
    if (p->s != p->end && *p->s == '?') p->s++; /* lazy: the same strings */
    if (p->s != p->end && (*p->s == '+' || *p->s == '*')) return fail(p, "a repetition of a repetition");
    if (brace) return fail(p, "a repetition of a {");
    p->n = n; /* the single copy is not used */
    return repeated(p, from, min, max);
}

static part branch(parser *p) {
    bool top = p->depth == 0, open_begin = true, open_end = true;
    if (p->s != p->end && *p->s == '^' && top) {
        p->s++;
        open_begin = false;
    }
    part r = empty_part(p);
    while (!p->failed && p->s != p->end && *p->s != '|' && *p->s != ')') {
        bool last = p->end - p->s == 1 || p->s[1] == '|';
        if (*p->s == '$' && top && last) {
            p->s++;
            open_end = false;
            break;
        }
        r = concatenation(p, r, piece(p));
    }
    if (top && open_begin) r = concatenation(p, star(p, any_part(p, true)), r);
    if (top && open_end) r = concatenation(p, r, star(p, any_part(p, true)));
    return r;
}

static part alternatives(parser *p) {
    part r = branch(p);
    while (!p->failed && p->s != p->end && *p->s == '|') {
        p->s++;
        r = alternation(p, r, branch(p));
    }
    return r;
}

/* ---- subsets ---- */

/* Sorted states of the NFA that read or accept, and the characters so far. */
typedef struct subset {
    int *v;
    int n;
    uint32_t chars;
} subset;

typedef struct builder {
    const nfa_state *nfa;
    int nnfa, accept;
    uint32_t min, max, cap; /* cap: characters are not counted beyond */
    subset *sets;           /* [DFA_MAX]; 0 is the empty one */
    uint16_t (*next)[256];
    int n;
    int *table, *stack; /* by hash; the closure's work */
    uint8_t *seen;
    size_t *work;
    bool failed;
} builder;

enum { TABLE_SIZE = 1 << 15 };

static uint32_t hash_subset(const subset *s) {
    uint32_t h = 2166136261u ^ s->chars;
    for (int i = 0; i < s->n; i++) h = (h ^ (uint32_t)s->v[i]) * 16777619u;
    return h ^ h >> 15;
}

/* Takes over v; returns the number of the state. */
static int intern(builder *b, subset s) {
    if (s.n == 0) {
        free(s.v);
        return 0;
    }
    uint32_t i = hash_subset(&s) % TABLE_SIZE;
    for (; b->table[i]; i = (i + 1) % TABLE_SIZE) {
        const subset *o = &b->sets[b->table[i]];
        if (o->n == s.n && o->chars == s.chars && memcmp(o->v, s.v, (size_t)s.n * sizeof *s.v) == 0) {
            free(s.v);
            return b->table[i];
        }
    }
    if (b->n == DFA_MAX) {
        b->failed = true;
        free(s.v);
        return 0;
    }
    b->table[i] = b->n;
    b->sets[b->n] = s;
    return b->n++;
}

static int compare_states(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

static void reach(builder *b, int state, int *n) {
    if (state == NONE || b->seen[state]) return;
    b->seen[state] = 1;
    b->stack[(*n)++] = state;
}

/* Everything that the marked states (seen, and in stack[0..n)) reach without reading; marks are wiped. */
static subset closure(builder *b, int n, uint32_t chars) {
    subset s = {.chars = chars};
    for (int i = 0; i < n; i++) {
        const nfa_state *q = &b->nfa[b->stack[i]];
        if (q->reads) continue;
        reach(b, q->out, &n);
        reach(b, q->other, &n);
    }
    s.v = malloc((size_t)n * sizeof *s.v);
    for (int i = 0; i < n; i++) {
        int q = b->stack[i];
        b->seen[q] = 0;
        if (s.v && (b->nfa[q].reads || q == b->accept)) s.v[s.n++] = q;
    }
    if (s.n) qsort(s.v, (size_t)s.n, sizeof *s.v, compare_states);
    *b->work += (size_t)n * 4;
    b->failed |= !s.v || *b->work > WORK_MAX;
    return s;
}

static bool begins_character(int byte) {
    return (byte & 0xC0) != 0x80;
}

/* Bytes that a string can hold: as they are, or by an escape of one letter. */
static bool is_writable(int byte) {
    return byte >= 0x20 || (byte && strchr("\b\t\n\f\r", byte) != NULL);
}

static int move(builder *b, int from, int byte) {
    const subset *s = &b->sets[from];
    uint32_t chars = s->chars + begins_character(byte);
    int n = 0;
    if (chars > b->max || !is_writable(byte)) return 0;
    *b->work += (size_t)s->n;
    for (int i = 0; i < s->n; i++) {
        const nfa_state *q = &b->nfa[s->v[i]];
        if (q->reads && byte >= q->lo && byte <= q->hi) reach(b, q->out, &n);
    }
    if (n == 0) return 0;
    return intern(b, closure(b, n, chars < b->cap ? chars : b->cap));
}

static bool holds(const subset *s, int state) {
    for (int i = 0; i < s->n; i++) {
        if (s->v[i] == state) return true;
    }
    return false;
}

/* Two bytes that no edge of the NFA tells apart lead to the same state: `first` has the least byte of each kind. */
static void classify(const builder *b, uint8_t first[256]) {
    bool edge[257] = {false};
    for (int i = 0; i < b->nnfa; i++) {
        if (b->nfa[i].reads) edge[b->nfa[i].lo] = edge[b->nfa[i].hi + 1] = true;
    }
    for (int c = 0; c <= 0x20; c++) edge[c] = true;
    edge[0x80] = edge[0xC0] = true;
    for (int c = 0; c < 256; c++) first[c] = edge[c] || c == 0 ? (uint8_t)c : first[c - 1];
}

static void build_states(builder *b, int start) {
    uint8_t first[256];
    int n = 0;
    classify(b, first);
    b->n = 1;
    reach(b, start, &n);
    intern(b, closure(b, n, 0));
    for (int i = 1; i < b->n && !b->failed; i++) {
        for (int c = 0; c < 256 && !b->failed; c++)
            b->next[i][c] = first[c] == c ? (uint16_t)move(b, i, c) : b->next[i][first[c]];
    }
}

/* live[i]: the end can be reached from i. */
static void find_live(const builder *b, bool *live) {
    bool changed = true;
    while (changed) {
        changed = false;
        for (int i = b->n - 1; i > 0; i--) {
            for (int c = 0; c < 256 && !live[i]; c++) {
                if (live[b->next[i][c]]) changed = live[i] = true;
            }
        }
    }
}

static int write_dfa(const builder *b, grammar_arena *a, const regex_dfa **out, engine_error *err) {
    bool *live = calloc((size_t)b->n, sizeof *live);
    regex_dfa *d = grammar_alloc(a, 1, sizeof *d);
    if (live && d) {
        d->n = (uint32_t)b->n;
        d->next = grammar_alloc(a, (size_t)b->n, sizeof *d->next);
        d->accepts = grammar_alloc(a, (size_t)b->n, sizeof *d->accepts);
    }
    if (!live || !d || !d->next || !d->accepts) {
        free(live);
        return engine_fail(err, ENGINE_EINVAL, "pattern is too large");
    }
    for (int i = 1; i < b->n; i++)
        live[i] = d->accepts[i] = holds(&b->sets[i], b->accept) && b->sets[i].chars >= b->min;
    find_live(b, live);
    for (int i = 1; i < b->n; i++) {
        for (int c = 0; c < 256; c++) d->next[i][c] = live[b->next[i][c]] ? b->next[i][c] : 0;
    }
    *out = b->n > 1 && live[1] ? d : NULL;
    free(live);
    return 0;
}

static int determinise(const parser *p, part whole, uint32_t min, uint32_t max, grammar_arena *a,
                       const regex_dfa **out, engine_error *err) {
    bool limited = max < NODE_LENGTH_ANY;
    builder b = {
        .nfa = p->states, .nnfa = p->n, .accept = whole.out, .min = min, .max = max, .work = &a->work};
    b.cap = limited ? max : min;
    if (limited) b.max = max;
    b.sets = calloc(DFA_MAX, sizeof *b.sets);
    b.next = calloc(DFA_MAX, sizeof *b.next);
    b.table = calloc(TABLE_SIZE, sizeof *b.table);
    b.stack = calloc((size_t)p->n, sizeof *b.stack);
    b.seen = calloc((size_t)p->n, 1);
    int rc = -1;
    if (!b.sets || !b.next || !b.table || !b.stack || !b.seen) {
        engine_fail(err, ENGINE_ENOMEM, "out of memory for a pattern");
    } else {
        build_states(&b, whole.in);
        rc = b.failed ? engine_fail(err, ENGINE_EINVAL, "pattern is too large%s",
                                    limited || min ? ", with the limits of length" : "")
                      : write_dfa(&b, a, out, err);
    }
    for (int i = 1; i < b.n; i++) free(b.sets[i].v);
    free(b.sets);
    free(b.next);
    free(b.table);
    free(b.stack);
    free(b.seen);
    return rc;
}

int regex_compile(const char *pattern, size_t n, uint32_t min, uint32_t max, grammar_arena *a,
                  const regex_dfa **out, engine_error *err) {
    parser p = {.begin = pattern, .s = pattern, .end = pattern + n, .err = err};
    if (n > PATTERN_MAX)
        return engine_fail(err, ENGINE_EINVAL, "pattern is longer than %d bytes", PATTERN_MAX);
    p.states = calloc(NFA_MAX, sizeof *p.states);
    if (!p.states) return engine_fail(err, ENGINE_ENOMEM, "out of memory for a pattern");
    part whole = alternatives(&p);
    if (!p.failed && p.s != p.end) fail(&p, "a ) too many");
    int rc = p.failed ? -1 : determinise(&p, whole, min, max, a, out, err);
    free(p.states);
    return rc;
}
