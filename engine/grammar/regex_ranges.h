/* Sets of code points, as sorted ranges. */
#ifndef ENGINE_GRAMMAR_REGEX_RANGES_H
#define ENGINE_GRAMMAR_REGEX_RANGES_H

#include <stdbool.h>
#include <stdint.h>

enum { RANGES_MAX = 256 };

typedef struct code_range {
    uint32_t lo, hi;
} code_range;

typedef struct code_set {
    code_range v[RANGES_MAX];
    int n;
    bool full; /* more ranges were added than there is room for */
} code_set;

void code_set_add(code_set *s, uint32_t lo, uint32_t hi);
/* All code points but these, without surrogates. */
void code_set_invert(code_set *s);

/* The sequences of byte ranges that spell lo..hi in UTF-8: fn is called with each. */
typedef struct byte_range {
    uint8_t lo, hi;
} byte_range;
typedef void (*utf8_sequence_fn)(void *ctx, const byte_range *r, int n);
void code_range_sequences(code_range r, utf8_sequence_fn fn, void *ctx);

#endif
