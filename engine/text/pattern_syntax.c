/* One pass over the pattern. What both syntaxes agree on is copied; the rest is rewritten or refused. Pure functions. */
#include "engine/text/pattern_syntax.h"

#include "engine/text/unicode.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* \s, as the inside of a class: White_Space. PCRE2's own \s has U+180E too. */
#define SPACE "\\t-\\r \\x{85}\\p{Z}"
/* \w has, beside letters, marks and digits, what is Alphabetic by other properties; and, only outside of a class, three
 * superscripts and fractions of Latin-1: an oddity of Oniguruma's. */
#define WORD_MORE                                                                                            \
    "\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"
#define WORD_LATIN1 "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

struct translation {
    const char *s, *begin, *end; /* s: what is not yet read */
    text_buf *out;
    int depth;    /* of groups */
    int caseless; /* the depth from which on case is ignored; -1: it is not */
    engine_error *err;
};

static int refuse(const struct translation *t, const char *what) {
    return engine_fail(t->err, ENGINE_EFORMAT, "the regex has %s (at byte %zu), which is not supported", what,
                       (size_t)(t->s - t->begin));
}

static size_t left(const struct translation *t) {
    return (size_t)(t->end - t->s);
}

static bool at(const struct translation *t, const char *what) {
    size_t n = strlen(what);
    return left(t) >= n && memcmp(t->s, what, n) == 0;
}

static void copy(struct translation *t, size_t n) {
    text_buf_put(t->out, t->s, n);
    t->s += n;
}

static void put_range(void *ctx, uint32_t lo, uint32_t hi) {
    text_buf_printf(ctx, "\\x{%X}-\\x{%X}", (unsigned)lo, (unsigned)hi);
}

/* A general category or script as the inside of a class, with the characters that PCRE2 may not know. */
static void put_property(text_buf *out, const char *name) {
    text_buf_printf(out, unicode_has_script(name) ? "\\p{sc:%s}" : "\\p{%s}", name);
    unicode_newer(name, put_range, out);
}

static void put_word(text_buf *out, bool in_class) {
    put_property(out, "L");
    put_property(out, "M");
    put_property(out, "Nd");
    text_buf_puts(out, WORD_MORE);
    if (!in_class) text_buf_puts(out, WORD_LATIN1);
}

static bool is_category(const char *name) {
    static const char *const known[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",
                                        "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
                                        "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc", "Cf"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i], name) == 0) return true;
    return false;
}

/* \p{…} or \P{…} at the cursor. */
static int property(struct translation *t, bool in_class) {
    bool negated = t->s[1] == 'P';
    char name[32];
    size_t n = 0;

    if (left(t) < 4 || t->s[2] != '{') return refuse(t, "a property without braces");
    const char *p = t->s + 3;
    if (*p == '^') {
        negated = !negated;
        p++;
    }
    for (; p < t->end && n < sizeof name - 1 && isalpha((unsigned char)*p); p++) name[n++] = *p;
    name[n] = 0;
    if (p == t->end || *p != '}') return refuse(t, "a broken property");
    if (!is_category(name) && !unicode_has_script(name)) return refuse(t, "an unknown property");
    if (in_class && negated) return refuse(t, "a negated property inside of [ ]");
    if (!in_class) text_buf_puts(t->out, negated ? "[^" : "[");
    put_property(t->out, name);
    if (!in_class) text_buf_puts(t->out, "]");
    t->s = p + 1;
    return 0;
}

/* The shorthands; false when the escape is not one. Negated ones have no translation inside of a class, but for \S. */
static bool shorthand(struct translation *t, char letter, bool in_class, bool *refused) {
    char kind = (char)tolower((unsigned char)letter);
    bool negated = letter != kind;

    if (strchr("sdwh", kind) == NULL) return false;
    if (in_class && negated) {
        *refused = kind != 's';
        text_buf_puts(t->out, "\\S\\x{180E}");
        return true;
    }
    if (!in_class) text_buf_puts(t->out, negated ? "[^" : "[");
    if (kind == 's') text_buf_puts(t->out, SPACE);
    if (kind == 'd') put_property(t->out, "Nd");
    if (kind == 'w') put_word(t->out, in_class);
    if (kind == 'h') text_buf_puts(t->out, "0-9A-Fa-f");
    if (!in_class) text_buf_puts(t->out, "]");
    return true;
}

/* \xHH, \x{H…} and \uHHHH */
static int code_point(struct translation *t) {
    bool braced = t->s[1] == 'x' && left(t) > 2 && t->s[2] == '{';
    size_t from = braced ? 3 : 2, max = braced ? 6 : t->s[1] == 'u' ? 4 : 2, n = 0;
    char digits[8];

    while (n < max && from + n < left(t) && isxdigit((unsigned char)t->s[from + n])) {
        digits[n] = t->s[from + n];
        n++;
    }
    digits[n] = 0;
    bool closed = !braced || (from + n < left(t) && t->s[from + n] == '}');
    if (n == 0 || !closed || (t->s[1] == 'u' && n < 4)) return refuse(t, "a broken code point");
    /* Oniguruma takes \xHH as a byte of UTF-8 */
    if (t->s[1] == 'x' && !braced && n == 2 && digits[0] >= '8') return refuse(t, "a byte that is not ASCII");
    text_buf_printf(t->out, "\\x{%s}", digits);
    t->s += from + n + braced;
    return 0;
}

static int escape(struct translation *t, bool in_class) {
    if (left(t) < 2) return refuse(t, "a \\ at its end");
    char c = t->s[1];
    bool refused = false;

    if (c == 'p' || c == 'P') return property(t, in_class);
    if (c == 'x' || c == 'u') return code_point(t);
    if (shorthand(t, c, in_class, &refused)) {
        if (refused) return refuse(t, "a negated shorthand inside of [ ]");
        t->s += 2;
    } else if (c == 'v') {
        text_buf_puts(t->out, "\\x0B"); /* in PCRE2 a class of several */
        t->s += 2;
    } else if (ispunct((unsigned char)c) || strchr("nrtfae", c) != NULL) {
        copy(t, 2);
    } else if (!in_class && (c == 'A' || c == 'z' || c == 'Z')) {
        copy(t, 2);
    } else {
        return refuse(t, "an unknown escape");
    }
    return 0;
}

/* A character that stands for itself. Where case is ignored, Oniguruma also takes "ß" for "ss" and "ﬁ" for "fi". */
static int literal(struct translation *t) {
    static const char *const folded[] = {"ss", "st", "ff", "fi", "fl"};

    if (t->caseless >= 0) {
        if ((unsigned char)*t->s >= 0x80) return refuse(t, "a character beyond ASCII where case is ignored");
        for (size_t i = 0; i < sizeof folded / sizeof folded[0]; i++)
            if (left(t) >= 2 && strncasecmp(t->s, folded[i], 2) == 0)
                return refuse(t, "ss, st, ff, fi or fl where case is ignored");
    }
    copy(t, 1);
    return 0;
}

static int class(struct translation *t) {
    copy(t, 1);
    if (at(t, "^")) copy(t, 1);
    if (at(t, "]")) return refuse(t, "an empty [ ]");
    while (t->s < t->end && *t->s != ']') {
        if (*t->s == '[') return refuse(t, "a [ inside of [ ]");
        if (at(t, "&&")) return refuse(t, "an && inside of [ ]");
        if (*t->s != '\\')
            copy(t, 1);
        else if (escape(t, true) != 0)
            return -1;
    }
    if (t->s == t->end) return refuse(t, "a [ that is not closed");
    copy(t, 1);
    return 0;
}

/* (?i: and its like. Ruby's m is PCRE2's s; an option that stands alone, (?i), is the same only at the very beginning. */
static int options(struct translation *t) {
    const char *p = t->s + 2;
    bool first = t->s == t->begin;

    text_buf_puts(t->out, "(?");
    for (; p < t->end && strchr("im-", *p) != NULL && *p != 0; p++)
        text_buf_put(t->out, *p == 'm' ? "s" : p, 1);
    if (p == t->end || !(*p == ':' || (*p == ')' && first))) return refuse(t, "an unknown kind of group");
    if (t->caseless < 0 && memchr(t->s, 'i', (size_t)(p - t->s)) != NULL)
        t->caseless = t->depth + (*p == ':');
    t->depth += *p == ':';
    text_buf_put(t->out, p, 1);
    t->s = p + 1;
    return 0;
}

static int group(struct translation *t) {
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};

    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (at(t, same[i])) {
            copy(t, strlen(same[i]));
            t->depth++;
            return 0;
        }
    }
    if (at(t, "(?")) return options(t);
    if (at(t, "(*")) return refuse(t, "a (*");
    copy(t, 1);
    t->depth++;
    return 0;
}

static void end_group(struct translation *t) {
    if (t->depth == t->caseless) t->caseless = -1;
    t->depth--;
    copy(t, 1);
}

static size_t digits_at(const struct translation *t, size_t from) {
    size_t n = 0;
    while (from + n < left(t) && isdigit((unsigned char)t->s[from + n])) n++;
    return n;
}

/* {n}, {n,}, {,m}, {n,m}; any other { is itself. What may follow an interval means other things in the two syntaxes. */
static int interval(struct translation *t) {
    size_t low = digits_at(t, 1), i = 1 + low;
    bool comma = i < left(t) && t->s[i] == ',';
    size_t high = comma ? digits_at(t, i + 1) : 0;

    i += comma + high;
    if (low + high == 0 || i >= left(t) || t->s[i] != '}') {
        text_buf_puts(t->out, "\\{");
        t->s++;
        return 0;
    }
    text_buf_puts(t->out, low ? "{" : "{0");
    t->s++;
    copy(t, i);
    if (at(t, "+") || (at(t, "?") && !comma)) return refuse(t, "a + or ? after an interval");
    return 0;
}

/* At each start inside of a run of spaces that does not end its line, \s+$ would walk the rest of the run: quadratic in
 * what users send. A match can only begin where the run begins, so this is the same. */
#define TRAILING_SPACE        "\\s+$"
#define TRAILING_SPACE_LINEAR "(?<![" SPACE "])[" SPACE "]+$"

int pattern_translate(const char *s, size_t n, text_buf *out, engine_error *err) {
    struct translation t = {.s = s, .begin = s, .end = s + n, .out = out, .caseless = -1, .err = err};
    int rc = 0;

    if (n == strlen(TRAILING_SPACE) && memcmp(s, TRAILING_SPACE, n) == 0) {
        text_buf_puts(out, TRAILING_SPACE_LINEAR);
        t.s = t.end;
    }
    while (t.s < t.end && rc == 0) {
        switch (*t.s) {
        case '\\': rc = escape(&t, false); break;
        case '[': rc = class(&t); break;
        case '(': rc = group(&t); break;
        case '{': rc = interval(&t); break;
        case ')': end_group(&t); break;
        default: rc = literal(&t);
        }
    }
    if (rc == 0 && out->failed) rc = engine_fail(err, ENGINE_ENOMEM, "out of memory");
    return rc;
}
