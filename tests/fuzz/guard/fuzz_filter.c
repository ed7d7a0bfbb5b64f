/* Any text may be filtered while it is written: however it is cut, what goes out is what the scan of the whole says, and the
 * part that somebody has already is left out exactly. The first bytes say where the cuts are. */
#include "guard/filter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUTS = 4, EDITS_MAX = 65536 };

static mr_words *words;

static void must(int truth) {
    if (!truth) abort();
}

static void clean(void) {
    mr_words_release(words);
}

static void compile(void) {
    static const struct {
        const char *word;
        mr_guard_action action;
    } list[] = {{"bad", MR_GUARD_BLOCK},          {"ass", MR_GUARD_REPLACE}, {"ass as", MR_GUARD_REPLACE},
                {"法轮功", MR_GUARD_REPLACE},     {"轮", MR_GUARD_FLAG},     {"bad day", MR_GUARD_ALLOW},
                {"kill your self", MR_GUARD_FLAG}};
    mr_error err;
    words = mr_words_new(&err);
    must(words != NULL);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        must(mr_words_add(words, mr_str_of(list[i].word), list[i].word, "fuzz", list[i].action, &err) == 0);
    must(mr_words_compile(words, &err) == 0);
    atexit(clean);
}

static size_t next_char(mr_str text, size_t at) {
    while (at < text.n && ((unsigned char)text.p[at] & 0xC0) == 0x80) at++;
    return at;
}

/* ---- the whole, without the filter ---- */

typedef struct plain {
    mr_str text;
    mr_buf out;
    size_t done, skip;
    bool stop, stopped;
    int found;
} plain;

static void copy(plain *p, size_t to) {
    size_t from = p->done > p->skip ? p->done : next_char(p->text, p->skip);
    if (from < to) mr_buf_put(&p->out, p->text.p + from, to - from);
    if (to > p->done) p->done = to;
}

static void on_hit(void *arg, const mr_guard_hit *hit) {
    plain *p = arg;
    bool block = hit->rule->action == MR_GUARD_BLOCK && p->stop;
    if (p->stopped) return;
    p->found += hit->end > p->skip;
    if (hit->rule->action == MR_GUARD_FLAG) return;
    if (block || hit->start >= p->done) copy(p, hit->start);
    p->stopped = block;
    if (block) return;
    if (hit->start >= p->done && hit->end > p->skip) mr_buf_puts(&p->out, hit->rule->substitute);
    if (hit->end > p->done) p->done = hit->end;
}

static void scan_whole(plain *p) {
    mr_error err;
    mr_scan *s = mr_scan_new(words, &err);
    must(s && mr_scan_feed(s, p->text, on_hit, p, &err) == 0 && mr_scan_finish(s, on_hit, p, &err) == 0);
    if (!p->stopped) copy(p, p->text.n);
    mr_scan_free(s);
}

/* ---- the filter ---- */

static void on_found(void *arg, const mr_guard_rule *rule, mr_guard_action done, mr_str text) {
    must(rule && done >= MR_GUARD_FLAG && text.n > 0);
    ++*(int *)arg;
}

static void filter_pieces(const plain *p, const size_t cuts[CUTS]) {
    mr_error err;
    mr_buf out;
    size_t at = 0, passed = 0;
    int found = 0;
    mr_filter *f = mr_filter_new(words, p->stop, p->skip, on_found, &found, &err);
    must(f != NULL);
    mr_buf_init(&out, 1 << 20);
    for (int i = 0; i <= CUTS; i++) {
        size_t to = i < CUTS ? cuts[i] : p->text.n;
        if (to < at) continue;
        must(mr_filter_feed(f, (mr_str){p->text.p + at, to - at}, i == CUTS, &out, &err) == 0);
        must(mr_filter_passed(f) >= passed && mr_filter_passed(f) <= to);
        passed = mr_filter_passed(f);
        at = to;
    }
    must(mr_filter_stopped(f) == p->stopped && found == p->found);
    must(mr_str_eq(mr_buf_str(&out), mr_buf_str(&p->out)));
    mr_buf_done(&out);
    mr_filter_free(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    size_t cuts[CUTS];
    if (!words) compile();
    if (n < CUTS + 1) return 0;
    plain p = {.text = {(const char *)data + CUTS + 1, n - CUTS - 1}, .stop = data[0] & 1};
    if (!mr_str_is_utf8(p.text)) return 0;
    p.skip = data[0] & 2 ? p.text.n * (data[0] >> 2) / 64 : 0;
    for (int i = 0; i < CUTS; i++) cuts[i] = next_char(p.text, p.text.n * data[1 + i] / 256);
    mr_buf_init(&p.out, 1 << 20);
    scan_whole(&p);
    filter_pieces(&p, cuts);
    mr_buf_done(&p.out);
    return 0;
}
