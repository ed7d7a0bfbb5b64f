/* What a tokenizer is made of: filled by tokenizer_json.c, used by tokenizer.c. */
#ifndef ENGINE_TEXT_TOKENIZER_INTERNAL_H
#define ENGINE_TEXT_TOKENIZER_INTERNAL_H

#include "engine/text/added.h"
#include "engine/text/bpe.h"
#include "engine/text/normalize.h"
#include "engine/text/pretokenize.h"
#include "engine/text/tokenizer.h"
#include "engine/text/wordtable.h"

/* One id's text. */
struct piece {
    size_t at; /* in tokenizer.bytes */
    uint32_t len;
    bool known, special;
};

struct tokenizer {
    text_buf bytes;
    struct piece *pieces;
    int vocab;

    word_table names; /* tokens as tokenizer.json spells them */
    word_table
        words; /* their bytes; filled only with ignore_merges: a piece that is a word takes its id at once */
    bpe bpe;
    pretokenizer *pretokenizer;
    normalize_form form;
    /* Added tokens: those that are looked for in the text as it is, then those in the normalized text between them. */
    added_set raw, normalized;

    int32_t bos, eos;
    bool adds_bos;
    char *chat_template;
};

#endif
