/* What a broken checkpoint is told: every malformed file is one clear error, and never a crash. */
#include "engine/model/model.h"
#include "engine/model/safetensors.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- safetensors, from bytes ---- */

enum { FILE_MAX = 4096 };

static size_t build(unsigned char *out, uint64_t header_len, const char *header, size_t data) {
    size_t n = strlen(header);
    assert_true(8 + n + data <= FILE_MAX);
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)(header_len >> (8 * i));
    memcpy(out + 8, header, n);
    memset(out + 8 + n, 0, data);
    return 8 + n + data;
}

static void expect_bad_bytes(const unsigned char *p, size_t n, const char *why) {
    engine_error err = {0};
    safetensors *s = safetensors_parse(p, n, &err);
    assert_null(s);
    assert_int_equal(err.code, ENGINE_EFORMAT);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void expect_bad_header(const char *header, size_t data, const char *why) {
    unsigned char file[FILE_MAX];
    expect_bad_bytes(file, build(file, strlen(header), header, data), why);
}

static void a_sound_file_gives_its_tensors(void **state) {
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                                 "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                                 "\"empty\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[28,28]}}";
    unsigned char file[FILE_MAX];
    safetensors *s = safetensors_parse(file, build(file, strlen(header), header, 28), NULL);
    assert_non_null(s);
    assert_int_equal(safetensors_count(s), 3);
    const safetensors_entry *b = safetensors_find(s, "b");
    assert_non_null(b);
    assert_string_equal(b->dtype, "F32");
    assert_int_equal(b->dims[1], 3);
    assert_ptr_equal(b->data, file + 8 + strlen(header) + 4);
    assert_null(safetensors_find(s, "c"));
    safetensors_close(s);
}

static void a_broken_length_is_an_error(void **state) {
    (void)state;
    unsigned char file[FILE_MAX] = {0};
    expect_bad_bytes(file, 0, "too few");
    expect_bad_bytes(file, build(file, 1000, "{}", 0), "truncated");
    expect_bad_bytes(file, build(file, (uint64_t)1 << 40, "{}", 0), "over the limit");
    expect_bad_bytes(file, build(file, UINT64_MAX, "{}", 0), "over the limit");
}

static void a_broken_header_is_an_error(void **state) {
    (void)state;
    expect_bad_header("{", 0, "not valid JSON");
    expect_bad_header("[]", 0, "not a JSON object");
    expect_bad_header("{\"a\":1}", 0, "ill-typed");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "ill-typed");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":\"x\",\"data_offsets\":[0,4]}}", 4, "shape");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "not a count");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
                      "bad data_offsets");
}

static void tensors_that_lie_wrong_are_an_error(void **state) {
    (void)state;
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "truncated");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "need 12 bytes");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]}}",
                      8, "overflows");
    expect_bad_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                      12, "overlap");
}

/* ---- checkpoints, in a folder of their own ---- */

static char dir[64];

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int folder_new(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/millrace-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int folder_free(void **state) {
    (void)state;
    return nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, const void *data, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void put_text(const char *name, const char *text) {
    put(name, text, strlen(text));
}

#define SHAPE                                                                                                \
    "\"hidden_size\":4,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"intermediate_size\":6,\"vocab_"   \
    "size\":8"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"]"

static const struct {
    const char *name;
    int rows, cols;
} weights[] = {
    {"model.embed_tokens.weight", 8, 4},
    {"model.norm.weight", 0, 4},
    {"lm_head.weight", 8, 4},
    {"model.layers.0.input_layernorm.weight", 0, 4},
    {"model.layers.0.self_attn.q_proj.weight", 4, 4},
    {"model.layers.0.self_attn.k_proj.weight", 4, 4},
    {"model.layers.0.self_attn.v_proj.weight", 4, 4},
    {"model.layers.0.self_attn.o_proj.weight", 4, 4},
    {"model.layers.0.post_attention_layernorm.weight", 0, 4},
    {"model.layers.0.mlp.gate_proj.weight", 6, 4},
    {"model.layers.0.mlp.up_proj.weight", 6, 4},
    {"model.layers.0.mlp.down_proj.weight", 4, 6},
};
enum { WEIGHTS = sizeof weights / sizeof weights[0] };

/* A whole tiny checkpoint; the weight `odd` is left out (odd_type NULL), or has another dtype or one more row. */
static void put_checkpoint(int odd, const char *odd_type, int more_rows) {
    char header[FILE_MAX] = "{";
    size_t at = 0;
    for (int i = 0; i < WEIGHTS; i++) {
        if (i == odd && !odd_type) continue;
        int rows = weights[i].rows + (i == odd ? more_rows : 0), cols = weights[i].cols;
        const char *type = i == odd ? odd_type : "F32";
        size_t bytes = (size_t)(rows ? rows : 1) * (size_t)cols * (strcmp(type, "F32") ? 8 : 4),
               n = strlen(header);
        char shape[32];
        snprintf(shape, sizeof shape, rows ? "%d,%d" : "%.0d%d", rows, cols);
        snprintf(header + n, sizeof header - n,
                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", at ? "," : "",
                 weights[i].name, type, shape, at, at + bytes);
        at += bytes;
    }
    strcat(header, "}");
    while (strlen(header) % 8) strcat(header, " ");
    unsigned char file[FILE_MAX];
    put("model.safetensors", file, build(file, strlen(header), header, at));
    put_text("config.json", "{" LLAMA "," SHAPE "}");
}

static void expect_no_model(const char *why) {
    engine_error err = {0};
    model *m = model_open(dir, &err);
    assert_null(m);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void a_whole_checkpoint_opens(void **state) {
    (void)state;
    put_checkpoint(-1, NULL, 0);
    model *m = model_open(dir, NULL);
    assert_non_null(m);
    assert_int_equal(m->parameters, 8 * 4 * 2 + 3 * 4 + 4 * 16 + 3 * 24);
    assert_int_equal(m->layer[0].down.cols, 6);
    assert_null(m->layer[0].q_bias.data);
    model_close(m);
}

static void a_weight_that_is_missing_or_wrong_is_named(void **state) {
    (void)state;
    for (int i = 0; i < WEIGHTS; i++) {
        put_checkpoint(i, NULL, 0);
        expect_no_model(weights[i].name);
        put_checkpoint(i, "F32", 1);
        expect_no_model("where config.json says");
    }
    put_checkpoint(4, "I64", 0);
    expect_no_model("dtype I64");
}

static void a_missing_file_is_named(void **state) {
    (void)state;
    expect_no_model("config.json");
    put_text("config.json", "{" LLAMA "," SHAPE "}");
    expect_no_model("model.safetensors");
    put_text("model.safetensors.index.json", "{}");
    expect_no_model("weight_map");
    put_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model-2.safetensors\"}}");
    expect_no_model("model-2.safetensors");
    put_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../model.safetensors\"}}");
    expect_no_model("no valid shard name");
    put_text("model.safetensors.index.json", "{\"weight_map\":");
    expect_no_model("line 1");
    put_text("model.safetensors", "");
    expect_no_model("not a safetensors file");
}

static void a_checkpoint_cut_anywhere_is_an_error(void **state) {
    (void)state;
    put_checkpoint(-1, NULL, 0);
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(stat(path, &st), 0);
    for (off_t n = st.st_size - 1; n >= 0; n -= 7) {
        assert_int_equal(truncate(path, n), 0);
        expect_no_model("");
    }
}

/* ---- config.json ---- */

static model_config config(const char *json) {
    engine_error err = {0};
    model_config c;
    if (model_config_parse(json, strlen(json), &c, &err)) fail_msg("%s", err.msg);
    return c;
}

static void expect_bad_config(const char *json, const char *why) {
    engine_error err = {0};
    model_config c;
    assert_int_equal(model_config_parse(json, strlen(json), &c, &err), -1);
    if (!strstr(err.msg, why)) fail_msg("expected \"%s\", got \"%s\"", why, err.msg);
}

static void defaults_are_those_of_the_reference(void **state) {
    (void)state;
    model_config c = config("{" LLAMA "," SHAPE "}");
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 2);
    assert_int_equal(c.max_position, 2048);
    assert_true(c.rope_theta == 10000 && c.rope == ROPE_PLAIN && !c.tied_embeddings && !c.qkv_bias);
    c = config("{\"model_type\":\"qwen2\"," SHAPE
               ",\"eos_token_id\":[3,3,5],\"bos_token_id\":null,\"head_dim\":null}");
    assert_string_equal(c.architecture, "Qwen2ForCausalLM");
    assert_true(c.qkv_bias && c.bos == -1);
    assert_int_equal(c.neos, 2);
}

static void both_spellings_of_rope_and_dtype_are_read(void **state) {
    (void)state;
    model_config a =
        config("{" LLAMA "," SHAPE ",\"torch_dtype\":\"bfloat16\",\"rope_theta\":5e5,\"rope_scaling\":"
               "{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
               "\"original_max_position_embeddings\":64}}");
    model_config b = config("{" LLAMA "," SHAPE ",\"dtype\":\"bfloat16\",\"rope_parameters\":"
                            "{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":8,\"low_freq_factor\":1,"
                            "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}");
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.rope == ROPE_LLAMA3 && a.stored == DTYPE_BF16 && a.rope_theta == 5e5 && a.rope_factor == 8);
}

static void a_sliding_window_bounds_the_context(void **state) {
    (void)state;
#define QWEN "{\"model_type\":\"qwen2\"," SHAPE ",\"max_position_embeddings\":1000,\"sliding_window\":"
    assert_int_equal(config(QWEN "100}").max_position, 1000);
    assert_int_equal(config(QWEN "100,\"use_sliding_window\":false}").max_position, 1000);
    assert_int_equal(config(QWEN "100,\"use_sliding_window\":true}").max_position, 100);
    assert_int_equal(config(QWEN "2000,\"use_sliding_window\":true}").max_position, 1000);
}

static void what_would_compute_something_else_is_refused(void **state) {
    (void)state;
    expect_bad_config("", "line");
    expect_bad_config("[]", "not a JSON object");
    expect_bad_config("{" SHAPE "}", "LlamaForCausalLM or Qwen2ForCausalLM");
    expect_bad_config("{\"architectures\":[\"MixtralForCausalLM\"]," SHAPE "}",
                      "MixtralForCausalLM is not supported");
    expect_bad_config("{" LLAMA "}", "\"hidden_size\" is missing");
    expect_bad_config("{" LLAMA "," SHAPE ",\"num_key_value_heads\":3}", "cannot share");
    expect_bad_config("{" LLAMA "," SHAPE ",\"num_key_value_heads\":0}", "whole number");
    expect_bad_config("{" LLAMA "," SHAPE ",\"head_dim\":3}", "head dimension");
    expect_bad_config("{" LLAMA "," SHAPE ",\"hidden_act\":\"gelu\"}", "gelu");
    expect_bad_config("{" LLAMA "," SHAPE ",\"quantization_config\":{}}", "quant_method");
    expect_bad_config("{" LLAMA "," SHAPE ",\"torch_dtype\":\"float64\"}", "torch_dtype");
    expect_bad_config("{" LLAMA "," SHAPE ",\"rms_norm_eps\":0}", "rms_norm_eps");
    expect_bad_config("{" LLAMA "," SHAPE ",\"eos_token_id\":8}", "eos_token_id");
    expect_bad_config("{" LLAMA "," SHAPE ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}",
                      "dynamic");
    expect_bad_config("{" LLAMA "," SHAPE ",\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "longrope");
    expect_bad_config("{" LLAMA "," SHAPE ",\"rope_scaling\":{\"type\":\"linear\"}}",
                      "\"factor\" is missing");
    expect_bad_config("{" LLAMA "," SHAPE ",\"rope_scaling\":7}", "not an object");
    expect_bad_config("{" LLAMA "," SHAPE ",\"partial_rotary_factor\":0.5}", "partial_rotary_factor");
}

int main(void) {
#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, folder_new, folder_free)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_gives_its_tensors),
        cmocka_unit_test(a_broken_length_is_an_error),
        cmocka_unit_test(a_broken_header_is_an_error),
        cmocka_unit_test(tensors_that_lie_wrong_are_an_error),
        IN_FOLDER(a_whole_checkpoint_opens),
        IN_FOLDER(a_weight_that_is_missing_or_wrong_is_named),
        IN_FOLDER(a_missing_file_is_named),
        IN_FOLDER(a_checkpoint_cut_anywhere_is_an_error),
        cmocka_unit_test(defaults_are_those_of_the_reference),
        cmocka_unit_test(both_spellings_of_rope_and_dtype_are_read),
        cmocka_unit_test(a_sliding_window_bounds_the_context),
        cmocka_unit_test(what_would_compute_something_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
