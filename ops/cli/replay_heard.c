/* Answers collected and compared (see replay_heard.h). */
#include "ops/cli/replay_heard.h"

#include "schemas/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN 24 /* bytes of text around a difference */

/* ---- collecting ---- */

void mr_heard_init(mr_heard *h, const mr_chat_request *q) {
    *h = (mr_heard){.finish = MR_FINISH_ERROR};
    mr_answer_init(&h->answer);
    mr_prefix_init(&h->tokens);
    mr_buf_init(&h->text, MR_HEARD_MAX);
    if (!MR_HAS(q, MR_CHAT_REQUEST_FORCED)) return;
    h->begin = q->forced_bytes;
    h->answer.bytes = h->tokens.bytes = (uint64_t)q->forced_bytes;
    (void)mr_text_hash_parse(q->forced_hash, &h->answer.hash); /* checked with the message */
    h->tokens.hash = h->answer.hash;
}

void mr_heard_done(mr_heard *h) {
    mr_prefix_done(&h->tokens);
    mr_buf_done(&h->text);
}

static void break_off(mr_heard *h, const char *why) {
    h->broken = true;
    snprintf(h->error, sizeof(h->error), "%s", why);
}

void mr_heard_delta(mr_heard *h, const mr_response_delta *d) {
    mr_str fresh;
    if (h->ended || h->broken) return;
    switch (mr_answer_delta(&h->answer, d->offset, d->text, d->hash, &fresh)) {
    case MR_ANSWER_DUPLICATE: return;
    case MR_ANSWER_GAP: break_off(h, "a part of it is missing"); return;
    case MR_ANSWER_MISMATCH: break_off(h, "its attempts differ"); return;
    case MR_ANSWER_NEW: break;
    }
    mr_prefix_add(&h->tokens, d, &h->answer);
    mr_buf_put(&h->text, fresh.p, fresh.n);
    if (h->text.failed) break_off(h, "it is too long");
}

void mr_heard_end(mr_heard *h, const mr_response_end *e) {
    if (h->ended) return;
    h->ended = true;
    h->finish = e->finish_reason;
    if (e->finish_reason == MR_FINISH_ERROR) {
        mr_str_copy(e->error.message, h->error, sizeof(h->error));
    } else if (e->finish_reason != MR_FINISH_CANCELLED &&
               mr_answer_end(&h->answer, e->offset, e->hash) != MR_ANSWER_NEW) {
        break_off(h, "its end does not fit its text");
    }
}

bool mr_heard_whole(const mr_heard *h) {
    return h->ended && !h->broken && h->finish != MR_FINISH_ERROR && h->finish != MR_FINISH_CANCELLED;
}

/* ---- comparing ---- */

/* The text at byte `at`, without breaking a line of the report. */
static void excerpt(const mr_heard *h, size_t at, char out[SHOWN + 1]) {
    size_t n = at < h->text.n ? h->text.n - at : 0;
    if (n > SHOWN) n = SHOWN;
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)h->text.p[at + i] < ' ' ? ' ' : h->text.p[at + i];
    out[n] = '\0';
}

static size_t first_byte_that_differs(const mr_heard *a, const mr_heard *b) {
    size_t n = a->text.n < b->text.n ? a->text.n : b->text.n, i = 0;
    while (i < n && a->text.p[i] == b->text.p[i]) i++;
    return i;
}

static bool has_tokens(const mr_heard *h) {
    return h->tokens.n > 0;
}

static void say_difference(const mr_heard *recorded, const mr_heard *again, char *what, size_t cap) {
    char was[SHOWN + 1], is[SHOWN + 1];
    size_t at = first_byte_that_differs(recorded, again);
    uint32_t i = 0, n = recorded->tokens.n < again->tokens.n ? recorded->tokens.n : again->tokens.n;
    excerpt(recorded, at, was);
    excerpt(again, at, is);
    if (has_tokens(recorded) && has_tokens(again)) {
        while (i < n && recorded->tokens.ids[i] == again->tokens.ids[i]) i++;
    }
    if (i < n && has_tokens(recorded) && has_tokens(again)) {
        snprintf(what, cap, "token %u: recorded %" PRId64 ", now %" PRId64 "; byte %zu: \"%s\", now \"%s\"",
                 i, recorded->tokens.ids[i], again->tokens.ids[i], at + (size_t)recorded->begin, was, is);
    } else {
        snprintf(what, cap, "byte %zu: recorded \"%s\", now \"%s\"", at + (size_t)recorded->begin, was, is);
    }
}

/* As far as both are told: tokens at the end that made no text go out with a delta or not, as it happens. */
static bool same_tokens(const mr_heard *recorded, const mr_heard *again) {
    uint32_t n = recorded->tokens.n < again->tokens.n ? recorded->tokens.n : again->tokens.n;
    return n == 0 || memcmp(recorded->tokens.ids, again->tokens.ids, n * sizeof(*recorded->tokens.ids)) == 0;
}

static bool same_text(const mr_heard *recorded, const mr_heard *again) {
    size_t n = recorded->text.n;
    return n <= again->text.n && (n == 0 || memcmp(recorded->text.p, again->text.p, n) == 0);
}

mr_heard_verdict mr_heard_compare(const mr_heard *recorded, const mr_heard *again, char *what, size_t cap) {
    bool whole = mr_heard_whole(recorded);
    if (!mr_heard_whole(again)) {
        snprintf(what, cap, "it was not made again: %s", again->error[0] ? again->error : "no answer came");
        return MR_HEARD_INCOMPARABLE;
    }
    if (!whole && recorded->text.n == 0) {
        snprintf(what, cap, "no recorded answer: %s", recorded->error[0] ? recorded->error : "none is kept");
        return MR_HEARD_INCOMPARABLE;
    }
    if (!same_tokens(recorded, again) || !same_text(recorded, again) ||
        (whole && recorded->text.n != again->text.n)) {
        say_difference(recorded, again, what, cap);
        return MR_HEARD_DIFFERS;
    }
    if (whole && recorded->finish != again->finish) {
        snprintf(what, cap, "the same text, but it ended by %s, and now by %s",
                 mr_finish_names[recorded->finish], mr_finish_names[again->finish]);
        return MR_HEARD_DIFFERS;
    }
    snprintf(what, cap, "%s", whole ? "" : "as far as the recorded one goes, which was cut short");
    return MR_HEARD_SAME;
}
