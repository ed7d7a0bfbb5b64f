/* Encoding: added tokens are cut out, the text between is normalized, cut into pieces, and each piece goes through BPE.
 * A tokenizer is read-only here; one call's state is an encoder on the stack. */
#include "engine/text/tokenizer_internal.h"

#include "engine/text/utf8.h"

#include <stdlib.h>
#include <string.h>

void tokenizer_free(tokenizer *t) {
    if (t == NULL) return;
    text_buf_done(&t->bytes);
    free(t->pieces);
    word_table_done(&t->names);
    word_table_done(&t->words);
    bpe_done(&t->bpe);
    pretokenizer_free(t->pretokenizer);
    added_done(&t->raw);
    added_done(&t->normalized);
    free(t->chat_template);
    free(t);
}

int tokenizer_vocab(const tokenizer *t) {
    return t->vocab;
}

int32_t tokenizer_bos(const tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t) {
    return t->eos;
}

bool tokenizer_adds_bos(const tokenizer *t) {
    return t->adds_bos;
}

const char *tokenizer_chat_template(const tokenizer *t) {
    return t->chat_template;
}

int32_t tokenizer_id(const tokenizer *t, const char *token) {
    return word_table_find(&t->names, token, strlen(token));
}

const char *tokenizer_piece(const tokenizer *t, int32_t id, size_t *n, bool *special) {
    if (id < 0 || id >= t->vocab || !t->pieces[id].known) return NULL;
    *n = t->pieces[id].len;
    *special = t->pieces[id].special;
    return t->bytes.data + t->pieces[id].at;
}

struct encoder {
    const tokenizer *t;
    bool with_control;
    bpe_work work;
    id_list ids;
};

static void on_token(void *ctx, int32_t id) {
    id_list_put(&((struct encoder *)ctx)->ids, id);
}

static int on_piece(void *ctx, const char *s, size_t n, engine_error *err) {
    struct encoder *e = ctx;
    int32_t id = word_table_find(&e->t->words, s, n);

    if (id < 0) return bpe_encode(&e->t->bpe, &e->work, s, n, &e->ids, err);
    id_list_put(&e->ids, id);
    return 0;
}

static int on_normalized(void *ctx, const char *s, size_t n, engine_error *err) {
    return pretokenizer_run(((struct encoder *)ctx)->t->pretokenizer, s, n, on_piece, ctx, err);
}

/* Text between the added tokens that are looked for as they are written. */
static int on_raw(void *ctx, const char *s, size_t n, engine_error *err) {
    struct encoder *e = ctx;
    text_buf out = {0};
    const added_sink sink = {.ctx = e, .text = on_normalized, .token = on_token};

    int rc = normalize(e->t->form, s, n, &out, err);
    if (rc == 1)
        rc = added_split(&e->t->normalized, out.data, out.len, e->with_control, &sink, err);
    else if (rc == 0)
        rc = added_split(&e->t->normalized, s, n, e->with_control, &sink, err);
    text_buf_done(&out);
    return rc;
}

int64_t tokenizer_encode(const tokenizer *t, const char *text, size_t n, bool parse_special, int32_t *out,
                         size_t cap, engine_error *err) {
    struct encoder e = {.t = t, .with_control = parse_special, .ids = {.out = out, .cap = cap}};
    const added_sink sink = {.ctx = &e, .text = on_raw, .token = on_token};
    char *repaired = NULL;
    int rc;

    if (utf8_valid_prefix(text, n) != n) {
        repaired = n < SIZE_MAX / UTF8_REPLACEMENT_LEN ? malloc(n * UTF8_REPLACEMENT_LEN) : NULL;
        if (repaired == NULL)
            return engine_fail(err, ENGINE_ENOMEM, "out of memory for %zu bytes of text", n);
        n = utf8_repair(text, n, repaired);
        text = repaired;
    }
    rc = added_split(&t->raw, text, n, parse_special, &sink, err);
    bpe_work_done(&e.work);
    free(repaired);
    return rc == 0 ? e.ids.n : -1;
}
