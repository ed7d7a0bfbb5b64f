/* See machine.h. One function per phase: it looks at one thread and one byte, and adds the threads that come of it. */
#include "engine/grammar/machine.h"

#include <string.h>

/* Blanks where JSON has them: one space, or a line break and indentation, as printers do it. More would let a model that
 * has nothing to say go on for ever. */
enum { BLANK_SPACE = 1, BLANK_LINE = 2, BLANKS_MAX = BLANK_LINE + 40 };

/* `text` of a thread: what must follow within a character. */
enum {
    TEXT_FREE = 0,
    TEXT_1, /* that many more bytes of UTF-8 */
    TEXT_2,
    TEXT_3,
    TEXT_E0, /* second bytes with a range of their own */
    TEXT_ED,
    TEXT_F0,
    TEXT_F4,
    TEXT_ESCAPE,
    TEXT_U, /* \u and the number of its digits read; D8 to DF would be surrogates, 0000 is NUL */
    TEXT_U1,
    TEXT_U2,
    TEXT_U3,
    TEXT_U_D,
    TEXT_U_0,
    TEXT_U_00,
    TEXT_U_000,
    TEXT_BAD,
};

typedef struct step {
    unsigned char c;
    place *to;
    frames *f;
} step;

/* ---- threads ---- */

static bool same_thread(const thread *a, const thread *b) {
    return a->node == b->node && a->frame == b->frame && a->lo == b->lo && a->hi == b->hi &&
           a->count == b->count && a->dfa == b->dfa && a->phase == b->phase && a->blanks == b->blanks &&
           a->text == b->text && memcmp(&a->number, &b->number, sizeof a->number) == 0;
}

static void add(place *to, const thread *t) {
    for (uint32_t i = 0; i < to->n; i++) {
        if (same_thread(&to->v[i], t)) return;
    }
    if (to->n < MACHINE_THREADS) to->v[to->n++] = *t;
}

static uint32_t push_frame(frames *f, const node *n, uint32_t parent, uint32_t count) {
    if (f->n == MACHINE_FRAMES) return 0;
    f->v[f->n] = (frame){n, parent, count, f->v[parent].depth + 1};
    return f->n++;
}

/* The innermost frame with another count. */
static uint32_t recount(frames *f, uint32_t at, uint32_t count) {
    return push_frame(f, f->v[at].node, f->v[at].parent, count);
}

static bool fits(const frames *f, uint32_t at, const node *n) {
    return (int)f->v[at].depth + n->need <= NODE_DEPTH_MAX;
}

/* Threads before each kind of value that the node may be. */
static void enter(place *to, frames *f, const node *n, uint32_t at) {
    if (!fits(f, at, n)) return;
    if (n->kind == NODE_UNION) {
        for (uint32_t i = 0; i < n->any.n; i++) enter(to, f, n->any.v[i], at);
    } else if (n->kind == NODE_SEQUENCE) {
        uint32_t within = push_frame(f, n, at, 0);
        if (within) enter(to, f, n->sequence.v[0], within);
    } else {
        add(to, &(thread){.node = n, .frame = at, .phase = n->kind == NODE_TEXT ? IN_TEXT : AT_VALUE});
    }
}

static void next_part(place *to, frames *f, uint32_t at);

/* A value has ended in this frame. */
static void leave(place *to, frames *f, uint32_t at) {
    if (at && f->v[at].node->kind == NODE_SEQUENCE)
        next_part(to, f, at);
    else
        add(to, &(thread){.frame = at, .phase = at ? AT_NEXT : AT_END});
}

static void next_part(place *to, frames *f, uint32_t at) {
    const node *n = f->v[at].node;
    uint32_t next = f->v[at].count == n->sequence.n ? 0 : f->v[at].count + 1;
    const node *part = next < n->sequence.n ? n->sequence.v[next] : n->sequence.again;
    if (next == n->sequence.n) leave(to, f, f->v[at].parent);
    uint32_t with = part ? recount(f, at, next) : 0;
    if (with) enter(to, f, part, with);
}

static uint8_t next_blank(uint8_t blanks, unsigned char c) {
    if (blanks == 0) return c == ' ' ? BLANK_SPACE : c == '\n' ? BLANK_LINE : 0;
    bool more = blanks >= BLANK_LINE && blanks < BLANKS_MAX && (c == ' ' || c == '\t' || c == '\n');
    return more ? (uint8_t)(blanks + 1) : 0;
}

/* ---- text ---- */

static uint8_t first_of_utf8(unsigned char c) {
    if (c < 0x80) return TEXT_FREE;
    if (c < 0xC2) return TEXT_BAD;
    if (c < 0xE0) return TEXT_1;
    if (c < 0xF0) return c == 0xE0 ? TEXT_E0 : c == 0xED ? TEXT_ED : TEXT_2;
    return c == 0xF0 ? TEXT_F0 : c < 0xF4 ? TEXT_3 : c == 0xF4 ? TEXT_F4 : TEXT_BAD;
}

static uint8_t rest_of_utf8(uint8_t text, unsigned char c) {
    static const struct {
        uint8_t lo, hi, next;
    } rest[] = {[TEXT_1] = {0x80, 0xBF, TEXT_FREE}, [TEXT_2] = {0x80, 0xBF, TEXT_1},
                [TEXT_3] = {0x80, 0xBF, TEXT_2},    [TEXT_E0] = {0xA0, 0xBF, TEXT_1},
                [TEXT_ED] = {0x80, 0x9F, TEXT_1},   [TEXT_F0] = {0x90, 0xBF, TEXT_2},
                [TEXT_F4] = {0x80, 0x8F, TEXT_2}};
    return c >= rest[text].lo && c <= rest[text].hi ? rest[text].next : TEXT_BAD;
}

static bool is_hex(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static uint8_t rest_of_unicode(uint8_t text, unsigned char c) {
    if (!is_hex(c)) return TEXT_BAD;
    switch (text) {
    case TEXT_U: return c == '0' ? TEXT_U_0 : c == 'd' || c == 'D' ? TEXT_U_D : TEXT_U1;
    case TEXT_U_0: return c == '0' ? TEXT_U_00 : TEXT_U2;
    case TEXT_U_00: return c == '0' ? TEXT_U_000 : TEXT_U3;
    case TEXT_U_000: return c == '0' ? TEXT_BAD : TEXT_FREE;
    case TEXT_U_D: return c < '8' ? TEXT_U2 : TEXT_BAD;
    case TEXT_U1: return TEXT_U2;
    case TEXT_U2: return TEXT_U3;
    default: return TEXT_FREE;
    }
}

/* The state after a byte of a string's text; the closing quote is not for it. */
static uint8_t next_text(uint8_t text, unsigned char c) {
    if (text == TEXT_FREE)
        return c < 0x20 || c == '"' ? TEXT_BAD : c == '\\' ? TEXT_ESCAPE : first_of_utf8(c);
    if (text < TEXT_ESCAPE) return rest_of_utf8(text, c);
    if (text > TEXT_ESCAPE) return rest_of_unicode(text, c);
    if (c == 'u') return TEXT_U;
    return c && strchr("\"\\/bfnrt", c) ? TEXT_FREE : TEXT_BAD;
}

/* What the letter of an escape stands for, where the two are one byte each. */
static const char escape_letters[] = "\"\\bfnrt", escape_bytes[] = "\"\\\b\f\n\r\t";

/* With a pattern an escape is begun only when one of them can follow. */
static bool may_escape(const regex_dfa *d, uint32_t state) {
    for (const char *b = escape_bytes; *b; b++) {
        if (d->next[state][(unsigned char)*b]) return true;
    }
    return false;
}

/* A byte of text with a pattern: bytes as they are, and escapes of one letter. False: not by the pattern. */
static bool step_pattern(thread *t, uint8_t before, unsigned char c) {
    const regex_dfa *d = t->node->string.dfa;
    if (before == TEXT_FREE && c == '\\') return may_escape(d, t->dfa);
    if (before == TEXT_ESCAPE) {
        const char *letter = strchr(escape_letters, c);
        if (!letter) return false;
        c = (unsigned char)escape_bytes[letter - escape_letters];
    }
    t->dfa = d->next[t->dfa][c];
    return t->dfa != 0;
}

static void in_string(const thread *t, const step *s) {
    thread next = *t;
    const node *n = t->node;
    if (s->c == '"' && t->text == TEXT_FREE) {
        if (n->string.dfa ? n->string.dfa->accepts[t->dfa] : t->count >= n->string.min)
            leave(s->to, s->f, t->frame);
        return;
    }
    next.text = next_text(t->text, s->c);
    if (next.text == TEXT_BAD) return;
    if (t->text == TEXT_FREE && n->string.max < NODE_LENGTH_ANY && next.count++ == n->string.max) return;
    if (t->text == TEXT_FREE && n->string.max == NODE_LENGTH_ANY && t->count < n->string.min) next.count++;
    if (n->string.dfa && !step_pattern(&next, t->text, s->c)) return;
    add(s->to, &next);
}

/* ---- literals and names: ranges of a sorted list ---- */

typedef literal (*nth_fn)(const node *n, uint32_t i);

static literal nth_literal(const node *n, uint32_t i) {
    return n->literals.v[i];
}

static literal nth_name(const node *n, uint32_t i) {
    return n->object.v[n->object.by_name[i]].name;
}

/* First in [lo, hi) whose byte at `at` is b or more; those that end before are sorted in front. */
static uint32_t lower_bound(const node *n, nth_fn nth, uint32_t lo, uint32_t hi, uint32_t at, int b) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        literal l = nth(n, mid);
        if (l.n <= at || (unsigned char)l.text[at] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Keeps those that go on with c. */
static void narrow(const node *n, nth_fn nth, thread *t, unsigned char c) {
    t->lo = lower_bound(n, nth, t->lo, t->hi, t->count, c);
    t->hi = lower_bound(n, nth, t->lo, t->hi, t->count, c + 1);
    t->count++;
}

static bool literal_complete(const thread *t) {
    return t->node->literals.v[t->lo].n == t->count;
}

static void step_thread(const thread *t, const step *s);

/* The value ended before this byte, which is for what comes after it. */
static void step_after(const thread *t, const step *s) {
    if (t->frame) step_thread(&(thread){.frame = t->frame, .phase = AT_NEXT}, s);
}

static void in_literal(const thread *t, const step *s) {
    thread next = *t;
    if (literal_complete(t)) step_after(t, s);
    narrow(t->node, nth_literal, &next, s->c);
    if (next.lo == next.hi) return;
    if (next.hi - next.lo == 1 && literal_complete(&next))
        leave(s->to, s->f, t->frame);
    else
        add(s->to, &next);
}

static void in_text(const thread *t, const step *s) {
    thread next = *t;
    if ((unsigned char)t->node->text.text[next.count++] != s->c) return;
    if (next.count == t->node->text.n)
        leave(s->to, s->f, t->frame);
    else
        add(s->to, &next);
}

static void in_number(const thread *t, const step *s) {
    thread next = *t;
    if (number_complete(&t->node->number, &t->number)) step_after(t, s);
    if (number_step(&t->node->number, &next.number, s->c)) add(s->to, &next);
}

/* ---- arrays ---- */

static const node *item_at(const node *n, uint32_t i) {
    if (i >= n->array.max) return NULL;
    return i < n->array.nfirst ? n->array.first[i] : n->array.rest;
}

static void open_array(const node *n, const step *s, uint32_t parent) {
    uint32_t f = push_frame(s->f, n, parent, 0);
    const node *item = item_at(n, 0);
    if (!f) return;
    if (n->array.min == 0) add(s->to, &(thread){.frame = f, .phase = AT_CLOSE});
    if (item) enter(s->to, s->f, item, f);
}

static void next_item(const frame *f, uint32_t at, const step *s) {
    const node *item = item_at(f->node, f->count + 1);
    if (!item || !fits(s->f, at, item)) return;
    uint32_t with = recount(s->f, at, f->count + 1);
    if (with) enter(s->to, s->f, item, with);
}

/* ---- objects ---- */

/* Properties may be left out but for the required ones: those up to the next required one may come. Returns the place behind it. */
static uint32_t properties_end(const frame *o) {
    uint32_t i = o->count;
    while (i < o->node->object.n && !o->node->object.v[i].required) i++;
    return i < o->node->object.n ? i + 1 : i;
}

static bool property_fits(const frames *f, uint32_t at, uint32_t i, uint32_t end) {
    const frame *o = &f->v[at];
    return i >= o->count && i < end && fits(f, at, o->node->object.v[i].value);
}

static bool object_complete(const frame *o) {
    for (uint32_t i = o->count; i < o->node->object.n; i++) {
        if (o->node->object.v[i].required) return false;
    }
    return true;
}

static bool takes_new(const frames *f, uint32_t at) {
    const frame *o = &f->v[at];
    return o->node->object.additional && object_complete(o) && fits(f, at, o->node->object.additional);
}

static bool takes_property(const frames *f, uint32_t at) {
    uint32_t end = properties_end(&f->v[at]);
    for (uint32_t i = f->v[at].count; i < end; i++) {
        if (property_fits(f, at, i, end)) return true;
    }
    return takes_new(f, at);
}

static void open_object(const node *n, const step *s, uint32_t parent) {
    uint32_t f = push_frame(s->f, n, parent, 0);
    if (!f) return;
    if (object_complete(&s->f->v[f])) add(s->to, &(thread){.frame = f, .phase = AT_CLOSE});
    if (takes_property(s->f, f)) add(s->to, &(thread){.frame = f, .phase = AT_NAME});
}

static void at_name(const thread *t, const step *s) {
    thread next = {.frame = t->frame, .phase = IN_NAME};
    uint8_t blanks = next_blank(t->blanks, s->c);
    if (blanks) {
        next = *t;
        next.blanks = blanks;
        add(s->to, &next);
    }
    if (s->c != '"') return;
    next.hi = s->f->v[t->frame].node->object.n;
    if (next.hi) add(s->to, &next);
    next.phase = IN_NEW_NAME;
    if (takes_new(s->f, t->frame)) add(s->to, &next);
}

static bool any_fits(const thread *t, const step *s) {
    const frame *o = &s->f->v[t->frame];
    uint32_t end = properties_end(o);
    for (uint32_t i = t->lo; i < t->hi; i++) {
        if (property_fits(s->f, t->frame, o->node->object.by_name[i], end)) return true;
    }
    return false;
}

static bool name_complete(const thread *t, const node *n) {
    return t->lo < t->hi && nth_name(n, t->lo).n == t->count;
}

/* A name has been closed: its value is next, and what stands before it in the schema cannot come any more. */
static void name_ends(const step *s, uint32_t at, uint32_t count, const node *value) {
    uint32_t f = recount(s->f, at, count);
    if (f) add(s->to, &(thread){.node = value, .frame = f, .phase = AT_COLON});
}

static void in_name(const thread *t, const step *s) {
    const node *n = s->f->v[t->frame].node;
    thread next = *t;
    if (s->c == '"' && name_complete(t, n)) {
        uint32_t i = n->object.by_name[t->lo];
        if (property_fits(s->f, t->frame, i, properties_end(&s->f->v[t->frame])))
            name_ends(s, t->frame, i + 1, n->object.v[i].value);
        return;
    }
    narrow(n, nth_name, &next, s->c);
    if (any_fits(&next, s)) add(s->to, &next);
}

/* A name of the model's own: any that is not declared, without escapes, in which a declared one could hide. */
static void in_new_name(const thread *t, const step *s) {
    const node *n = s->f->v[t->frame].node;
    thread next = *t;
    if (s->c == '"' && t->text == TEXT_FREE) {
        if (t->count && !name_complete(t, n)) name_ends(s, t->frame, n->object.n, n->object.additional);
        return;
    }
    next.text = next_text(t->text, s->c);
    if (next.text >= TEXT_ESCAPE) return;
    narrow(n, nth_name, &next, s->c);
    if (next.lo == next.hi) { /* it can be no declared one: its bytes need not be counted */
        next.lo = next.hi = 0;
        next.count = 1;
    }
    add(s->to, &next);
}

/* ---- between values ---- */

static void close_frame(const thread *t, const step *s) {
    const frame *f = &s->f->v[t->frame];
    bool array = f->node->kind == NODE_ARRAY;
    if (s->c == (array ? ']' : '}')) leave(s->to, s->f, f->parent);
}

static void at_close(const thread *t, const step *s) {
    thread next = *t;
    next.blanks = next_blank(t->blanks, s->c);
    if (next.blanks) add(s->to, &next);
    close_frame(t, s);
}

static void at_next(const thread *t, const step *s) {
    const frame *f = &s->f->v[t->frame];
    bool array = f->node->kind == NODE_ARRAY;
    if (s->c == ',' && array) next_item(f, t->frame, s);
    if (s->c == ',' && !array && takes_property(s->f, t->frame))
        add(s->to, &(thread){.frame = t->frame, .phase = AT_NAME});
    if (array ? f->count + 1 >= f->node->array.min : object_complete(f))
        at_close(&(thread){.frame = t->frame, .phase = AT_CLOSE}, s);
}

static void at_colon(const thread *t, const step *s) {
    if (s->c == ':') enter(s->to, s->f, t->node, t->frame);
}

static void at_value(const thread *t, const step *s) {
    thread next = *t;
    next.blanks = next_blank(t->blanks, s->c);
    if (next.blanks) {
        add(s->to, &next);
        return;
    }
    switch (t->node->kind) {
    case NODE_LITERALS:
        next.phase = IN_LITERAL;
        next.hi = t->node->literals.n;
        if (next.hi) in_literal(&next, s);
        return;
    case NODE_NUMBER:
        next.phase = IN_NUMBER;
        in_number(&next, s);
        return;
    case NODE_STRING:
        next.phase = IN_STRING;
        next.dfa = 1;
        if (s->c == '"') add(s->to, &next);
        return;
    case NODE_ARRAY:
        if (s->c == '[') open_array(t->node, s, t->frame);
        return;
    default:
        if (s->c == '{') open_object(t->node, s, t->frame);
    }
}

static void step_thread(const thread *t, const step *s) {
    static void (*const steps[])(const thread *, const step *) = {
        [AT_VALUE] = at_value,     [AT_CLOSE] = at_close,   [AT_NEXT] = at_next,
        [AT_NAME] = at_name,       [IN_NAME] = in_name,     [AT_COLON] = at_colon,
        [IN_LITERAL] = in_literal, [IN_STRING] = in_string, [IN_NEW_NAME] = in_new_name,
        [IN_NUMBER] = in_number,   [IN_TEXT] = in_text};
    if (t->phase != AT_END) steps[t->phase](t, s);
}

/* ---- the contract ---- */

void machine_start(const node *root, place *p, frames *f) {
    f->v[0] = (frame){0};
    f->n = 1;
    p->n = 0;
    enter(p, f, root, 0);
    p->nframes = f->n;
}

void machine_step(const place *from, unsigned char c, place *to, frames *f) {
    const step s = {c, to, f};
    f->n = from->nframes;
    to->n = 0;
    for (uint32_t i = 0; i < from->n; i++) step_thread(&from->v[i], &s);
    to->nframes = f->n;
}

static bool thread_complete(const thread *t) {
    if (t->frame) return false;
    if (t->phase == IN_NUMBER) return number_complete(&t->node->number, &t->number);
    return t->phase == AT_END || (t->phase == IN_LITERAL && literal_complete(t));
}

bool machine_complete(const place *p, bool *extendable) {
    bool complete = false;
    *extendable = false;
    for (uint32_t i = 0; i < p->n; i++) {
        complete |= thread_complete(&p->v[i]);
        *extendable |= p->v[i].phase != AT_END;
    }
    return complete;
}

bool machine_in_text(const thread *t, uint32_t *room) {
    *room = NODE_LENGTH_ANY;
    if (t->phase == IN_NEW_NAME && t->lo == t->hi) return t->text == TEXT_FREE;
    if (t->phase != IN_STRING || t->text != TEXT_FREE || t->node->string.dfa) return false;
    if (t->node->string.max < NODE_LENGTH_ANY) *room = t->node->string.max - t->count;
    return true;
}

const regex_dfa *machine_in_pattern(const thread *t) {
    return t->phase == IN_STRING && t->text == TEXT_FREE ? t->node->string.dfa : NULL;
}

/* Copies a frame and those below it, the outermost first; returns its new place. Frames that were copied before have it in
 * `count` of the old one. */
static uint32_t move_frame(frames *from, frames *to, uint32_t at) {
    uint32_t path[NODE_DEPTH_MAX + 1];
    int n = 0;
    for (uint32_t i = at; i && n <= NODE_DEPTH_MAX; i = from->v[i].parent) path[n++] = i;
    uint32_t parent = 0;
    while (n > 0) {
        frame *old = &from->v[path[--n]];
        if (old->node) {
            to->v[to->n] = *old;
            to->v[to->n].parent = parent;
            old->node = NULL; /* moved */
            old->count = to->n++;
        }
        parent = old->count;
    }
    return parent;
}

void machine_compact(place *p, frames *f, frames *scratch) {
    scratch->v[0] = (frame){0};
    scratch->n = 1;
    for (uint32_t i = 0; i < p->n; i++) p->v[i].frame = move_frame(f, scratch, p->v[i].frame);
    memcpy(f->v, scratch->v, scratch->n * sizeof *f->v);
    f->n = scratch->n;
    p->nframes = f->n;
}
