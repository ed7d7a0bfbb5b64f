/* Numbers within bounds, digit by digit: a digit is taken only when some number of the range can still come of it. */
#ifndef ENGINE_GRAMMAR_NUMBER_H
#define ENGINE_GRAMMAR_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

__extension__ typedef __int128 number_wide; /* 38 digits; used up to 32 */

enum { NUMBER_INT_DIGITS = 19, NUMBER_FRACTION_DIGITS = 12 };

/* Numbers with at most `fraction` digits after the point, each an integer when scaled by ten to that power. */
typedef struct number_range {
    number_wide lo, hi;   /* scaled, both included */
    number_wide multiple; /* scaled; 1: any */
    uint8_t fraction;
    bool exponent; /* 1e9 may be written: only where nothing bounds the value */
} number_range;

typedef struct number_state {
    number_wide v;         /* the digits so far */
    uint8_t digits, after; /* before and after the point */
    bool negative, point;
    uint8_t exponent; /* 0: none; 1: after e; 2: after its sign; 3, 4: digits */
} number_state;

/* What bounds a number: as the keywords say. NaN: not given. */
typedef struct number_bounds {
    bool integer;
    double minimum, maximum, exclusive_minimum, exclusive_maximum, multiple_of;
} number_bounds;

number_range number_range_of(const number_bounds *b);
/* Is there any number in it? */
bool number_possible(const number_range *r);
/* False, with *s as it was, when c cannot be next. */
bool number_step(const number_range *r, number_state *s, unsigned char c);
/* Is what has been read a number of the range? */
bool number_complete(const number_range *r, const number_state *s);

#endif
