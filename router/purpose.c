/* Recognises title and summary calls; see purpose.h. */
#include "router/purpose.h"

#include <string.h>

#define OPENING(text) {text, sizeof(text) - 1},

static const mr_str title_prompts[] = {
#define MR_TITLE_PROMPT(language, opening) OPENING(opening)
#define MR_SUMMARY_PROMPT(language, opening)
#include "router/prompts.def"
#undef MR_TITLE_PROMPT
#undef MR_SUMMARY_PROMPT
};

static const mr_str summary_prompts[] = {
#define MR_TITLE_PROMPT(language, opening)
#define MR_SUMMARY_PROMPT(language, opening) OPENING(opening)
#include "router/prompts.def"
#undef MR_TITLE_PROMPT
#undef MR_SUMMARY_PROMPT
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool begins_with_one_of(mr_str text, const mr_str *openings, size_t n) {
    while (text.n > 0 && (unsigned char)text.p[0] <= ' ') text.p++, text.n--;
    for (size_t i = 0; i < n; i++) {
        mr_str o = openings[i];
        if (text.n >= o.n && memcmp(text.p, o.p, o.n) == 0) return true;
    }
    return false;
}

static mr_str first_text(const mr_chat_message *m) {
    if (MR_HAS(m, MR_CHAT_MESSAGE_CONTENT)) return m->content;
    for (uint32_t i = 0; i < m->parts.n; i++) {
        if (m->parts.v[i].type == MR_PART_IS_TEXT) return m->parts.v[i].text;
    }
    return MR_STR("");
}

enum mr_purpose mr_request_purpose(const mr_chat_request *r) {
    if (MR_HAS(r, MR_CHAT_REQUEST_PURPOSE)) return (enum mr_purpose)r->purpose;
    const mr_chat_message *last = &r->messages.v[r->messages.n - 1];
    mr_str text = first_text(last);
    if (begins_with_one_of(text, title_prompts, COUNT(title_prompts))) return MR_PURPOSE_TITLE;
    if (begins_with_one_of(text, summary_prompts, COUNT(summary_prompts))) return MR_PURPOSE_SUMMARY;
    /* People do not end a conversation with an instruction of the system; a summary call does, whatever its language. */
    bool instruction = last->role == MR_ROLE_SYSTEM || last->role == MR_ROLE_DEVELOPER;
    return instruction && r->messages.n > 1 ? MR_PURPOSE_SUMMARY : MR_PURPOSE_CHAT;
}

static mr_str join_parts(const mr_chat_message *m, mr_arena *a) {
    size_t n = 0;
    for (uint32_t i = 0; i < m->parts.n; i++) {
        if (m->parts.v[i].type != MR_PART_IS_TEXT) return MR_STR("");
        n += m->parts.v[i].text.n + 1;
    }
    char *text = mr_arena_alloc(a, n + 1);
    if (!text) return MR_STR("");
    char *end = text;
    for (uint32_t i = 0; i < m->parts.n; i++) {
        mr_str t = m->parts.v[i].text;
        if (i > 0) *end++ = '\n';
        memcpy(end, t.p, t.n);
        end += t.n;
    }
    return (mr_str){text, (size_t)(end - text)};
}

mr_str mr_request_question(const mr_chat_request *r, mr_arena *a) {
    const mr_chat_message *last = &r->messages.v[r->messages.n - 1];
    if (last->role != MR_ROLE_USER) return MR_STR("");
    return MR_HAS(last, MR_CHAT_MESSAGE_CONTENT) ? last->content : join_parts(last, a);
}
