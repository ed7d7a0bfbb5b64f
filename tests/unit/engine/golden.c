/* Reads tests/golden; run from the repository's root. */
#include "tests/unit/engine/golden.h"
#include "engine/comm/group.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

const char *const golden_names[] = {
    "llama_gqa_f32",    "llama_gqa_bf16",    "llama_gqa_f16",    "llama_rope3_f32",
    "llama_rope3_bf16", "llama_linear_f32",  "llama_yarn_f32",   "qwen2_tied_f32",
    "qwen2_tied_bf16",  "llama_sharded_f32", "llama_heads8_f32", "llama_heads8_bf16",
};
const size_t golden_count = sizeof golden_names / sizeof golden_names[0];
const char *const golden_isas[GOLDEN_ISAS] = {"generic", "avx2", "avx512", "avx512-vnni", "avx512-bf16"};

static void read_floats(const char *dir, const char *file, float *out, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(out, sizeof *out, n, f), n);
    fclose(f);
}

static void read_ids(const json_t *list, int32_t *out) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
}

static void read_prompt(const char *dir, const json_t *in, int vocab, golden_prompt *out) {
    const json_t *ids = json_object_get(in, "ids"), *greedy = json_object_get(in, "greedy");
    out->nids = (int)json_array_size(ids);
    out->ids = calloc((size_t)out->nids, sizeof *out->ids);
    out->logits = calloc((size_t)out->nids * (size_t)vocab, sizeof *out->logits);
    assert_true(out->ids && out->logits);
    read_ids(ids, out->ids);
    assert_int_equal(json_array_size(greedy), 64);
    read_ids(greedy, out->greedy);
    read_floats(dir, json_string_value(json_object_get(in, "logits")), out->logits,
                (size_t)out->nids * (size_t)vocab);
}

golden golden_open(const char *name) {
    char dir[256], path[512];
    engine_error err = {0};
    golden g = {0};
    snprintf(dir, sizeof dir, "tests/golden/models/%s", name);
    snprintf(path, sizeof path, "%s/golden.json", dir);
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *prompts = json_object_get(root, "prompts");
    g.nprompts = (int)json_array_size(prompts);
    assert_in_range(g.nprompts, 1, 4);
    g.model = model_open(dir, &err);
    if (!g.model) fail_msg("%s", err.msg);
    for (int i = 0; i < g.nprompts; i++) {
        read_prompt(dir, json_array_get(prompts, (size_t)i), g.model->config.vocab, &g.prompt[i]);
    }
    json_decref(root);
    return g;
}

void golden_close(golden *g) {
    for (int i = 0; i < g->nprompts; i++) {
        free(g->prompt[i].ids);
        free(g->prompt[i].logits);
    }
    model_close(g->model);
}

backend_options golden_options(const char *isa, int threads) {
    return (backend_options){.threads = threads,
                             .isa = isa,
                             .kv_blocks = GOLDEN_BLOCKS,
                             .block_tokens = GOLDEN_BLOCK,
                             .max_tokens = GOLDEN_TOKENS,
                             .max_logits = GOLDEN_TOKENS,
                             .max_seqs = 16,
                             .max_blocks_per_seq = GOLDEN_SEQ_BLOCKS};
}

bool golden_isa_runs(const char *isa) {
    golden g = golden_open("llama_gqa_f32");
    backend_options opt = golden_options(isa, 1);
    backend *b = backend_open_cpu(g.model, &opt, NULL);
    backend_close(b);
    golden_close(&g);
    return b != NULL;
}

backend *golden_backend(const model *m, const char *isa, int threads) {
    return golden_backend_with(m, NULL, NULL, isa, threads);
}

backend *golden_backend_with(const model *m, const char *weights, const char *kv, const char *isa,
                             int threads) {
    engine_error err = {0};
    backend_options opt = golden_options(isa, threads);
    opt.weights = weights;
    opt.kv = kv;
    backend *b = backend_open_cpu(m, &opt, &err);
    if (!b) fail_msg("%s", err.msg);
    return b;
}

backend *golden_ranks(const model *m, const char *isa, int threads, int ranks) {
    engine_error err = {0};
    backend_options opt = golden_options(isa, threads);
    backend *b = backend_open_cpu_ranks(m, &opt, ranks, &err);
    if (!b) fail_msg("%s", err.msg);
    return b;
}
