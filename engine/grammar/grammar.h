/* Structured output: an answer that is JSON of a given schema, whatever the model would rather say.
 *
 * A schema becomes a tree of nodes once (schema.c). A cursor reads an answer byte by byte along it: a pushdown machine
 * with a bounded stack, and several threads where the schema leaves open which of its branches is being read (machine.c).
 * Before a token is drawn, the machine walks the vocabulary's trie and marks the tokens whose every byte it could take
 * (mask.c); the sampler leaves the others out.
 *
 *     grammar_vocab   the tokens as tries; one a model, made when the first such request comes
 *     grammar         a compiled schema with a bounded cache of masks; shared by the requests that have the same one
 *     grammar_cursor  one answer's place in it
 *
 * There is no dead end: a byte is taken only when some whole value can still follow, so an answer that ends by itself is
 * always valid, and one cut off by max_tokens is the beginning of a valid one. Where the machine cannot keep all
 * possibilities (nesting beyond 64, more than 64 threads) it forgets some: fewer answers are possible, all of them valid.
 *
 * What is written is narrower than what the schema allows: properties in the schema's order, additional ones last and only
 * where additionalProperties is there, blanks only where printers put them, no escapes that spell surrogates or NUL.
 * oneOf is read as anyOf. What cannot be kept is refused by the name of its keyword: the list is in schema.c.
 *
 * Threads: all of it belongs to the engine's thread. Memory: compiling allocates; a cursor's steps and masks do not.
 */
#ifndef ENGINE_GRAMMAR_GRAMMAR_H
#define ENGINE_GRAMMAR_GRAMMAR_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GRAMMAR_SCHEMA_MAX = 256 << 10 /* bytes of a schema */ };

typedef struct grammar_vocab grammar_vocab;

/* The text of a token, or NULL for one that has none; as tokenizer_piece. */
typedef const char *(*grammar_piece_fn)(void *owner, int32_t id, size_t *n, bool *special);

/* Special tokens are left out; `ends` are those that end an answer. Fails when some byte of UTF-8 text has no token. */
grammar_vocab *grammar_vocab_new(int vocab, grammar_piece_fn piece, void *owner, const int32_t *ends,
                                 int nends, engine_error *err);
void grammar_vocab_free(grammar_vocab *v);

typedef struct grammar grammar;

/* schema: the text of a JSON schema; NULL: any JSON object. ENGINE_EINVAL with the keyword and its place in the schema when
 * it cannot be kept. Borrows the vocabulary. Counts references: 1 for the caller. */
grammar *grammar_new(grammar_vocab *v, const char *schema, size_t n, engine_error *err);
grammar *grammar_ref(grammar *g);
void grammar_unref(grammar *g);

/* The compiled grammars of the schemas seen last, so that a schema that comes with every request is compiled once. Grammars
 * are given out with a reference for the caller. */
typedef struct grammar_store grammar_store;
grammar_store *grammar_store_new(grammar_vocab *v, engine_error *err);
void grammar_store_free(grammar_store *s);
grammar *grammar_store_get(grammar_store *s, const char *schema, size_t n, engine_error *err);

/* Tool calls instead of a value. spec: a JSON object as text, with
 *     tools      list of {names: [NAME…], schema: of their arguments (absent: any object), strict: refuse what cannot be kept}
 *     arguments  the key that they stand under; a call is {"name": NAME, KEY: {…}}
 *     open, close  texts around a call; both may be absent
 *     again      the text between two calls; absent: there is one
 * Messages begin with "tools: ". */
grammar *grammar_store_calls(grammar_store *s, const char *spec, size_t n, engine_error *err);

typedef struct grammar_cursor grammar_cursor;

/* At the beginning of an answer. Takes a reference. NULL: out of memory. */
grammar_cursor *grammar_cursor_new(grammar *g);
void grammar_cursor_free(grammar_cursor *c);

/* Moves over text of the answer; false, and stays, when it is not of the grammar. */
bool grammar_cursor_take(grammar_cursor *c, const char *s, size_t n);
/* Bit i of word i / 64 says whether token i may come next. Where a number could end here, the ends of an answer are among
 * them. Borrowed until the next call with any cursor of the same grammar. */
const uint64_t *grammar_cursor_mask(grammar_cursor *c);
/* The value is complete; *extendable: and could still go on, as 12 could become 123. */
bool grammar_cursor_complete(const grammar_cursor *c, bool *extendable);

#endif
