/* Products by cuBLASLt, through the shim's plain one, which lays matrices out as the library does: the wrapper says where they lie,
 * how far apart and how aligned, and keeps what was chosen.
 */
#include "engine/cuda/cublas.h"
#include "engine/cuda/elementwise.h"

#include <cublasLt.h>

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

#include <cmath>
#include <memory>
#include <string>
#include <vector>

using cuda::format;
using cuda::linear;

namespace {

uint64_t random_state = 5;

float unit() {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

enum { WORK = 4096 };

/* A matrix of random weights, a library with little room, and what both paths make of the same input. */
template <typename T> struct product {
    linear w;
    std::vector<unsigned char> weights, work, wide;
    std::vector<float> scales, bias;
    cuda::cublas *lt;

    product(format kind, int rows, int cols, bool with_bias, int wide_rows)
        : w{kind, rows, cols, cuda::linear_pitch(cols), nullptr, nullptr, nullptr}, work(WORK) {
        std::vector<float> from((size_t)(rows * cols));
        for (float &v : from) v = unit();
        const size_t n = (size_t)rows * (size_t)w.pitch;
        weights.resize(n * (kind == format::stored ? sizeof(T) : 1));
        scales.resize(n / cuda::UNIT);
        w.weights = weights.data(), w.scales = scales.data();
        if (kind == format::stored)
            cuda::linear_store<float, T>(w, 0, from.data(), rows, nullptr);
        else
            cuda::linear_quantise<float>(w, 0, from.data(), rows, nullptr);
        for (int i = 0; with_bias && i < rows; i++) bias.push_back(unit());
        w.bias = with_bias ? bias.data() : nullptr;
        wide.resize((size_t)(wide_rows * w.pitch) * sizeof(T));
        engine_error err = {};
        lt = cuda::cublas_new({work.data(), WORK, wide.data(), wide.size()}, &err);
        if (!lt) fail_msg("%s", err.msg);
    }
    ~product() { cuda::cublas_free(lt); }

    std::vector<T> input(int n) const {
        std::vector<T> x((size_t)(n * w.pitch));
        for (int i = 0; i < n; i++)
            for (int k = 0; k < w.pitch; k++)
                x[(size_t)(i * w.pitch + k)] = cuda::narrow<T>(k < w.cols ? unit() : 0);
        return x;
    }
    int forward(const T *x, int n, float *y, int stride) const {
        engine_error err = {};
        const int rc = cuda::cublas_forward<T>(lt, w, x, n, y, stride, nullptr, &err);
        if (rc < 0) fail_msg("%s", err.msg);
        return rc;
    }
    int forward(const cuda::rounded &x, int n, float *y, int stride) const {
        engine_error err = {};
        const int rc = cuda::cublas_forward(lt, w, x, n, y, stride, nullptr, &err);
        if (rc < 0) fail_msg("%s", err.msg);
        return rc;
    }
};

/* The same input in 8 bits. */
struct bytes {
    std::vector<uint8_t> values;
    std::vector<float> scales;
    cuda::rounded r;

    bytes(const product<float> &p, int n)
        : values((size_t)(n * p.w.pitch)),
          scales(values.size() / cuda::UNIT), r{values.data(), scales.data()} {
        const std::vector<float> x = p.input(n);
        cuda::round_rows(x.data(), n, p.w.cols, p.w.pitch, p.w.kind, r, nullptr);
    }
};

/* Both sum the same terms; a widened weight was rounded once more. */
template <typename T>
void check(format kind, int rows, int cols, int n, int stride, bool bias, int wide_rows) {
    const product<T> p(kind, rows, cols, bias, wide_rows);
    const std::vector<T> x = p.input(n);
    std::vector<float> got((size_t)(n * stride), 7), want = got;
    assert_int_equal(p.forward(x.data(), n, got.data(), stride), 1);
    cuda::linear_forward<T>(p.w, x.data(), n, want.data(), stride, nullptr);
    const bool exact = kind == format::stored || std::is_same<T, float>::value;
    const double bar = (exact ? 1e-5 : std::is_same<T, __half>::value ? 1e-3 : 8e-3) * sqrt((double)cols);
    for (int i = 0; i < n; i++)
        for (int r = 0; r < stride; r++) {
            const size_t at = (size_t)(i * stride + r);
            if (r >= rows) assert_true(got[at] == 7);
            if (!(fabs((double)got[at] - (double)want[at]) <= bar))
                fail_msg("format %d, %d x %d, %d tokens: row %d of token %d is %g, not %g", (int)kind, rows,
                         cols, n, r, i, (double)got[at], (double)want[at]);
        }
}

void products_are_those_of_our_own_kernels(void **) {
    for (int n : {1, 2, 17, 65}) {
        check<float>(format::stored, 37, 200, n, 37, true, 1);
        check<__half>(format::stored, 64, 128, n, 64, false, 1);
        check<__nv_bfloat16>(format::stored, 5, 300, n, 41, n > 2,
                             1); /* a rank's logits: rows that are longer */
    }
}

void eight_bit_weights_are_widened_some_rows_at_a_time(void **) {
    for (format kind : {format::int8, format::fp8}) {
        check<__nv_bfloat16>(kind, 37, 200, 64, 37, true, 10);
        check<__nv_bfloat16>(kind, 300, 130, 66, 300, false, 200); /* pieces of 128 */
        check<__half>(kind, 33, 128, 70, 40, false, 1);
        check<float>(kind, 7, 257, 64, 7, true, 64);
    }
}

void few_tokens_of_eight_bit_weights_are_not_the_library_s(void **) {
    const product<__half> p(format::int8, 8, 128, false, 8);
    const std::vector<__half> x = p.input(cuda::WIDEN_TOKENS - 1);
    std::vector<float> y((size_t)(8 * (cuda::WIDEN_TOKENS - 1)), 7);
    const int before = simt_lt.multiplied;
    assert_int_equal(p.forward(x.data(), cuda::WIDEN_TOKENS - 1, y.data(), 8), 0);
    assert_int_equal(simt_lt.multiplied, before);
    for (float v : y) assert_true(v == 7);
}

/* It is asked once for each shape, and again only for what it had forgotten: the shapes that were used least lately. */
void what_was_chosen_for_a_shape_is_kept(void **) {
    const product<float> p(format::stored, 3, 5, false, 1);
    const std::vector<float> x = p.input(600);
    std::vector<float> y(3 * 600);
    const int before = simt_lt.chosen;
    for (int turn = 0; turn < 3; turn++)
        for (int n : {1, 2, 3, 2, 1}) p.forward(x.data(), n, y.data(), 3);
    assert_int_equal(simt_lt.chosen - before, 3);
    for (int n = 1; n <= 600; n++) {
        p.forward(x.data(), n, y.data(), 3);
        p.forward(x.data(), 1, y.data(), 3);
    }
    assert_int_equal(simt_lt.chosen - before, 600);
    p.forward(x.data(), 2, y.data(), 3);
    assert_int_equal(simt_lt.chosen - before, 601);
}

/* As logits are that begin anywhere: another alignment is another choice, for the heuristic was promised it. */
void a_result_may_lie_anywhere(void **) {
    const product<__half> p(format::stored, 4, 128, false, 1);
    const std::vector<__half> x = p.input(2);
    std::vector<float> y(64 + 8 * 2);
    for (int first = 0; first < 9; first++) {
        std::fill(y.begin(), y.end(), 7.0f);
        assert_int_equal(p.forward(x.data(), 2, y.data() + first, 5), 1);
        for (int i = 0; i < first; i++) assert_true(y[(size_t)i] == 7);
    }
}

void what_the_library_cannot_do_is_left_to_our_own_kernels(void **) {
    const product<__half> p(format::stored, 11, 128, true, 1);
    const std::vector<__half> x = p.input(2);
    std::vector<float> y(22, 7);
    const int before = simt_lt.chosen;
    simt_lt.refused_rows = 11;
    for (int turn = 0; turn < 2; turn++) assert_int_equal(p.forward(x.data(), 2, y.data(), 11), 0);
    simt_lt.refused_rows = 0;
    assert_int_equal(simt_lt.chosen - before, 1);
    for (float v : y) assert_true(v == 7);
}

void check_scaled(int rows, int cols, int n, int stride, bool bias) {
    const product<float> p(format::fp8, rows, cols, bias, rows);
    const bytes x(p, n);
    std::vector<float> got((size_t)(n * stride), 7), want = got;
    const int before = simt_lt.multiplied;
    assert_int_equal(p.forward(x.r, n, got.data(), stride), 1);
    assert_int_equal(simt_lt.multiplied, before + 1);
    cuda::linear_forward(p.w, x.r, n, want.data(), stride, nullptr);
    for (int i = 0; i < n * stride; i++)
        if (!(fabs((double)got[(size_t)i] - (double)want[(size_t)i]) <= 1e-5 * sqrt((double)cols)))
            fail_msg("%d x %d, %d tokens: row %d of token %d is %g, not %g", rows, cols, n, i % stride,
                     i / stride, (double)got[(size_t)i], (double)want[(size_t)i]);
}

void e4m3_is_multiplied_with_the_scales_of_128_columns(void **) {
    for (int n : {64, 65, 67, 130}) { /* the last few are not the library's */
        check_scaled(64, 128, n, 64, false);
        check_scaled(36, 300, n, 36, true);
        check_scaled(300, 130, n, 304, n > 66);
    }
}

/* Our kernels multiply bytes as they are; widened to be multiplied, weights would be others. */
void other_bytes_are_left_to_our_own_kernels(void **) {
    const struct {
        format kind;
        int rows, n, room;
        bool old;
    } cases[] = {{format::int8, 64, 70, 64, false},
                 {format::fp8, 62, 70, 62, false}, /* not in fours */
                 {format::fp8, 64, cuda::WIDEN_TOKENS - 1, 64, false},
                 {format::fp8, 64, 70, 1, false}, /* no room for the scales */
                 {format::fp8, 64, 70, 64, true}};
    for (const auto &c : cases) {
        const product<float> p(c.kind, c.rows, 200, true, c.room);
        const bytes x(p, c.n);
        std::vector<float> y((size_t)(c.n * c.rows), 7);
        const int before = simt_lt.multiplied;
        simt_lt.old = c.old;
        assert_int_equal(p.forward(x.r, c.n, y.data(), c.rows), 0);
        simt_lt.old = false;
        assert_int_equal(simt_lt.multiplied, before);
        for (float v : y) assert_true(v == 7);
    }
}

} // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_those_of_our_own_kernels),
        cmocka_unit_test(eight_bit_weights_are_widened_some_rows_at_a_time),
        cmocka_unit_test(few_tokens_of_eight_bit_weights_are_not_the_library_s),
        cmocka_unit_test(what_was_chosen_for_a_shape_is_kept),
        cmocka_unit_test(a_result_may_lie_anywhere),
        cmocka_unit_test(e4m3_is_multiplied_with_the_scales_of_128_columns),
        cmocka_unit_test(other_bytes_are_left_to_our_own_kernels),
        cmocka_unit_test(what_the_library_cannot_do_is_left_to_our_own_kernels),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
