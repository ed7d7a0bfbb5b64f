/* Text as lists of words compare it: letters and digits alone, each in its plainest form, and what stood between them.
 *
 * A letter is NFKC with case folded, accents taken off and traditional Chinese characters made simplified ones. What
 * cannot be seen is dropped without a trace; anything else is a gap in front of the next letter, of which the kind is kept,
 * so that `b-a-d` and `b a d` can be told from two ordinary words. It goes character by character, so text may come in
 * pieces. Pure state, no memory of its own; one thread at a time.
 */
#ifndef MR_GUARD_FOLD_H
#define MR_GUARD_FOLD_H

#include "base/str.h"

/* What stands in front of a letter: the strongest of it. */
enum mr_gap {
    MR_GAP_NONE,
    MR_GAP_MARK,  /* symbols, and points within a word */
    MR_GAP_SPACE, /* spaces */
    MR_GAP_STOP,  /* the ends of clauses and lines */
    MR_GAP_LONG,  /* so much that what follows belongs to something else */
};

enum mr_letter_kind { MR_LETTER_WORD, MR_LETTER_DIGIT, MR_LETTER_DENSE };

typedef struct mr_letter {
    int32_t c;
    enum mr_gap gap;
    enum mr_letter_kind kind;
} mr_letter;

typedef struct mr_fold {
    enum mr_gap gap; /* since the last letter */
    int gap_chars;
} mr_fold;

#define MR_FOLD_LETTERS 32 /* of one character, at most */

/* The character at `at`: its letters, mostly one, and how many; *used are its bytes. */
int mr_fold_char(mr_fold *f, mr_str text, size_t at, mr_letter out[MR_FOLD_LETTERS], size_t *used);

#endif
