/* The CUDA backend, through the shim or on a GPU (tests/gpu), computes what HuggingFace transformers computes, and a token's logits
 * are the same bits in every batch.
 */
#include "engine/backend_impl.h"
#include "engine/comm/group.h"
#include "engine/cpu/kernels.h"
#include "engine/cuda/cuda.h"
#include "engine/sample.h"
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

static backend_options options_of(const char *weights) {
    backend_options opt = golden_options(NULL, 1);
    opt.weights = weights;
    return opt;
}

static backend *open_shim(const model *m, const char *weights) {
    engine_error err = {0};
    const backend_options opt = options_of(weights);
    backend *b = backend_open_cuda(m, &opt, &err);
    if (!b) fail_msg("%s", err.msg);
    return b;
}

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

static void logits_are_those_of_the_reference(void **state) {
    (void)state;
    for (size_t m = 0; m < golden_count; m++) {
        golden g = golden_open(golden_names[m]);
        backend *b = open_shim(g.model, NULL);
        const double bar = g.model->config.stored == DTYPE_F32 ? 1e-4 : 3e-2;
        for (int i = 0; i < g.nprompts; i++) {
            const golden_prompt *p = &g.prompt[i];
            double d = worst_difference(run(b, p->ids, p->nids, 0, p->nids), p->logits,
                                        p->nids * g.model->config.vocab);
            if (d > bar) fail_msg("%s, prompt %d: logits differ by %g", golden_names[m], i, d);
        }
        backend_close(b);
        golden_close(&g);
    }
}

/* ---- random checkpoints of odd shapes, beside the CPU's backend ---- */

typedef struct odd_shape {
    const char *arch, *type; /* as the config says */
    int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
    const char *weights;
    double bar; /* of the largest logit; or of the cost of 8 bits */
} odd_shape;

static model *random_model(const odd_shape *s) {
    char path[] = "/tmp/millrace-shape-XXXXXX";
    const int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    assert_non_null(f);
    fprintf(f,
            "{\"architectures\": [\"%s\"], \"hidden_size\": %d, \"intermediate_size\": %d, "
            "\"num_hidden_layers\": %d,"
            "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d,"
            "\"model_type\": \"%s\", \"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-6, "
            "\"rope_theta\": 10000.0,"
            "\"tie_word_embeddings\": %s, \"hidden_act\": \"silu\", \"bos_token_id\": 0, \"eos_token_id\": 1,"
            "\"torch_dtype\": \"%s\"}",
            s->arch, s->hidden, s->intermediate, s->layers, s->heads, s->kv_heads, s->head_dim, s->vocab,
            s->arch[0] == 'Q' ? "qwen2" : "llama", s->arch[0] == 'Q' ? "true" : "false", s->type);
    assert_int_equal(fclose(f), 0);
    engine_error err = {0};
    model *m = model_random(path, &err);
    unlink(path);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static void compare_rows(const odd_shape *s, const float *gpu, const float *cpu, int rows, int context) {
    for (int i = 0; i < rows; i++) {
        const float *a = gpu + (size_t)i * (size_t)s->vocab, *b = cpu + (size_t)i * (size_t)s->vocab;
        double largest = 0;
        for (int k = 0; k < s->vocab; k++) largest = fmax(largest, fabs((double)b[k]));
        const double d = worst_difference(a, b, s->vocab) / largest;
        if (!(d <= s->bar))
            fail_msg("%s, hidden %d, vocabulary %d, weights %s, row %d of context %d: off by %g of the "
                     "largest logit",
                     s->type, s->hidden, s->vocab, s->weights ? s->weights : "stored", i, context, d);
    }
}

/* Prompts that end at a block's border and beside it, all of their rows, and the row of the token after each. */
static void check_shape(const odd_shape *s) {
    static const int contexts[] = {1, 16, 17, 65};
    model *m[] = {random_model(s), random_model(s)}; /* a backend takes its matrices for itself */
    backend *gpu = open_shim(m[0], s->weights), *cpu = golden_backend_with(m[1], s->weights, NULL, NULL, 1);
    int32_t ids[80];
    for (int i = 0; i < 80; i++) ids[i] = (i * 31 + 7) % s->vocab;
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        const int n = contexts[i];
        compare_rows(s, run(gpu, ids, n, 0, n), run(cpu, ids, n, 0, n), n, n);
        compare_rows(s, run(gpu, ids + n, 1, n, 1), run(cpu, ids + n, 1, n, 1), 1, n + 1);
    }
    backend_close(gpu);
    backend_close(cpu);
    model_close(m[0]);
    model_close(m[1]);
}

static void odd_shapes_compute_what_the_cpu_computes(void **state) {
    (void)state;
    static const odd_shape shapes[] = {
        {"LlamaForCausalLM", "float32", 40, 33, 2, 5, 1, 16, 131, NULL, 1e-5},
        {"Qwen2ForCausalLM", "float32", 130, 257, 6, 6, 3, 20, 1003, NULL, 1e-5},
        {"LlamaForCausalLM", "float32", 257, 96, 3, 3, 3, 80, 77, "int8-a16", 1e-5},
        {"LlamaForCausalLM", "bfloat16", 40, 33, 2, 5, 1, 16, 131, NULL, 2e-2},
        {"Qwen2ForCausalLM", "bfloat16", 130, 257, 2, 6, 3, 20, 1003, NULL, 2e-2},
        {"LlamaForCausalLM", "bfloat16", 256, 300, 6, 4, 2, 64, 301, NULL, 2e-2},
        {"LlamaForCausalLM", "bfloat16", 257, 96, 1, 3, 3, 80, 77, "int8-a16", 2e-2},
        {"Qwen2ForCausalLM", "bfloat16", 256, 300, 6, 4, 2, 64, 301, "int8-a16", 2e-2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_shape(&shapes[i]);
}

/* ---- activations in 8 bits ---- */

/* In bf16 they are rounded once, from floats: rounded to bf16 before, they are off by twice the bar. It is a check for a layer or two, and
 * for a CPU whose query and softmax weights are of bf16 as here: see below. */
static void activations_in_8_bits_are_nearly_those_of_the_cpu(void **state) {
    (void)state;
    static const odd_shape shapes[] = {
        {"Qwen2ForCausalLM", "float32", 130, 257, 2, 6, 3, 20, 1003, "int8", 2e-2},
        {"LlamaForCausalLM", "bfloat16", 40, 33, 2, 5, 1, 16, 131, "int8", 2e-2},
        {"LlamaForCausalLM", "bfloat16", 257, 96, 1, 3, 3, 80, 77, "int8", 2e-2},
    };
    engine_error err;
    if (strcmp(kernels_select(NULL, &err)->isa, "avx512-bf16") != 0) skip();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_shape(&shapes[i]);
}

/* How far logits in W8A8 are from those of the same weights with activations that are not rounded, and from each other: squares. */
typedef struct costs {
    double cpu, gpu, apart;
} costs;

static void add_costs(costs *c, const float *gpu, const float *cpu, const float *unrounded, int n) {
    for (int i = 0; i < n; i++) {
        c->cpu += pow((double)cpu[i] - (double)unrounded[i], 2);
        c->gpu += pow((double)gpu[i] - (double)unrounded[i], 2);
        c->apart += pow((double)gpu[i] - (double)cpu[i], 2);
    }
}

static costs measure_costs(const odd_shape *s) {
    static const int contexts[] = {1, 17, 65, 120};
    model *m[] = {random_model(s), random_model(s), random_model(s)};
    backend *gpu = open_shim(m[0], "int8"), *cpu = golden_backend_with(m[1], "int8", NULL, NULL, 1),
            *unrounded = golden_backend_with(m[2], "int8-a16", NULL, NULL, 1);
    int32_t ids[128];
    costs c = {0};
    for (int i = 0; i < 128; i++) ids[i] = (i * 31 + 7) % s->vocab;
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        const int n = contexts[i];
        add_costs(&c, run(gpu, ids, n, 0, n), run(cpu, ids, n, 0, n), run(unrounded, ids, n, 0, n),
                  n * s->vocab);
        add_costs(&c, run(gpu, ids + n, 1, n, 1), run(cpu, ids + n, 1, n, 1),
                  run(unrounded, ids + n, 1, n, 1), s->vocab);
    }
    backend_close(gpu);
    backend_close(cpu);
    backend_close(unrounded);
    for (int i = 0; i < 3; i++) model_close(m[i]);
    return c;
}

/* Each kernel rounds as the CPU's does (test_kernels.cpp), but a float whose last bit is another may fall on the next byte, and
 * rounding widens what differs, d of a byte's step becomes sqrt(d): after a layer or two, two computations are as far apart as two roundings
 * are, whatever the first difference was. The CPU's own instruction sets are, of which one has a bf16 query and bf16 softmax weights
 * as here, and takes all positions together. So at any depth this is what can be asked for: that rounding costs as much here as there,
 * and that the two are not farther apart than two that are independent, by root 2. */
static void activations_in_8_bits_cost_what_they_cost_on_the_cpu(void **state) {
    (void)state;
    static const odd_shape shapes[] = {
        {"Qwen2ForCausalLM", "float32", 130, 257, 2, 6, 3, 20, 1003, "int8", 1.15},
        {"LlamaForCausalLM", "bfloat16", 40, 33, 2, 5, 1, 16, 131, "int8", 1.15},
        {"LlamaForCausalLM", "bfloat16", 257, 96, 1, 3, 3, 80, 77, "int8", 1.15},
        {"LlamaForCausalLM", "bfloat16", 256, 300, 3, 4, 2, 64, 301, "int8", 1.15},
        {"Qwen2ForCausalLM", "bfloat16", 256, 300, 6, 4, 2, 64, 301, "int8", 1.15},
        {"LlamaForCausalLM", "float16", 130, 300, 4, 4, 2, 32, 301, "int8", 1.15},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const odd_shape *s = &shapes[i];
        const costs c = measure_costs(s);
        const double gpu = sqrt(c.gpu / c.cpu), apart = sqrt(c.apart / c.cpu);
        if (!(gpu <= s->bar && apart <= s->bar * sqrt(2)))
            fail_msg("%s, hidden %d, %d layers: 8 bits cost %.3f of what they cost on the CPU, and both are "
                     "%.3f of "
                     "it apart",
                     s->type, s->hidden, s->layers, gpu, apart);
    }
}

#ifdef ON_GPU
enum { IN_ANY_ORDER = 2 }; /* e4m3 with such scales is multiplied on sm_90 alone */
#else
enum { IN_ANY_ORDER = 3 };
#endif

/* By cuBLASLt, whose products the shim makes; 64 tokens and more of 8 bits are widened for it, or are e4m3 with its scales, where a
 * float on another byte is off by a sixteenth. */
static void products_in_any_order_are_near_the_reference(void **state) {
    (void)state;
    static const char *const weights[] = {NULL, "int8-a16", "fp8"};
    static const double bars[] = {3e-2, 3e-2, 1e-1};
    golden g = golden_open("qwen2_tied_bf16");
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    const int n = p->nids < 70 ? p->nids : 70;
    assert_int_equal(n, 70);
    for (int i = 0; i < 3; i++) {
        engine_error err = {0};
        backend_options opt = options_of(weights[i]);
        backend *ours = open_shim(g.model, weights[i]);
        opt.any_order = true;
        backend *b = backend_open_cuda(g.model, &opt, &err);
        if (!b) fail_msg("%s", err.msg);
        const float *logits = run(b, p->ids, n, 0, n), *same = run(ours, p->ids, n, 0, n);
        const double d = worst_difference(logits, weights[i] ? same : p->logits, n * g.model->config.vocab);
        if (d > bars[i]) fail_msg("%s: logits differ by %g", weights[i] ? weights[i] : "stored", d);
        if (i < IN_ANY_ORDER)
            assert_memory_not_equal(logits, same, (size_t)(n * g.model->config.vocab) * sizeof *logits);
        backend_close(ours);
        backend_close(b);
    }
    golden_close(&g);
}

static int32_t likeliest(const float *logits, int vocab) {
    int best = 0;
    for (int i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

static void greedy_decoding_follows_the_reference(void **state) {
    (void)state;
    static const char *const names[] = {"llama_rope3_f32", "qwen2_tied_f32"};
    for (size_t m = 0; m < sizeof names / sizeof *names; m++) {
        golden g = golden_open(names[m]);
        backend *b = open_shim(g.model, NULL);
        const golden_prompt *p = &g.prompt[1];
        const float *logits = run(b, p->ids, p->nids, 0, 1);
        for (int t = 0; t < 16; t++) {
            const int32_t token = likeliest(logits, g.model->config.vocab);
            assert_int_equal(token, p->greedy[t]);
            logits = run(b, &token, 1, p->nids + t, 1);
        }
        backend_close(b);
        golden_close(&g);
    }
}

static float *copy_of(const float *v, int n) {
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    memcpy(out, v, (size_t)n * sizeof *out);
    return out;
}

/* Tokens of a pass that draws. */
static batch_result draw(backend *b, const batch_seq *s) {
    engine_error err = {0};
    batch_result r;
    if (backend_begin(b, s, 1, &err) || backend_finish(b, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

/* A pass that draws, and the engine's sampler with the logits of one that does not. */
static void tokens_are_drawn_as_the_engine_draws_them_from_the_logits(void **state) {
    (void)state;
    static const struct {
        float temperature, top_p, min_p;
        int top_k;
    } how[] = {{0, 1, 0, 0}, {1, 1, 0, 0}, {1.5f, 0.9f, 0, 0}, {1, 1, 0.1f, 0}, {2, 0.8f, 0, 20}};
    enum { ROWS = 8 };
    golden g = golden_open("llama_gqa_bf16");
    backend *b = open_shim(g.model, NULL);
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    engine_error err = {0};
    sampler *s = sampler_new(g.model->config.vocab, &err);
    assert_non_null(s);
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        int32_t ids[ROWS];
        const batch_draw how_drawn = {.temperature = how[i].temperature,
                                      .top_p = how[i].top_p,
                                      .min_p = how[i].min_p,
                                      .top_k = how[i].top_k,
                                      .seed = 11 + i,
                                      .vocab = g.model->config.vocab,
                                      .repetition = 1};
        const batch_seq q = {
            .tokens = p->ids, .ntokens = ROWS, .blocks = blocks, .nlogits = ROWS, .draw = &how_drawn};
        memcpy(ids, draw(b, &q).drawn, sizeof ids);
        engine_sampling h;
        engine_sampling_default(&h);
        h.temperature = how[i].temperature, h.top_p = how[i].top_p, h.min_p = how[i].min_p;
        h.top_k = how[i].top_k, h.seed = 11 + i;
        const float *logits = run(b, p->ids, ROWS, 0, ROWS);
        for (int k = 0; k < ROWS; k++) {
            const sample_input in = {
                .logits = logits + k * g.model->config.vocab, .how = &h, .ntokens = k + 1};
            sample_output out;
            if (sampler_draw(s, &in, &out, &err)) fail_msg("%s", err.msg);
            assert_int_equal(ids[k], out.token);
        }
    }
    sampler_free(s);
    backend_close(b);
    golden_close(&g);
}

/* With penalties and a mask the first row's token comes back, and the logits of those after it, which guesses led to. */
static void a_row_with_penalties_and_a_mask_is_drawn_and_those_after_it_come_back(void **state) {
    (void)state;
    enum { ROWS = 3, TOKENS = 9, WORDS = 64 };
    golden g = golden_open("llama_gqa_bf16");
    backend *b = open_shim(g.model, NULL);
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    const int vocab = g.model->config.vocab, known = TOKENS - ROWS + 1;
    engine_error err = {0};
    sampler *s = sampler_new(vocab, &err);
    assert_true(s && vocab <= WORDS * 64);
    uint64_t allowed[WORDS];
    memset(allowed, 0x5b, sizeof allowed);
    engine_sampling h;
    engine_sampling_default(&h);
    h.repetition_penalty = 1.5f, h.frequency_penalty = 0.7f, h.seed = 4;
    const float *logits = run(b, p->ids, TOKENS, 0, ROWS);
    const int32_t banned[] = {3, 17};
    const sample_input in = {logits, &h, p->ids, known, 2, banned, 2, allowed};
    logit_change changes[TOKENS + 2];
    const batch_draw how = {.temperature = h.temperature,
                            .top_p = h.top_p,
                            .seed = h.seed,
                            .vocab = vocab,
                            .changes = changes,
                            .nchanges = sampler_changes(s, &in, changes),
                            .frequency = h.frequency_penalty,
                            .repetition = h.repetition_penalty,
                            .allowed = allowed};
    sample_output out;
    if (sampler_draw(s, &in, &out, &err)) fail_msg("%s", err.msg);
    float *later = copy_of(logits + vocab, (ROWS - 1) * vocab);
    const batch_seq q = {
        .tokens = p->ids, .ntokens = TOKENS, .blocks = blocks, .nlogits = ROWS, .draw = &how};
    const batch_result now = draw(b, &q);
    assert_int_equal(now.drawn[0], out.token);
    for (int k = 1; k < ROWS; k++) assert_int_equal(now.drawn[k], DRAWN_NOT);
    assert_memory_equal(now.logits + vocab, later, (size_t)((ROWS - 1) * vocab) * sizeof *later);
    free(later);
    sampler_free(s);
    backend_close(b);
    golden_close(&g);
}

/* The long prompt at once; token by token; and in pieces beside another sequence: one set of bits. */
static void check_invariance(const char *name, const char *weights) {
    golden g = golden_open(name);
    backend *b = open_shim(g.model, weights);
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    const int vocab = g.model->config.vocab, n = p->nids < 80 ? p->nids : 80;
    float *whole = copy_of(run(b, p->ids, n, 0, n), n * vocab);
    for (int t = 0; t < n; t++) {
        const float *one = run(b, p->ids + t, 1, t, 1);
        if (memcmp(one, whole + (size_t)t * (size_t)vocab, (size_t)vocab * sizeof *one))
            fail_msg("%s, %s: token %d alone has other logits", name, weights ? weights : "stored", t);
    }
    static const int32_t others[] = {33, 34, 35, 36};
    static const int sizes[] = {3, 17, 1, 40, 100};
    for (int t = 0, turn = 0; t < n; turn++) {
        engine_error err = {0};
        float *logits = NULL;
        const int left = n - t, size = sizes[turn % 5] < left ? sizes[turn % 5] : left;
        const batch_seq pair[] = {
            {.tokens = p->ids, .ntokens = 1 + turn % 2, .pos = 0, .blocks = others, .nlogits = 1},
            {.tokens = p->ids + t, .ntokens = size, .pos = t, .blocks = blocks, .nlogits = size}};
        if (backend_forward(b, pair, 2, &logits, &err)) fail_msg("%s", err.msg);
        if (memcmp(logits + vocab, whole + (size_t)t * (size_t)vocab,
                   (size_t)(size * vocab) * sizeof *logits))
            fail_msg("%s, %s: tokens from %d have other logits in a batch", name,
                     weights ? weights : "stored", t);
        t += size;
    }
    free(whole);
    backend_close(b);
    golden_close(&g);
}

static void logits_are_the_same_bits_in_every_batch(void **state) {
    (void)state;
    check_invariance("llama_gqa_f32", NULL);
    check_invariance("llama_heads8_bf16", NULL);
    check_invariance("llama_gqa_f16", "int8");
    check_invariance("llama_gqa_f16", "int8-a16");
    check_invariance("qwen2_tied_bf16", "fp8");
    check_invariance("qwen2_tied_bf16", "fp8-a16");
}

/* What 8 bits cost here is what they cost on the CPU, where weights and activations are rounded by the same rules. An activation that
 * is a bit off may fall on the next byte. */
static void eight_bit_formats_are_the_cpu_s(void **state) {
    (void)state;
    static const struct {
        const char *weights;
        double bar;
    } formats[] = {{"int8-a16", 1e-4}, {"int8", 1e-2}};
    golden g = golden_open("qwen2_tied_f32");
    const golden_prompt *p = &g.prompt[1];
    const int n = p->nids * g.model->config.vocab;
    for (int i = 0; i < 2; i++) {
        backend *gpu = open_shim(g.model, formats[i].weights),
                *cpu = golden_backend_with(g.model, formats[i].weights, NULL, NULL, 1);
        const float *a = run(gpu, p->ids, p->nids, 0, p->nids), *b = run(cpu, p->ids, p->nids, 0, p->nids);
        const double d = worst_difference(a, b, n);
        if (d > formats[i].bar) fail_msg("%s: logits differ by %g", formats[i].weights, d);
        backend_close(cpu);
        backend_close(gpu);
    }
    golden_close(&g);
}

static void a_copied_block_goes_on_as_the_original(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_bf16");
    backend *b = open_shim(g.model, NULL);
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    static const int32_t other[] = {50, 51};
    engine_error err = {0};
    const int vocab = g.model->config.vocab;
    run(b, p->ids, 20, 0, 0);
    for (int i = 0; i < 2; i++) backend_copy_block(b, blocks[i], other[i]);
    float *expected = copy_of(run(b, p->ids + 20, 1, 20, 1), vocab), *logits = NULL;
    const batch_seq s = {.tokens = p->ids + 20, .ntokens = 1, .pos = 20, .blocks = other, .nlogits = 1};
    if (backend_forward(b, &s, 1, &logits, &err)) fail_msg("%s", err.msg);
    assert_memory_equal(logits, expected, (size_t)vocab * sizeof *logits);
    free(expected);
    backend_close(b);
    golden_close(&g);
}

/* Through the shim, threads with "a GPU" each and the CPU's collectives; on GPUs, as many as there are, with NCCL. */
static backend *open_ranks(const model *m, const backend_options *opt, int ranks, engine_error *err) {
#ifdef ON_GPU
    return backend_open_cuda_ranks(m, opt, ranks, err);
#else
    static const rank_kind kind = {comm_local_new, backend_open_cuda};
    return backend_open_group(&kind, m, opt, ranks, err);
#endif
}

static void ranks_compute_what_one_gpu_does(void **state) {
    (void)state;
    if (cuda_devices() < 2) skip();
    golden g = golden_open("llama_heads8_f32");
    const golden_prompt *p = &g.prompt[1];
    for (int ranks = 2; ranks <= 8 && ranks <= cuda_devices(); ranks *= 2) {
        engine_error err = {0};
        const backend_options opt = options_of(NULL);
        backend *b = open_ranks(g.model, &opt, ranks, &err);
        if (!b) fail_msg("%s", err.msg);
        const batch_seq s = {.tokens = p->ids, .ntokens = p->nids, .blocks = blocks, .nlogits = p->nids};
        assert_true(backend_overlaps(b)); /* as the engine runs them */
        const double d = worst_difference(draw(b, &s).logits, p->logits, p->nids * g.model->config.vocab);
        if (d > 1e-4) fail_msg("over %d ranks logits differ by %g", ranks, d);
        backend_close(b);
    }
    golden_close(&g);
}

static void expect_no_backend(const model *m, backend_options opt, const char *why) {
    engine_error err = {0};
    assert_null(backend_open_cuda(m, &opt, &err));
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

typedef struct seen {
    size_t done, total;
    int calls;
} seen;

static void see(void *arg, size_t done, size_t total) {
    seen *s = arg;
    assert_true(done > s->done && done <= total && (!s->calls || total == s->total));
    *s = (seen){done, total, s->calls + 1};
}

static void loading_tells_how_much_of_the_checkpoint_it_has_read(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_bf16");
    for (int ranks = 1; ranks <= 2 && ranks <= cuda_devices(); ranks++) {
        engine_error err = {0};
        seen s = {0};
        backend_options opt = options_of("int8");
        opt.loading = see;
        opt.loading_arg = &s;
        backend *b =
            ranks == 1 ? backend_open_cuda(g.model, &opt, &err) : open_ranks(g.model, &opt, ranks, &err);
        if (!b) fail_msg("%s", err.msg);
        assert_true(s.calls > 10 && s.done == s.total);
        assert_true(ranks == 1 ? s.total == g.model->bytes : s.total < g.model->bytes);
        backend_close(b);
    }
    golden_close(&g);
}

static void a_backend_that_cannot_be_says_why(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    backend_options opt = options_of("int3");
    expect_no_backend(g.model, opt, "unknown weights");
    opt = options_of(NULL);
    opt.kv_blocks = 1 << 28;
    expect_no_backend(g.model, opt, "lower kv_tokens");
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_reference),
        cmocka_unit_test(odd_shapes_compute_what_the_cpu_computes),
        cmocka_unit_test(activations_in_8_bits_are_nearly_those_of_the_cpu),
        cmocka_unit_test(activations_in_8_bits_cost_what_they_cost_on_the_cpu),
        cmocka_unit_test(products_in_any_order_are_near_the_reference),
        cmocka_unit_test(greedy_decoding_follows_the_reference),
        cmocka_unit_test(tokens_are_drawn_as_the_engine_draws_them_from_the_logits),
        cmocka_unit_test(a_row_with_penalties_and_a_mask_is_drawn_and_those_after_it_come_back),
        cmocka_unit_test(logits_are_the_same_bits_in_every_batch),
        cmocka_unit_test(eight_bit_formats_are_the_cpu_s),
        cmocka_unit_test(a_copied_block_goes_on_as_the_original),
        cmocka_unit_test(ranks_compute_what_one_gpu_does),
        cmocka_unit_test(loading_tells_how_much_of_the_checkpoint_it_has_read),
        cmocka_unit_test(a_backend_that_cannot_be_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
