/* Styles (see style.h). */
#include "router/style.h"

#include "session/session.h"

#include <stdlib.h>
#include <string.h>

static const mr_style built_in[] = {
    {{"formal", 6}, 0.3, 0.9, {"Answer formally and precisely.", 30}},
    {{"casual", 6}, 0.7, 0.95, {"Answer in a relaxed and friendly way.", 37}},
};

static bool next_field(const char **at, mr_str *out) {
    if (!*at) return false;
    const char *end = strchr(*at, '|');
    *out = (mr_str){*at, end ? (size_t)(end - *at) : strlen(*at)};
    *at = end ? end + 1 : NULL;
    return true;
}

/* strtod stops at the '|' or the end behind it. */
static bool number_of(mr_str s, double max, double *out) {
    char *end;
    *out = strtod(s.p, &end);
    return s.n > 0 && end == s.p + s.n && *out >= 0 && *out <= max;
}

static bool parse(const char *text, mr_style *s) {
    mr_str temperature, top_p;
    const char *at = text;
    *s = (mr_style){.line = MR_STR("")};
    if (!next_field(&at, &s->name) || s->name.n == 0 || s->name.n > 64) return false;
    if (!next_field(&at, &temperature) || !number_of(temperature, 2, &s->temperature)) return false;
    if (!next_field(&at, &top_p) || !number_of(top_p, 1, &s->top_p)) return false;
    if (at) s->line = mr_str_of(at);
    return true;
}

int mr_styles_read(mr_styles *s, const mr_strlist *own, mr_error *err) {
    memcpy(s->v, built_in, sizeof(built_in));
    s->n = (int)(sizeof(built_in) / sizeof(built_in[0]));
    for (int i = 0; i < own->n; i++) {
        mr_style style;
        if (!parse(own->v[i], &style)) {
            return mr_fail(err, MR_EINVAL,
                           "router.styles: \"%.100s\" is not NAME|TEMPERATURE|TOP_P|LINE, as "
                           "formal|0.3|0.9|Answer formally.",
                           own->v[i]);
        }
        mr_style *same = (mr_style *)mr_styles_find(s, style.name);
        if (!same && s->n == MR_STYLES_MAX) {
            return mr_fail(err, MR_EINVAL, "router.styles: more than %d styles", MR_STYLES_MAX);
        }
        *(same ? same : &s->v[s->n++]) = style;
    }
    return 0;
}

const mr_style *mr_styles_find(const mr_styles *s, mr_str name) {
    for (int i = 0; i < s->n; i++) {
        if (mr_str_eq(s->v[i].name, name)) return &s->v[i];
    }
    return NULL;
}

static bool has_system(const mr_chat_request *q) {
    for (uint32_t i = 0; i < q->messages.n; i++) {
        int role = q->messages.v[i].role;
        if (role == MR_ROLE_SYSTEM || role == MR_ROLE_DEVELOPER) return true;
    }
    return false;
}

int mr_style_apply(const mr_style *s, mr_chat_request *q, mr_arena *a) {
    mr_sampling *p = &q->sampling;
    if (!MR_HAS(p, MR_SAMPLING_TEMPERATURE) && !MR_HAS(p, MR_SAMPLING_TOP_P)) {
        MR_SET(p, MR_SAMPLING_TEMPERATURE, temperature, s->temperature);
        MR_SET(p, MR_SAMPLING_TOP_P, top_p, s->top_p);
        MR_MARK(q, MR_CHAT_REQUEST_SAMPLING);
    }
    if (s->line.n == 0 || has_system(q)) return 0;
    mr_chat_message *v = mr_arena_alloc(a, (q->messages.n + 1) * sizeof(*v));
    if (!v) return -1;
    MR_SET(&v[0], MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_SYSTEM);
    MR_SET(&v[0], MR_CHAT_MESSAGE_CONTENT, content, s->line);
    MR_SET(&v[0], MR_CHAT_MESSAGE_NAME, name, MR_STR(MR_PASSING_SYSTEM)); /* no part of the conversation */
    memcpy(v + 1, q->messages.v, q->messages.n * sizeof(*v));
    q->messages.v = v;
    q->messages.n++;
    return 0;
}
