/* The share of the last chats that went to the language model: what the intents and the knowledge base are there
 * to keep within a band. Belongs to one thread. */
#ifndef MR_SHARE_H
#define MR_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#define MR_SHARE_WINDOW 1000 /* chats */
#define MR_SHARE_ENOUGH 200  /* of them, before a share says anything */

/* Begins as {0}. */
typedef struct mr_share {
    uint8_t model[MR_SHARE_WINDOW]; /* 1: went to the model; a ring */
    int n, next, sum;
    bool outside; /* of the band, at the last mr_share_crossed */
} mr_share;

void mr_share_add(mr_share *s, bool model);
/* NAN while there is none. */
double mr_share_value(const mr_share *s);
/* Whether the share has left the band or come back to it since the last call: `outside` tells which. Nothing is
 * outside while there are not enough chats. On its way back a share has to be a hundredth within the band, so
 * that one at the border is not told of again and again. */
bool mr_share_crossed(mr_share *s, double low, double high);

#endif
