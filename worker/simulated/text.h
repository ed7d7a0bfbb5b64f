/* What a simulated engine writes: tokens that depend on the request and on the tokens before them, and on nothing else.
 *
 * So the same request gives the same answer on every host of the same text seed, and an answer goes on exactly from any of
 * its tokens. Some tokens are several bytes of UTF-8, and some only a part of a character, as with real vocabularies.
 *
 * Pure; no memory is taken.
 */
#ifndef MR_SIM_TEXT_H
#define MR_SIM_TEXT_H

#include "base/str.h"

typedef struct mr_sim_text {
    uint64_t state;
    int64_t last; /* the token before; -1: none */
} mr_sim_text;

/* key: of everything that the answer depends on. */
void mr_sim_text_init(mr_sim_text *t, uint64_t key);
/* The token that comes next. last: it ends the answer, so it is no half of a character; wrong: another one, as broken
 * hardware would draw it. */
int64_t mr_sim_text_next(const mr_sim_text *t, bool last, bool wrong);
void mr_sim_text_take(mr_sim_text *t, int64_t token);

/* Its bytes; an empty string for what is no token. */
mr_str mr_sim_token_bytes(int64_t token);
/* Its bytes begin a character that only the next token completes. */
bool mr_sim_token_is_half(int64_t token);

#endif
