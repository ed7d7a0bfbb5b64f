/* Text to token ids and back, for byte-level BPE tokenizers in HuggingFace's tokenizer.json form.
 *
 * Ids are identical to those of HuggingFace tokenizers for every input, also for bytes that are not UTF-8 (which are first
 * replaced as Python's errors="replace" does, since the reference takes str). A tokenizer is immutable after load and may be
 * shared by threads; encoding state is the caller's.
 *
 * Control tokens are the added tokens that steer a model: those marked special, those that tokenizer_config.json names
 * (bos_token, eos_token…), and those written as markup, <…> or […], because checkpoints forget to mark some ("<think>",
 * "<｜User｜>"). Other added tokens (runs of spaces, single characters) are text.
 */
#ifndef ENGINE_TEXT_TOKENIZER_H
#define ENGINE_TEXT_TOKENIZER_H

#include "engine/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tokenizer tokenizer;

/* Reads tokenizer.json and, where they are there, tokenizer_config.json and chat_template.jinja of a checkpoint folder. */
tokenizer *tokenizer_load(const char *dir, engine_error *err);
/* The same from memory: tokenizer.json and tokenizer_config.json (NULL: none). */
tokenizer *tokenizer_parse(const char *json, size_t n, const char *config_json, size_t config_n,
                           engine_error *err);
void tokenizer_free(tokenizer *t);

int tokenizer_vocab(const tokenizer *t);     /* highest id + 1 */
int32_t tokenizer_bos(const tokenizer *t);   /* -1: none */
int32_t tokenizer_eos(const tokenizer *t);   /* -1: none */
bool tokenizer_adds_bos(const tokenizer *t); /* post-processor or add_bos_token */
int32_t tokenizer_id(const tokenizer *t,
                     const char *token);                 /* of a whole vocabulary or added token; -1: none */
const char *tokenizer_chat_template(const tokenizer *t); /* Jinja source, or NULL */

/* Appends ids of text[0..n) to out (cap ids). Control tokens in the text are recognised only with parse_special: user
 * text is encoded without, so that nobody can write control tokens. bos is not added: templates do. Returns the number
 * of ids the text needs (> cap when it did not fit), or -1 with err (out of memory, or a word of more than 32 MB).
 * Time is n log n at worst, whatever the text. */
int64_t tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool parse_special, int32_t *out,
                         size_t cap, engine_error *err);

/* The bytes of one token; added tokens give their text, and *special is true for those marked so. NULL for an id that no
 * token has. Borrowed from the tokenizer. */
const char *tokenizer_piece(const tokenizer *t, int32_t id, size_t *n, bool *special);

/* Streaming detokenisation: bytes go in token by token, only whole UTF-8 characters come out. Bytes that can never become
 * one come out as U+FFFD. */
typedef struct detok {
    unsigned char part[4];
    int npart;
} detok;
#define DETOK_MAX(piece_len) ((piece_len)*3 + 12)
/* Writes what is complete into out (at least DETOK_MAX(n) bytes); returns its length. */
size_t detok_push(detok *d, const char *piece, size_t n, char *out);
size_t detok_finish(detok *d, char *out); /* at the end: an incomplete character becomes U+FFFD */

#endif
