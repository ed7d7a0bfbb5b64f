/* A schema's `pattern` as an automaton over the bytes of a string's characters.
 *
 * ECMAScript's syntax without what is not regular (back-references), looks around (?= ?! ?<= \b), or names properties (\p):
 * literals and escapes, ., classes, \d \w \s and their opposites, groups, |, * + ? {n,m}, ^ at the beginning and $ at the
 * end of a branch. \d, \w, \s take ASCII only, and their opposites leave out all that some reader's Unicode would not: the
 * strings match under every dialect. As in schemas, a pattern that is not anchored may stand anywhere in the string. */
#ifndef ENGINE_GRAMMAR_REGEX_H
#define ENGINE_GRAMMAR_REGEX_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Only states from which the end can be reached are in it. */
typedef struct regex_dfa {
    uint16_t (*next)[256]; /* state 0 is the dead one, 1 the first */
    bool *accepts;
    uint32_t n;
} regex_dfa;

struct grammar_arena;

/* Strings of min to max characters that match. *out: NULL where there is no such string. -1 with err. */
int regex_compile(const char *pattern, size_t n, uint32_t min, uint32_t max, struct grammar_arena *a,
                  const regex_dfa **out, engine_error *err);

#endif
