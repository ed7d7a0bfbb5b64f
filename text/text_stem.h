/* The stem of an English word, lightly: plural and third person, -ing, -ed, -ly, the last e and the second l go, so that "resetting",
 * "resets" and "reset" are one word. It cuts too little rather than too much: a stem is compared, never shown.
 * Pure functions; any thread.
 */
#ifndef MR_TEXT_STEM_H
#define MR_TEXT_STEM_H

#include "base/str.h"

#define MR_TEXT_STEM_MAX 32 /* bytes; what is longer is no word to be stemmed */

/* Of a word in words form (text_norm.h). One that is not made of a to z alone is its own stem. Borrows from `word`, or is
 * in `out`. */
mr_str mr_text_stem(mr_str word, char out[MR_TEXT_STEM_MAX]);

#endif
