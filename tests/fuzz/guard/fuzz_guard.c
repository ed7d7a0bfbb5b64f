/* Any text may be looked through: hits lie within it and in order, text in two pieces has the same hits as the whole, and
 * none begins before what was called settled. The text is also a list: what is taken can be compiled and looked for. */
#include "guard/guard.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HITS_MAX = 4096 };

static const char list[] =
    "bad\tblock\nass\treplace\n法轮功\tblock\nkill (your|my) self\tflag\nbad day\tallow\n";
static char path[] = "/tmp/millrace-fuzz-XXXXXX", other[] = "/tmp/millrace-fuzz-XXXXXX";
static const char *paths[] = {path};
static mr_guard *guard;
static mr_words *words;

typedef struct hits {
    mr_guard_hit v[HITS_MAX];
    int n;
    size_t text, settled;
} hits;

static void must(int truth) {
    if (!truth) abort();
}

static void clean(void) {
    mr_guard_close(guard);
    mr_words_release(words);
    unlink(path);
    unlink(other);
}

static void open_guard(void) {
    mr_guard_options o = {{paths, 1}, MR_GUARD_BLOCK, MR_GUARD_MASK};
    mr_error err;
    close(mkstemp(path));
    close(mkstemp(other));
    test_write(path, list, sizeof list - 1);
    guard = mr_guard_open(&o, &err);
    words = mr_words_new(&err);
    must(guard && words && mr_words_add_file(words, path, &err) == 0 && mr_words_compile(words, &err) == 0);
    atexit(clean);
}

static void on_hit(void *arg, const mr_guard_hit *hit) {
    hits *h = arg;
    must(hit->start < hit->end && hit->end <= h->text && hit->start >= h->settled);
    if (h->n < HITS_MAX) h->v[h->n++] = *hit;
}

static void scan_pieces(mr_str text, size_t cut, hits *h) {
    mr_error err;
    mr_scan *s = mr_scan_new(words, &err);
    *h = (hits){.text = text.n};
    must(s && mr_scan_feed(s, (mr_str){text.p, cut}, on_hit, h, &err) == 0);
    h->settled = mr_scan_settled(s);
    must(mr_scan_feed(s, (mr_str){text.p + cut, text.n - cut}, on_hit, h, &err) == 0);
    must(mr_scan_finish(s, on_hit, h, &err) == 0);
    mr_scan_free(s);
}

static void check_pieces(mr_str text) {
    static hits whole, pieces;
    size_t cut = text.n / 2;
    while (cut > 0 && ((unsigned char)text.p[cut] & 0xC0) == 0x80) cut--;
    scan_pieces(text, 0, &whole);
    scan_pieces(text, cut, &pieces);
    must(whole.n == pieces.n);
    for (int i = 0; i < whole.n; i++) {
        must(whole.v[i].start == pieces.v[i].start && whole.v[i].end == pieces.v[i].end &&
             whole.v[i].rule == pieces.v[i].rule);
    }
}

static void check_list(const uint8_t *data, size_t n) {
    mr_error err;
    mr_words *w = mr_words_new(&err);
    must(w != NULL);
    test_write(other, data, n);
    if (mr_words_add_file(w, other, &err) == 0 && mr_words_count(w) < 50) {
        must(mr_words_compile(w, &err) == 0);
    } else if (mr_words_count(w) == 0) {
        must(err.msg[0] != '\0');
    }
    mr_words_release(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static hits all;
    mr_str text = {(const char *)data, n};
    mr_error err;
    if (!guard) open_guard();
    all = (hits){.text = n};
    must(mr_guard_scan(guard, text, on_hit, &all, &err) == 0);
    if (n > 0 && mr_str_is_utf8(text)) check_pieces(text);
    if (n % 32 == 5) check_list(data, n);
    return 0;
}
