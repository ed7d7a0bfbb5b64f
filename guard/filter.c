/* See filter.h. */
#include "guard/filter.h"

#include <stdlib.h>
#include <string.h>

#define HELD_MAX (1u << 20) /* bytes; what cannot be seen may stand between letters without end */

struct mr_filter {
    mr_scan *scan;
    bool stop, stopped;
    size_t skip;
    mr_filter_cb *cb;
    void *arg;
    mr_buf held; /* the text from `base` on */
    size_t base;
    size_t passed; /* what went out stands for the text up to there; it may be ahead of `base` */
    mr_buf *out;   /* of the call that is under way */
};

mr_filter *mr_filter_new(mr_words *words, bool stop, size_t skip, mr_filter_cb *cb, void *arg,
                         mr_error *err) {
    mr_filter *f = calloc(1, sizeof *f);
    if (!f) {
        mr_fail(err, MR_ENOMEM, "no memory for a filter");
        return NULL;
    }
    *f = (mr_filter){.stop = stop, .skip = skip, .cb = cb, .arg = arg};
    mr_buf_init(&f->held, HELD_MAX);
    f->scan = mr_scan_new(words, err);
    if (f->scan) return f;
    mr_filter_free(f);
    return NULL;
}

void mr_filter_free(mr_filter *f) {
    if (!f) return;
    mr_scan_free(f->scan);
    mr_buf_done(&f->held);
    free(f);
}

size_t mr_filter_passed(const mr_filter *f) {
    return f->passed;
}

bool mr_filter_stopped(const mr_filter *f) {
    return f->stopped;
}

static mr_str text_of(const mr_filter *f, size_t start, size_t end) {
    return (mr_str){f->held.p + (start - f->base), end - start};
}

/* The text up to there goes out as it is, from the first whole character on that is not skipped. */
static void pass(mr_filter *f, size_t to) {
    size_t from = f->passed > f->skip ? f->passed : f->skip;
    if (to <= f->passed) return;
    while (from < to && from > f->passed && (*text_of(f, from, to).p & 0xC0) == 0x80) from++;
    if (from < to) mr_buf_put(f->out, text_of(f, from, to).p, to - from);
    f->passed = to;
}

/* Of words that overlap the first one's substitute stands for all. */
static void substitute(mr_filter *f, const mr_guard_hit *hit) {
    if (hit->start >= f->passed) {
        pass(f, hit->start);
        if (hit->end > f->skip) mr_buf_puts(f->out, hit->rule->substitute);
    }
    if (hit->end > f->passed) f->passed = hit->end;
}

static void on_hit(void *arg, const mr_guard_hit *hit) {
    mr_filter *f = arg;
    mr_guard_action action = hit->rule->action;
    if (f->stopped) return;
    if (action == MR_GUARD_BLOCK && !f->stop) action = MR_GUARD_REPLACE;
    if (hit->end > f->skip) f->cb(f->arg, hit->rule, action, text_of(f, hit->start, hit->end));
    if (action == MR_GUARD_BLOCK) {
        pass(f, hit->start);
        f->stopped = true;
    } else if (action == MR_GUARD_REPLACE) {
        substitute(f, hit);
    }
}

/* What lies before is needed no more. */
static void let_go(mr_filter *f, size_t upto) {
    size_t n = upto - f->base;
    memmove(f->held.p, f->held.p + n, f->held.n - n);
    f->held.n -= n;
    f->base = upto;
}

int mr_filter_feed(mr_filter *f, mr_str text, bool over, mr_buf *out, mr_error *err) {
    if (f->stopped) return 0;
    f->out = out;
    mr_buf_put(&f->held, text.p, text.n);
    if (f->held.failed) return mr_fail(err, MR_ETOOBIG, "too much of a text had to be held back");
    if (mr_scan_feed(f->scan, text, on_hit, f, err) < 0) return -1;
    size_t settled = mr_scan_settled(f->scan);
    if (over) {
        if (mr_scan_finish(f->scan, on_hit, f, err) < 0) return -1;
        settled = f->base + f->held.n;
    }
    if (f->stopped) return 0;
    pass(f, settled);
    if (settled > f->base) let_go(f, settled);
    return 0;
}
