/* engine_open, and the whole engine over real (tiny) checkpoints: scheduler, backend, sampler and text together. */
#include "fake.h"

#include "engine/text/tokenizer.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODELS "tests/golden/models/"

static engine *open_tiny(const char *name, engine_options o) {
    char dir[256];
    engine_error err;
    snprintf(dir, sizeof dir, MODELS "%s", name);
    o.model_dir = dir;
    engine *e = engine_open(&o, &err);
    if (!e) fail_msg("%s", err.msg);
    return e;
}

static int ids_of(const json_t *list, int32_t *out, int cap) {
    int n = (int)json_array_size(list);
    assert_in_range(n, 1, cap);
    for (int i = 0; i < n; i++) out[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

/* All prompts of the golden file in one batch, in chunks: greedy tokens are those that the reference computed. */
static void check_greedy(const char *name, engine_options o) {
    char path[256];
    engine_error err;
    int32_t ids[256], greedy[256];
    snprintf(path, sizeof path, MODELS "%s/golden.json", name);
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *prompts = json_object_get(root, "prompts");
    int n = (int)json_array_size(prompts);
    assert_in_range(n, 1, 8);
    said *s = calloc((size_t)n, sizeof *s);
    assert_non_null(s);
    engine *e = open_tiny(name, o);
    for (int i = 0; i < n; i++) {
        engine_request q = {.id = (uint64_t)i, .prompt = ids};
        q.nprompt = ids_of(json_object_get(json_array_get(prompts, (size_t)i), "ids"), ids, 256);
        engine_sampling_default(&q.sampling);
        q.sampling.temperature = 0;
        q.sampling.max_tokens = 64;
        said_init(&s[i], q.id);
        if (engine_submit(e, &q, &err)) fail_msg("%s", err.msg);
    }
    assert_true(run_all(e, s, n));
    for (int i = 0; i < n; i++) {
        const json_t *g = json_object_get(json_array_get(prompts, (size_t)i), "greedy");
        int n_greedy = ids_of(g, greedy, 256), room = engine_describe(e)->max_context - s[i].prompt_tokens;
        assert_int_equal(s[i].n, room < n_greedy ? room : n_greedy);
        assert_memory_equal(s[i].token, greedy, sizeof(int32_t) * (size_t)s[i].n);
    }
    engine_close(e);
    free(s);
    json_decref(root);
}

static void test_greedy_answers_are_those_of_the_reference(void **state) {
    (void)state;
    const engine_options chunked = {.max_seqs = 4, .step_tokens = 10};
    const engine_options tight = {.max_seqs = 4, .max_context = 176, .kv_tokens = 176}; /* preempts */
    check_greedy("llama_gqa_f32", chunked);
    check_greedy("llama_gqa_f32", tight);
    check_greedy("llama_rope3_f32", chunked);
    check_greedy("llama_yarn_f32", chunked);
    check_greedy("qwen2_tied_f32", chunked);
    check_greedy("qwen2_tied_f32", tight);
}

static void test_greedy_answers_are_the_same_over_any_number_of_ranks(void **state) {
    (void)state;
    for (int tp = 1; tp <= 8; tp *= 2) {
        check_greedy("llama_heads8_f32", (engine_options){.max_seqs = 4, .step_tokens = 10, .tp = tp});
    }
}

/* The sampled answers of some chats, each in an engine of other sizes and threads: always the same. */
static void test_a_chat_is_the_same_whatever_the_engine_runs_with(void **state) {
    (void)state;
    const engine_options options[] = {
        {.max_seqs = 1, .threads = 1},
        {.max_seqs = 8, .threads = 2, .step_tokens = 9},
        {.max_seqs = 8, .threads = 3, .max_context = 256, .kv_tokens = 260},
    };
    static const char *const prompts[] = {"Hello", "What is Millrace?", "你好",
                                          "a much longer question, to be cut in chunks"};
    said *first = calloc(4, sizeof *first), *s = calloc(4, sizeof *s);
    assert_true(first && s);
    for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
        engine *e = open_tiny("llama_gqa_bf16", options[k]);
        engine_error err;
        for (int i = 0; i < 4; i++) {
            engine_request q = request_of((uint64_t)i, prompts[i]);
            q.sampling.seed = (uint64_t)i + 1;
            q.sampling.max_tokens = 100;
            q.sampling.logprobs = 1;
            said_init(&s[i], q.id);
            if (engine_submit(e, &q, &err)) fail_msg("%s", err.msg);
        }
        assert_true(run_all(e, s, 4));
        for (int i = 0; i < 4; i++) {
            if (k == 0) first[i] = s[i];
            assert_memory_equal(&s[i], &first[i], sizeof s[i]);
        }
        engine_close(e);
    }
    free(first);
    free(s);
}

static void expect_refusal(engine_options o, engine_error_code code, const char *words) {
    engine_error err = {0};
    engine *e = engine_open(&o, &err);
    assert_null(e);
    assert_int_equal(err.code, code);
    if (!strstr(err.msg, words)) fail_msg("no \"%s\" in: %s", words, err.msg);
}

static void test_wrong_options_are_refused_with_the_reason(void **state) {
    (void)state;
    const char *dir = MODELS "llama_gqa_f32";
    expect_refusal((engine_options){.model_dir = "no/such/folder"}, ENGINE_EIO, "no/such/folder");
    expect_refusal((engine_options){0}, ENGINE_EINVAL, "model_dir");
    expect_refusal((engine_options){.model_dir = dir, .max_context = 1 << 20}, ENGINE_EINVAL,
                   "512 positions");
    expect_refusal((engine_options){.model_dir = dir, .threads = -1}, ENGINE_EINVAL, "threads");
    expect_refusal((engine_options){.model_dir = dir, .tp = 3}, ENGINE_EINVAL, "it can over 1, 2, 4");
    expect_refusal((engine_options){.model_dir = dir, .tp = -1}, ENGINE_EINVAL, "over -1 ranks");
    expect_refusal((engine_options){.model_dir = dir, .max_context = 512, .kv_tokens = 100}, ENGINE_EINVAL,
                   "KV cache");
    expect_refusal((engine_options){.model_dir = dir, .chat_template = "nonsense"}, ENGINE_EINVAL,
                   "nonsense");
    expect_refusal((engine_options){.model_dir = dir, .isa = "z80"}, ENGINE_EINVAL, "z80");
}

static void test_the_description_fits_the_checkpoint(void **state) {
    (void)state;
    engine *e = open_tiny("llama_gqa_f32", (engine_options){.kv_tokens = 300, .threads = 1});
    const engine_info *i = engine_describe(e);
    assert_string_equal(i->name, "llama_gqa_f32");
    assert_string_equal(i->architecture, "LlamaForCausalLM");
    assert_string_equal(i->chat_template, "deepseek-llm");
    assert_int_equal(i->max_context, 300); /* a default context gives way to the cache */
    assert_int_equal(i->kv_blocks, 19);
    assert_int_equal(i->layers, 2);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_answers_are_those_of_the_reference),
        cmocka_unit_test(test_greedy_answers_are_the_same_over_any_number_of_ranks),
        cmocka_unit_test(test_a_chat_is_the_same_whatever_the_engine_runs_with),
        cmocka_unit_test(test_wrong_options_are_refused_with_the_reason),
        cmocka_unit_test(test_the_description_fits_the_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
