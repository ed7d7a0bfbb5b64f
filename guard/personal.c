/* Finding and verifying numbers and addresses; see personal.h. */
#include "guard/personal.h"

#include <hs.h>
#include <stdlib.h>
#include <string.h>

#define DIGIT  "(?:[0-9]|\\xEF\\xBC[\\x90-\\x99])"
#define UNSEEN "(?:\\xE2\\x80[\\x8B-\\x8F]|\\xE2\\x81\\xA0|\\xEF\\xBB\\xBF|\\xC2\\xAD)*"
#define BREAK  "(?:[ ()-]|\\xE3\\x80\\x80|\\xEF\\xBC\\x8D|\\xC2\\xA0){0,2}"

enum { DIGITS_MAX = 20, GROUPS_MAX = 8, LOCAL_MAX = 64, DOMAIN_MAX = 253 };

enum { PHONE, ID_NUMBER, BANK_CARD, EMAIL, KINDS };

struct mr_personal {
    mr_guard_rule rule[KINDS];
    hs_database_t *db;
    hs_scratch_t *scratch;
};

mr_personal *mr_personal_new(mr_guard_action action, mr_error *err) {
    static const char *const names[][2] = {
        {"phone", "[phone]"}, {"id_number", "[id]"}, {"bank_card", "[card]"}, {"email", "[email]"}};
    static const char *const found[] = {DIGIT "(?:" UNSEEN BREAK UNSEEN DIGIT "){6}",
                                        "(?:@|\\xEF\\xBC\\xA0)"};
    static const unsigned flags[] = {0, 0}, ids[] = {PHONE, EMAIL};
    hs_compile_error_t *why = NULL;
    mr_personal *p = calloc(1, sizeof *p);
    if (p && hs_compile_multi(found, flags, ids, 2, HS_MODE_BLOCK, NULL, &p->db, &why) == HS_SUCCESS &&
        hs_alloc_scratch(p->db, &p->scratch) == HS_SUCCESS) {
        for (int i = 0; i < KINDS; i++) {
            p->rule[i] = (mr_guard_rule){.category = "personal", .substitute = names[i][1], .action = action};
            strcpy(p->rule[i].id, names[i][0]);
        }
        return p;
    }
    mr_fail(err, MR_ENOMEM, "personal data cannot be looked for: %s", why ? why->message : "out of memory");
    hs_free_compile_error(why);
    mr_personal_free(p);
    return NULL;
}

void mr_personal_free(mr_personal *p) {
    if (!p) return;
    hs_free_database(p->db);
    hs_free_scratch(p->scratch);
    free(p);
}

/* ---- characters, in ASCII and full width ---- */

/* The ASCII character that stands there in whatever width, 0 for another one; *n are its bytes. */
static int ascii_at(mr_str t, size_t at, size_t *n) {
    const unsigned char *p = (const unsigned char *)t.p + at;
    *n = 1;
    if (p[0] < 0x80) return p[0];
    if (t.n - at >= 3 && p[0] == 0xEF && (p[1] == 0xBC || p[1] == 0xBD)) {
        int c = 0x21 + (p[1] - 0xBC) * 0x40 + p[2] - 0x81;
        *n = 3;
        return c > 0x20 && c < 0x7F ? c : 0;
    }
    if (t.n - at >= 3 && memcmp(p, "\xE3\x80\x80", 3) == 0) return *n = 3, ' ';
    if (t.n - at >= 2 && memcmp(p, "\xC2\xA0", 2) == 0) return *n = 2, ' ';
    return 0;
}

/* Bytes of the invisible characters there. */
static size_t unseen_at(mr_str t, size_t at) {
    size_t i = at;
    for (;;) {
        const unsigned char *p = (const unsigned char *)t.p + i;
        size_t left = t.n - i;
        if (left >= 2 && p[0] == 0xC2 && p[1] == 0xAD) {
            i += 2;
        } else if (left >= 3 && ((p[0] == 0xE2 && p[1] == 0x80 && p[2] >= 0x8B && p[2] <= 0x8F) ||
                                 memcmp(p, "\xE2\x81\xA0", 3) == 0 || memcmp(p, "\xEF\xBB\xBF", 3) == 0)) {
            i += 3;
        } else {
            return i - at;
        }
    }
}

static bool is_digit(int c) {
    return c >= '0' && c <= '9';
}

static bool is_word(int c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---- numbers ---- */

/* Digits from some place on, in groups. */
typedef struct number {
    char digit[DIGITS_MAX + 1];
    int n;
    int group[GROUPS_MAX], ngroups; /* sizes */
    size_t end;                     /* after the last whole group, or the X of an ID */
    bool plus, x, whole;            /* whole: nothing follows that makes it part of something else */
} number;

static bool has_groups(const number *v, int a, int b, int c) {
    const int want[] = {a, b, c};
    int n = c ? 3 : b ? 2 : 1;
    return v->ngroups == n && memcmp(v->group, want, (size_t)n * sizeof *want) == 0;
}

static int value(const char *digit, int n) {
    int v = 0;
    for (int i = 0; i < n; i++) v = 10 * v + digit[i] - '0';
    return v;
}

static bool is_id_number(const number *v) {
    static const int weight[] = {7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2};
    static const char check[] = "10X98765432";
    int sum = 0, year = value(v->digit + 6, 4), month = value(v->digit + 10, 2),
        day = value(v->digit + 12, 2);
    if (v->n != (v->x ? 17 : 18)) return false;
    if (v->ngroups > 1 && !has_groups(v, 6, 8, v->x ? 3 : 4)) return false;
    if (v->digit[0] == '0' || year < 1900 || year > 2099 || month < 1 || month > 12 || day < 1 || day > 31)
        return false;
    for (int i = 0; i < 17; i++) sum += weight[i] * (v->digit[i] - '0');
    return check[sum % 11] == (v->x ? 'X' : v->digit[17]);
}

static bool has_issuer(const number *v) {
    int two = value(v->digit, 2), four = value(v->digit, 4), n = v->n;
    if (two == 62) return n >= 16 && n <= 19;
    if (v->digit[0] == '4') return n == 13 || n == 16 || n == 19;
    if ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720)) return n == 16;
    if (two == 34 || two == 37) return n == 15;
    if (two == 36 || two == 38 || two == 30) return n == 14;
    return (two == 35 || two == 65 || four == 6011) && n == 16;
}

static bool is_bank_card(const number *v) {
    int sum = 0;
    if (v->x || v->n < 13 || v->n > 19 || !has_issuer(v)) return false;
    for (int i = 0; i < v->ngroups; i++) {
        if (v->ngroups > 1 && (v->group[i] < 3 || v->group[i] > 13)) return false;
    }
    for (int i = 0; i < v->n; i++) {
        int d = v->digit[v->n - 1 - i] - '0';
        if (i % 2 == 1) d = d > 4 ? 2 * d - 9 : 2 * d;
        sum += d;
    }
    return sum % 10 == 0;
}

static bool is_chinese_mobile(const char *digit) {
    return digit[0] == '1' && digit[1] >= '3';
}

static bool is_phone(const number *v) {
    if (v->x) return false;
    if (v->plus) return v->n >= 8 && v->n <= 15;
    if (v->n == 11 && is_chinese_mobile(v->digit))
        return v->ngroups == 1 || has_groups(v, 3, 4, 4) || has_groups(v, 3, 8, 0);
    if (v->n == 13 && memcmp(v->digit, "86", 2) == 0) return is_chinese_mobile(v->digit + 2);
    return v->n == 15 && memcmp(v->digit, "0086", 4) == 0 && is_chinese_mobile(v->digit + 4);
}

/* The next group of digits; false when there is none, or no room for it. *at is after it. */
static bool read_group(mr_str t, size_t *at, number *v) {
    int n = 0;
    size_t used, end = *at;
    for (size_t i = *at; i < t.n; i += used) {
        size_t unseen = unseen_at(t, i);
        if (i + unseen >= t.n) break;
        int c = ascii_at(t, i + unseen, &used);
        if (!is_digit(c)) break;
        if (v->n + n == DIGITS_MAX) return false;
        v->digit[v->n + n++] = (char)c;
        used += unseen;
        end = i + used;
    }
    if (n == 0 || v->ngroups == GROUPS_MAX) return false;
    v->n += n;
    v->group[v->ngroups++] = n;
    *at = v->end = end;
    return true;
}

/* What follows a group: the X of an ID, letters, a decimal point. */
static void read_end(mr_str t, number *v) {
    size_t used = 1, next = 1;
    int c = v->end < t.n ? ascii_at(t, v->end, &used) : 0;
    v->x = v->n == 17 && (c == 'x' || c == 'X');
    if (v->x) {
        v->end += used;
        c = v->end < t.n ? ascii_at(t, v->end, &used) : 0;
    }
    bool fraction =
        (c == '.' || c == ',') && v->end + used < t.n && is_digit(ascii_at(t, v->end + used, &next));
    v->whole = !is_word(c) && c != '_' && c != '@' && !fraction;
}

static size_t skip_break(mr_str t, size_t at) {
    size_t used;
    for (int i = 0; i < 2; i++) {
        at += unseen_at(t, at);
        if (at >= t.n) break;
        int c = ascii_at(t, at, &used);
        if (c != ' ' && c != '-' && c != '(' && c != ')') break;
        at += used;
    }
    return at < t.n ? at + unseen_at(t, at) : at;
}

/* What the digits from `at` on are, as many of them as make something: a kind, or -1. *end is after the first group, or
 * after the whole. */
static int read_number(mr_str t, size_t at, bool plus, size_t *end) {
    number v = {.plus = plus};
    int kind = -1;
    *end = at;
    while (at < t.n && read_group(t, &at, &v)) {
        number now = v;
        read_end(t, &now);
        if (v.ngroups == 1) *end = now.end;
        int is = !now.whole           ? -1
                 : is_id_number(&now) ? ID_NUMBER
                 : is_bank_card(&now) ? BANK_CARD
                 : is_phone(&now)     ? PHONE
                                      : -1;
        if (is >= 0) {
            kind = is;
            *end = now.end;
        }
        at = skip_break(t, at);
    }
    return kind;
}

/* ---- addresses ---- */

static bool is_local(int c) {
    return is_word(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-';
}

/* Where the address around the @ begins and ends; false: it is none. */
static bool read_email(mr_str t, size_t at, size_t at_bytes, size_t from, size_t *start, size_t *end) {
    size_t s = at, e = at + at_bytes, dot = 0;
    while (s > from && at - s < LOCAL_MAX && is_local((unsigned char)t.p[s - 1])) s--;
    while (s < at && t.p[s] == '.') s++;
    while (e < t.n && e - at <= DOMAIN_MAX &&
           (is_word((unsigned char)t.p[e]) || t.p[e] == '-' || t.p[e] == '.')) {
        if (t.p[e] == '.') dot = e;
        e++;
    }
    if (dot > 0 && dot + 1 == e) { /* the end of a sentence */
        e--;
        while (--dot > at && t.p[dot] != '.') {
        }
    }
    *start = s;
    *end = e;
    return s < at && dot > at + at_bytes && e - dot > 2 && !is_digit((unsigned char)t.p[dot + 1]);
}

/* ---- the text ---- */

typedef struct reader {
    mr_personal *p;
    mr_str text;
    size_t at;   /* read up to here */
    size_t said; /* the last hit's end */
    int before;  /* the character before `at` */
    bool point;  /* a decimal point with digits before it is there */
    mr_guard_hit_cb *cb;
    void *arg;
} reader;

static void say(reader *r, int kind, size_t start, size_t end) {
    r->cb(r->arg, &(mr_guard_hit){&r->p->rule[kind], start, end});
    r->said = r->at = end;
    r->before = 0;
    r->point = false;
}

/* A number that begins at the reader's place, which is a digit. */
static void take_number(reader *r) {
    size_t end;
    bool plus = r->before == '+', part = is_word(r->before) || r->before == '_' || r->point;
    int kind = read_number(r->text, r->at, plus, &end);
    if (kind >= 0 && !part) {
        say(r, kind, r->at, end);
        return;
    }
    /* the first group is nothing by itself, the next may be */
    number first = {0};
    size_t at = r->at;
    if (read_group(r->text, &at, &first)) {
        r->at = at;
    } else { /* more digits than anything has */
        size_t used;
        while (r->at < r->text.n && is_digit(ascii_at(r->text, r->at, &used))) r->at += used;
    }
    r->before = '0';
    r->point = false;
}

static void step(reader *r) {
    size_t used, start, end;
    int c = ascii_at(r->text, r->at, &used);
    if (is_digit(c)) {
        take_number(r);
        return;
    }
    if (c == '@' && read_email(r->text, r->at, used, r->said, &start, &end)) {
        say(r, EMAIL, start, end);
        return;
    }
    r->point = (c == '.' || c == ',') && is_digit(r->before);
    if (c == '+' && is_word(r->before)) c = ' '; /* a sum */
    if (unseen_at(r->text, r->at) == 0) r->before = c;
    r->at += used;
}

/* Reads on until what was found is passed. */
static int on_found(unsigned id, unsigned long long from, unsigned long long to, unsigned flags, void *arg) {
    reader *r = arg;
    (void)id;
    (void)from;
    (void)flags;
    while (r->at < to) step(r);
    return 0;
}

int mr_personal_scan(mr_personal *p, mr_str text, mr_guard_hit_cb *cb, void *arg, mr_error *err) {
    reader r = {.p = p, .text = text, .cb = cb, .arg = arg};
    if (text.n == 0) return 0;
    if (text.n > UINT32_MAX) return mr_fail(err, MR_ETOOBIG, "the text is too long to be looked through");
    if (hs_scan(p->db, text.p, (unsigned)text.n, 0, p->scratch, on_found, &r) == HS_SUCCESS) return 0;
    return mr_fail(err, MR_ENOMEM, "personal data cannot be looked for");
}
