/* Tokens drawn by the CUDA backend's kernel, through the shim, are those of the engine's own sampler, one by one. */
#include "engine/cuda/sample.h"

extern "C" {
#include "engine/sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

#include <cmath>
#include <vector>

namespace {

uint64_t random_state = 7;

uint32_t random_bits() {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 32);
}
float random_logit() {
    return (float)(int32_t)random_bits() * 0x1p-28f;
}

struct rows {
    int vocab, stride, n;
    std::vector<float> logits, highest;
    std::vector<double> sum;
    std::vector<cuda::draw_row> how;
    std::vector<int> ids, tokens;
    std::vector<logit_change> changes;
    std::vector<uint64_t> masks;

    rows(int vocab_, int n_)
        : vocab(vocab_), stride(vocab_ + 3), n(n_), logits((size_t)(n_ * (vocab_ + 3))),
          highest((size_t)(n_ * cuda::sample_chunks(vocab_))), sum(highest.size()), how((size_t)n_),
          ids((size_t)n_, -7) {
        for (float &x : logits) x = random_logit();
    }
    void draw() {
        const cuda::draw_room room = {highest.data(), sum.data(), cuda::sample_chunks(vocab)};
        const cuda::draw_changes more = {tokens.data(), changes.data(), masks.data(),
                                         cuda::mask_words(vocab)};
        cuda::sample_rows(logits.data(), stride, how.data(), n, more, room, ids.data(), nullptr);
    }
    const float *row(int i) const { return &logits[(size_t)(i * stride)]; }
};

struct filters {
    float top_p, min_p;
    int top_k;
};
const filters NONE = {1, 0, 0};

cuda::draw_row row_of(int vocab, float temperature, const filters &f, double u) {
    cuda::draw_row r = {};
    r.vocab = vocab, r.factor = temperature > 0 ? 1 / temperature : 0;
    r.top_k = f.top_k, r.top_p = f.top_p, r.min_p = f.min_p, r.u = u;
    return r;
}

int32_t sampled(const float *logits, int vocab, float temperature, const filters &f, uint64_t seed,
                int position) {
    engine_error err = {};
    engine_sampling h;
    engine_sampling_default(&h);
    h.temperature = temperature;
    h.top_p = f.top_p, h.min_p = f.min_p, h.top_k = f.top_k;
    h.seed = seed;
    sample_input in = {};
    sample_output out = {};
    in.logits = logits, in.how = &h, in.ntokens = position;
    sampler *s = sampler_new(vocab, &err);
    if (!s || sampler_draw(s, &in, &out, &err)) fail_msg("%s", err.msg);
    sampler_free(s);
    return out.token;
}

void the_kernel_draws_what_the_sampler_draws(void **) {
    static const float temperatures[] = {0, 0.05f, 0.7f, 1, 3, 100};
    for (int vocab : {1, 2, 15, 16, 255, 256, 257, 1000, 4099}) {
        rows r(vocab, 24);
        for (int i = 0; i < r.n; i++) {
            const float t = temperatures[i % 6];
            r.how[(size_t)i] = row_of(vocab, t, NONE, sample_uniform((uint64_t)i, (uint64_t)(i * 17)));
            if (i % 5 == 0)
                r.logits[(size_t)(i * r.stride + vocab / 2)] = r.logits[(size_t)(i * r.stride + vocab - 1)] =
                    9; /* ties */
        }
        r.draw();
        for (int i = 0; i < r.n; i++)
            if (r.ids[(size_t)i] != sampled(r.row(i), vocab, temperatures[i % 6], NONE, (uint64_t)i, i * 17))
                fail_msg("vocabulary of %d, temperature %g: another token", vocab,
                         (double)temperatures[i % 6]);
    }
}

/* Each filter alone and all together; logits that are spread, and some that are the same. */
void what_filters_leave_is_what_the_sampler_leaves(void **) {
    static const filters all[] = {{0.9f, 0, 0},      {0.3f, 0, 0}, {0, 0, 0},         {0.9999999f, 0, 0},
                                  {1, 0.05f, 0},     {1, 1, 0},    {1, 0, 1},         {1, 0, 3},
                                  {1, 0, 100},       {1, 0, 4000}, {0.8f, 0.01f, 50}, {0.5f, 0, 40},
                                  {0.95f, 0.001f, 0}};
    for (int vocab : {1, 17, 257, 3000}) {
        rows r(vocab, 39);
        for (int i = 0; i < r.n; i++) {
            float *x = &r.logits[(size_t)(i * r.stride)];
            for (int k = 0; k < vocab; k++) x[k] *= i < 13 ? 0.2f : i < 26 ? 1 : 3;
            for (int k = 0; i % 3 == 0 && k < vocab; k += 5) x[k] = 1.5f;
            for (int k = 0; i % 7 == 0 && k < vocab; k++) x[k] = k % 2 ? 0.0f : -0.0f; /* all the same */
            r.how[(size_t)i] =
                row_of(vocab, 0.8f, all[i % 13], sample_uniform((uint64_t)i, (uint64_t)(i * 17)));
        }
        r.draw();
        for (int i = 0; i < r.n; i++)
            if (r.ids[(size_t)i] != sampled(r.row(i), vocab, 0.8f, all[i % 13], (uint64_t)i, i * 17))
                fail_msg("vocabulary of %d, top_p %g, min_p %g, top_k %d: another token", vocab,
                         (double)all[i % 13].top_p, (double)all[i % 13].min_p, all[i % 13].top_k);
    }
}

/* A sequence, what is not to be drawn and what may be, at random; its token of the engine's sampler. */
struct changed_case {
    engine_sampling h;
    std::vector<int32_t> tokens, banned;
    std::vector<uint64_t> allowed;
    sample_input in = {};

    changed_case(const float *logits, int vocab, int i) {
        engine_sampling_default(&h);
        h.temperature = i % 4 ? 0.9f : 0;
        h.top_p = i % 3 ? 1 : 0.9f, h.top_k = i % 5 ? 0 : 12;
        h.repetition_penalty = i % 2 ? 1.3f : 1;
        h.presence_penalty = i % 3 ? 0.5f : 0, h.frequency_penalty = i % 7 ? 0 : -0.25f;
        h.seed = (uint64_t)i;
        for (int k = 0; k < i * 3 + 1; k++) tokens.push_back((int32_t)(random_bits() % (uint32_t)vocab));
        for (int k = 0; k < i % 4; k++) banned.push_back((int32_t)(random_bits() % (uint32_t)vocab));
        if (i % 2) allowed.resize((size_t)cuda::mask_words(vocab));
        for (uint64_t &word : allowed) word = (uint64_t)random_bits() << 32 | random_bits();
        if (i == 9) std::fill(allowed.begin(), allowed.end(), 0); /* nothing */
        in = {logits,
              &h,
              tokens.data(),
              (int)tokens.size(),
              (int)tokens.size() / 2,
              banned.data(),
              (int)banned.size(),
              allowed.empty() ? nullptr : allowed.data()};
    }
};

void penalties_and_masks_leave_what_they_leave_of_the_sampler(void **) {
    for (int vocab : {1, 63, 64, 257, 1000}) {
        engine_error err = {};
        sampler *s = sampler_new(vocab, &err);
        rows r(vocab, 30);
        std::vector<changed_case> cases;
        cases.reserve(30);
        for (int i = 0; i < r.n; i++) {
            const changed_case &c = cases.emplace_back(r.row(i), vocab, i);
            std::vector<logit_change> changes(c.tokens.size() + c.banned.size());
            changes.resize((size_t)sampler_changes(s, &c.in, changes.data()));
            cuda::draw_row &how = r.how[(size_t)i] = row_of(vocab, c.h.temperature, {c.h.top_p, 0, c.h.top_k},
                                                            sample_uniform(c.h.seed, c.tokens.size()));
            how.presence = c.h.presence_penalty, how.frequency = c.h.frequency_penalty;
            how.repetition = c.h.repetition_penalty;
            how.first_change = (int)r.changes.size(), how.changes = (int)changes.size();
            r.changes.insert(r.changes.end(), changes.begin(), changes.end());
            if (c.allowed.empty()) continue;
            how.mask = (int)r.masks.size() / cuda::mask_words(vocab);
            r.masks.insert(r.masks.end(), c.allowed.begin(), c.allowed.end());
        }
        std::vector<int32_t> want;
        for (const changed_case &c : cases) {
            sample_output out = {};
            want.push_back(sampler_draw(s, &c.in, &out, &err) ? DRAWN_NONE_LEFT : out.token);
        }
        r.draw();
        for (int i = 0; i < r.n; i++)
            if (r.ids[(size_t)i] != want[(size_t)i])
                fail_msg("vocabulary of %d, case %d: token %d, not %d", vocab, i, r.ids[(size_t)i],
                         want[(size_t)i]);
        sampler_free(s);
    }
}

void the_ends_of_the_random_numbers_draw_tokens_that_can_be_drawn(void **) {
    rows r(300, 2);
    for (int i = 0; i < 300; i++)
        r.logits[(size_t)i] = r.logits[(size_t)(r.stride + i)] = i == 40 || i == 290 ? 0.0f : -1000.0f;
    r.how[0] = row_of(300, 1, NONE, 0), r.how[1] = row_of(300, 1, NONE, 1 - 0x1p-53);
    r.draw();
    assert_int_equal(r.ids[0], 40);
    assert_int_equal(r.ids[1], 290);
}

void rows_that_are_not_asked_for_or_no_numbers_say_so(void **) {
    rows r(500, 3);
    r.how[0] = {};
    r.how[1] = row_of(500, 1, NONE, 0.5), r.how[2] = row_of(500, 1, {0.9f, 0, 0}, 0.5);
    r.logits[(size_t)(r.stride + 499)] = NAN;
    r.logits[(size_t)(2 * r.stride + 3)] = INFINITY;
    r.draw();
    assert_int_equal(r.ids[0], -1);
    assert_int_equal(r.ids[1], -2);
    assert_int_equal(r.ids[2], -2);
}

} // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_draws_what_the_sampler_draws),
        cmocka_unit_test(what_filters_leave_is_what_the_sampler_leaves),
        cmocka_unit_test(penalties_and_masks_leave_what_they_leave_of_the_sampler),
        cmocka_unit_test(the_ends_of_the_random_numbers_draw_tokens_that_can_be_drawn),
        cmocka_unit_test(rows_that_are_not_asked_for_or_no_numbers_say_so),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
