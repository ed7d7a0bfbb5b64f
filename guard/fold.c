/* Letters and gaps by utf8proc; see fold.h. */
#include "guard/fold.h"

#include "text/text_norm.h"

#include <utf8proc.h>

enum { GAP_CHARS_MAX = 12 };

static enum mr_gap gap_of(int32_t c) {
    static const int32_t stops[] = {'\n', '\r', ',', ';', '!', '?', ':', 0x3001, 0x3002, 0x2028, 0x2029};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        if (c == stops[i]) return MR_GAP_STOP;
    }
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_ZS || c == '\t' ? MR_GAP_SPACE : MR_GAP_MARK;
}

/* Accents and strokes over Latin, Greek and Cyrillic letters. */
static bool is_accent(int32_t c) {
    return (c >= 0x0300 && c <= 0x036F) || (c >= 0x0483 && c <= 0x0489) || (c >= 0x1AB0 && c <= 0x1AFF) ||
           (c >= 0x1DC0 && c <= 0x1DFF) || (c >= 0x20D0 && c <= 0x20FF) || (c >= 0xFE20 && c <= 0xFE2F);
}

static bool is_letter(int32_t c, enum mr_letter_kind *kind) {
    utf8proc_category_t k = utf8proc_category(c);
    if (k < UTF8PROC_CATEGORY_LU || k > UTF8PROC_CATEGORY_NO) return false;
    bool number = k >= UTF8PROC_CATEGORY_ND;
    *kind = mr_text_is_dense(c) ? MR_LETTER_DENSE : number ? MR_LETTER_DIGIT : MR_LETTER_WORD;
    return true;
}

static int take(mr_fold *f, int32_t c, mr_letter *out) {
    enum mr_letter_kind kind;
    if (is_accent(c)) return 0;
    if (!is_letter(c, &kind)) {
        enum mr_gap gap = ++f->gap_chars > GAP_CHARS_MAX ? MR_GAP_LONG : gap_of(c);
        if (gap > f->gap) f->gap = gap;
        return 0;
    }
    *out = (mr_letter){mr_text_fold_han(c), f->gap, kind};
    *f = (mr_fold){0};
    return 1;
}

int mr_fold_char(mr_fold *f, mr_str text, size_t at, mr_letter out[MR_FOLD_LETTERS], size_t *used) {
    utf8proc_int32_t plain[MR_FOLD_LETTERS], c = (unsigned char)text.p[at];
    int n = 0, boundary = 0;
    *used = 1;
    if (c < 0x80) {
        if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
        bool letter = c >= 'a' && c <= 'z', digit = c >= '0' && c <= '9';
        if (!letter && !digit) return take(f, c, out);
        *out = (mr_letter){c, f->gap, letter ? MR_LETTER_WORD : MR_LETTER_DIGIT};
        *f = (mr_fold){0};
        return 1;
    }
    *used = mr_text_char(text, at, &c);
    utf8proc_ssize_t parts = utf8proc_decompose_char(
        c, plain, MR_FOLD_LETTERS, UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE,
        &boundary);
    if (parts > MR_FOLD_LETTERS) parts = 0;
    for (utf8proc_ssize_t i = 0; i < parts; i++) n += take(f, plain[i], &out[n]);
    return n;
}
