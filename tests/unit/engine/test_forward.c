/* The forward pass computes what HuggingFace transformers computes, on every instruction set of this CPU. */
#include "tests/unit/engine/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const int32_t blocks[GOLDEN_SEQ_BLOCKS] = {9, 3, 60, 1, 22, 0, 63, 17, 4, 40, 41, 39, 2, 8, 7, 6};

static float *run(backend *b, const int32_t *tokens, int n, int pos, int nlogits) {
    engine_error err = {0};
    float *logits = NULL;
    batch_seq s = {.tokens = tokens, .ntokens = n, .pos = pos, .blocks = blocks, .nlogits = nlogits};
    if (backend_forward(b, &s, 1, &logits, &err)) fail_msg("%s", err.msg);
    return logits;
}

static double worst_difference(const float *a, const float *b, int n) {
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static int32_t likeliest(const float *logits, int vocab) {
    int best = 0;
    for (int i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

static void each_golden(void (*check)(const char *name, const golden *g, backend *b)) {
    for (size_t m = 0; m < golden_count; m++) {
        golden g = golden_open(golden_names[m]);
        for (size_t i = 0; i < GOLDEN_ISAS; i++) {
            if (!golden_isa_runs(golden_isas[i])) continue;
            backend *b = golden_backend(g.model, golden_isas[i], 2);
            assert_string_equal(backend_isa(b), golden_isas[i]);
            check(golden_names[m], &g, b);
            backend_close(b);
        }
        golden_close(&g);
    }
}

static void check_logits(const char *name, const golden *g, backend *b) {
    const double bar = g->model->config.stored == DTYPE_F32 ? 1e-4 : 3e-2;
    for (int i = 0; i < g->nprompts; i++) {
        const golden_prompt *p = &g->prompt[i];
        const float *logits = run(b, p->ids, p->nids, 0, p->nids);
        double d = worst_difference(logits, p->logits, p->nids * g->model->config.vocab);
        if (d > bar) fail_msg("%s on %s, prompt %d: logits differ by %g", name, backend_isa(b), i, d);
    }
}

static void logits_are_those_of_the_reference(void **state) {
    (void)state;
    each_golden(check_logits);
}

static void check_greedy(const char *name, const golden *g, backend *b) {
    if (g->model->config.stored != DTYPE_F32) return;
    for (int i = 0; i < g->nprompts; i++) {
        const golden_prompt *p = &g->prompt[i];
        const float *logits = run(b, p->ids, p->nids, 0, 1);
        for (int t = 0; t < 64; t++) {
            int32_t token = likeliest(logits, g->model->config.vocab);
            if (token != p->greedy[t])
                fail_msg("%s on %s, prompt %d: token %d differs", name, backend_isa(b), i, t);
            logits = run(b, &token, 1, p->nids + t, 1);
        }
    }
}

static void greedy_decoding_follows_the_reference_for_64_tokens(void **state) {
    (void)state;
    each_golden(check_greedy);
}

static void every_instruction_set_computes_the_same_within_rounding(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    const int n = p->nids * g.model->config.vocab;
    float *first = calloc((size_t)n, sizeof *first);
    assert_non_null(first);
    for (size_t i = 0; i < GOLDEN_ISAS; i++) {
        if (!golden_isa_runs(golden_isas[i])) continue;
        backend *b = golden_backend(g.model, golden_isas[i], 1);
        const float *logits = run(b, p->ids, p->nids, 0, p->nids);
        for (int k = 0; i == 0 && k < n; k++) first[k] = logits[k];
        assert_true(worst_difference(logits, first, n) <= 1e-4);
        backend_close(b);
    }
    free(first);
    golden_close(&g);
}

static void expect_refusal(backend *b, batch_seq s, const char *why) {
    engine_error err = {0};
    float *logits = NULL;
    assert_int_equal(backend_forward(b, &s, 1, &logits, &err), -1);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void a_batch_that_does_not_fit_is_refused(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    backend *b = golden_backend(g.model, NULL, 1);
    static const int32_t ok[200] = {1}, bad_token[] = {320}, bad_block[] = {GOLDEN_BLOCKS};
    expect_refusal(b, (batch_seq){.tokens = bad_token, .ntokens = 1, .blocks = blocks}, "vocabulary");
    expect_refusal(b, (batch_seq){.tokens = ok, .ntokens = 1, .blocks = bad_block}, "block");
    expect_refusal(b, (batch_seq){.tokens = ok, .ntokens = 129, .blocks = blocks}, "over 128 tokens");
    expect_refusal(b, (batch_seq){.tokens = ok, .ntokens = 1, .pos = 256, .blocks = blocks}, "beyond");
    expect_refusal(b, (batch_seq){.tokens = ok, .ntokens = 1, .blocks = blocks, .nlogits = 2}, "ill-formed");
    assert_non_null(run(b, ok, 1, 0, 1));
    backend_close(b);
    golden_close(&g);
}

static void expect_no_backend(const model *m, backend_options opt, const char *why) {
    engine_error err = {0};
    assert_null(backend_open_cpu(m, &opt, &err));
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void a_backend_that_cannot_be_says_why(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    const backend_options good = {.threads = 1,
                                  .kv_blocks = 4,
                                  .block_tokens = 16,
                                  .max_tokens = 8,
                                  .max_logits = 8,
                                  .max_seqs = 1,
                                  .max_blocks_per_seq = 4};
    backend_options opt = good;
    opt.isa = "sse9";
    expect_no_backend(g.model, opt, "unknown instruction set");
    opt = good;
    opt.block_tokens = 20;
    expect_no_backend(g.model, opt, "multiple of 16");
    opt = good;
    opt.kv = "int4";
    expect_no_backend(g.model, opt, "use full or int8");
    opt = good;
    opt.kv_blocks = INT32_MAX;
    expect_no_backend(g.model, opt, "KV cache");
    golden_close(&g);
}

/* ---- memory, known before it is taken ---- */

static void what_is_measured_is_what_is_taken(void **state) {
    (void)state;
    static const char *const formats[][2] = {{"stored", "full"}, {"int8", "full"}, {"int8-a16", "int8"}};
    const size_t page = (size_t)2 << 20; /* arenas are whole huge pages */
    golden g = golden_open("qwen2_tied_bf16");
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        engine_error err = {0};
        backend_memory before;
        backend_options opt = golden_options(NULL, 1);
        opt.weights = formats[i][0];
        opt.kv = formats[i][1];
        if (backend_measure_cpu(g.model, &opt, &before, &err)) fail_msg("%s", err.msg);
        backend *b = backend_open_cpu(g.model, &opt, &err);
        const backend_memory after = backend_memory_now(b);
        assert_in_range(after.weights, before.weights, before.weights + page);
        assert_in_range(after.kv, before.kv, before.kv + page);
        assert_in_range(after.workspace, before.workspace, before.workspace + page);
        backend_close(b);
    }
    golden_close(&g);
}

static model *open_shape(const char *config) {
    char path[] = "/tmp/millrace-shape-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, config, strlen(config)), strlen(config));
    close(fd);
    model *m = model_random(path, NULL);
    unlink(path);
    return m;
}

static void a_67b_in_8_bits_is_within_68_gib_and_its_cache_in_8_bits_about_half(void **state) {
    (void)state;
    /* DeepSeek-LLM 67B; where this much address space is not to be had, there is nothing to measure */
    model *m = open_shape(
        "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":8192,\"intermediate_size\":22016,"
        "\"num_hidden_layers\":95,\"num_attention_heads\":64,\"num_key_value_heads\":8,\"vocab_size\":102400,"
        "\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-6,\"torch_dtype\":\"bfloat16\"}");
    if (!m) skip();
    backend_options opt = golden_options(NULL, 1);
    backend_memory stored, int8;
    assert_int_equal(backend_measure_cpu(m, &opt, &stored, NULL), 0);
    opt.weights = opt.kv = "int8";
    assert_int_equal(backend_measure_cpu(m, &opt, &int8, NULL), 0);
    assert_in_range(stored.weights >> 30, 124, 127);
    assert_in_range(int8.weights >> 30, 64, 67);
    assert_in_range(100 * int8.kv / stored.kv, 50, 52);
    model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_reference),
        cmocka_unit_test(greedy_decoding_follows_the_reference_for_64_tokens),
        cmocka_unit_test(every_instruction_set_computes_the_same_within_rounding),
        cmocka_unit_test(a_batch_that_does_not_fit_is_refused),
        cmocka_unit_test(a_backend_that_cannot_be_says_why),
        cmocka_unit_test(what_is_measured_is_what_is_taken),
        cmocka_unit_test(a_67b_in_8_bits_is_within_68_gib_and_its_cache_in_8_bits_about_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
