/* A model over N ranks is the same model: the reference's logits and tokens, the same bits in every run, and one clear error
 * where it cannot be split or a rank is lost.
 */
#include "engine/backend_impl.h"
#include "engine/comm/group.h"
#include "tests/unit/engine/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const int32_t blocks[GOLDEN_SEQ_BLOCKS] = {9, 3, 60, 1, 22, 0, 63, 17, 4, 40, 41, 39, 2, 8, 7, 6};

static float *run_in(backend *b, const int32_t *in, const int32_t *tokens, int n, int pos, int nlogits) {
    engine_error err = {0};
    float *logits = NULL;
    batch_seq s = {.tokens = tokens, .ntokens = n, .pos = pos, .blocks = in, .nlogits = nlogits};
    if (backend_forward(b, &s, 1, &logits, &err)) fail_msg("%s", err.msg);
    return logits;
}

static float *run(backend *b, const int32_t *tokens, int n, int pos, int nlogits) {
    return run_in(b, blocks, tokens, n, pos, nlogits);
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

/* What they differ in matters to how they are split: types, a tied head, biases, 4 or 8 heads. */
static const char *const names[] = {"llama_gqa_f32",    "llama_gqa_bf16",  "llama_gqa_f16",
                                    "qwen2_tied_f32",   "qwen2_tied_bf16", "llama_heads8_f32",
                                    "llama_heads8_bf16"};
enum { NAMES = sizeof names / sizeof *names };

static void each_split(const char *name, const char *isa,
                       void (*check)(const char *name, const golden *g, int ranks, const char *isa)) {
    golden g = golden_open(name);
    for (int ranks = 1; ranks <= g.model->config.heads; ranks *= 2) check(name, &g, ranks, isa);
    golden_close(&g);
}

static void check_logits(const char *name, const golden *g, int ranks, const char *isa) {
    const double bar = g->model->config.stored == DTYPE_F32 ? 1e-4 : 3e-2;
    backend *b = golden_ranks(g->model, isa, ranks, ranks);
    for (int i = 0; i < g->nprompts; i++) {
        const golden_prompt *p = &g->prompt[i];
        const float *logits = run(b, p->ids, p->nids, 0, p->nids);
        double d = worst_difference(logits, p->logits, p->nids * g->model->config.vocab);
        if (d > bar) {
            fail_msg("%s over %d ranks on %s, prompt %d: logits differ by %g", name, ranks, backend_isa(b), i,
                     d);
        }
    }
    backend_close(b);
}

static void logits_are_those_of_the_reference_over_1_2_4_and_8_ranks(void **state) {
    (void)state;
    for (size_t m = 0; m < NAMES; m++) each_split(names[m], NULL, check_logits);
    for (size_t i = 0; i < GOLDEN_ISAS; i++) {
        if (golden_isa_runs(golden_isas[i])) each_split("qwen2_tied_bf16", golden_isas[i], check_logits);
    }
}

static void check_greedy(const char *name, const golden *g, int ranks, const char *isa) {
    backend *b = golden_ranks(g->model, isa, ranks, ranks);
    for (int i = 0; i < g->nprompts; i++) {
        const golden_prompt *p = &g->prompt[i];
        const float *logits = run(b, p->ids, p->nids, 0, 1);
        for (int t = 0; t < 64; t++) {
            int32_t token = likeliest(logits, g->model->config.vocab);
            if (token != p->greedy[t]) {
                fail_msg("%s over %d ranks, prompt %d: token %d differs", name, ranks, i, t);
            }
            logits = run(b, &token, 1, p->nids + t, 1);
        }
    }
    backend_close(b);
}

static void greedy_decoding_gives_the_same_64_tokens(void **state) {
    (void)state;
    each_split("llama_heads8_f32", NULL, check_greedy);
    each_split("qwen2_tied_f32", NULL, check_greedy);
}

static float *logits_of(backend *b, const golden *g) {
    const golden_prompt *p = &g->prompt[g->nprompts - 1];
    const size_t n = (size_t)p->nids * (size_t)g->model->config.vocab;
    float *copy = malloc(n * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, run(b, p->ids, p->nids, 0, p->nids), n * sizeof *copy);
    backend_close(b);
    return copy;
}

static void expect_same_bits(float *a, float *b, const golden *g) {
    const size_t n = (size_t)g->prompt[g->nprompts - 1].nids * (size_t)g->model->config.vocab;
    assert_memory_equal(a, b, n * sizeof *a);
    free(b);
}

static void one_rank_computes_the_bits_of_a_backend_without_ranks(void **state) {
    (void)state;
    for (size_t m = 0; m < NAMES; m++) {
        golden g = golden_open(names[m]);
        float *whole = logits_of(golden_backend(g.model, NULL, 2), &g);
        expect_same_bits(whole, logits_of(golden_ranks(g.model, NULL, 2, 1), &g), &g);
        free(whole);
        golden_close(&g);
    }
}

static void a_number_of_ranks_gives_the_same_bits_in_every_run(void **state) {
    (void)state;
    golden g = golden_open("llama_heads8_f32");
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        float *first = logits_of(golden_ranks(g.model, NULL, ranks, ranks), &g);
        expect_same_bits(first, logits_of(golden_ranks(g.model, NULL, ranks, ranks), &g), &g);
        expect_same_bits(first, logits_of(golden_ranks(g.model, NULL, 2 * ranks, ranks), &g), &g);
        free(first);
    }
    golden_close(&g);
}

/* ---- 8 bits ---- */

static model *random_model(void) {
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,"
        "\"intermediate_size\":1024,\"num_hidden_layers\":2,\"num_attention_heads\":8,"
        "\"num_key_value_heads\":4,\"head_dim\":128,\"vocab_size\":500,\"max_position_embeddings\":256,"
        "\"rms_norm_eps\":1e-6,\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"torch_dtype\":\"float32\","
        "\"tie_word_embeddings\":false}";
    char path[] = "/tmp/millrace-shape-XXXXXX";
    engine_error err = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, config, sizeof config - 1), sizeof config - 1);
    close(fd);
    model *m = model_random(path, &err);
    unlink(path);
    if (!m) fail_msg("%s", err.msg);
    return m;
}

static void weights_in_8_bits_are_the_same_weights_on_every_rank(void **state) {
    (void)state;
    enum { N = 20, VOCAB = 500 };
    static const char *const formats[] = {"int8", "int8-a16"};
    /* W8A8 rounds activations: a last bit before it can be a step of 1/127 after it */
    static const double bars[] = {2e-2, 1e-4};
    static float whole[N * VOCAB];
    int32_t ids[N];
    model *m = random_model();
    for (int i = 0; i < N; i++) ids[i] = i * 23;
    for (int f = 0; f < 2; f++) {
        for (int ranks = 1; ranks <= 8; ranks *= 2) {
            engine_error err = {0};
            backend_options opt = golden_options(NULL, ranks);
            opt.weights = formats[f];
            backend *b = backend_open_cpu_ranks(m, &opt, ranks, &err);
            if (!b) fail_msg("%s", err.msg);
            const float *logits = run(b, ids, N, 0, N);
            if (ranks == 1) memcpy(whole, logits, sizeof whole);
            double d = worst_difference(logits, whole, N * VOCAB);
            if (d > bars[f]) fail_msg("%s over %d ranks: logits differ by %g", formats[f], ranks, d);
            backend_close(b);
        }
    }
    model_close(m);
}

/* ---- memory ---- */

static void ranks_share_the_weights_out_and_keep_the_cache_of_their_own_heads(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    const size_t slack = (size_t)2 << 20; /* arenas are whole huge pages */
    backend *one = golden_backend(g.model, NULL, 1);
    const backend_memory whole = backend_memory_now(one);
    backend_close(one);
    for (int ranks = 2; ranks <= 4; ranks *= 2) {
        backend *b = golden_ranks(g.model, NULL, 1, ranks);
        const backend_memory m = backend_memory_now(b);
        assert_in_range(m.weights, g.model->bytes, g.model->bytes + (size_t)ranks * slack);
        assert_in_range(m.kv, whole.kv, whole.kv + (size_t)ranks * slack);
        backend_close(b);
    }
    golden_close(&g);
}

static void a_copied_block_is_copied_on_every_rank(void **state) {
    (void)state;
    static const int32_t first[] = {2, 3}, second[] = {5, 6};
    golden g = golden_open("llama_gqa_f32");
    const int vocab = g.model->config.vocab;
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    float *expected = malloc((size_t)vocab * sizeof *expected);
    assert_non_null(expected);
    backend *b = golden_ranks(g.model, NULL, 2, 2);
    run_in(b, first, p->ids, GOLDEN_BLOCK, 0, 0);
    backend_copy_block(b, first[0], second[0]);
    memcpy(expected, run_in(b, first, p->ids + GOLDEN_BLOCK, 1, GOLDEN_BLOCK, 1),
           (size_t)vocab * sizeof *expected);
    const float *copied = run_in(b, second, p->ids + GOLDEN_BLOCK, 1, GOLDEN_BLOCK, 1);
    assert_memory_equal(copied, expected, (size_t)vocab * sizeof *expected);
    free(expected);
    backend_close(b);
    golden_close(&g);
}

/* The linker puts these in the way of every call in the engine: see CMakeLists.txt. */
static atomic_int allocations;
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_malloc(size_t n) {
    atomic_fetch_add(&allocations, 1);
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __real_calloc(n, size);
}

static void a_pass_allocates_nothing(void **state) {
    (void)state;
    golden g = golden_open("llama_heads8_f32");
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    backend *b = golden_ranks(g.model, NULL, 8, 4);
    const int before = atomic_load(&allocations);
    assert_true(before > 0);
    for (int i = 0; i < 10; i++) run(b, p->ids, p->nids, 0, p->nids);
    assert_int_equal(atomic_load(&allocations), before);
    backend_close(b);
    golden_close(&g);
}

/* ---- what cannot be, and what breaks ---- */

static void expect_refused(const model *m, int ranks, const char *why) {
    engine_error err = {0};
    backend_options opt = golden_options(NULL, 1);
    assert_null(backend_open_cpu_ranks(m, &opt, ranks, &err));
    assert_int_equal(err.code, ENGINE_EINVAL);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void a_number_of_ranks_that_does_not_divide_the_model_is_refused_with_those_that_do(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    expect_refused(g.model, 3, "cannot be split over 3 ranks: it can over 1, 2, 4");
    expect_refused(g.model, 8, "4 heads, 2 for keys and values");
    expect_refused(g.model, 0, "over 0 ranks");
    expect_refused(g.model, 1000000, "over 1000000 ranks");
    golden_close(&g);
}

static void a_wrong_option_is_said_once_for_all_ranks(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    engine_error err = {0};
    backend_options opt = golden_options("sse9", 4);
    assert_null(backend_open_cpu_ranks(g.model, &opt, 4, &err));
    assert_non_null(strstr(err.msg, "unknown instruction set"));
    opt = golden_options(NULL, 4);
    opt.kv_blocks = INT32_MAX;
    assert_null(backend_open_cpu_ranks(g.model, &opt, 4, &err));
    assert_non_null(strstr(err.msg, "KV cache"));
    golden_close(&g);
}

/* Rank 2 does not open, or fails in its third pass while the others wait for its part. */
enum { BAD_RANK = 2, LAST_PASS = 2 };

typedef struct mortal {
    backend base;
    backend *real;
    int passes;
} mortal;

static int mortal_forward(backend *base, const batch_seq *seqs, int nseqs, float **logits,
                          engine_error *err) {
    mortal *m = (mortal *)base;
    if (m->passes++ == LAST_PASS) return engine_fail(err, ENGINE_EIO, "the device fell off the bus");
    return m->real->ops->forward(m->real, seqs, nseqs, logits, err);
}

static void mortal_close(backend *base) {
    mortal *m = (mortal *)base;
    backend_close(m->real);
    free(m);
}

static backend *open_mortal(const model *shard, const backend_options *opt, engine_error *err) {
    static const backend_ops ops = {.forward = mortal_forward, .close = mortal_close};
    backend *real = backend_open_cpu(shard, opt, err);
    if (opt->comm->rank != BAD_RANK || !real) return real;
    mortal *m = calloc(1, sizeof *m);
    assert_non_null(m);
    *m = (mortal){.base = {.ops = &ops, .opt = *opt, .vocab = shard->config.vocab}, .real = real};
    return &m->base;
}

static backend *open_stillborn(const model *shard, const backend_options *opt, engine_error *err) {
    if (opt->comm->rank != BAD_RANK) return backend_open_cpu(shard, opt, err);
    engine_fail(err, ENGINE_ENOMEM, "the device has no memory left");
    return NULL;
}

static void a_lost_rank_fails_the_pass_and_all_that_follow_with_its_reason(void **state) {
    (void)state;
    static const rank_kind kind = {comm_local_new, open_mortal};
    static const int32_t token = 7;
    const batch_seq s = {.tokens = &token, .ntokens = 1, .blocks = blocks, .nlogits = 1};
    golden g = golden_open("llama_gqa_f32");
    backend_options opt = golden_options(NULL, 8);
    backend *b = backend_open_group(&kind, g.model, &opt, 4, NULL);
    assert_non_null(b);
    for (int pass = 0; pass < 5; pass++) {
        engine_error err = {0};
        float *logits = NULL;
        int rc = backend_forward(b, &s, 1, &logits, &err);
        assert_int_equal(rc, pass < LAST_PASS ? 0 : -1);
        if (pass < LAST_PASS) continue;
        assert_int_equal(err.code, ENGINE_EIO);
        assert_string_equal(err.msg, "rank 2 of 4: the device fell off the bus");
    }
    backend_close(b);
    golden_close(&g);
}

/* Ranks of which each has a device of its own, and waits for what that device is in until its own end of the group is aborted. */
typedef struct lonely_end {
    comm base;
    int aborts;
} lonely_end;
static lonely_end lonely[4];
static engine_error lonely_why;

static int lonely_barrier(comm *c, engine_error *err) {
    (void)c;
    *err = lonely_why;
    return -1;
}

static void lonely_abort(comm *c, const engine_error *why) {
    if (!lonely_why.code) lonely_why = *why;
    ((lonely_end *)c)->aborts++;
}

static void lonely_free(comm *c) {
    (void)c;
}

static int connect_lonely(int ranks, comm **ends, engine_error *err) {
    static const comm_ops ops = {.barrier = lonely_barrier, .abort = lonely_abort, .free = lonely_free};
    (void)err;
    memset(lonely, 0, sizeof lonely);
    for (int i = 0; i < ranks; i++) {
        lonely[i].base = (comm){.ops = &ops, .rank = i, .size = ranks};
        ends[i] = &lonely[i].base;
    }
    return 0;
}

static int lonely_begin(backend *b, const batch_seq *seqs, int nseqs, engine_error *err) {
    (void)seqs;
    (void)nseqs;
    return b->opt.comm->rank == BAD_RANK ? engine_fail(err, ENGINE_EIO, "the device fell off the bus") : 0;
}

static int lonely_finish(backend *b, batch_result *result, engine_error *err) {
    (void)b;
    (void)result;
    (void)err;
    return 0;
}

static void lonely_close(backend *b) {
    assert_true(((lonely_end *)b->opt.comm)->aborts > 0);
    free(b);
}

static backend *open_lonely(const model *shard, const backend_options *opt, engine_error *err) {
    static const backend_ops ops = {.begin = lonely_begin, .finish = lonely_finish, .close = lonely_close};
    backend *b = calloc(1, sizeof *b);
    (void)err;
    assert_non_null(b);
    *b = (backend){.ops = &ops, .opt = *opt, .vocab = shard->config.vocab};
    return b;
}

static void a_rank_lost_in_the_first_half_of_a_pass_frees_the_devices_that_wait_for_it(void **state) {
    (void)state;
    static const rank_kind kind = {connect_lonely, open_lonely};
    static const int32_t token = 7;
    const batch_seq s = {.tokens = &token, .ntokens = 1, .blocks = blocks, .nlogits = 1};
    golden g = golden_open("llama_gqa_f32");
    backend_options opt = golden_options(NULL, 4);
    backend *b = backend_open_group(&kind, g.model, &opt, 4, NULL);
    assert_non_null(b);
    assert_true(backend_overlaps(b));
    engine_error err = {0};
    batch_result result;
    assert_int_equal(backend_begin(b, &s, 1, &err), -1);
    assert_string_equal(err.msg, "rank 2 of 4: the device fell off the bus");
    for (int i = 0; i < 4; i++) assert_true(lonely[i].aborts > 0);
    assert_int_equal(backend_finish(b, &result, &err), -1);
    backend_close(b);
    golden_close(&g);
}

static void a_rank_that_does_not_open_closes_the_others(void **state) {
    (void)state;
    static const rank_kind kind = {comm_local_new, open_stillborn};
    golden g = golden_open("llama_gqa_f32");
    engine_error err = {0};
    backend_options opt = golden_options(NULL, 4);
    assert_null(backend_open_group(&kind, g.model, &opt, 4, &err));
    assert_string_equal(err.msg, "the device has no memory left");
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_reference_over_1_2_4_and_8_ranks),
        cmocka_unit_test(greedy_decoding_gives_the_same_64_tokens),
        cmocka_unit_test(one_rank_computes_the_bits_of_a_backend_without_ranks),
        cmocka_unit_test(a_number_of_ranks_gives_the_same_bits_in_every_run),
        cmocka_unit_test(weights_in_8_bits_are_the_same_weights_on_every_rank),
        cmocka_unit_test(ranks_share_the_weights_out_and_keep_the_cache_of_their_own_heads),
        cmocka_unit_test(a_pass_allocates_nothing),
        cmocka_unit_test(a_copied_block_is_copied_on_every_rank),
        cmocka_unit_test(a_number_of_ranks_that_does_not_divide_the_model_is_refused_with_those_that_do),
        cmocka_unit_test(a_wrong_option_is_said_once_for_all_ranks),
        cmocka_unit_test(a_lost_rank_fails_the_pass_and_all_that_follow_with_its_reason),
        cmocka_unit_test(a_rank_lost_in_the_first_half_of_a_pass_frees_the_devices_that_wait_for_it),
        cmocka_unit_test(a_rank_that_does_not_open_closes_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
