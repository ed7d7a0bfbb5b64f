/* From the bytes of a word to a number, for vocabularies of some hundred thousand words. Built once, then only read. */
#ifndef ENGINE_TEXT_WORDTABLE_H
#define ENGINE_TEXT_WORDTABLE_H

#include "engine/text/buf.h"

#include <stdint.h>

struct word_slot {
    size_t at;
    uint32_t len;
    int32_t id; /* -1: free */
};

typedef struct word_table {
    struct word_slot *slots;
    size_t mask, used;
    text_buf bytes;
} word_table;

/* Room for n words. -1: out of memory. */
int word_table_init(word_table *t, size_t n);
void word_table_done(word_table *t);
/* Copies the word; a word that is there already keeps its first id. At most the n of init. -1: out of memory. */
int word_table_add(word_table *t, const char *s, size_t n, int32_t id);
int32_t word_table_find(const word_table *t, const char *s, size_t n); /* -1: not there */

#endif
