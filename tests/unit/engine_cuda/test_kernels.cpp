/* Each kernel of the CUDA backend, through the shim, against the same in double precision: random odd shapes, and memory of just
 * the size that is needed, so that ASan sees an access beside it.
 */
#include "engine/cuda/attention.h"
#include "engine/cuda/elementwise.h"
#include "engine/cuda/linear.h"

extern "C" {
#include "engine/cpu/kernels.h"
#include "engine/cuda/cuda.h"
#include "engine/model/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

using cuda::format;
using cuda::linear;
using doubles = std::vector<double>;

namespace {

/* ---- what is random ---- */

uint64_t random_state = 1;

uint32_t random_bits() {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 32);
}
int pick(int from, int to) {
    return from + (int)(random_bits() % (uint32_t)(to - from + 1));
}
float unit() {
    return (float)random_bits() * 0x1p-31f - 1.0f;
}
template <typename T> std::vector<T> random_values(size_t n) {
    std::vector<T> v(n);
    for (T &x : v) x = cuda::narrow<T>(unit());
    return v;
}

/* ---- what is compared ---- */

template <typename T> const char *name_of();
template <> const char *name_of<float>() {
    return "f32";
}
template <> const char *name_of<__half>() {
    return "f16";
}
template <> const char *name_of<__nv_bfloat16>() {
    return "bf16";
}
/* The most that a result of this type may be off, as a share of the largest value beside it. */
template <typename T> double bar_of() {
    return std::is_same<T, float>::value ? 1e-5 : 2e-2;
}

template <typename T>
void compare(const T *got, const double *want, size_t n, double bar, const std::string &what) {
    double largest = 1e-30, worst = 0;
    for (size_t i = 0; i < n; i++) largest = std::max(largest, fabs(want[i]));
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)cuda::widen(got[i]) - want[i]) / largest;
        if (!(d <= worst)) worst = d;
    }
    if (!(worst <= bar)) fail_msg("%s: off by %g of the largest value", what.c_str(), worst);
}

template <typename T> bool same_bits(const T *a, const T *b, size_t n) {
    return !memcmp(a, b, n * sizeof *a);
}

/* ---- matrix products ---- */

double value_of_e4m3(unsigned byte) {
    const int exponent = byte >> 3 & 15, mantissa = byte & 7;
    const double size = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return byte & 0x80 ? -size : size;
}

/* A matrix on "the device" and what its weights are. */
template <typename T> struct matrix {
    linear w;
    std::vector<T> stored;
    std::vector<uint8_t> bytes;
    std::vector<float> scales, bias;

    matrix(format kind, int rows, int cols, bool with_bias) {
        const std::vector<float> from = random_values<float>((size_t)rows * (size_t)cols);
        w = {kind, rows, cols, cuda::linear_pitch(cols), nullptr, nullptr, nullptr};
        const size_t n = (size_t)rows * (size_t)w.pitch;
        if (kind == format::stored) {
            stored.resize(n);
            w.weights = stored.data();
            cuda::linear_store<float, T>(w, 0, from.data(), rows, nullptr);
        } else {
            bytes.resize(n);
            scales.resize(n / cuda::UNIT);
            w.weights = bytes.data();
            w.scales = scales.data();
            cuda::linear_quantise<float>(w, 0, from.data(), rows, nullptr);
        }
        if (with_bias) bias = random_values<float>((size_t)rows);
        w.bias = with_bias ? bias.data() : nullptr;
    }
    double weight(int row, int col) const {
        const size_t at = (size_t)row * (size_t)w.pitch + (size_t)col;
        if (w.kind == format::stored) return (double)cuda::widen(stored[at]);
        return (w.kind == format::int8 ? (double)(int8_t)bytes[at] : value_of_e4m3(bytes[at])) *
               (double)scales[at / cuda::UNIT];
    }
};

/* Rows of activations, zeros behind their ends. */
template <typename T> std::vector<T> random_input(int n, int cols) {
    const int pitch = cuda::linear_pitch(cols);
    std::vector<T> x = random_values<T>((size_t)n * (size_t)pitch);
    for (int i = 0; i < n; i++)
        for (int k = cols; k < pitch; k++) x[(size_t)(i * pitch + k)] = cuda::narrow<T>(0);
    return x;
}

template <typename T> doubles product(const matrix<T> &m, const std::vector<T> &x, int n) {
    doubles y((size_t)(n * m.w.rows));
    for (int i = 0; i < n; i++)
        for (int r = 0; r < m.w.rows; r++) {
            double sum = m.w.bias ? (double)m.bias[(size_t)r] : 0;
            for (int k = 0; k < m.w.cols; k++)
                sum += m.weight(r, k) * (double)cuda::widen(x[(size_t)(i * m.w.pitch + k)]);
            y[(size_t)(i * m.w.rows + r)] = sum;
        }
    return y;
}

/* A product's terms are exact, so its bar is that of sums in float whatever the type. */
template <typename T> void check_product(format kind, int rows, int cols, int n, bool bias) {
    const matrix<T> m(kind, rows, cols, bias);
    const std::vector<T> x = random_input<T>(n, cols);
    const std::string what = std::string(name_of<T>()) + " format " + std::to_string((int)kind) + ", " +
                             std::to_string(rows) + " x " + std::to_string(cols) + ", " + std::to_string(n) +
                             " tokens";
    std::vector<float> y((size_t)(n * rows)), one((size_t)rows);
    cuda::linear_forward<T>(m.w, x.data(), n, y.data(), rows, nullptr);
    compare(y.data(), product(m, x, n).data(), y.size(), 1e-5, what);
    for (int i = 0; i < n; i += 1 + n / 3) {
        cuda::linear_forward<T>(m.w, x.data() + (size_t)i * (size_t)m.w.pitch, 1, one.data(), rows, nullptr);
        if (!same_bits(one.data(), y.data() + (size_t)i * (size_t)rows, one.size()))
            fail_msg("%s: token %d alone has other bits", what.c_str(), i);
    }
}

template <typename T> void check_products() {
    static const int tokens[] = {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 70};
    for (format kind : {format::stored, format::int8, format::fp8}) {
        for (int n : tokens) check_product<T>(kind, pick(1, 70), pick(1, 300), n, n % 2);
        check_product<T>(kind, 1, 1, 1, true);
        check_product<T>(kind, 129, 640, 3, false);
    }
}

void products_are_those_of_double_precision(void **) {
    check_products<float>();
    check_products<__half>();
    check_products<__nv_bfloat16>();
}

/* Activations in 8 bits; its bytes on "the device". */
struct eight {
    std::vector<uint8_t> bytes;
    std::vector<float> scales;
    cuda::rounded r;
    eight(int n, int pitch)
        : bytes((size_t)(n * pitch), 0xaa),
          scales((size_t)(n * pitch / cuda::UNIT), NAN), r{bytes.data(), scales.data()} {}
    double value(format kind, size_t at) const {
        return (kind == format::int8 ? (double)(int8_t)bytes[at] : value_of_e4m3(bytes[at])) *
               (double)scales[at / cuda::UNIT];
    }
};

void check_rounded_product(format kind, int rows, int cols, int n, bool bias) {
    const matrix<float> m(kind, rows, cols, bias);
    const std::vector<float> x = random_input<float>(n, cols);
    const int pitch = m.w.pitch, units = pitch / cuda::UNIT;
    eight in(n, pitch);
    cuda::round_rows(x.data(), n, cols, pitch, kind, in.r, nullptr);
    const std::string what = "rounded, format " + std::to_string((int)kind) + ", " + std::to_string(rows) +
                             " x " + std::to_string(cols) + ", " + std::to_string(n) + " tokens";
    doubles want((size_t)(n * rows));
    for (int i = 0; i < n; i++)
        for (int r = 0; r < rows; r++) {
            double sum = bias ? (double)m.bias[(size_t)r] : 0;
            for (int k = 0; k < cols; k++) sum += m.weight(r, k) * in.value(kind, (size_t)(i * pitch + k));
            want[(size_t)(i * rows + r)] = sum;
        }
    std::vector<float> y((size_t)(n * rows)), one((size_t)rows);
    cuda::linear_forward(m.w, in.r, n, y.data(), rows, nullptr);
    compare(y.data(), want.data(), y.size(), 1e-5, what);
    for (int i = 0; i < n; i += 1 + n / 3) {
        const cuda::rounded alone = {in.r.bytes + (size_t)(i * pitch), in.r.scales + (size_t)(i * units)};
        cuda::linear_forward(m.w, alone, 1, one.data(), rows, nullptr);
        if (!same_bits(one.data(), y.data() + (size_t)i * (size_t)rows, one.size()))
            fail_msg("%s: token %d alone has other bits", what.c_str(), i);
    }
}

void products_of_rounded_activations_are_those_of_double_precision(void **) {
    for (format kind : {format::int8, format::fp8}) {
        for (int n : {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 70})
            check_rounded_product(kind, pick(1, 70), pick(1, 300), n, n % 2);
        check_rounded_product(kind, 1, 1, 1, true);
        check_rounded_product(kind, 129, 640, 3, false);
    }
}

void a_pass_may_have_more_tokens_than_a_grid_has_places(void **) {
    check_product<float>(format::stored, 1, 1, 65537, true);
}

/* A rank's logits lie in rows that are longer than its part of the vocabulary. */
void a_product_writes_nothing_beside_its_rows(void **) {
    const matrix<__nv_bfloat16> m(format::stored, 37, 100, false);
    for (int n : {3, 40}) {
        const std::vector<__nv_bfloat16> x = random_input<__nv_bfloat16>(n, 100);
        std::vector<float> y((size_t)(n * 41), 7.0f);
        cuda::linear_forward<__nv_bfloat16>(m.w, x.data(), n, y.data(), 41, nullptr);
        for (int i = 0; i < n; i++)
            for (int r = 37; r < 41; r++) assert_true(y[(size_t)(i * 41 + r)] == 7.0f);
    }
}

/* ---- 8 bits ---- */

void int8_weights_are_rounded_as_the_cpu_rounds_them(void **) {
    const int rows = 5, cols = 300;
    std::vector<float> from = random_values<float>((size_t)(rows * cols));
    for (int i = 0; i < cols; i++) from[(size_t)i] = 0; /* a row of zeros has no scale */
    from[(size_t)cols] = 254.0f, from[(size_t)cols + 1] = 3.0f, from[(size_t)cols + 2] = -5.0f; /* ties */
    linear w = {format::int8, rows, cols, cuda::linear_pitch(cols), nullptr, nullptr, nullptr};
    std::vector<uint8_t> bytes((size_t)(rows * w.pitch), 0xaa);
    std::vector<float> scales(bytes.size() / cuda::UNIT);
    w.weights = bytes.data(), w.scales = scales.data();
    cuda::linear_quantise<float>(w, 0, from.data(), 2,
                                 nullptr); /* as loading does: some rows, then the others */
    cuda::linear_quantise<float>(w, 2, from.data() + 2 * cols, rows - 2, nullptr);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < w.pitch; k += cuda::UNIT) {
            int8_t q[cuda::UNIT] = {};
            const float scale =
                int8_quantise(&from[(size_t)(r * cols + k)], std::min(cuda::UNIT, cols - k), q);
            assert_memory_equal(q, &bytes[(size_t)(r * w.pitch + k)], sizeof q);
            assert_true(scale == scales[(size_t)((r * w.pitch + k) / cuda::UNIT)]);
        }
}

uint8_t nearest_e4m3(double x) {
    unsigned best = 0;
    for (unsigned b = 0; b < 0x7f; b++) {
        const double d = fabs(value_of_e4m3(b) - fabs(x)), least = fabs(value_of_e4m3(best) - fabs(x));
        if (d < least || (d == least && !(b & 1))) best = b;
    }
    return (uint8_t)(best | (x < 0 ? 0x80 : 0));
}

/* Beside the largest value, 448, the scale is 1: what goes in is what is rounded. */
void fp8_weights_are_the_nearest_of_the_table(void **) {
    std::vector<float> from;
    for (unsigned b = 0; b < 0x7f; b++) {
        const float v = (float)value_of_e4m3(b), next = (float)value_of_e4m3(b < 0x7e ? b + 1 : b);
        for (float x :
             {v, (v + next) / 2, nextafterf((v + next) / 2, 0.0f), nextafterf((v + next) / 2, 1e9f)}) {
            from.push_back(std::min(x, 448.0f));
            from.push_back(-from.back());
        }
    }
    std::vector<float> row;
    for (size_t i = 0; i < from.size(); i++) {
        if (row.size() % cuda::UNIT == 0) row.push_back(448.0f);
        row.push_back(from[i]);
    }
    linear w = {format::fp8, 1,       (int)row.size(), cuda::linear_pitch((int)row.size()),
                nullptr,     nullptr, nullptr};
    std::vector<uint8_t> bytes((size_t)w.pitch);
    std::vector<float> scales(bytes.size() / cuda::UNIT);
    w.weights = bytes.data(), w.scales = scales.data();
    cuda::linear_quantise<float>(w, 0, row.data(), 1, nullptr);
    for (size_t i = 0; i < row.size(); i++) {
        const uint8_t want = row[i] == 0 ? 0 : nearest_e4m3((double)row[i]);
        if (bytes[i] != want && !(value_of_e4m3(want) == 0 && value_of_e4m3(bytes[i]) == 0))
            fail_msg("%.9g became %02x, not %02x", (double)row[i], bytes[i], want);
    }
}

/* ---- between the products ---- */

template <typename T> void check_embed(format kind) {
    const matrix<T> m(kind, 19, 200, false);
    std::vector<int> ids = {18, -2, 7, -1};
    const std::vector<int> drawn = {DRAWN_NONE_LEFT, 5}, known = {18, 5, 7, 0};
    std::vector<float> x(ids.size() * 200);
    doubles want;
    for (int id : known)
        for (int k = 0; k < 200; k++) want.push_back(m.weight(id, k));
    cuda::embed<T>(m.w, ids.data(), drawn.data(), (int)ids.size(), x.data(), nullptr);
    compare(x.data(), want.data(), want.size(), 1e-6, "embed");
    assert_true(ids == known);
}

template <typename T> void check_norm(int hidden, bool add, bool some) {
    const int tokens = 4, pitch = cuda::linear_pitch(hidden);
    const std::vector<int> rows = {3, 1};
    const int n = some ? (int)rows.size() : tokens;
    std::vector<float> x = random_values<float>((size_t)(tokens * hidden)), before = x;
    const std::vector<float> more = random_values<float>(x.size()),
                             weight = random_values<float>((size_t)hidden);
    std::vector<T> out((size_t)(n * pitch), cuda::narrow<T>(5));
    cuda::add_norm<T>(x.data(), add ? more.data() : nullptr, weight.data(), some ? rows.data() : nullptr, n,
                      hidden, 1e-5f, out.data(), pitch, nullptr);
    for (int i = 0; i < n; i++) {
        const size_t from = (size_t)((some ? rows[(size_t)i] : i) * hidden);
        doubles want((size_t)hidden);
        double squares = 0;
        for (size_t k = 0; k < want.size(); k++) {
            want[k] = (double)before[from + k] + (add ? (double)more[from + k] : 0);
            squares += want[k] * want[k];
        }
        compare(&x[from], want.data(), want.size(), 1e-6, "the sum");
        for (size_t k = 0; k < want.size(); k++) want[k] *= (double)weight[k] / sqrt(squares / hidden + 1e-5);
        compare(&out[(size_t)(i * pitch)], want.data(), want.size(), bar_of<T>(), "norm");
        for (int k = hidden; k < pitch; k++) assert_true(cuda::widen(out[(size_t)(i * pitch + k)]) == 5);
    }
}

template <typename T> void check_gated(int width) {
    const int n = 3, pitch = cuda::linear_pitch(width);
    std::vector<float> x = random_values<float>((size_t)(n * 2 * width));
    for (float &v : x) v *= 12;
    x[0] = -1000; /* exp overflows */
    std::vector<T> out((size_t)(n * pitch));
    cuda::gated<T>(x.data(), n, width, out.data(), pitch, nullptr);
    for (int i = 0; i < n; i++) {
        doubles want((size_t)width);
        for (int k = 0; k < width; k++) {
            const double gate = (double)x[(size_t)(i * 2 * width + k)],
                         up = (double)x[(size_t)(i * 2 * width + width + k)];
            want[(size_t)k] = gate / (1 + exp(-gate)) * up;
        }
        compare(&out[(size_t)(i * pitch)], want.data(), want.size(), bar_of<T>(), "gated");
    }
}

template <typename T> void check_elementwise() {
    for (format kind : {format::stored, format::int8, format::fp8}) check_embed<T>(kind);
    for (int hidden : {1, 31, 64, 257}) {
        check_norm<T>(hidden, true, false);
        check_norm<T>(hidden, false, false);
        check_norm<T>(hidden, true, true);
        check_gated<T>(hidden);
    }
}

void what_stands_between_products_is_that_of_double_precision(void **) {
    check_elementwise<float>();
    check_elementwise<__half>();
    check_elementwise<__nv_bfloat16>();
}

/* By rank, as the CPU's ranks add theirs (comm_local): bit by bit. The last is more than all blocks take at once. */
void parts_of_ranks_are_added_in_their_order(void **) {
    for (size_t n : {(size_t)1, (size_t)63, (size_t)300, (size_t)(1024 * cuda::ROW_THREADS + 5)})
        for (int ranks : {1, 3, 8}) {
            const std::vector<float> parts = random_values<float>(n * (size_t)ranks);
            std::vector<float> x(n, 7.0f), want(parts.begin(), parts.begin() + (long)n);
            for (int r = 1; r < ranks; r++)
                for (size_t i = 0; i < n; i++) want[i] += parts[(size_t)r * n + i];
            cuda::add_parts(x.data(), parts.data(), n, ranks, nullptr);
            if (!same_bits(x.data(), want.data(), n)) fail_msg("%zu numbers of %d ranks", n, ranks);
        }
}

/* ---- the same as the CPU's backend ---- */

const kernels *cpu() {
    engine_error err = {};
    const kernels *k = kernels_select(nullptr, &err);
    if (!k) fail_msg("%s", err.msg);
    return k;
}

/* Norm and activation as the CPU computes them, at the bar of the type that they come out in. */
template <typename T> void check_elementwise_of_the_cpu(int width) {
    const int pitch = cuda::linear_pitch(width);
    std::vector<float> x = random_values<float>((size_t)width), mine = x, out((size_t)width);
    const std::vector<float> add = random_values<float>(x.size()), weight = random_values<float>(x.size());
    std::vector<T> got((size_t)pitch);
    cpu()->add_rmsnorm(out.data(), x.data(), add.data(), weight.data(), width, 1e-6f);
    cuda::add_norm<T>(mine.data(), add.data(), weight.data(), nullptr, 1, width, 1e-6f, got.data(), pitch,
                      nullptr);
    assert_true(same_bits(x.data(), mine.data(), x.size()));
    compare(got.data(), doubles(out.begin(), out.end()).data(), out.size(), bar_of<T>(), "the CPU's norm");
    std::vector<float> both = random_values<float>((size_t)(2 * width));
    for (float &v : both) v *= 12;
    cuda::gated<T>(both.data(), 1, width, got.data(), pitch, nullptr);
    cpu()->swiglu(both.data(), both.data() + width, width);
    compare(got.data(), doubles(both.begin(), both.begin() + width).data(), (size_t)width, bar_of<T>(),
            "the CPU's activation");
}

void norms_and_activations_are_the_cpu_s(void **) {
    for (int width : {1, 31, 64, 257}) {
        check_elementwise_of_the_cpu<float>(width);
        check_elementwise_of_the_cpu<__half>(width);
        check_elementwise_of_the_cpu<__nv_bfloat16>(width);
    }
}

/* Fused or not, rounding is of the value that would be there unrounded, by the rule that the CPU rounds by. */
void activations_are_rounded_as_the_cpu_rounds_them(void **) {
    for (int width : {1, 127, 128, 300}) {
        const int n = 3, pitch = cuda::linear_pitch(width);
        std::vector<float> x = random_values<float>((size_t)(n * width)), again = x,
                           both = random_values<float>((size_t)(2 * n * width));
        std::fill(x.begin(), x.begin() + width, 0.0f); /* a row of zeros has no scale */
        std::fill(again.begin(), again.begin() + width, 0.0f);
        const std::vector<float> weight = random_values<float>((size_t)width);
        std::vector<float> normed((size_t)(n * pitch)), opened((size_t)(n * pitch));
        eight norm(n, pitch), gate(n, pitch), plain(n, pitch);
        cuda::add_norm<float>(x.data(), nullptr, weight.data(), nullptr, n, width, 1e-6f, normed.data(),
                              pitch, nullptr);
        cuda::add_norm(again.data(), nullptr, weight.data(), nullptr, n, width, 1e-6f, format::int8, norm.r,
                       nullptr);
        cuda::gated<float>(both.data(), n, width, opened.data(), pitch, nullptr);
        cuda::gated(both.data(), n, width, format::int8, gate.r, nullptr);
        cuda::round_rows(opened.data(), n, width, pitch, format::int8, plain.r, nullptr);
        assert_true(gate.bytes == plain.bytes && gate.scales == plain.scales);
        for (int i = 0; i < n; i++)
            for (int k = 0; k < pitch; k += cuda::UNIT) {
                int8_t q[cuda::UNIT] = {};
                const size_t at = (size_t)(i * pitch + k);
                const float scale = int8_quantise(&normed[at], std::min(cuda::UNIT, width - k), q);
                assert_memory_equal(q, &norm.bytes[at], sizeof q);
                assert_true(scale == norm.scales[at / cuda::UNIT]);
            }
    }
}

/* W8A8 and W8A16 of the same weights: the CPU's kernels. */
void check_product_of_the_cpu(int rows, int cols, matrix_format kind) {
    const std::vector<float> from = random_values<float>((size_t)(rows * cols)),
                             x = random_values<float>((size_t)cols);
    const int pitch = cuda::linear_pitch(cols);
    tensor t = {};
    t.data = from.data(), t.type = DTYPE_F32, t.rows = rows, t.cols = cols;
    std::vector<float> want((size_t)(matrix_tiles(rows) * TILE_LANES)), got((size_t)rows),
        wide((size_t)pitch);
    std::vector<unsigned char> tiles((size_t)matrix_tiles(rows) * matrix_tile_bytes(kind, cols) + 64),
        packed(matrix_packed_bytes(kind, cols) + 64);
    unsigned char *aligned = tiles.data() + (64 - (uintptr_t)tiles.data() % 64) % 64,
                  *panel = packed.data() + (64 - (uintptr_t)packed.data() % 64) % 64;
    for (int i = 0; i < matrix_tiles(rows); i++) matrix_make_tile(&t, kind, i, aligned);
    const ::matrix m = {kind, rows, cols, aligned, nullptr};
    if (cpu()->pack[kind]) cpu()->pack[kind](panel, 0, 1, x.data(), cols, 0, cols);
    const activations in = {x.data(), panel, matrix_packed_bytes(kind, cols), nullptr};
    cpu()->matmul[kind](&m, 0, rows, &in, 1, want.data(), want.size());

    std::vector<uint8_t> bytes((size_t)(rows * pitch));
    std::vector<float> scales(bytes.size() / cuda::UNIT);
    const linear w = {format::int8, rows, cols, pitch, bytes.data(), scales.data(), nullptr};
    cuda::linear_quantise<float>(w, 0, from.data(), rows, nullptr);
    std::copy(x.begin(), x.end(), wide.begin());
    if (kind == MATRIX_W8A8) {
        eight r(1, pitch);
        cuda::round_rows(wide.data(), 1, cols, pitch, format::int8, r.r, nullptr);
        cuda::linear_forward(w, r.r, 1, got.data(), rows, nullptr);
    } else {
        cuda::linear_forward<float>(w, wide.data(), 1, got.data(), rows, nullptr);
    }
    compare(got.data(), doubles(want.begin(), want.end()).data(), (size_t)rows, 1e-5, "the CPU's product");
}

void eight_bit_products_are_the_cpu_s(void **) {
    for (matrix_format kind : {MATRIX_W8A8, MATRIX_W8A16}) {
        check_product_of_the_cpu(1, 1, kind);
        check_product_of_the_cpu(33, 129, kind);
        check_product_of_the_cpu(70, 640, kind);
        for (int i = 0; i < 8; i++) check_product_of_the_cpu(pick(1, 90), pick(1, 700), kind);
    }
}

/* ---- attention ---- */

enum { POSITIONS = 210 };

/* One or two sequences in a cache whose blocks they share out at random. */
template <typename T> struct attention_case {
    cuda::attention a = {};
    int nseqs, group, tokens = 0, qkv_width;
    std::vector<int> contexts, first; /* of each sequence, of which all positions are tokens of the batch */
    std::vector<cuda::sequence> seqs;
    std::vector<int> tables, token_seq, token_pos;
    std::vector<float> qkv, angles, partial;
    std::vector<T> cache, q;

    attention_case(int kv_heads, int group_, int head_dim, int block_tokens, std::vector<int> contexts_)
        : nseqs((int)contexts_.size()), group(group_), contexts(contexts_) {
        a.heads = kv_heads * group;
        a.kv_heads = kv_heads;
        a.head_dim = head_dim;
        a.dim = cuda::padded_dim(head_dim);
        a.block_tokens = block_tokens;
        a.block_stride = (size_t)(kv_heads * 2 * block_tokens * a.dim);
        a.out_pitch = a.heads * head_dim + 3;
        a.scale = 1.0f / sqrtf((float)head_dim);
        qkv_width = (a.heads + 2 * kv_heads) * head_dim;
        deal_blocks();
        qkv = random_values<float>((size_t)(tokens * qkv_width));
        angles.resize((size_t)(POSITIONS * head_dim));
        for (int p = 0; p < POSITIONS; p++)
            for (int i = 0; i < head_dim / 2; i++) {
                angles[(size_t)(p * head_dim + i)] = cosf((float)(p * (i + 1)) * 0.1f);
                angles[(size_t)(p * head_dim + head_dim / 2 + i)] = sinf((float)(p * (i + 1)) * 0.1f);
            }
        q.resize((size_t)(tokens * a.heads * a.dim));
        a.seqs = seqs.data();
        a.tables = tables.data();
    }

    void deal_blocks() {
        std::vector<int> ids;
        for (int s = 0; s < nseqs; s++) {
            const int blocks = (contexts[(size_t)s] + a.block_tokens - 1) / a.block_tokens;
            seqs.push_back({tokens, 0, (int)tables.size()});
            first.push_back(tokens);
            for (int b = 0; b < blocks; b++) tables.push_back((int)tables.size());
            for (int p = 0; p < contexts[(size_t)s]; p++) {
                token_seq.push_back(s);
                token_pos.push_back(p);
            }
            tokens += contexts[(size_t)s];
        }
        for (size_t i = tables.size() - 1; i > 0; i--) std::swap(tables[i], tables[(size_t)pick(0, (int)i)]);
        cache.assign(tables.size() * a.block_stride, cuda::narrow<T>(0));
    }

    void append() {
        cuda::attention_append<T>(a, qkv.data(), angles.data(), token_seq.data(), token_pos.data(), tokens,
                                  q.data(), cache.data(), nullptr);
    }

    /* The last n tokens of each sequence, their tiles whole or by chunks. */
    std::vector<T> run(int n, bool split) {
        std::vector<cuda::sequence> tail = seqs;
        std::vector<cuda::attend_item> items;
        std::vector<cuda::merge_item> merges;
        int rows_of_partial = 0;
        for (int s = 0; s < nseqs; s++) {
            const int from = std::max(contexts[(size_t)s] - n, 0),
                      rows = (contexts[(size_t)s] - from) * group;
            tail[(size_t)s] = {first[(size_t)s] + from, from, seqs[(size_t)s].table};
            for (int row = 0; row < rows; row += cuda::TILE_ROWS) {
                const int height = std::min(rows - row, (int)cuda::TILE_ROWS),
                          limit = from + (row + height - 1) / group + 1;
                const int chunks = (limit + cuda::CHUNK - 1) / cuda::CHUNK;
                if (!split) {
                    items.push_back({s, row, height, 0, chunks, -1});
                    continue;
                }
                merges.push_back({s, row, height, chunks, rows_of_partial});
                for (int c = 0; c < chunks; c++)
                    items.push_back({s, row, height, c, 1, rows_of_partial + c * a.kv_heads * height});
                rows_of_partial += cuda::partial_rows(a.kv_heads, height, chunks);
            }
        }
        std::reverse(items.begin(), items.end()); /* in any order */
        partial.assign((size_t)(rows_of_partial * (a.dim + 2)), NAN);
        a.partial = partial.data();
        a.seqs = tail.data();
        const int counts[] = {(int)items.size(), (int)merges.size()};
        std::vector<T> out((size_t)(tokens * a.out_pitch), cuda::narrow<T>(0));
        cuda::attention_forward<T>(a, q.data(), cache.data(), items.data(), counts[0] + 5, counts, out.data(),
                                   nullptr);
        if (split) cuda::attention_merge<T>(a, merges.data(), counts[1] + 2, counts, out.data(), nullptr);
        return out;
    }

    doubles head(int token, int which) const {
        const float *x = &qkv[(size_t)(token * qkv_width + which * a.head_dim)];
        return doubles(x, x + a.head_dim);
    }
    doubles rotated(int token, int which) const {
        const doubles x = head(token, which);
        const size_t half = x.size() / 2, at = (size_t)(token_pos[(size_t)token] * a.head_dim);
        doubles out(x.size());
        for (size_t i = 0; i < half; i++) {
            const double c = (double)angles[at + i], s = (double)angles[at + half + i];
            out[i] = x[i] * c - x[i + half] * s;
            out[i + half] = x[i + half] * c + x[i] * s;
        }
        return out;
    }
    doubles attended(int token, int h) const {
        const doubles query = rotated(token, h);
        doubles weight, out((size_t)a.head_dim);
        double sum = 0;
        const int begin = token - token_pos[(size_t)token];
        for (int t = begin; t <= token; t++) {
            const doubles key = rotated(t, a.heads + h / group);
            double dot = 0;
            for (size_t i = 0; i < key.size(); i++) dot += query[i] * key[i];
            weight.push_back(exp(dot * (double)a.scale));
            sum += weight.back();
        }
        for (int t = begin; t <= token; t++) {
            const doubles value = head(t, a.heads + a.kv_heads + h / group);
            for (size_t i = 0; i < out.size(); i++) out[i] += weight[(size_t)(t - begin)] / sum * value[i];
        }
        return out;
    }
};

template <typename T>
void check_attention(int kv_heads, int group, int head_dim, int block_tokens, std::vector<int> contexts) {
    attention_case<T> c(kv_heads, group, head_dim, block_tokens, contexts);
    const std::string what = std::string(name_of<T>()) + ", " + std::to_string(kv_heads) + " x " +
                             std::to_string(group) + " heads of " + std::to_string(head_dim) + ", context " +
                             std::to_string(contexts[0]);
    c.append();
    const std::vector<T> all = c.run(1 << 20, false);
    for (int t = 0; t < c.tokens; t += t % 16 < 13 && t + 20 < c.tokens ? 5 : 1)
        for (int h = 0; h < c.a.heads; h++)
            compare(&all[(size_t)(t * c.a.out_pitch + h * head_dim)], c.attended(t, h).data(),
                    (size_t)head_dim, bar_of<T>(), what);
    if (!same_bits(all.data(), c.run(1 << 20, true).data(), all.size()))
        fail_msg("%s: split tiles have other bits", what.c_str());
    for (int split = 0; split < 2; split++)
        for (int n : {1, 3}) {
            const std::vector<T> some = c.run(n, split);
            for (int s = 0; s < c.nseqs; s++) {
                const int end = c.first[(size_t)s] + contexts[(size_t)s],
                          from = std::max(end - n, c.first[(size_t)s]);
                const size_t at = (size_t)(from * c.a.out_pitch),
                             many = (size_t)((end - from) * c.a.out_pitch);
                if (!same_bits(&all[at], &some[at], many))
                    fail_msg("%s: the last %d tokens alone have other bits", what.c_str(), n);
            }
        }
}

template <typename T> void check_attentions() {
    check_attention<T>(1, 1, 16, 16, {1});
    check_attention<T>(2, 8, 32, 16, {16, 17});
    check_attention<T>(1, 3, 128, 32, {64, 1});
    check_attention<T>(3, 2, 20, 16, {65, 130});
    check_attention<T>(1, 7, 80, 48, {129});
    check_attention<T>(1, pick(1, 8), 2 * pick(8, 24), 16 * pick(1, 3), {pick(1, 200), pick(1, 70)});
    check_attention<T>(2, pick(1, 8), 96, 64, {pick(1, 100)});
}

void attention_is_that_of_double_precision_however_it_is_cut(void **) {
    check_attentions<float>();
    check_attentions<__half>();
    check_attentions<__nv_bfloat16>();
}

/* What a graph adds to a batch. */
void rows_that_are_no_tokens_leave_the_cache_alone(void **) {
    attention_case<__half> c(2, 2, 32, 16, {20});
    c.append();
    const std::vector<__half> before = c.cache;
    for (float &v : c.qkv) v += 1;
    std::fill(c.token_seq.begin(), c.token_seq.end(), -1);
    c.append();
    assert_true(same_bits(before.data(), c.cache.data(), before.size()));
}

/* ---- memory ---- */

/* DeepSeek-LLM 67B, of which no weight is made: only its layout is asked for. */
void a_67b_model_in_8_bits_leaves_room_on_an_80_gb_gpu(void **) {
    engine_error err = {};
    model *m = model_random("tests/unit/engine_cuda/deepseek-67b.json", &err);
    if (!m) fail_msg("%s", err.msg);
    for (const char *weights : {"int8", "fp8"}) {
        backend_memory need;
        backend_options o = {};
        o.weights = weights;
        o.kv_blocks = 16 * 4096 / 16, o.block_tokens = 16;
        o.max_tokens = 512, o.max_logits = o.max_seqs = 16, o.max_blocks_per_seq = 4096 / 16;
        if (backend_measure_cuda(m, &o, &need, &err)) fail_msg("%s", err.msg);
        assert_true(need.weights <= (size_t)68 << 30);
        assert_true(need.weights >= (size_t)m->parameters);
        assert_true(need.kv == (size_t)16 * 4096 * 95 * 2 * 8 * 128 * 2);
    }
    model_close(m);
}

} // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_those_of_double_precision),
        cmocka_unit_test(products_of_rounded_activations_are_those_of_double_precision),
        cmocka_unit_test(norms_and_activations_are_the_cpu_s),
        cmocka_unit_test(activations_are_rounded_as_the_cpu_rounds_them),
        cmocka_unit_test(eight_bit_products_are_the_cpu_s),
        cmocka_unit_test(a_pass_may_have_more_tokens_than_a_grid_has_places),
        cmocka_unit_test(a_product_writes_nothing_beside_its_rows),
        cmocka_unit_test(int8_weights_are_rounded_as_the_cpu_rounds_them),
        cmocka_unit_test(fp8_weights_are_the_nearest_of_the_table),
        cmocka_unit_test(what_stands_between_products_is_that_of_double_precision),
        cmocka_unit_test(parts_of_ranks_are_added_in_their_order),
        cmocka_unit_test(attention_is_that_of_double_precision_however_it_is_cut),
        cmocka_unit_test(rows_that_are_no_tokens_leave_the_cache_alone),
        cmocka_unit_test(a_67b_model_in_8_bits_leaves_room_on_an_80_gb_gpu),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
