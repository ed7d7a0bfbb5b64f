/* Checkpoints in 8 bits: made whole or not at all, the same bits as quantising at open, and what is wrong in one is said. */
#include "engine/accuracy.h"
#include "engine/comm/group.h"
#include "engine/model/quantize.h"
#include "tests/unit/engine/golden.h"

#include <ftw.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MODELS "tests/golden/models/"

static char dir[64], to[128];

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int folder_new(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/millrace-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(to, sizeof to, "%s/new", dir);
    return 0;
}

static int folder_free(void **state) {
    (void)state;
    return nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static int names_in_dir, ends_in_dir;

static int count_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    names_in_dir += ftw->level == 1;
    ends_in_dir += ftw->level == 1 && !strcmp(path, to);
    return 0;
}

static void expect_in_dir(int names, int ends) {
    names_in_dir = ends_in_dir = 0;
    assert_int_equal(nftw(dir, count_entry, 8, FTW_PHYS), 0);
    assert_int_equal(names_in_dir, names);
    assert_int_equal(ends_in_dir, ends);
}

static quantize_result make(const char *name, quantize_options o) {
    char from[256];
    engine_error err = {0};
    quantize_result r;
    snprintf(from, sizeof from, MODELS "%s", name);
    o.from = from;
    o.to = to;
    if (quantize_checkpoint(&o, &r, &err)) fail_msg("%s: %s", name, err.msg);
    return r;
}

static void expect_refusal(const char *from, quantize_options o, const char *why) {
    engine_error err = {0};
    quantize_result r;
    o.from = from;
    o.to = to;
    assert_int_equal(quantize_checkpoint(&o, &r, &err), -1);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static float *logits_of(const model *m, const golden_prompt *p, const char *weights, int ranks) {
    static const int32_t blocks[GOLDEN_SEQ_BLOCKS] = {9, 3, 60, 1, 22, 0, 63, 17, 4, 40, 41, 39, 2, 8, 7, 6};
    const size_t bytes = (size_t)p->nids * (size_t)m->config.vocab * sizeof(float);
    const batch_seq s = {.tokens = p->ids, .ntokens = p->nids, .blocks = blocks, .nlogits = p->nids};
    backend_options opt = golden_options(NULL, 2);
    engine_error err = {0};
    float *logits = NULL, *copy = malloc(bytes);
    opt.weights = weights;
    backend *b = ranks > 1 ? backend_open_cpu_ranks(m, &opt, ranks, &err) : backend_open_cpu(m, &opt, &err);
    assert_non_null(copy);
    if (!b || backend_forward(b, &s, 1, &logits, &err)) fail_msg("%s", err.msg);
    memcpy(copy, logits, bytes);
    backend_close(b);
    return copy;
}

static model *open_made(void) {
    engine_error err = {0};
    model *m = model_open(to, &err);
    if (!m) fail_msg("%s", err.msg);
    assert_true(m->config.int8);
    return m;
}

static double worst_difference(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* A bar of 0 is for the same bits. */
static void check_same(const char *name, quantize_options o, int ranks, double bar) {
    golden g = golden_open(name);
    const golden_prompt *p = &g.prompt[g.nprompts - 1];
    o.replace = true;
    quantize_result r = make(name, o);
    assert_int_equal(r.bytes_before, g.model->bytes);
    model *m = open_made();
    assert_int_equal(r.bytes_after, m->bytes);
    float *before = logits_of(g.model, p, o.a16 ? "int8-a16" : "int8", ranks),
          *after = logits_of(m, p, NULL, ranks);
    double d = worst_difference(before, after, (size_t)p->nids * (size_t)m->config.vocab);
    if (d > bar) fail_msg("%s over %d ranks: logits differ by %g", name, ranks, d);
    free(before);
    free(after);
    model_close(m);
    golden_close(&g);
}

static void it_computes_the_same_bits_as_quantising_at_open(void **state) {
    (void)state;
    for (size_t i = 0; i < golden_count; i++) {
        if (strcmp(golden_names[i], "llama_sharded_f32"))
            check_same(golden_names[i], (quantize_options){0}, 1, 0);
    }
    check_same("llama_gqa_bf16", (quantize_options){.a16 = true}, 1, 0);
    check_same("qwen2_tied_f32", (quantize_options){.keep_head = true, .file_bytes = 50000}, 1, 0.3);
}

/* Here a rank's columns are cut within a group, and are rounded again. */
static void over_ranks_it_is_the_same_model(void **state) {
    (void)state;
    check_same("llama_heads8_f32", (quantize_options){0}, 4, 0.15);
    check_same("llama_heads8_f32", (quantize_options){.a16 = true}, 2, 0.15);
}

static void it_is_split_into_files_and_has_its_tokenizer(void **state) {
    (void)state;
    char path[256];
    quantize_result r = make("llama_gqa_bf16", (quantize_options){.file_bytes = 60000});
    assert_in_range(r.files, 2, 10);
    assert_true(r.bytes_after < r.bytes_before * 8 / 10);
    snprintf(path, sizeof path, "%s/model-00002-of-%05d.safetensors", to, r.files);
    assert_int_equal(access(path, R_OK), 0);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", to);
    assert_int_equal(access(path, R_OK), 0);
    model_close(open_made());
    expect_in_dir(1, 1);
}

static void one_scale_a_row_is_read_too(void **state) {
    (void)state;
    golden g = golden_open("llama_gqa_f32");
    make("llama_gqa_f32", (quantize_options){.whole_rows = true});
    model *m = open_made();
    const tensor *a = &g.model->layer[0].down, *b = &m->layer[0].down;
    assert_int_equal(b->row_scales, 1);
    float x[1024], y[1024], scale;
    for (int64_t row = 0; row < a->rows; row++) {
        tensor_read(a, row, 0, (int)a->cols, x);
        tensor_read(b, row, 0, (int)a->cols, y);
        assert_non_null(tensor_int8(b, row, 0, (int)a->cols, &scale));
        assert_true(worst_difference(x, y, (size_t)a->cols) <= 0.5001 * (double)scale);
    }
    model_close(m);
    golden_close(&g);
}

/* ---- whole, or not at all ---- */

static void expect_stored(dtype type) {
    model *m = open_made();
    assert_int_equal(m->config.stored, type);
    model_close(m);
}

static void what_is_there_stays_unless_it_may_be_replaced(void **state) {
    (void)state;
    char path[256];
    make("llama_gqa_f32", (quantize_options){0});
    expect_refusal(MODELS "llama_gqa_bf16", (quantize_options){0}, "--force");
    expect_stored(DTYPE_F32);
    make("llama_gqa_bf16", (quantize_options){.replace = true});
    expect_stored(DTYPE_BF16);
    expect_in_dir(1, 1);
    expect_refusal(to, (quantize_options){.replace = true}, "already");
    snprintf(path, sizeof path, "%s/config.json", to);
    assert_int_equal(unlink(path), 0);
    expect_refusal(MODELS "llama_gqa_bf16", (quantize_options){.replace = true}, "not a checkpoint folder");
}

static bool stop_half_way(void *arg, size_t done, size_t total) {
    (void)arg;
    return done < total / 2;
}

static void what_fails_or_is_interrupted_leaves_nothing(void **state) {
    (void)state;
    expect_refusal("no/such/folder", (quantize_options){0}, "no/such/folder");
    expect_refusal(MODELS "llama_gqa_f32", (quantize_options){.progress = stop_half_way}, "interrupted");
    expect_in_dir(0, 0);
}

/* ---- malformed ---- */

/* Changes the first `old` in a file to `new`, of the same length. */
static void change(const char *name, const char *old, const char *new) {
    char path[256];
    static char bytes[1 << 20];
    snprintf(path, sizeof path, "%s/%s", to, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    char *at = memmem(bytes, n, old, strlen(old));
    if (!at) fail_msg("no %s in %s", old, name);
    memcpy(at, new, strlen(old));
    rewind(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void expect_no_model(const char *why) {
    engine_error err = {0};
    model *m = model_open(to, &err);
    assert_null(m);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void broken(const char *name, const char *old, const char *new, const char *why) {
    make("llama_gqa_bf16", (quantize_options){.replace = true});
    change(name, old, new);
    expect_no_model(why);
}

static void scales_that_are_missing_or_wrong_are_named(void **state) {
    (void)state;
    static const char file[] = "model.safetensors";
    char path[256];
    broken(file, "0.self_attn.q_proj.weight_scale", "0.self_attn.q_proj.weight_scalE", "q_proj.weight_scale");
    broken(file, "0.mlp.up_proj.weight_scale\":{\"dtype\":\"F32\"",
           "0.mlp.up_proj.weight_scale\":{\"dtype\":\"I32\"", "up_proj.weight_scale has dtype I32");
    broken("config.json", "\"group_size\": 128", "\"group_size\": 16 ", "scales by config.json");
    /* what is widest lies first: the scales */
    make("llama_gqa_bf16", (quantize_options){.replace = true});
    snprintf(path, sizeof path, "%s/%s", to, file);
    FILE *f = fopen(path, "r+b");
    unsigned char length[8];
    static const unsigned char nan[] = {0, 0, 0xc0, 0x7f};
    assert_non_null(f);
    assert_int_equal(fread(length, 1, 8, f), 8);
    assert_int_equal(fseek(f, 8 + length[0] + length[1] * 256 + length[2] * 65536, SEEK_SET), 0);
    assert_int_equal(fwrite(nan, 1, 4, f), 4);
    fclose(f);
    expect_no_model("the scale of row 0 is");
}

static void other_ways_to_quantise_are_refused(void **state) {
    (void)state;
    static const char file[] = "config.json";
    broken(file, "compressed-tensors", "compressed-tensorX", "quant_method");
    broken(file, "int-quantized", "pack-quantize", "format");
    broken(file, "\"num_bits\": 8", "\"num_bits\": 4", "weights are others");
    broken(file, "\"strategy\": \"group\"", "\"strategy\": \"block\"", "strategy");
    broken(file, "\"dynamic\": true", "\"dynamic\": null", "dynamic");
}

/* ---- accuracy ---- */

static int32_t *demo_text(size_t *n) {
    static int32_t ids[1024];
    uint64_t r = 7;
    for (*n = 0; *n < 1024; ++*n) {
        r = r * UINT64_C(6364136223846793005) + 1442695040888963407u;
        ids[*n] = (int32_t)((r >> 33) % 200);
    }
    return ids;
}

static void a_model_does_not_differ_from_itself(void **state) {
    (void)state;
    accuracy a;
    engine_error err = {0};
    golden g = golden_open("llama_gqa_bf16");
    const accuracy_side side = {.model = g.model, .threads = 2};
    accuracy_text text = {.window = 128};
    text.ids = demo_text(&text.n);
    if (accuracy_measure(&side, &side, &text, &a, &err)) fail_msg("%s", err.msg);
    assert_int_equal(a.tokens, 8 * 127);
    assert_true(a.kl == 0 && a.worst_kl == 0 && a.same_best == 1);
    assert_true(a.perplexity == a.reference_perplexity && a.perplexity > 100 && a.perplexity < 1000);
    text.n = 100;
    assert_int_equal(accuracy_measure(&side, &side, &text, &a, &err), -1);
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_computes_the_same_bits_as_quantising_at_open, folder_new,
                                        folder_free),
        cmocka_unit_test_setup_teardown(over_ranks_it_is_the_same_model, folder_new, folder_free),
        cmocka_unit_test_setup_teardown(it_is_split_into_files_and_has_its_tokenizer, folder_new,
                                        folder_free),
        cmocka_unit_test_setup_teardown(one_scale_a_row_is_read_too, folder_new, folder_free),
        cmocka_unit_test_setup_teardown(what_is_there_stays_unless_it_may_be_replaced, folder_new,
                                        folder_free),
        cmocka_unit_test_setup_teardown(what_fails_or_is_interrupted_leaves_nothing, folder_new, folder_free),
        cmocka_unit_test_setup_teardown(scales_that_are_missing_or_wrong_are_named, folder_new, folder_free),
        cmocka_unit_test_setup_teardown(other_ways_to_quantise_are_refused, folder_new, folder_free),
        cmocka_unit_test(a_model_does_not_differ_from_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
