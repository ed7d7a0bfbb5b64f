/* TSV and JSONL of the knowledge base; see kb_format.h. */
#include "router/kb_format.h"

#include "router/kb_text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS = 5 };

mr_kb_format mr_kb_format_of(const char *path) {
    static const char *const endings[] = {".jsonl", ".ndjson", ".json"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof endings[0]; i++) {
        if (strcasecmp(dot, endings[i]) == 0) return MR_KB_JSONL;
    }
    return MR_KB_TSV;
}

mr_str mr_kb_next_name(mr_str *follow) {
    const char *comma = memchr(follow->p, ',', follow->n);
    mr_str name = {follow->p, comma ? (size_t)(comma - follow->p) : follow->n};
    size_t gone = comma ? name.n + 1 : name.n;
    *follow = (mr_str){follow->p + gone, follow->n - gone};
    return name;
}

/* ---- checks ---- */

static int check_size(const char *what, mr_str s, size_t max, mr_error *err) {
    if (s.n <= max) return 0;
    return mr_fail(err, MR_ETOOBIG, "the %s has %zu bytes, at most %zu are allowed", what, s.n, max);
}

static int check_question(mr_str s, mr_error *err) {
    if (s.n >= 3 && memcmp(s.p, "\xEF\xBB\xBF", 3) == 0) {
        return mr_fail(err, MR_EINVAL, "the question begins with a byte order mark");
    }
    return check_size("question", s, MR_KB_QUESTION_MAX, err);
}

static int check_name(mr_str s, mr_error *err) {
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == ',' || s.p[i] == 0x7F) {
            return mr_fail(err, MR_EINVAL, "a name has no spaces and commas in it: '%.100s'", s.p);
        }
    }
    return check_size("name", s, MR_KB_NAME_MAX, err);
}

static int check_follow(mr_str follow, mr_error *err) {
    int n = 0;
    while (follow.n > 0) {
        mr_str name = mr_kb_next_name(&follow);
        if (name.n == 0) return mr_fail(err, MR_EINVAL, "an empty name among those that follow");
        if (check_name(name, err) < 0) return -1;
        if (++n > MR_KB_FOLLOW_MAX) {
            return mr_fail(err, MR_ETOOBIG, "more than %d entries follow", MR_KB_FOLLOW_MAX);
        }
    }
    return 0;
}

static int check_intent(mr_str s, mr_error *err) {
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < ' ') {
            return mr_fail(err, MR_EINVAL, "the intent has a control character in it");
        }
    }
    return check_size("intent", s, MR_KB_INTENT_MAX, err);
}

static int check_entry(const mr_kb_entry *e, mr_error *err) {
    if (check_question(e->question, err) < 0) return -1;
    for (int i = 0; i < e->also_n; i++) {
        if (check_question(e->also[i], err) < 0) return -1;
    }
    if (check_size("answer", e->answer, MR_KB_ANSWER_MAX, err) < 0) return -1;
    if (check_intent(e->intent, err) < 0 || check_name(e->name, err) < 0) return -1;
    if (check_follow(e->follow, err) < 0) return -1;
    if (e->answer.n == 0 && (e->intent.n > 0 || e->follow.n > 0)) {
        return mr_fail(err, MR_EINVAL,
                       "the answer is empty: one more phrasing has no intent and follows nothing");
    }
    return 0;
}

/* ---- TSV ---- */

/* In place; returns the new length. */
static size_t unescape(char *p, size_t n) {
    static const char codes[] = "nrt\\#", chars[] = "\n\r\t\\#";
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        const char *code = p[i] == '\\' && i + 1 < n && p[i + 1] ? strchr(codes, p[i + 1]) : NULL;
        if (code) i++;
        p[out++] = code ? chars[code - codes] : p[i];
    }
    p[out] = '\0';
    return out;
}

static int read_tsv(mr_str line, mr_arena *a, mr_kb_entry *out, mr_error *err) {
    mr_str *column[COLUMNS] = {&out->question, &out->answer, &out->intent, &out->name, &out->follow};
    mr_str copy = mr_arena_str(a, line);
    if (!copy.p) return mr_fail(err, MR_ENOMEM, "no memory for a line");
    char *p = (char *)copy.p, *end = p + copy.n;
    int n = 0;
    for (char *tab = p; tab; p = tab + 1) {
        tab = memchr(p, '\t', (size_t)(end - p));
        if (n == COLUMNS) {
            return mr_fail(err, MR_EINVAL, "expected at most %d columns, found another tab (write it as \\t)",
                           COLUMNS);
        }
        size_t length = (size_t)((tab ? tab : end) - p);
        *column[n++] = (mr_str){p, unescape(p, length)};
        if (!tab) break;
    }
    return n > 1 ? 1 : mr_fail(err, MR_EINVAL, "expected question<TAB>answer, found no tab");
}

static void put_escaped(FILE *out, mr_str s, bool begins_line) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i], code = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : c == '\\' ? '\\' : '\0';
        if (c == '#' && i == 0 && begins_line) code = '#';
        if (code) putc('\\', out);
        putc(code ? code : c, out);
    }
}

/* Columns at the end that are empty are left out. */
static void write_tsv(const mr_kb_entry *e, FILE *out) {
    const mr_str *columns[COLUMNS] = {&e->question, &e->answer, &e->intent, &e->name, &e->follow};
    int n = COLUMNS;
    while (n > 2 && columns[n - 1]->n == 0) n--;
    for (int i = 0; i < n; i++) {
        if (i > 0) putc('\t', out);
        put_escaped(out, *columns[i], i == 0);
    }
    putc('\n', out);
    for (int i = 0; i < e->also_n; i++) {
        put_escaped(out, e->also[i], true);
        fputs("\t\n", out);
    }
}

/* ---- JSONL ---- */

static int take_text(const char *key, const json_t *v, mr_arena *a, mr_str *out, mr_error *err) {
    if (!json_is_string(v)) return mr_fail(err, MR_EINVAL, "%s is no string", key);
    *out = mr_arena_str(a, (mr_str){json_string_value(v), json_string_length(v)});
    return out->p ? 0 : mr_fail(err, MR_ENOMEM, "no memory for a line");
}

static int take_also(const json_t *list, mr_arena *a, mr_kb_entry *out, mr_error *err) {
    size_t n = json_array_size(list);
    if (!json_is_array(list)) return mr_fail(err, MR_EINVAL, "also is no list of strings");
    if (n > MR_KB_ALSO_MAX)
        return mr_fail(err, MR_ETOOBIG, "also has more than %d phrasings", MR_KB_ALSO_MAX);
    mr_str *v = mr_arena_alloc(a, (n + 1) * sizeof *v);
    if (!v) return mr_fail(err, MR_ENOMEM, "no memory for a line");
    for (size_t i = 0; i < n; i++) {
        if (take_text("a phrasing of also", json_array_get(list, i), a, &v[i], err) < 0) return -1;
    }
    out->also = v;
    out->also_n = (int)n;
    return 0;
}

/* As names with commas between. */
static int take_follow(const json_t *list, mr_arena *a, mr_kb_entry *out, mr_error *err) {
    mr_buf names;
    int rc = 0;
    if (!json_is_array(list)) return mr_fail(err, MR_EINVAL, "follow is no list of names");
    mr_buf_init(&names, MR_KB_LINE_MAX);
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        mr_str name = {json_string_value(v), json_string_length(v)};
        if (!name.p || name.n == 0 || memchr(name.p, ',', name.n)) {
            rc = mr_fail(err, MR_EINVAL, "follow is no list of names");
            break;
        }
        if (i > 0) mr_buf_put(&names, ",", 1);
        mr_buf_put(&names, name.p, name.n);
    }
    if (rc == 0) out->follow = mr_arena_str(a, mr_buf_str(&names));
    if (rc == 0 && (names.failed || !out->follow.p)) rc = mr_fail(err, MR_ENOMEM, "no memory for a line");
    mr_buf_done(&names);
    return rc;
}

static int take_member(const char *key, const json_t *v, mr_arena *a, mr_kb_entry *out, mr_error *err) {
    static const char *const known[] = {"question", "answer", "intent", "name", "follow", "also"};
    mr_str *texts[] = {&out->question, &out->answer, &out->intent, &out->name};
    mr_nearest near = {0};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        mr_nearest_try(&near, key, known[i]);
        if (strcmp(key, known[i]) != 0) continue;
        if (i < sizeof texts / sizeof texts[0]) return take_text(key, v, a, texts[i], err);
        return i == 4 ? take_follow(v, a, out, err) : take_also(v, a, out, err);
    }
    return mr_fail(err, MR_EINVAL,
                   near.best ? "unknown member \"%.100s\" (did you mean \"%s\"?)"
                             : "unknown member \"%.100s\"",
                   key, near.best);
}

static int read_json(mr_str line, mr_arena *a, mr_kb_entry *out, mr_error *err) {
    json_error_t where;
    json_t *j = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES, &where);
    const char *key;
    json_t *value;
    int rc = 1;
    if (!j) return mr_fail(err, MR_EINVAL, "no JSON: %.200s, at byte %d", where.text, where.position);
    if (!json_is_object(j)) rc = mr_fail(err, MR_EINVAL, "expected a JSON object, as {\"question\": …}");
    json_object_foreach(j, key, value) {
        if (rc == 1 && take_member(key, value, a, out, err) < 0) rc = -1;
    }
    json_decref(j);
    if (rc == 1 && out->answer.n == 0) rc = mr_fail(err, MR_EINVAL, "the answer is empty");
    return rc;
}

static int put_list(json_t *j, const char *key, json_t *list) {
    bool needed = list && json_array_size(list) > 0;
    if (needed) return json_object_set_new(j, key, list);
    json_decref(list);
    return list ? 0 : -1;
}

static int put_text(json_t *j, const char *key, mr_str s) {
    return s.n == 0 ? 0 : json_object_set_new(j, key, json_stringn(s.p, s.n));
}

static int write_json(const mr_kb_entry *e, FILE *out) {
    json_t *j = json_object(), *follow = json_array(), *also = json_array();
    mr_str names = e->follow;
    int rc = 0;
    while (names.n > 0) {
        mr_str name = mr_kb_next_name(&names);
        rc |= json_array_append_new(follow, json_stringn(name.p, name.n));
    }
    for (int i = 0; i < e->also_n; i++) {
        rc |= json_array_append_new(also, json_stringn(e->also[i].p, e->also[i].n));
    }
    rc |= put_text(j, "question", e->question) | put_text(j, "answer", e->answer);
    rc |= put_text(j, "intent", e->intent) | put_text(j, "name", e->name);
    rc |= put_list(j, "follow", follow);
    rc |= put_list(j, "also", also);
    /* A failure to write shows in ferror. */
    if (rc == 0) json_dumpf(j, out, JSON_COMPACT);
    putc('\n', out);
    json_decref(j);
    return rc;
}

/* ---- lines ---- */

static bool is_blank(mr_str s) {
    size_t i = 0;
    while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t')) i++;
    return i == s.n;
}

int mr_kb_entry_read(mr_kb_format format, mr_str line, mr_arena *a, mr_kb_entry *out, mr_error *err) {
    *out = (mr_kb_entry){.question = MR_STR(""),
                         .answer = MR_STR(""),
                         .intent = MR_STR(""),
                         .name = MR_STR(""),
                         .follow = MR_STR("")};
    if (!mr_str_is_utf8(line)) return mr_fail(err, MR_EINVAL, "is not valid UTF-8");
    if (memchr(line.p, '\0', line.n)) return mr_fail(err, MR_EINVAL, "has a NUL character in it");
    if (format == MR_KB_JSONL && is_blank(line)) return 0;
    if (line.n == 0 || (format == MR_KB_TSV && line.p[0] == '#')) return 0;
    int rc = format == MR_KB_TSV ? read_tsv(line, a, out, err) : read_json(line, a, out, err);
    if (rc == 1 && check_entry(out, err) < 0) rc = -1;
    return rc;
}

int mr_kb_entry_write(mr_kb_format format, const mr_kb_entry *e, FILE *out, mr_error *err) {
    if (format == MR_KB_TSV) {
        write_tsv(e, out);
    } else if (write_json(e, out) != 0) {
        return mr_fail(err, MR_ENOMEM, "no memory to write an entry");
    }
    return 0;
}
