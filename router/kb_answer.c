/* Placeholders and lists of the knowledge base's answers; see kb_answer.h. */
#include "router/kb_answer.h"

#include "text/text_norm.h"

#include <string.h>

enum { LIST_MAX = 9, VALUE_MAX = 100 };

static const char *const names[] = {"user", "tenant", "model", "date", "time", "weekday"};
enum { USER, TENANT, MODEL, DATE, TIME, WEEKDAY, NAMES };

/* A placeholder, as it stands in an answer. */
typedef struct place {
    size_t n; /* bytes of it all, braces included */
    mr_str name, otherwise;
} place;

static bool place_at(mr_str s, size_t at, place *out) {
    size_t i = at + 1;
    while (i < s.n && ((s.p[i] >= 'a' && s.p[i] <= 'z') || s.p[i] == '_')) i++;
    out->name = (mr_str){s.p + at + 1, i - at - 1};
    out->otherwise = MR_STR("");
    if (out->name.n == 0 || i == s.n) return false;
    if (s.p[i] == '|') {
        size_t start = ++i;
        while (i < s.n && !strchr("{}\n", s.p[i])) i++;
        out->otherwise = (mr_str){s.p + start, i - start};
    }
    out->n = i + 1 - at;
    return i < s.n && s.p[i] == '}';
}

static int find_name(mr_str name) {
    int i = 0;
    while (i < NAMES && !mr_str_eqz(name, names[i])) i++;
    return i;
}

int mr_kb_answer_check(mr_str answer, mr_error *err) {
    place p;
    for (size_t i = 0; i < answer.n; i++) {
        if (answer.p[i] != '{') continue;
        if (i + 1 < answer.n && answer.p[i + 1] == '{') {
            i++;
        } else if (place_at(answer, i, &p) && find_name(p.name) == NAMES) {
            return mr_fail(
                err, MR_EINVAL,
                "{%.*s} is no placeholder: there are {user}, {tenant}, {model}, {date}, {time} and "
                "{weekday}; a brace is written as {{",
                p.name.n > 100 ? 100 : (int)p.name.n, p.name.p);
        }
    }
    return 0;
}

static void put_value(int name, const mr_kb_values *v, mr_str otherwise, mr_buf *out) {
    static const char *const formats[NAMES] = {[DATE] = "%Y-%m-%d", [TIME] = "%H:%M", [WEEKDAY] = "%A"};
    const mr_str said[NAMES] = {[USER] = v->user, [TENANT] = v->tenant, [MODEL] = v->model};
    char text[VALUE_MAX];
    struct tm tm;
    mr_str value = said[name];
    if (formats[name] && localtime_r(&v->now, &tm)) {
        value = (mr_str){text, strftime(text, sizeof text, formats[name], &tm)};
    }
    if (value.n == 0) value = otherwise;
    mr_buf_put(out, value.p, value.n);
}

void mr_kb_answer_expand(mr_str answer, const mr_kb_values *v, mr_buf *out) {
    place p;
    for (size_t i = 0; i < answer.n; i++) {
        bool brace = answer.p[i] == '{';
        if (brace && i + 1 < answer.n && answer.p[i + 1] == '{') {
            mr_buf_put(out, "{", 1);
            i++;
        } else if (brace && place_at(answer, i, &p) && find_name(p.name) < NAMES) {
            put_value(find_name(p.name), v, p.otherwise, out);
            i += p.n - 1;
        } else {
            mr_buf_put(out, answer.p + i, 1);
        }
    }
}

/* ---- the list ---- */

/* A title may have line breaks in it, a line of the list has none. */
void mr_kb_answer_list(int number, mr_str title, mr_buf *out) {
    mr_buf_printf(out, "\n%d. ", number);
    for (size_t i = 0; i < title.n; i++) {
        bool gap = title.p[i] == '\n' || title.p[i] == '\r' || title.p[i] == '\t';
        mr_buf_put(out, gap ? " " : title.p + i, 1);
    }
}

static bool begins_with(mr_str s, mr_str part) {
    return s.n > part.n && memcmp(s.p, part.p, part.n) == 0;
}

static bool ends_with(mr_str s, mr_str part) {
    return s.n > part.n && memcmp(s.p + s.n - part.n, part.p, part.n) == 0;
}

/* The number that the whole text says; 0: none. */
static int number_said(mr_str said) {
    static const char *const chinese[] = {"一", "二", "三", "四", "五", "六", "七", "八", "九"};
    mr_buf words;
    mr_error ignored;
    int number = 0;
    mr_buf_init(&words, VALUE_MAX);
    if (said.n <= VALUE_MAX && mr_text_words(said, &words, &ignored) == 0) {
        mr_str w = mr_buf_str(&words), ordinal = MR_STR("第"), first = MR_STR("个"), second = MR_STR("条");
        if (begins_with(w, ordinal)) w.p += ordinal.n, w.n -= ordinal.n;
        if (ends_with(w, first) || ends_with(w, second)) w.n -= first.n;
        for (int i = 0; i < LIST_MAX; i++) {
            bool digit = w.n == 1 && w.p[0] == '1' + i;
            if (digit || mr_str_eqz(w, chinese[i])) number = i + 1;
        }
    }
    mr_buf_done(&words);
    return number;
}

/* The last line of the text, which is cut. */
static mr_str last_line(mr_str *text) {
    size_t end = text->n, start = end;
    while (start > 0 && text->p[start - 1] != '\n') start--;
    text->n = start > 0 ? start - 1 : 0;
    return (mr_str){text->p + start, end - start};
}

/* The number at the beginning of a line of the list, and what follows it; 0: it is none. */
static int numbered(mr_str line, mr_str *title) {
    if (line.n < 4 || line.p[0] < '1' || line.p[0] > '9' || line.p[1] != '.' || line.p[2] != ' ') return 0;
    *title = (mr_str){line.p + 3, line.n - 3};
    return line.p[0] - '0';
}

mr_str mr_kb_answer_pick(mr_str answer, mr_str said) {
    int wanted = number_said(said), next = 0;
    mr_str title;
    while (answer.n > 0 && (answer.p[answer.n - 1] == '\n' || answer.p[answer.n - 1] == ' ')) answer.n--;
    while (wanted > 0 && answer.n > 0) {
        int number = numbered(last_line(&answer), &title);
        if (number == 0 || (next > 0 && number != next)) break;
        if (number == wanted) return title;
        if (number == 1) break;
        next = number - 1;
    }
    return MR_STR("");
}
