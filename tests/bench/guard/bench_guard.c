/* The speed of looking for a list of words, in ordinary English and Chinese text: a whole text at once, as in a request, and
 * the filter of an answer that comes in pieces of a few characters. Prints MB/s, and microseconds a piece:
 *
 *     bench_guard [WORDS]     words in the list, half of either language (default 10000) */
#include "base/loop.h"
#include "guard/filter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 4 << 20, PIECE_CHARS = 4 };

static const char english[] =
    "Thank you for your message. The package was sent on Monday and should arrive by Thursday afternoon; you "
    "can follow "
    "it with the number in the e-mail. If it is not there by Friday, please call us, or write to the shop. ";
static const char chinese[] = "您好，您的包裹已于周一寄出，预计周四下午送达，可以用邮件里的单号查询物流。如果"
                              "周五还没有收到，请联系客服，我们会帮您"
                              "向快递公司核实。营业时间为周一至周五九点到十八点。";

static void die(const mr_error *err) {
    fprintf(stderr, "bench_guard: %s\n", err->msg);
    exit(1);
}

static uint32_t state = 1;

static uint32_t draw(uint32_t n) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % n;
}

/* Words of 5 to 12 letters, and of 2 to 5 characters. */
static void make_word(int i, char out[64]) {
    size_t n = 0;
    if (i % 2) {
        for (uint32_t k = 5 + draw(8); k > 0; k--) out[n++] = (char)('a' + draw(26));
    } else {
        for (uint32_t k = 2 + draw(4); k > 0; k--) {
            uint32_t c = 0x4E00 + draw(0x5000);
            out[n++] = (char)(0xE0 | c >> 12);
            out[n++] = (char)(0x80 | (c >> 6 & 63));
            out[n++] = (char)(0x80 | (c & 63));
        }
    }
    out[n] = '\0';
}

static mr_words *make_words(int n) {
    mr_error err;
    char word[64];
    mr_words *w = mr_words_new(&err);
    if (!w) die(&err);
    for (int i = 0; i < n; i++) {
        make_word(i, word);
        if (mr_words_add(w, mr_str_of(word), "bench", "bench", MR_GUARD_REPLACE, &err) < 0) die(&err);
    }
    if (mr_words_compile(w, &err) < 0) die(&err);
    return w;
}

static char *make_text(const char *page, size_t *n) {
    size_t each = strlen(page);
    char *text = malloc(TEXT_BYTES + each);
    for (*n = 0; text && *n < TEXT_BYTES; *n += each) memcpy(text + *n, page, each);
    return text;
}

static void on_hit(void *arg, const mr_guard_hit *hit) {
    (void)hit;
    ++*(int *)arg;
}

static void on_found(void *arg, const mr_guard_rule *rule, mr_guard_action done, mr_str text) {
    (void)rule, (void)done, (void)text;
    ++*(int *)arg;
}

static double whole(mr_words *w, mr_str text) {
    mr_error err;
    int hits = 0;
    mr_scan *s = mr_scan_new(w, &err);
    int64_t start = mr_mono_us();
    if (!s || mr_scan_feed(s, text, on_hit, &hits, &err) < 0 || mr_scan_finish(s, on_hit, &hits, &err) < 0)
        die(&err);
    double seconds = (double)(mr_mono_us() - start) / 1e6;
    mr_scan_free(s);
    return seconds;
}

static double in_pieces(mr_words *w, mr_str text, size_t *pieces) {
    mr_error err;
    mr_buf out;
    int hits = 0;
    mr_filter *f = mr_filter_new(w, true, 0, on_found, &hits, &err);
    if (!f) die(&err);
    mr_buf_init(&out, 1 << 20);
    int64_t start = mr_mono_us();
    for (*pieces = 0; text.n > 0; ++*pieces) {
        size_t n = 0;
        for (int i = 0; i < PIECE_CHARS && n < text.n; i++)
            n += mr_str_utf8_char((mr_str){text.p + n, text.n - n});
        mr_buf_clear(&out);
        if (mr_filter_feed(f, (mr_str){text.p, n}, false, &out, &err) < 0) die(&err);
        text = (mr_str){text.p + n, text.n - n};
    }
    double seconds = (double)(mr_mono_us() - start) / 1e6;
    mr_buf_done(&out);
    mr_filter_free(f);
    return seconds;
}

static void measure(mr_words *w, const char *name, const char *page) {
    size_t pieces;
    mr_str text = {0};
    text.p = make_text(page, &text.n);
    if (!text.p) exit(1);
    double mb = (double)text.n / 1e6, at_once = whole(w, text), filtered = in_pieces(w, text, &pieces);
    printf("%-8s whole %7.1f MB/s   filter %7.1f MB/s, %.2f us a piece of %d characters\n", name,
           mb / at_once, mb / filtered, filtered * 1e6 / (double)pieces, PIECE_CHARS);
    free((char *)text.p);
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 10000;
    if (n < 1 || argc > 2) {
        fprintf(stderr, "usage: bench_guard [WORDS]\n");
        return 2;
    }
    mr_words *w = make_words(n);
    printf("%d words\n", mr_words_count(w));
    measure(w, "English", english);
    measure(w, "Chinese", chinese);
    mr_words_release(w);
    return 0;
}
