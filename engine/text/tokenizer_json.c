/* Reads tokenizer.json and tokenizer_config.json into a tokenizer. Nothing here runs after load. Every malformed content is
 * an error that names the place; what a tokenizer asks for and we do not do is an error too. */
#include "engine/model/files.h"
#include "engine/text/bytelevel.h"
#include "engine/text/json.h"
#include "engine/text/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    VOCAB_MAX = 1 << 21, /* ids; the largest known vocabularies have 2^18 */
    TOKEN_MAX = 1 << 16, /* bytes of one token */
    TOKENIZER_FILE_MAX = 256 << 20,
    CONFIG_FILE_MAX = 16 << 20,
    TEMPLATE_FILE_MAX = 1 << 20,
};

struct reader {
    tokenizer *t;
    const json_t *doc, *config; /* config: NULL when there is none */
    bool *control;              /* by id */
    engine_error *err;
};

static int fail_memory(struct reader *r) {
    return engine_fail(r->err, ENGINE_ENOMEM, "out of memory");
}

static int read_id(struct reader *r, const json_t *v, const char *token, int32_t *id) {
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < 0 || n >= VOCAB_MAX)
        return engine_fail(r->err, ENGINE_EFORMAT, "the id of \"%.60s\" must be a number from 0 to %d", token,
                           VOCAB_MAX - 1);
    *id = (int32_t)n;
    return 0;
}

static int check_length(struct reader *r, const char *token, size_t n) {
    if (n <= TOKEN_MAX) return 0;
    return engine_fail(r->err, ENGINE_EFORMAT, "the token \"%.40s…\" has more than %d bytes", token,
                       TOKEN_MAX);
}

/* ---- model: vocabulary and merges ---- */

/* One pass over the ids before anything is allocated for them. */
static int count_ids(struct reader *r, const json_t *vocab, const json_t *added) {
    const char *token;
    const json_t *v;
    size_t i;
    int32_t id = -1, highest = -1;

    if (added != NULL && !json_is_array(added) && !json_is_null(added))
        return engine_fail(r->err, ENGINE_EFORMAT, "\"added_tokens\" must be a list");
    json_object_foreach((json_t *)vocab, token, v) {
        if (read_id(r, v, token, &id) != 0) return -1;
        if (id > highest) highest = id;
    }
    json_array_foreach(added, i, v) {
        if (read_id(r, json_object_get(v, "id"), "added token", &id) != 0) return -1;
        if (id > highest) highest = id;
    }
    if (highest < 0) return engine_fail(r->err, ENGINE_EFORMAT, "the vocabulary is empty");
    r->t->vocab = highest + 1;
    return 0;
}

static int allocate(struct reader *r, const json_t *vocab, const json_t *added, const json_t *merges) {
    tokenizer *t = r->t;
    size_t words = json_object_size(vocab), tokens = json_array_size(added);

    t->pieces = calloc((size_t)t->vocab, sizeof *t->pieces);
    r->control = calloc((size_t)t->vocab, sizeof *r->control);
    if (t->pieces == NULL || r->control == NULL) return fail_memory(r);
    if (word_table_init(&t->names, words + tokens) != 0) return fail_memory(r);
    return bpe_init(&t->bpe, json_array_size(merges)) == 0 ? 0 : fail_memory(r);
}

static int put_piece(struct reader *r, int32_t id, const char *s, size_t n) {
    tokenizer *t = r->t;
    struct piece *p = &t->pieces[id];

    p->at = t->bytes.len;
    p->len = (uint32_t)n;
    p->known = true;
    text_buf_put(&t->bytes, s, n);
    return t->bytes.failed ? fail_memory(r) : 0;
}

/* A word of the vocabulary, which is spelled in the byte alphabet; one that is not stands for itself. */
static int read_word(struct reader *r, const char *token, int32_t id) {
    char bytes[TOKEN_MAX];
    size_t n = strlen(token), nbytes;

    if (check_length(r, token, n) != 0) return -1;
    if (r->t->pieces[id].known)
        return engine_fail(r->err, ENGINE_EFORMAT, "the id %d of \"%.60s\" is another token's too", id,
                           token);
    if (word_table_add(&r->t->names, token, n, id) != 0) return fail_memory(r);
    if (!bytelevel_bytes(token, n, bytes, &nbytes)) return put_piece(r, id, token, n);
    if (nbytes == 1) r->t->bpe.byte_id[(unsigned char)bytes[0]] = id;
    return put_piece(r, id, bytes, nbytes);
}

/* A byte without a token would become the unknown token; without one, it is left out, which we do. */
static int check_unknown(struct reader *r, const json_t *model) {
    const char *unk;

    if (json_get_string(model, "unk_token", &unk, r->err) != 0) return -1;
    for (int b = 0; unk != NULL && b < 256; b++) {
        bool in_utf8 = b != 0xC0 && b != 0xC1 && b < 0xF5;
        if (in_utf8 && r->t->bpe.byte_id[b] < 0)
            return engine_fail(r->err, ENGINE_EFORMAT,
                               "unk_token is not supported where bytes, such as 0x%02X, have no token", b);
    }
    return 0;
}

static int read_vocab(struct reader *r, const json_t *model) {
    const char *token;
    const json_t *v;

    json_object_foreach(json_object_get(model, "vocab"), token, v) {
        if (read_word(r, token, (int32_t)json_integer_value(v)) != 0) return -1;
    }
    return check_unknown(r, model);
}

/* The words that a whole piece may be. Control tokens are not among them: text would become one. */
static int index_words(struct reader *r, const json_t *vocab) {
    tokenizer *t = r->t;
    char bytes[TOKEN_MAX];
    const char *token;
    const json_t *v;
    size_t n;

    if (word_table_init(&t->words, json_object_size(vocab)) != 0) return fail_memory(r);
    json_object_foreach((json_t *)vocab, token, v) {
        int32_t id = (int32_t)json_integer_value(v);
        if (r->control[id] || !bytelevel_bytes(token, strlen(token), bytes, &n)) continue;
        if (word_table_add(&t->words, bytes, n, id) != 0) return fail_memory(r);
    }
    return 0;
}

/* The two halves of a merge, "a b" or ["a", "b"]. */
static bool merge_halves(const json_t *m, const char **a, size_t *na, const char **b, size_t *nb) {
    if (json_is_array(m) && json_array_size(m) == 2) {
        const json_t *x = json_array_get(m, 0), *y = json_array_get(m, 1);
        *a = json_string_value(x);
        *na = json_string_length(x);
        *b = json_string_value(y);
        *nb = json_string_length(y);
        return *a != NULL && *b != NULL;
    }
    *a = json_string_value(m);
    const char *space = *a ? strchr(*a, ' ') : NULL;
    if (space == NULL || strchr(space + 1, ' ') != NULL) return false;
    *na = (size_t)(space - *a);
    *b = space + 1;
    *nb = json_string_length(m) - *na - 1;
    return true;
}

static int read_merge(struct reader *r, const json_t *m, uint32_t rank) {
    tokenizer *t = r->t;
    const char *a, *b;
    size_t na, nb;
    char whole[2 * TOKEN_MAX];

    if (!merge_halves(m, &a, &na, &b, &nb))
        return engine_fail(r->err, ENGINE_EFORMAT, "merge %u is neither \"a b\" nor [\"a\", \"b\"]", rank);
    int32_t left = word_table_find(&t->names, a, na), right = word_table_find(&t->names, b, nb), id = -1;
    if (left >= 0 && right >= 0) {
        memcpy(whole, a, na);
        memcpy(whole + na, b, nb);
        id = word_table_find(&t->names, whole, na + nb);
    }
    if (id < 0)
        return engine_fail(r->err, ENGINE_EFORMAT,
                           "merge %u (\"%.*s\" and \"%.40s\") is not of the vocabulary", rank,
                           na < 40 ? (int)na : 40, a, b);
    if (!r->control[id]) bpe_add(&t->bpe, left, right, rank, id);
    return 0;
}

static int read_merges(struct reader *r, const json_t *merges) {
    const json_t *m;
    size_t i;

    json_array_foreach(merges, i, m) {
        if (read_merge(r, m, (uint32_t)i) != 0) return -1;
    }
    return 0;
}

/* Options of the BPE model that change ids and that we do not have. */
static int check_options(struct reader *r, const json_t *model) {
    const char *prefix, *suffix;
    bool fallback = false;
    const json_t *dropout = json_object_get(model, "dropout");

    if (json_get_bool(model, "byte_fallback", &fallback, r->err) != 0) return -1;
    if (json_get_string(model, "continuing_subword_prefix", &prefix, r->err) != 0) return -1;
    if (json_get_string(model, "end_of_word_suffix", &suffix, r->err) != 0) return -1;
    if (fallback)
        return engine_fail(r->err, ENGINE_EFORMAT, "byte_fallback (SentencePiece) is not supported");
    if ((prefix && *prefix) || (suffix && *suffix))
        return engine_fail(r->err, ENGINE_EFORMAT,
                           "continuing_subword_prefix and end_of_word_suffix are not supported");
    if (json_is_number(dropout) && json_number_value(dropout) != 0)
        return engine_fail(r->err, ENGINE_EFORMAT, "dropout is not supported");
    return 0;
}

static int check_model(struct reader *r, const json_t *model) {
    const char *type = json_type_of(model);

    if (!json_is_object(model)) return engine_fail(r->err, ENGINE_EFORMAT, "it must be an object");
    if (type != NULL && strcmp(type, "BPE") != 0)
        return engine_fail(r->err, ENGINE_EFORMAT, "the type %.40s is not supported: only BPE is", type);
    if (!json_is_object(json_object_get(model, "vocab")) || !json_is_array(json_object_get(model, "merges")))
        return engine_fail(r->err, ENGINE_EFORMAT, "it needs \"vocab\", an object, and \"merges\", a list");
    return check_options(r, model);
}

/* ---- added tokens ---- */

/* Written as markup: a control token even where the checkpoint does not mark it special. */
static bool is_markup(const char *s, size_t n) {
    return n >= 3 && ((s[0] == '<' && s[n - 1] == '>') || (s[0] == '[' && s[n - 1] == ']'));
}

/* What tokenizer_config.json says a token is: "text" or {"content": "text", …}. */
static const char *config_token(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);

    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

/* Tokens that the config gives a role are special, as transformers makes them. */
static bool has_role(const json_t *config, const char *content) {
    static const char *const roles[] = {"bos_token", "eos_token", "pad_token", "unk_token",
                                        "sep_token", "cls_token", "mask_token"};
    const json_t *more = json_object_get(config, "additional_special_tokens"), *v;
    size_t i;

    for (i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        const char *token = config_token(config, roles[i]);
        if (token != NULL && strcmp(token, content) == 0) return true;
    }
    json_array_foreach(more, i, v) {
        const char *token = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
        if (token != NULL && strcmp(token, content) == 0) return true;
    }
    return false;
}

/* Puts the token into the set of those that are looked for in the raw or in the normalized text. */
static int add_to_set(struct reader *r, added_token *a, bool normalized) {
    text_buf out = {0};
    int rc = normalized ? normalize(r->t->form, a->content, a->len, &out, r->err) : 0;

    if (rc == 1) {
        a->content = out.data;
        a->len = out.len;
    }
    if (rc >= 0) rc = added_add(normalized ? &r->t->normalized : &r->t->raw, a) == 0 ? 0 : fail_memory(r);
    text_buf_done(&out);
    return rc;
}

static int read_added_flags(struct reader *r, const json_t *o, added_token *a, bool *special,
                            bool *normalized) {
    if (json_get_bool(o, "special", special, r->err) != 0) return -1;
    *normalized = !*special;
    if (json_get_bool(o, "normalized", normalized, r->err) != 0) return -1;
    if (json_get_bool(o, "single_word", &a->single_word, r->err) != 0) return -1;
    if (json_get_bool(o, "lstrip", &a->lstrip, r->err) != 0) return -1;
    return json_get_bool(o, "rstrip", &a->rstrip, r->err);
}

/* A token that the vocabulary has keeps the vocabulary's id, as in the reference. */
static int choose_id(struct reader *r, const json_t *o, added_token *a) {
    tokenizer *t = r->t;

    a->id = word_table_find(&t->names, a->content, a->len);
    if (a->id >= 0) return 0;
    a->id = (int32_t)json_integer_value(json_object_get(o, "id"));
    if (t->pieces[a->id].known)
        return engine_fail(r->err, ENGINE_EFORMAT, "the id %d of \"%.60s\" is another token's too", a->id,
                           a->content);
    return word_table_add(&t->names, a->content, a->len, a->id) == 0 ? 0 : fail_memory(r);
}

static int read_added(struct reader *r, const json_t *o) {
    tokenizer *t = r->t;
    const char *content;
    bool special = false, normalized;
    added_token a = {0};

    if (json_get_string(o, "content", &content, r->err) != 0) return -1;
    if (content == NULL) return engine_fail(r->err, ENGINE_EFORMAT, "it needs a \"content\"");
    if (*content == 0) return 0;
    if (check_length(r, content, strlen(content)) != 0) return -1;
    if (read_added_flags(r, o, &a, &special, &normalized) != 0) return -1;
    a.content = (char *)content;
    a.len = strlen(content);
    if (choose_id(r, o, &a) != 0) return -1;
    special = special || has_role(r->config, content);
    a.control = special || is_markup(content, a.len);
    r->control[a.id] = a.control;
    if (put_piece(r, a.id, content, a.len) != 0) return -1;
    t->pieces[a.id].special = special;
    return add_to_set(r, &a, normalized);
}

static int read_all_added(struct reader *r, const json_t *list) {
    const json_t *o;
    size_t i;

    json_array_foreach(list, i, o) {
        if (read_added(r, o) != 0) return engine_fail_in(r->err, "added_tokens: number %zu", i + 1);
    }
    added_sort(&r->t->raw);
    added_sort(&r->t->normalized);
    return 0;
}

/* ---- the other parts ---- */

static int read_normalizer(struct reader *r, const json_t *spec) {
    const char *type = json_type_of(spec);
    const json_t *list = json_object_get(spec, "normalizers"), *one;
    size_t i;

    if (spec == NULL || json_is_null(spec)) return 0;
    if (type != NULL && strcmp(type, "Sequence") == 0 && json_is_array(list)) {
        json_array_foreach(list, i, one) {
            if (read_normalizer(r, one) != 0) return -1;
        }
        return 0;
    }
    if (type != NULL && strcmp(type, "NFKC") == 0) {
        r->t->form = NORMALIZE_NFKC;
    } else if (type != NULL && strcmp(type, "NFC") == 0) {
        if (r->t->form == NORMALIZE_NONE) r->t->form = NORMALIZE_NFC;
    } else {
        return engine_fail(r->err, ENGINE_EFORMAT,
                           "the type %.40s is not supported (NFC, NFKC and Sequence are)",
                           type ? type : "(missing)");
    }
    return 0;
}

/* The special token before the text, where a TemplateProcessing puts one. */
static int read_template_processing(struct reader *r, const json_t *spec) {
    const json_t *single = json_object_get(spec, "single");
    const json_t *special = json_object_get(json_array_get(single, 0), "SpecialToken");
    const char *token = json_string_value(json_object_get(special, "id"));

    if (!json_is_array(single))
        return engine_fail(r->err, ENGINE_EFORMAT, "TemplateProcessing needs a list \"single\"");
    if (special == NULL) return 0;
    int32_t id = token ? tokenizer_id(r->t, token) : -1;
    if (id < 0)
        return engine_fail(r->err, ENGINE_EFORMAT, "TemplateProcessing names a token that is not there");
    r->t->adds_bos = true;
    if (r->t->bos < 0) r->t->bos = id;
    return 0;
}

static int read_post_processor(struct reader *r, const json_t *spec) {
    const char *type = json_type_of(spec);
    const json_t *list = json_object_get(spec, "processors"), *one;
    size_t i;

    if (spec == NULL || json_is_null(spec)) return 0;
    if (type != NULL && strcmp(type, "TemplateProcessing") == 0) return read_template_processing(r, spec);
    if (type != NULL && strcmp(type, "ByteLevel") == 0) return 0;
    if (type == NULL || strcmp(type, "Sequence") != 0 || !json_is_array(list))
        return engine_fail(r->err, ENGINE_EFORMAT,
                           "the type %.40s is not supported (TemplateProcessing, ByteLevel and Sequence are)",
                           type ? type : "(missing)");
    json_array_foreach(list, i, one) {
        if (read_post_processor(r, one) != 0) return -1;
    }
    return 0;
}

static bool decodes_bytes(const json_t *spec) {
    const char *type = json_type_of(spec);
    const json_t *one;
    size_t i;

    if (type == NULL) return false;
    if (strcmp(type, "ByteLevel") == 0) return true;
    json_array_foreach(json_object_get(spec, "decoders"), i, one) {
        if (decodes_bytes(one)) return true;
    }
    return false;
}

static int check_decoder(struct reader *r, const json_t *spec) {
    if (spec == NULL || json_is_null(spec) || decodes_bytes(spec)) return 0;
    return engine_fail(r->err, ENGINE_EFORMAT, "only ByteLevel is supported");
}

/* ---- tokenizer_config.json ---- */

static int read_role(struct reader *r, const char *key, int32_t *id) {
    const char *token = config_token(r->config, key);

    *id = -1;
    if (token == NULL) return 0;
    *id = tokenizer_id(r->t, token);
    if (*id >= 0) return 0;
    return engine_fail(r->err, ENGINE_EFORMAT, "%s \"%.60s\" is not a token of tokenizer.json", key, token);
}

/* The template itself, or of a list of named ones the one called "default". */
static const char *template_source(const json_t *v) {
    const json_t *one;
    size_t i;

    json_array_foreach(v, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(one, "template"));
    }
    return json_string_value(v);
}

static int read_config(struct reader *r) {
    const char *source = template_source(json_object_get(r->config, "chat_template"));

    if (read_role(r, "bos_token", &r->t->bos) != 0 || read_role(r, "eos_token", &r->t->eos) != 0) return -1;
    if (source == NULL) return 0;
    r->t->chat_template = strdup(source);
    return r->t->chat_template ? 0 : fail_memory(r);
}

/* ---- all of it ---- */

static int read_model(struct reader *r) {
    const json_t *model = json_object_get(r->doc, "model");
    const json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    const json_t *added = json_object_get(r->doc, "added_tokens");
    bool whole_words = false;

    if (check_model(r, model) != 0) return engine_fail_in(r->err, "model");
    if (json_get_bool(model, "ignore_merges", &whole_words, r->err) != 0)
        return engine_fail_in(r->err, "model");
    if (count_ids(r, vocab, added) != 0 || allocate(r, vocab, added, merges) != 0) return -1;
    if (read_vocab(r, model) != 0) return engine_fail_in(r->err, "model");
    /* merges and words leave out control tokens, so the added tokens come first */
    if (read_all_added(r, added) != 0) return -1;
    if (read_merges(r, merges) != 0) return engine_fail_in(r->err, "model");
    return whole_words ? index_words(r, vocab) : 0;
}

static int read_tokenizer(struct reader *r) {
    const json_t *doc = r->doc;

    if (read_normalizer(r, json_object_get(doc, "normalizer")) != 0)
        return engine_fail_in(r->err, "normalizer");
    if (read_model(r) != 0) return -1;
    r->t->pretokenizer = pretokenizer_new(json_object_get(doc, "pre_tokenizer"), r->err);
    if (r->t->pretokenizer == NULL) return engine_fail_in(r->err, "pre_tokenizer");
    if (check_decoder(r, json_object_get(doc, "decoder")) != 0) return engine_fail_in(r->err, "decoder");
    return 0;
}

static int read_rest(struct reader *r) {
    if (read_config(r) != 0) return engine_fail_in(r->err, "tokenizer_config.json");
    if (read_post_processor(r, json_object_get(r->doc, "post_processor")) != 0)
        return engine_fail_in(r->err, "tokenizer.json: post_processor");
    /* the Llama classes of transformers rebuild their post-processor by this */
    if (json_get_bool(r->config, "add_bos_token", &r->t->adds_bos, r->err) != 0)
        return engine_fail_in(r->err, "tokenizer_config.json");
    return 0;
}

static json_t *parse(const char *json, size_t n, const char *name, engine_error *err) {
    json_error_t why;
    json_t *doc = json_loadb(json, n, 0, &why);

    if (doc == NULL) {
        engine_fail(err, ENGINE_EFORMAT, "%s is not JSON: line %d: %s", name, why.line, why.text);
    } else if (!json_is_object(doc)) {
        engine_fail(err, ENGINE_EFORMAT, "%s must be a JSON object", name);
        json_decref(doc);
        doc = NULL;
    }
    return doc;
}

tokenizer *tokenizer_parse(const char *json, size_t n, const char *config_json, size_t config_n,
                           engine_error *err) {
    struct reader r = {.err = err};
    json_t *doc = parse(json, n, "tokenizer.json", err), *config = NULL;
    int rc = -1;

    if (doc == NULL) goto out;
    if (config_json != NULL) {
        config = parse(config_json, config_n, "tokenizer_config.json", err);
        if (config == NULL) goto out;
    }
    r.t = calloc(1, sizeof *r.t);
    if (r.t == NULL) {
        rc = fail_memory(&r);
        goto out;
    }
    r.t->bos = r.t->eos = -1;
    r.doc = doc;
    r.config = config;
    rc = read_tokenizer(&r) == 0 ? read_rest(&r) : engine_fail_in(err, "tokenizer.json");
out:
    json_decref(doc);
    json_decref(config);
    free(r.control);
    if (rc == 0) return r.t;
    tokenizer_free(r.t);
    return NULL;
}

tokenizer *tokenizer_load(const char *dir, engine_error *err) {
    char *json = NULL, *config = NULL, *source = NULL;
    size_t n, config_n = 0, source_n;
    tokenizer *t = NULL;

    json = checkpoint_read(dir, "tokenizer.json", TOKENIZER_FILE_MAX, &n, err);
    if (json == NULL) goto out;
    if (checkpoint_has(dir, "tokenizer_config.json")) {
        config = checkpoint_read(dir, "tokenizer_config.json", CONFIG_FILE_MAX, &config_n, err);
        if (config == NULL) goto out;
    }
    /* where newer transformers keep the template; it goes before the config's */
    if (checkpoint_has(dir, "chat_template.jinja")) {
        source = checkpoint_read(dir, "chat_template.jinja", TEMPLATE_FILE_MAX, &source_n, err);
        if (source == NULL) goto out;
    }
    t = tokenizer_parse(json, n, config, config_n, err);
    if (t == NULL) {
        engine_fail_in(err, "%s", dir);
    } else if (source != NULL) {
        free(t->chat_template);
        t->chat_template = source;
        source = NULL;
    }
out:
    free(json);
    free(config);
    free(source);
    return t;
}
