/* What an intent is told by: the hashed features of a message.
 *
 * Words, pairs of neighbouring words and of words with one between them (the ends of the message count as words),
 * and runs of one to five characters within a word, with the space on either side. In scripts written without
 * spaces every character is a word. A number is a word of its own, and beside others one of so many digits. A feature is 32 bits of hash; the lowest bit tells its kind. Pure functions;
 * any thread.
 */
#ifndef MR_INTENT_TEXT_H
#define MR_INTENT_TEXT_H

#include "base/str.h"

#define MR_INTENT_TEXT_MAX     1000 /* bytes in words form (text_norm.h); what follows is not looked at */
#define MR_INTENT_FEATURES_MAX (8 * (MR_INTENT_TEXT_MAX + 2))

typedef enum { MR_INTENT_WORD, MR_INTENT_RUN, MR_INTENT_KINDS } mr_intent_kind;

typedef struct mr_intent_feature {
    uint32_t hash;  /* never 0 */
    uint32_t times; /* that the message has it */
} mr_intent_feature;

static inline mr_intent_kind mr_intent_kind_of(uint32_t hash) {
    return (mr_intent_kind)(hash & 1);
}

typedef struct mr_intent_features {
    int n;
    int words; /* tokens of the message */
    mr_intent_feature v[MR_INTENT_FEATURES_MAX];
    uint16_t slots[2 * 8192]; /* open addressing by hash: index into v + 1, 0 = free */
} mr_intent_features;

/* The distinct features of a text in words form, in the order in which they come. */
void mr_intent_features_of(mr_str words, mr_intent_features *out);

#endif
