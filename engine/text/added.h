/* Added tokens: strings that are cut out of the text before anything else looks at it. */
#ifndef ENGINE_TEXT_ADDED_H
#define ENGINE_TEXT_ADDED_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct added_token {
    char *content; /* owned by the set */
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip;
    bool control; /* not for users to write: see tokenizer.h */
} added_token;

/* Tokens that are looked for together; sorted by content once all are in. Zeroed is empty. */
typedef struct added_set {
    added_token *tokens;
    size_t n, cap;
    bool first[256]; /* bytes that a token begins with */
} added_set;

/* Copies the content. -1: out of memory. */
int added_add(added_set *a, const added_token *t);
void added_sort(added_set *a);
void added_done(added_set *a);

typedef struct added_sink {
    void *ctx;
    int (*text)(void *ctx, const char *s, size_t n,
                engine_error *err); /* what lies between tokens; never empty */
    void (*token)(void *ctx, int32_t id);
} added_sink;

/* Cuts s[0..n), valid UTF-8, from left to right, longest token first. Without with_control, control tokens are found and
 * left in the text. */
int added_split(const added_set *a, const char *s, size_t n, bool with_control, const added_sink *to,
                engine_error *err);

#endif
