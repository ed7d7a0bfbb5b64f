/* The sampler against a slow and plain reference, and its distribution against the probabilities it should draw with. */
#include "fake.h"

#include "engine/sample.h"
#include "engine/sample_chunk.h"
#include "tests/unit/engine_sched/cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 500 };

typedef struct candidate {
    double logit, p;
    int32_t id;
} candidate;

static int by_likelihood(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id - y->id;
}

static void softmax(candidate *c, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += c[i].p = exp(c[i].logit - c[0].logit);
    for (int i = 0; i < n; i++) c[i].p /= sum;
}

/* The distribution by the book: full sort, doubles, one filter after the other. p[id] is 0 for what is filtered out. */
static void reference(const sample_input *in, int vocab, double *p) {
    const engine_sampling *h = in->how;
    candidate *c = calloc((size_t)vocab, sizeof *c);
    assert_non_null(c);
    for (int id = 0; id < vocab; id++) {
        double x = (double)in->logits[id];
        int generated = 0, seen = 0;
        for (int i = 0; i < in->ntokens; i++) {
            seen += in->tokens[i] == id;
            generated += i >= in->nprompt && in->tokens[i] == id;
        }
        double r = (double)h->repetition_penalty;
        if (seen) x = x > 0 ? x / r : x * r;
        x -= generated * (double)h->frequency_penalty + (generated > 0) * (double)h->presence_penalty;
        for (int i = 0; i < in->nbanned; i++) {
            if (in->banned[i] == id) x = -INFINITY;
        }
        c[id] = (candidate){x / (double)h->temperature, 0, id};
        p[id] = 0;
    }
    qsort(c, (size_t)vocab, sizeof *c, by_likelihood);
    int n = vocab;
    softmax(c, n);
    double floor = c[0].p * (double)h->min_p;
    while (n > 1 && c[n - 1].p < floor) n--;
    if (h->top_k > 0 && h->top_k < n) n = h->top_k;
    softmax(c, n);
    double sum = 0;
    int m = 0;
    while (m < n && sum < (double)h->top_p) sum += c[m++].p;
    if (m == 0) m = 1;
    softmax(c, m);
    for (int i = 0; i < m; i++) p[c[i].id] = c[i].p;
    free(c);
}

static void random_logits(float *x, int n, uint64_t *r, double spread) {
    for (int i = 0; i < n; i++) x[i] = (float)(spread * ((double)rnd(r, 1 << 20) / (1 << 19) - 1));
}

static int32_t draw_one(sampler *s, const sample_input *in) {
    sample_output out;
    engine_error err;
    if (sampler_draw(s, in, &out, &err)) fail_msg("%s", err.msg);
    return out.token;
}

/* The reference's token for the same random number, walking the ids in the order of the draw is not defined: so only the
 * set of possible tokens and the frequencies are compared, over many seeds. */
static void compare(sampler *s, sample_input *in, engine_sampling *h, int vocab, int draws) {
    double *p = calloc((size_t)vocab, sizeof *p);
    int *seen = calloc((size_t)vocab, sizeof *seen);
    assert_true(p && seen);
    reference(in, vocab, p);
    for (int i = 0; i < draws; i++) {
        h->seed = (uint64_t)i;
        seen[draw_one(s, in)]++;
    }
    double chi2 = 0, expected_rest = 0;
    int cells = 0, rest = 0;
    for (int id = 0; id < vocab; id++) {
        double expected = p[id] * draws;
        if (p[id] == 0) assert_int_equal(seen[id], 0);
        if (expected < 5) {
            expected_rest += expected;
            rest += seen[id];
            continue;
        }
        chi2 += (seen[id] - expected) * (seen[id] - expected) / expected;
        cells++;
    }
    if (expected_rest >= 5) {
        chi2 += (rest - expected_rest) * (rest - expected_rest) / expected_rest;
        cells++;
    }
    /* mean cells - 1, deviation sqrt(2 (cells - 1)): five deviations above is one in millions; the seeds are fixed */
    double freedom = cells > 1 ? cells - 1 : 1;
    if (chi2 > freedom + 5 * sqrt(2 * freedom) + 1)
        fail_msg("chi-square %g with %g degrees of freedom", chi2, freedom);
    free(p);
    free(seen);
}

static void test_filters_and_penalties_give_the_distribution_of_the_reference(void **state) {
    (void)state;
    engine_error err;
    sampler *s = sampler_new(VOCAB, &err);
    uint64_t r = 7;
    float x[VOCAB];
    int32_t tokens[40], banned[2] = {3, 4};
    for (int round = 0; round < 60; round++) {
        engine_sampling h;
        engine_sampling_default(&h);
        h.temperature = 0.3f + 0.1f * (float)rnd(&r, 15);
        if (rnd(&r, 2)) h.top_p = 0.05f * (float)(1 + rnd(&r, 19));
        if (rnd(&r, 2)) h.top_k = 1 + (int)rnd(&r, 60);
        if (rnd(&r, 3) == 0) h.min_p = 0.02f * (float)rnd(&r, 20);
        if (rnd(&r, 2)) h.repetition_penalty = 0.8f + 0.1f * (float)rnd(&r, 8);
        if (rnd(&r, 2)) h.presence_penalty = -2 + 0.25f * (float)rnd(&r, 16);
        if (rnd(&r, 2)) h.frequency_penalty = -1 + 0.25f * (float)rnd(&r, 8);
        random_logits(x, VOCAB, &r, 1 + rnd(&r, 8));
        for (int i = 0; i < 40; i++) tokens[i] = (int32_t)rnd(&r, 30);
        sample_input in = {x, &h, tokens, 40, 15, banned, (int)rnd(&r, 3), NULL};
        compare(s, &in, &h, VOCAB, 2000);
    }
    sampler_free(s);
}

/* Larger than what is gone through at once, and no multiple of it: some filters, each alone and all together. */
static void test_a_large_vocabulary_has_the_same_distribution(void **state) {
    (void)state;
    enum { LARGE = 1500 };
    static const struct {
        float top_p, min_p;
        int top_k;
    } filters[] = {{1, 0, 0},     {0.9f, 0, 0},      {0.3f, 0, 0}, {1, 0, 3},        {1, 0, 100},
                   {1, 0.05f, 0}, {0.8f, 0.01f, 50}, {0, 0, 0},    {0.999f, 0, 1400}};
    engine_error err;
    sampler *s = sampler_new(LARGE, &err);
    static float x[LARGE];
    uint64_t r = 11;
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        engine_sampling h;
        engine_sampling_default(&h);
        h.top_p = filters[i].top_p;
        h.min_p = filters[i].min_p;
        h.top_k = filters[i].top_k;
        random_logits(x, LARGE, &r, i % 2 ? 10 : 3);
        if (i == 3) x[LARGE - 1] = x[700] = x[0] = 12; /* equals at the border, in different chunks */
        sample_input in = {x, &h, NULL, 0, 0, NULL, 0, NULL};
        compare(s, &in, &h, LARGE, 6000);
    }
    sampler_free(s);
}

static void check_ops(const chunk_ops *ops, const char *name) {
    static float x[256], here[256], there[256];
    uint64_t r = 3;
    for (int n = 1; n <= 256; n++) {
        float bad = 0, other_bad = 0, best;
        random_logits(x, n, &r, n % 3 ? 20 : 120);
        if (n % 7 == 0) x[n / 2] = -INFINITY;
        best = chunk_ops_generic.scan(x, n, &bad);
        assert_true(ops->scan(x, n, &other_bad) == best);
        assert_int_equal(bad == 0, other_bad == 0);
        double sum = chunk_ops_generic.weigh(here, x, n, best, 1.3f);
        if (ops->weigh(there, x, n, best, 1.3f) != sum || memcmp(here, there, (size_t)n * sizeof *here))
            fail_msg("%s: other bits with %d tokens", name, n);
        for (int i = 0; i < n; i++) {
            double want = exp((double)((x[i] - best) * 1.3f));
            assert_true(fabs((double)here[i] - want) <= 3e-7 * want + 1e-37);
        }
    }
}

static void test_every_instruction_set_gives_the_same_bits(void **state) {
    (void)state;
    check_ops(chunk_ops_select(), "the best of this CPU");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) check_ops(&chunk_ops_avx2, "AVX2");
#endif
}

static void test_plain_sampling_passes_a_chi_square_test(void **state) {
    (void)state;
    engine_error err;
    sampler *s = sampler_new(50, &err);
    uint64_t r = 3;
    float x[50];
    engine_sampling h;
    engine_sampling_default(&h);
    random_logits(x, 50, &r, 2);
    sample_input in = {.logits = x, .how = &h};
    compare(s, &in, &h, 50, 200000);
    sampler_free(s);
}

static void test_positions_of_one_seed_are_independent_draws(void **state) {
    (void)state;
    int cell[16][16] = {{0}};
    for (uint64_t pos = 0; pos < 100000; pos++) {
        double a = sample_uniform(42, pos), b = sample_uniform(42, pos + 1);
        assert_true(a >= 0 && a < 1);
        cell[(int)(a * 16)][(int)(b * 16)]++;
    }
    double chi2 = 0, expected = 100000.0 / 256;
    for (int i = 0; i < 256; i++) chi2 += pow(cell[i / 16][i % 16] - expected, 2) / expected;
    assert_true(chi2 > 255 - 5 * sqrt(510) && chi2 < 255 + 5 * sqrt(510));
}

/* Known answers of Philox4x32-10 (Random123's kat_vectors): counter 0, key 0; and the values that replays rely on. */
static void test_the_generator_never_changes(void **state) {
    (void)state;
    uint64_t zero = UINT64_C(0x6627e8d5) << 32 | UINT64_C(0xe169c58d);
    assert_true(sample_uniform(0, 0) == (double)(zero >> 11) * 0x1p-53);
    assert_true(sample_uniform(0, 0) != sample_uniform(1, 0));
    assert_true(sample_uniform(UINT64_C(1) << 40, 0) != sample_uniform(0, 0));
}

static void test_greedy_takes_the_lower_id_of_equals(void **state) {
    (void)state;
    engine_error err;
    sampler *s = sampler_new(100, &err);
    float x[100] = {0};
    x[70] = x[33] = x[34] = 2;
    engine_sampling h;
    engine_sampling_default(&h);
    h.temperature = 0;
    sample_input in = {.logits = x, .how = &h};
    assert_int_equal(draw_one(s, &in), 33);
    h.temperature = 1;
    h.top_k = 1;
    assert_int_equal(draw_one(s, &in), 33);
    h.top_k = 0;
    h.top_p = 0;
    assert_int_equal(draw_one(s, &in), 33);
    h.top_p = 1;
    h.temperature = 1e-30f;
    assert_int_equal(draw_one(s, &in), 33);
    sampler_free(s);
}

static void test_equal_logits_survive_every_filter(void **state) {
    (void)state;
    engine_error err;
    sampler *s = sampler_new(VOCAB, &err);
    float x[VOCAB] = {0};
    engine_sampling h;
    engine_sampling_default(&h);
    sample_input in = {.logits = x, .how = &h};
    for (int k = 0; k < 50; k++) {
        h.top_p = 0.02f * (float)k;
        h.min_p = k % 2 ? 1 : 0;
        h.top_k = k % 3 ? 0 : k + 1;
        compare(s, &in, &h, VOCAB, 300);
    }
    sampler_free(s);
}

static void test_logprobs_are_those_of_the_model_and_sum_to_one(void **state) {
    (void)state;
    engine_error err;
    sampler *s = sampler_new(20, &err);
    uint64_t r = 5;
    float x[20];
    random_logits(x, 20, &r, 5);
    engine_sampling h;
    engine_sampling_default(&h);
    h.logprobs = 20;
    h.temperature = 0.1f; /* must not show */
    int32_t tokens[1] = {2};
    h.presence_penalty = 2;
    sample_input in = {.logits = x, .how = &h, .tokens = tokens, .ntokens = 1};
    sample_output out;
    assert_int_equal(sampler_draw(s, &in, &out, &err), 0);
    assert_int_equal(out.ntop, 20);
    double sum = 0, norm = 0;
    for (int i = 0; i < 20; i++) norm += exp((double)x[i]);
    for (int i = 0; i < 20; i++) {
        sum += exp((double)out.top[i].logprob);
        if (i) assert_true(out.top[i - 1].logprob >= out.top[i].logprob);
        assert_true(fabs((double)out.top[i].logprob - ((double)x[out.top[i].token] - log(norm))) < 1e-5);
        if (out.top[i].token == out.token) assert_true(out.logprob == out.top[i].logprob);
    }
    assert_true(fabs(sum - 1) < 1e-5);
    h.logprobs = 3;
    assert_int_equal(sampler_draw(s, &in, &out, &err), 0);
    assert_int_equal(out.ntop, 3);
    h.logprobs = 0;
    assert_int_equal(sampler_draw(s, &in, &out, &err), 0);
    assert_int_equal(out.ntop, 0);
    assert_true(out.logprob < 0);
    sampler_free(s);
}

static void test_logits_that_are_not_numbers_are_an_error(void **state) {
    (void)state;
    engine_error err;
    sampler *s = sampler_new(100, &err);
    float x[100] = {0};
    engine_sampling h;
    engine_sampling_default(&h);
    sample_input in = {.logits = x, .how = &h};
    sample_output out;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        x[99 - 16 * i] = bad[i];
        assert_int_equal(sampler_draw(s, &in, &out, &err), -1);
        assert_int_equal(err.code, ENGINE_EINTERNAL);
        x[99 - 16 * i] = 0;
    }
    sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters_and_penalties_give_the_distribution_of_the_reference),
        cmocka_unit_test(test_a_large_vocabulary_has_the_same_distribution),
        cmocka_unit_test(test_every_instruction_set_gives_the_same_bits),
        cmocka_unit_test(test_plain_sampling_passes_a_chi_square_test),
        cmocka_unit_test(test_positions_of_one_seed_are_independent_draws),
        cmocka_unit_test(test_the_generator_never_changes),
        cmocka_unit_test(test_greedy_takes_the_lower_id_of_equals),
        cmocka_unit_test(test_equal_logits_survive_every_filter),
        cmocka_unit_test(test_logprobs_are_those_of_the_model_and_sum_to_one),
        cmocka_unit_test(test_logits_that_are_not_numbers_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
