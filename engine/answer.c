/* See answer.h. Text flows through `held`: decoded characters are appended to it, and what can no longer be part of a tag
 * or stop string leaves it at the front. Since everything unsaid is in `held`, a tag or stop string that is split over
 * any number of tokens is found by searching it alone. */
#include "engine/answer.h"

#include <stdlib.h>
#include <string.h>

static const char OPEN_TAG[] = "<think>", CLOSE_TAG[] = "</think>";
enum { OPEN_LEN = sizeof OPEN_TAG - 1, CLOSE_LEN = sizeof CLOSE_TAG - 1, BLANKS_MAX = 64 };

int answer_init(answer *a, size_t longest_piece, engine_error *err) {
    memset(a, 0, sizeof *a);
    /* held over from earlier pushes: less than a stop string, or blanks and a tag, or one token's text (see answer_push) */
    a->cap = STOP_BYTES_MAX + BLANKS_MAX + CLOSE_LEN + 2 * DETOK_MAX(longest_piece);
    a->held = malloc(a->cap * (ANSWER_TEXTS + 1));
    for (size_t i = 0; a->held && i < ANSWER_TEXTS; i++) a->out[i] = a->held + (i + 1) * a->cap;
    return a->held ? 0 : engine_fail(err, ENGINE_ENOMEM, "no memory for the text of a sequence");
}

void answer_done(answer *a) {
    free(a->held);
    memset(a, 0, sizeof *a);
}

int answer_start(answer *a, bool thinking, const char *const *stops, int nstops, engine_error *err) {
    if (nstops < 0 || nstops > STOP_MAX) {
        return engine_fail(err, ENGINE_EINVAL, "%d stop strings: at most %d are possible", nstops, STOP_MAX);
    }
    for (int i = 0; i < nstops; i++) {
        size_t n = strlen(stops[i]);
        if (!n || n > STOP_BYTES_MAX) {
            return engine_fail(err, ENGINE_EINVAL, "a stop string has %zu bytes: possible are 1 to %d", n,
                               STOP_BYTES_MAX);
        }
        a->stops[i].n = n;
        memcpy(a->stops[i].text, stops[i], n);
    }
    a->nstops = nstops;
    a->phase = thinking ? ANSWER_THINKING : ANSWER_OPENING;
    a->after_tag = thinking;
    a->stopped = false;
    a->chars = (detok){0};
    a->nheld = 0;
    return 0;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static size_t count_blanks(const answer *a) {
    size_t n = 0;
    while (n < a->nheld && is_blank(a->held[n])) n++;
    return n;
}

/* Drops the first n bytes of what is held. */
static void drop_held(answer *a, size_t n) {
    a->nheld -= n;
    memmove(a->held, a->held + n, a->nheld);
}

/* Where `what` begins in held text; nheld when it does not. */
static size_t find(const answer *a, const char *what, size_t n) {
    const char *at = memmem(a->held, a->nheld, what, n);
    return at ? (size_t)(at - a->held) : a->nheld;
}

/* Length of the longest end of held text that may be the beginning of `what`. */
static size_t begins_at_end(const answer *a, const char *what, size_t n) {
    size_t k = n - 1 < a->nheld ? n - 1 : a->nheld;
    while (k && memcmp(a->held + a->nheld - k, what, k) != 0) k--;
    return k;
}

/* At the answer's beginning: is there an opening tag? False while that is not known. */
static bool decide_opening(answer *a, bool last) {
    size_t blanks = count_blanks(a), rest = a->nheld - blanks;
    size_t n = rest < OPEN_LEN ? rest : OPEN_LEN;
    bool may_be = memcmp(a->held + blanks, OPEN_TAG, n) == 0 && blanks <= BLANKS_MAX;
    if (may_be && n == OPEN_LEN) {
        drop_held(a, blanks + OPEN_LEN);
        a->phase = ANSWER_THINKING;
        a->after_tag = true;
        return true;
    }
    if (may_be && !last) return false;
    a->phase = ANSWER_CONTENT;
    return true;
}

/* The first place in held text where one of the stop strings begins; nheld when there is none. */
static size_t find_stop(const answer *a) {
    size_t first = a->nheld;
    for (int i = 0; i < a->nstops; i++) {
        size_t at = find(a, a->stops[i].text, a->stops[i].n);
        if (at < first) first = at;
    }
    return first;
}

/* How much of the end of held text must wait, because it may become a tag or a stop string. */
static size_t uncertain(const answer *a) {
    size_t keep = a->phase == ANSWER_THINKING ? begins_at_end(a, CLOSE_TAG, CLOSE_LEN) : 0;
    for (int i = 0; a->may_stop && i < a->nstops; i++) {
        size_t k = begins_at_end(a, a->stops[i].text, a->stops[i].n);
        if (k > keep) keep = k;
    }
    return keep;
}

static answer_text release(answer *a, size_t n) {
    char *out = a->out[a->turn];
    a->turn = (a->turn + 1) % ANSWER_TEXTS;
    memcpy(out, a->held, n);
    drop_held(a, n);
    return (answer_text){a->phase == ANSWER_THINKING ? ENGINE_REASONING : ENGINE_CONTENT, out, n};
}

/* Takes out what is certain. Text of one channel only: when the reasoning ends inside of held text and gave text, the
 * content behind it waits for the next call. */
static answer_text advance(answer *a, bool last) {
    if (a->phase == ANSWER_OPENING && !decide_opening(a, last)) return release(a, 0);
    if (a->after_tag) {
        drop_held(a, count_blanks(a));
        a->after_tag = a->nheld == 0;
    }
    size_t stop = a->may_stop ? find_stop(a) : a->nheld;
    size_t close = a->phase == ANSWER_THINKING ? find(a, CLOSE_TAG, CLOSE_LEN) : a->nheld;
    if (stop < a->nheld && stop <= close) {
        answer_text t = release(a, stop);
        a->stopped = true;
        a->nheld = 0;
        return t;
    }
    if (close < a->nheld) {
        answer_text t = release(a, close);
        drop_held(a, CLOSE_LEN);
        a->phase = ANSWER_CONTENT;
        a->after_tag = true;
        return t.n ? t : advance(a, last);
    }
    return release(a, last ? a->nheld : a->nheld - uncertain(a));
}

answer_text answer_push(answer *a, const char *piece, size_t n, bool may_stop) {
    a->nheld += detok_push(&a->chars, piece, n, a->held + a->nheld);
    a->may_stop = may_stop;
    return advance(a, false);
}

answer_text answer_finish(answer *a) {
    if (a->stopped) return release(a, 0);
    a->nheld += detok_finish(&a->chars, a->held + a->nheld);
    return advance(a, true);
}
