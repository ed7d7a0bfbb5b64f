/* A vocabulary of the 256 bytes and an end, and a grammar's choice among them: what the fuzzers of structured output draw from. */
#ifndef FUZZ_ENGINE_BYTES_H
#define FUZZ_ENGINE_BYTES_H

#include "engine/grammar/grammar.h"

enum { BYTES_END = 256, BYTES_VOCAB };

grammar_vocab *bytes_vocab(void); /* made once */
/* The nth of the allowed tokens, counted round and round; -1: none is. */
int32_t bytes_nth(const uint64_t *mask, unsigned n);

#endif
