/* Light stemming; see text_stem.h. */
#include "text/text_stem.h"

#include <string.h>

static bool is_plain(mr_str w) {
    for (size_t i = 0; i < w.n; i++) {
        if (w.p[i] < 'a' || w.p[i] > 'z') return false;
    }
    return w.n >= 4 && w.n <= MR_TEXT_STEM_MAX;
}

static bool ends_with(const char *w, size_t n, const char *suffix) {
    size_t k = strlen(suffix);
    return n > k && memcmp(w + n - k, suffix, k) == 0;
}

static bool has_vowel(const char *w, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strchr("aeiouy", w[i])) return true;
    }
    return false;
}

static size_t cut_plural(char *w, size_t n) {
    if (ends_with(w, n, "ies") && n > 4) {
        w[n - 3] = 'y';
        return n - 2;
    }
    if (ends_with(w, n, "sses")) return n - 2;
    bool stays = ends_with(w, n, "ss") || ends_with(w, n, "us") || ends_with(w, n, "is");
    return w[n - 1] == 's' && !stays ? n - 1 : n;
}

/* "resetting" has the consonant doubled, "calling" has its own. */
static size_t cut_doubled(const char *w, size_t n) {
    return n >= 2 && w[n - 1] == w[n - 2] && !strchr("aeiouylsz", w[n - 1]) ? n - 1 : n;
}

static size_t cut_verb(const char *w, size_t n) {
    size_t k = ends_with(w, n, "ing") ? 3 : ends_with(w, n, "ed") ? 2 : 0;
    if (k == 0 || n - k < 3 || !has_vowel(w, n - k)) return n;
    return cut_doubled(w, n - k);
}

mr_str mr_text_stem(mr_str word, char out[MR_TEXT_STEM_MAX]) {
    if (!is_plain(word)) return word;
    size_t n = word.n;
    memcpy(out, word.p, n);
    n = cut_plural(out, n);
    n = cut_verb(out, n);
    if (n > 4 && out[n - 1] == 'e') n--;
    if (n > 5 && ends_with(out, n, "ly")) n -= 2;
    if (ends_with(out, n, "ll")) n--; /* "cancelling" and "canceling" */
    return (mr_str){out, n};
}
