/* Answers and context from entries of the knowledge base; see kb_context.h. */
#include "router/kb_context.h"

#include "router/kb_answer.h"
#include "router/kb_format.h"
#include "schemas/estimate.h"
#include "session/session.h"

#include <string.h>
#include <time.h>

/* Placeholders may stand for more than they are long. */
enum { REPLY_MAX = 8 * MR_KB_ANSWER_MAX, MESSAGES_MAX = 4096 };

static const char INTRODUCTION[] = "Entries of the knowledge base that may help with the next message. Use "
                                   "what answers it; ignore the rest.";

static void put_answer(const mr_kb_hit *hit, const mr_chat_request *q, mr_buf *out) {
    mr_kb_values v = {.user = q->user, .tenant = q->tenant, .model = q->model, .now = time(NULL)};
    mr_kb_answer_expand(hit->answer, &v, out);
}

static int keep(mr_buf *text, mr_arena *a, mr_str *out, mr_error *err) {
    *out = mr_arena_str(a, mr_buf_str(text));
    if (text->failed || !out->p)
        return mr_fail(err, MR_ETOOBIG, "an answer of the knowledge base is too long");
    return 0;
}

/* The titles of the entries that follow, each a line. */
static int put_list(mr_kb *kb, const mr_router_conf *conf, mr_str follow, mr_buf *out, mr_error *err) {
    for (int number = 1; follow.n > 0;) {
        mr_str title, name = mr_kb_next_name(&follow);
        if (mr_kb_title(kb, name, &title, err) < 0) return -1;
        if (title.n == 0) continue;
        if (number == 1) mr_buf_printf(out, "\n%s%s", conf->kb_follow[0] ? "\n" : "", conf->kb_follow);
        mr_kb_answer_list(number++, title, out);
    }
    return 0;
}

int mr_kb_reply(mr_kb *kb, const mr_router_conf *conf, const mr_kb_hit *hit, const mr_chat_request *q,
                mr_arena *a, mr_str *out, mr_error *err) {
    mr_buf text;
    mr_buf_init(&text, REPLY_MAX);
    put_answer(hit, q, &text);
    int rc = put_list(kb, conf, hit->follow, &text, err);
    if (rc == 0) rc = keep(&text, a, out, err);
    mr_buf_done(&text);
    return rc;
}

int mr_kb_context(const mr_router_conf *conf, const mr_kb_hit *hits, int n, const mr_chat_request *q,
                  mr_arena *a, mr_str *out, mr_error *err) {
    mr_buf text, entry;
    int taken = 0, rc = 0;
    *out = MR_STR("");
    mr_buf_init(&text, REPLY_MAX * (size_t)MR_KB_HITS_MAX);
    mr_buf_init(&entry, REPLY_MAX);
    mr_buf_puts(&text, INTRODUCTION);
    int64_t tokens = mr_text_tokens(mr_buf_str(&text));
    for (int i = 0; i < n && taken < conf->kb_context; i++) {
        if (hits[i].confidence < conf->kb_context_min) break;
        mr_buf_clear(&entry);
        mr_buf_printf(&entry, "\n\n## %.*s\n", MR_FMT(hits[i].title));
        put_answer(&hits[i], q, &entry);
        int64_t more = mr_text_tokens(mr_buf_str(&entry));
        if (entry.failed || tokens + more > conf->kb_context_tokens) continue;
        tokens += more;
        taken++;
        mr_buf_put(&text, entry.p, entry.n);
    }
    if (taken > 0) rc = keep(&text, a, out, err);
    mr_buf_done(&text);
    mr_buf_done(&entry);
    return rc;
}

bool mr_kb_context_put(mr_chat_request *q, mr_str context, mr_arena *a) {
    uint32_t n = q->messages.n;
    if (n == 0 || n >= MESSAGES_MAX) return false;
    mr_chat_message *v = mr_arena_alloc(a, (n + 1) * sizeof *v);
    if (!v) return false;
    mr_chat_message m = {0};
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_SYSTEM);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, context);
    /* It belongs to this request alone, and not to the session. */
    MR_SET(&m, MR_CHAT_MESSAGE_NAME, name, MR_STR(MR_PASSING_SYSTEM));
    memcpy(v, q->messages.v, (n - 1) * sizeof *v);
    v[n - 1] = m;
    v[n] = q->messages.v[n - 1];
    q->messages.v = v;
    q->messages.n = n + 1;
    return true;
}

void mr_kb_context_take(mr_chat_request *q) {
    uint32_t n = q->messages.n;
    q->messages.v[n - 2] = q->messages.v[n - 1];
    q->messages.n = n - 1;
}
