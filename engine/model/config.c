/* Reader of config.json and generation_config.json as HuggingFace writes them, of transformers 4 (rope_scaling,
 * torch_dtype) and 5 (rope_parameters, dtype).
 *
 * Called while a model opens, from one thread; keeps nothing. Whatever would make the forward pass differ from the
 * reference (an unknown activation, a scaling that is not here, weights quantised in another way) is an error, never ignored.
 */
#include "engine/model/files.h"
#include "engine/model/model.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_FILE_MAX (16u << 20)

typedef struct reader {
    const json_t *root;
    engine_error *err;
} reader;

static bool has(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v);
}

/* A count; dflt < 0: required. */
static int read_int(reader *r, const char *key, int64_t dflt, int64_t min, int64_t max, int *out) {
    const json_t *v = json_object_get(r->root, key);
    if (!has(r->root, key)) {
        if (dflt < 0) return engine_fail(r->err, ENGINE_EFORMAT, "\"%s\" is missing", key);
        *out = (int)dflt;
        return 0;
    }
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < min || n > max) {
        return engine_fail(r->err, ENGINE_EFORMAT, "\"%s\" must be a whole number from %lld to %lld", key,
                           (long long)min, (long long)max);
    }
    *out = (int)n;
    return 0;
}

static int read_bool(reader *r, const char *key, bool dflt, bool *out) {
    const json_t *v = json_object_get(r->root, key);
    if (has(r->root, key) && !json_is_boolean(v)) {
        return engine_fail(r->err, ENGINE_EFORMAT, "\"%s\" must be true or false", key);
    }
    *out = has(r->root, key) ? json_is_true(v) : dflt;
    return 0;
}

/* A finite number above zero in an object; NAN as default: required. */
static int read_positive(reader *r, const json_t *o, const char *key, double dflt, double *out) {
    const json_t *v = json_object_get(o, key);
    if (!has(o, key)) {
        if (isnan(dflt)) return engine_fail(r->err, ENGINE_EFORMAT, "\"%s\" is missing", key);
        *out = dflt;
        return 0;
    }
    *out = json_number_value(v);
    if (!json_is_number(v) || !(*out > 0) || !isfinite(*out)) {
        return engine_fail(r->err, ENGINE_EFORMAT, "\"%s\" must be a number above zero", key);
    }
    return 0;
}

static int read_architecture(reader *r, model_config *c) {
    static const struct {
        const char *architecture, *type;
        bool qkv_bias;
    } known[] = {{"LlamaForCausalLM", "llama", false}, {"Qwen2ForCausalLM", "qwen2", true}};
    const char *name = json_string_value(json_array_get(json_object_get(r->root, "architectures"), 0));
    const char *type = json_string_value(json_object_get(r->root, "model_type"));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (name ? strcmp(name, known[i].architecture) : !type || strcmp(type, known[i].type)) continue;
        snprintf(c->architecture, sizeof c->architecture, "%s", known[i].architecture);
        c->qkv_bias = known[i].qkv_bias;
        return 0;
    }
    return engine_fail(
        r->err, ENGINE_EFORMAT,
        "architecture %.60s is not supported: use a LlamaForCausalLM or Qwen2ForCausalLM checkpoint",
        name   ? name
        : type ? type
               : "(none named)");
}

static int read_shape(reader *r, model_config *c) {
    if (read_int(r, "hidden_size", -1, 2, 1 << 17, &c->hidden) ||
        read_int(r, "num_hidden_layers", -1, 1, 1024, &c->layers) ||
        read_int(r, "num_attention_heads", -1, 1, 1024, &c->heads) ||
        read_int(r, "num_key_value_heads", c->heads, 1, 1024, &c->kv_heads) ||
        read_int(r, "intermediate_size", -1, 1, 1 << 20, &c->intermediate) ||
        read_int(r, "vocab_size", -1, 2, 1 << 24, &c->vocab) ||
        read_int(r, "max_position_embeddings", c->qkv_bias ? 32768 : 2048, 1, 1 << 30, &c->max_position) ||
        read_int(r, "head_dim", c->hidden / c->heads, 2, 512, &c->head_dim)) {
        return -1;
    }
    if (c->heads % c->kv_heads) {
        return engine_fail(r->err, ENGINE_EFORMAT, "%d attention heads cannot share %d key-value heads",
                           c->heads, c->kv_heads);
    }
    if (c->head_dim < 2 || c->head_dim > 512 || c->head_dim % 2) {
        return engine_fail(r->err, ENGINE_EFORMAT, "a head dimension of %d is not supported: even, 2 to 512",
                           c->head_dim);
    }
    return 0;
}

/* The window is ignored unless use_sliding_window is set. Where it is, contexts that fit in it see full attention, so it
 * becomes the longest context. */
static int read_window(reader *r, model_config *c) {
    bool use = false;
    int window = 0;
    if (read_bool(r, "use_sliding_window", false, &use)) return -1;
    if (!use) return 0;
    if (read_int(r, "sliding_window", 4096, 1, 1 << 30, &window)) return -1;
    if (window < c->max_position) c->max_position = window;
    return 0;
}

/* The paper's temperature, folded into cos and sin. */
static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int read_yarn(reader *r, const json_t *o, model_config *c) {
    double mscale = json_number_value(json_object_get(o, "mscale"));
    double all_dim = json_number_value(json_object_get(o, "mscale_all_dim"));
    double implied = mscale > 0 && all_dim > 0
                         ? yarn_mscale(c->rope_factor, mscale) / yarn_mscale(c->rope_factor, all_dim)
                         : yarn_mscale(c->rope_factor, 1);
    const json_t *truncate = json_object_get(o, "truncate");
    c->rope_truncate = !truncate || json_is_true(truncate);
    return read_positive(r, o, "beta_fast", 32, &c->rope_beta_fast) ||
                   read_positive(r, o, "beta_slow", 1, &c->rope_beta_slow) ||
                   read_positive(r, o, "attention_factor", implied, &c->rope_attention_factor)
               ? -1
               : 0;
}

static int read_llama3(reader *r, const json_t *o, model_config *c) {
    if (read_positive(r, o, "low_freq_factor", NAN, &c->rope_low_freq) ||
        read_positive(r, o, "high_freq_factor", NAN, &c->rope_high_freq)) {
        return -1;
    }
    if (c->rope_high_freq <= c->rope_low_freq) {
        return engine_fail(r->err, ENGINE_EFORMAT, "\"high_freq_factor\" must be above \"low_freq_factor\"");
    }
    return 0;
}

static int read_rope_kind(reader *r, const json_t *o, model_config *c) {
    static const char *const names[] = {
        [ROPE_PLAIN] = "default", [ROPE_LINEAR] = "linear", [ROPE_LLAMA3] = "llama3", [ROPE_YARN] = "yarn"};
    const char *type = json_string_value(json_object_get(o, has(o, "rope_type") ? "rope_type" : "type"));
    if (!type) type = "default";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(type, names[i])) {
            c->rope = (rope_kind)i;
            return 0;
        }
    }
    return engine_fail(
        r->err, ENGINE_EFORMAT,
        "rope scaling \"%.40s\" is not supported: default, linear, llama3 and yarn are%s", type,
        strcmp(type, "dynamic") ? "" : "; remove rope_scaling to use the model within its trained context");
}

static int read_rope(reader *r, model_config *c) {
    const json_t *o =
        json_object_get(r->root, has(r->root, "rope_parameters") ? "rope_parameters" : "rope_scaling");
    if (has(r->root, "rope_parameters") || has(r->root, "rope_scaling")) {
        if (!json_is_object(o))
            return engine_fail(r->err, ENGINE_EFORMAT, "the rope parameters are not an object");
    } else {
        o = NULL;
    }
    const json_t *theta_in = has(o, "rope_theta") ? o : r->root;
    if (read_positive(r, theta_in, "rope_theta", 10000, &c->rope_theta)) return -1;
    double partial = 1, original = 0;
    if (read_positive(r, has(o, "partial_rotary_factor") ? o : r->root, "partial_rotary_factor", 1, &partial))
        return -1;
    if (partial != 1)
        return engine_fail(r->err, ENGINE_EFORMAT, "\"partial_rotary_factor\" other than 1 is not supported");
    c->rope_factor = c->rope_attention_factor = 1;
    if (!o || read_rope_kind(r, o, c)) return o ? -1 : 0;
    if (c->rope == ROPE_PLAIN) return 0;
    if (read_positive(r, o, "original_max_position_embeddings", c->max_position, &original)) return -1;
    if (original > 1 << 30)
        return engine_fail(r->err, ENGINE_EFORMAT, "the original context is out of range");
    c->rope_original_max_position = (int)original;
    /* DeepSeek leaves the factor to the ratio of the contexts */
    double ratio = c->rope == ROPE_YARN ? c->max_position / original : NAN;
    if (read_positive(r, o, "factor", ratio, &c->rope_factor)) return -1;
    if (c->rope == ROPE_LLAMA3) return read_llama3(r, o, c);
    return c->rope == ROPE_YARN ? read_yarn(r, o, c) : 0;
}

static int add_eos(model_config *c, const json_t *v, engine_error *err) {
    json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < 0 || id >= c->vocab) {
        return engine_fail(err, ENGINE_EFORMAT, "\"eos_token_id\" must be ids below the vocabulary's %d",
                           c->vocab);
    }
    for (int i = 0; i < c->neos; i++) {
        if (c->eos[i] == id) return 0;
    }
    if (c->neos == (int)(sizeof c->eos / sizeof c->eos[0])) {
        return engine_fail(err, ENGINE_EFORMAT, "\"eos_token_id\" names too many tokens");
    }
    c->eos[c->neos++] = (int32_t)id;
    return 0;
}

/* One id, a list of them, or none. */
static int read_eos(const json_t *root, model_config *c, engine_error *err) {
    const json_t *v = json_object_get(root, "eos_token_id");
    if (!has(root, "eos_token_id")) return 0;
    if (!json_is_array(v)) return add_eos(c, v, err);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (add_eos(c, json_array_get(v, i), err)) return -1;
    }
    return 0;
}

static int read_dtype(reader *r, model_config *c) {
    const char *key = has(r->root, "dtype") ? "dtype" : "torch_dtype";
    const char *name = json_string_value(json_object_get(r->root, key));
    c->stored = DTYPE_F32;
    if (!has(r->root, key) || (name && !strcmp(name, "float32"))) return 0;
    c->stored = DTYPE_F16;
    if (name && !strcmp(name, "float16")) return 0;
    c->stored = DTYPE_BF16;
    if (name && !strcmp(name, "bfloat16")) return 0;
    return engine_fail(r->err, ENGINE_EFORMAT, "\"%s\" must be float32, float16 or bfloat16", key);
}

static int check_kind(reader *r) {
    const char *act = json_string_value(json_object_get(r->root, "hidden_act"));
    if (act && strcmp(act, "silu") && strcmp(act, "swish")) {
        return engine_fail(r->err, ENGINE_EFORMAT, "activation \"%.40s\" is not supported: silu is", act);
    }
    return 0;
}

/* ---- "quantization_config" as compressed-tensors writes it: 8-bit integers, symmetric, by rows or groups of columns ---- */

static int refuse_quantisation(reader *r, const char *what) {
    return engine_fail(r->err, ENGINE_EFORMAT,
                       "\"quantization_config\": %s: the engine reads compressed-tensors' symmetric 8-bit "
                       "integers (\"int-quantized\"); else use the float16, bfloat16 or float32 checkpoint",
                       what);
}

static bool is_text(const json_t *o, const char *key, const char *text) {
    const char *s = json_string_value(json_object_get(o, key));
    return s && !strcmp(s, text);
}

static bool is_int8(const json_t *args) {
    const json_t *bits = json_object_get(args, "num_bits"), *symmetric = json_object_get(args, "symmetric");
    return json_is_integer(bits) && json_integer_value(bits) == 8 && is_text(args, "type", "int") &&
           (!symmetric || json_is_true(symmetric));
}

static int read_weight_groups(reader *r, const json_t *weights, model_config *c) {
    const json_t *size = json_object_get(weights, "group_size");
    if (is_text(weights, "strategy", "channel")) return 0;
    if (!is_text(weights, "strategy", "group"))
        return refuse_quantisation(r, "the weights' strategy is neither \"channel\" nor \"group\"");
    if (!json_is_integer(size) || json_integer_value(size) < 1 || json_integer_value(size) > 1 << 20)
        return refuse_quantisation(r, "the weights' \"group_size\" is not a count");
    c->int8_group = (int)json_integer_value(size);
    return 0;
}

static int read_quantisation(reader *r, model_config *c) {
    const json_t *q = json_object_get(r->root, "quantization_config"), *scheme;
    const char *name;
    if (!has(r->root, "quantization_config")) return 0;
    if (!is_text(q, "quant_method", "compressed-tensors"))
        return refuse_quantisation(r, "its \"quant_method\" is another");
    if (has(q, "format") && !is_text(q, "format", "int-quantized"))
        return refuse_quantisation(r, "its \"format\" is another");
    const json_t *groups = json_object_get(q, "config_groups");
    if (json_object_size(groups) != 1)
        return refuse_quantisation(r, "\"config_groups\" does not have exactly one group");
    json_object_foreach((json_t *)groups, name, scheme) {
        const json_t *weights = json_object_get(scheme, "weights"),
                     *in = json_object_get(scheme, "input_activations");
        if (!is_int8(weights)) return refuse_quantisation(r, "its weights are others");
        c->int8_activations = has(scheme, "input_activations");
        if (c->int8_activations && !(is_int8(in) && json_is_true(json_object_get(in, "dynamic"))))
            return refuse_quantisation(r, "its activations are not dynamic 8-bit integers");
        if (read_weight_groups(r, weights, c)) return -1;
    }
    c->int8 = true;
    return 0;
}

static int read_all(reader *r, model_config *c) {
    if (read_architecture(r, c) || check_kind(r) || read_shape(r, c) || read_rope(r, c) ||
        read_window(r, c) || read_dtype(r, c) || read_quantisation(r, c)) {
        return -1;
    }
    double eps = 0;
    if (read_positive(r, r->root, "rms_norm_eps", 1e-6, &eps) ||
        read_bool(r, "tie_word_embeddings", false, &c->tied_embeddings)) {
        return -1;
    }
    c->norm_eps = (float)eps;
    /* Qwen2 ignores these two keys: its bias is always on q, k and v alone */
    if (!c->qkv_bias && (read_bool(r, "attention_bias", false, &c->attention_bias) ||
                         read_bool(r, "mlp_bias", false, &c->mlp_bias))) {
        return -1;
    }
    const json_t *bos = json_object_get(r->root, "bos_token_id");
    json_int_t id = json_is_integer(bos) ? json_integer_value(bos) : -1;
    c->bos = id >= 0 && id < c->vocab ? (int32_t)id : -1;
    return read_eos(r->root, c, r->err);
}

static json_t *parse_object(const char *json, size_t n, engine_error *err) {
    json_error_t je;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &je);
    if (!root) {
        engine_fail(err, ENGINE_EFORMAT, "line %d: %s", je.line, je.text);
    } else if (!json_is_object(root)) {
        engine_fail(err, ENGINE_EFORMAT, "it is not a JSON object");
        json_decref(root);
        root = NULL;
    }
    return root;
}

int model_config_parse(const char *json, size_t n, model_config *out, engine_error *err) {
    json_t *root = parse_object(json, n, err);
    if (!root) return -1;
    *out = (model_config){.bos = -1};
    int rc = read_all(&(reader){.root = root, .err = err}, out);
    json_decref(root);
    return rc;
}

int model_config_parse_generation(const char *json, size_t n, model_config *out, engine_error *err) {
    json_t *root = parse_object(json, n, err);
    if (!root) return -1;
    int rc = read_eos(root, out, err);
    json_decref(root);
    return rc;
}

typedef int config_parser(const char *json, size_t n, model_config *out, engine_error *err);

static int read_file(const char *dir, const char *name, config_parser *parse, model_config *out,
                     engine_error *err) {
    size_t n = 0;
    char *text = checkpoint_read(dir, name, CONFIG_FILE_MAX, &n, err);
    if (!text) return -1;
    int rc = parse(text, n, out, err);
    free(text);
    return rc ? engine_fail_in(err, "%s/%s", dir, name) : 0;
}

int model_config_read(const char *dir, model_config *out, engine_error *err) {
    static const char *const generation = "generation_config.json";
    if (read_file(dir, "config.json", model_config_parse, out, err)) return -1;
    if (!checkpoint_has(dir, generation)) return 0;
    return read_file(dir, generation, model_config_parse_generation, out, err);
}
