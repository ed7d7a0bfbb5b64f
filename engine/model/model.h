/* A checkpoint as it lies on disk: the configuration, and every weight as a view into the mmap'ed files.
 *
 * HuggingFace layout: config.json, model.safetensors or model.safetensors.index.json with shards. Matrices are
 * [out, in] row-major as stored. Every shape is checked against the configuration when the model is opened.
 */
#ifndef ENGINE_MODEL_MODEL_H
#define ENGINE_MODEL_MODEL_H

#include "engine/error.h"
#include "engine/model/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN } rope_kind;

typedef struct model_config {
    char architecture[64]; /* LlamaForCausalLM, Qwen2ForCausalLM */
    int layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
    int max_position; /* a sliding window shorter than the context lowers this: up to it, attention is full */
    float norm_eps;
    double rope_theta;
    rope_kind rope;
    double rope_factor, rope_low_freq, rope_high_freq;            /* llama3 */
    double rope_beta_fast, rope_beta_slow, rope_attention_factor; /* yarn */
    bool rope_truncate; /* yarn: the ramp's borders are rounded outwards */
    int rope_original_max_position;
    bool tied_embeddings;
    bool qkv_bias;                 /* Qwen2 */
    bool attention_bias, mlp_bias; /* Llama's options: bias also on o, and on the MLP */
    int32_t eos[8];                /* from config.json and generation_config.json */
    int neos;
    int32_t bos;           /* -1: none */
    dtype stored;          /* torch_dtype: the arithmetic the reference uses between operations */
    bool int8;             /* matrices are stored in 8 bits… */
    int int8_group;        /* …with a scale for so many columns of a row; 0: for all */
    bool int8_activations; /* …and made to be multiplied by activations that are rounded too */
} model_config;

typedef struct model_layer {
    tensor attn_norm, q, k, v, o, mlp_norm, gate, up, down;
    tensor q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias; /* data NULL where there is none */
} model_layer;

typedef struct model {
    model_config config;
    tensor embed, final_norm, head; /* head is embed where tied */
    model_layer *layer;             /* [layers] */
    int64_t parameters;
    size_t bytes; /* with the scales of 8-bit weights */
    struct model_files *files;
    void *random; /* weights of model_random */
    size_t random_bytes;
} model;

model *model_open(const char *dir, engine_error *err);
void model_close(model *m);
/* A model of the shape in a config.json with random weights, to measure what that shape costs. Its matrices are zeros until
 * they are fetched. */
model *model_random(const char *config_path, engine_error *err);

/* Rows [first, end) of a matrix are about to be read. Files need nothing; random weights are made. Any thread, no row by two
 * at once. */
void model_fetch(const model *m, const tensor *t, int64_t first, int64_t end);
/* All matrices, from one thread: before slices of them are used (shard.h). */
void model_fetch_all(const model *m);
/* Rows of a matrix were copied: their pages need not stay in memory. A file's come back when they are read again. */
void model_release(const tensor *t, int64_t first, int64_t end);

/* A weight by its HuggingFace name, of the shape given in t: fills in the rest. */
int model_find(const model *m, const char *name, tensor *t, engine_error *err);

/* Only config.json (and generation_config.json), for tools. */
int model_config_read(const char *dir, model_config *out, engine_error *err);
/* Adds the end-of-sequence ids of generation_config.json's text to those of config.json. */
int model_config_parse_generation(const char *json, size_t n, model_config *out, engine_error *err);
/* Parse text as config.json: the reader without the file, also for the fuzzer. */
int model_config_parse(const char *json, size_t n, model_config *out, engine_error *err);

#endif
