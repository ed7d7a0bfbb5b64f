/* Whatever tokenizer.json and tokenizer_config.json hold, loading them gives a tokenizer or one error that says what is
 * wrong and where. */
#include "text_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char whole[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true}],\"normalizer\":"
    "null,"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"post_processor\":null,"
    "\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";

/* `whole` with the value at a path ("model.vocab") replaced by other JSON. */
static char *with(const char *path, const char *value) {
    json_t *doc = json_loads(whole, 0, NULL), *v = json_loads(value, JSON_DECODE_ANY, NULL);
    const char *dot = strchr(path, '.');
    char first[32];

    assert_non_null(v);
    snprintf(first, sizeof first, "%.*s", dot ? (int)(dot - path) : (int)strlen(path), path);
    if (dot)
        json_object_set_new(json_object_get(doc, first), dot + 1, v);
    else
        json_object_set_new(doc, first, v);
    char *text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    return text;
}

static void expect_refusal(const char *json, const char *config, const char *says) {
    engine_error err;
    tokenizer *t = parse(json, config, &err);

    if (t != NULL) fail_msg("this is taken: %s", json);
    if (err.code != ENGINE_EFORMAT || strstr(err.msg, says) == NULL)
        fail_msg("the error for %s says only: %s", json, err.msg);
}

static void expect_taken(const char *json, const char *config) {
    engine_error err;
    tokenizer *t = parse(json, config, &err);

    if (t == NULL) fail_msg("%s: %s", json, err.msg);
    tokenizer_free(t);
}

struct wrong {
    const char *path, *value, *says;
};

static void check_refusals(const struct wrong *w, size_t n) {
    expect_taken(whole, NULL);
    for (size_t i = 0; i < n; i++) {
        char *json = with(w[i].path, w[i].value);
        expect_refusal(json, NULL, w[i].says);
        free(json);
    }
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void a_file_that_is_no_tokenizer_is_refused(void **state) {
    (void)state;
    expect_refusal("", NULL, "tokenizer.json is not JSON");
    expect_refusal("{\"model\":", NULL, "tokenizer.json is not JSON: line 1");
    expect_refusal("[1]", NULL, "tokenizer.json must be a JSON object");
    expect_refusal("{}", NULL, "tokenizer.json: model: it must be an object");
    expect_refusal("{\"model\":{\"type\":\"Unigram\"}}", NULL,
                   "model: the type Unigram is not supported: only BPE is");
    expect_refusal(whole, "[]", "tokenizer_config.json must be a JSON object");
    expect_refusal(whole, "{", "tokenizer_config.json is not JSON");
}

static void a_model_with_wrong_parts_is_refused(void **state) {
    static const struct wrong cases[] = {
        {"model.vocab", "[]", "it needs \"vocab\""},
        {"model.vocab", "{\"a\":\"0\"}", "the id of \"a\" must be a number"},
        {"model.vocab", "{\"a\":-1}", "the id of \"a\" must be a number"},
        {"model.vocab", "{\"a\":1.5}", "the id of \"a\" must be a number"},
        {"model.vocab", "{\"a\":4294967296}", "the id of \"a\" must be a number from 0 to "},
        {"model.vocab", "{\"a\":0,\"b\":0,\"ab\":2}", "is another token's too"},
        {"model.merges", "{}", "\"merges\", a list"},
        {"model.merges", "[\"a b\",\"ab\"]", "merge 1 is neither"},
        {"model.merges", "[\"a b c\"]", "merge 0 is neither"},
        {"model.merges", "[[\"a\",\"b\",\"c\"]]", "merge 0 is neither"},
        {"model.merges", "[[\"a\",1]]", "merge 0 is neither"},
        {"model.merges", "[\"b a\"]", "merge 0 (\"b\" and \"a\") is not of the vocabulary"},
        {"model.merges", "[\"a x\"]", "is not of the vocabulary"},
        {"model.merges", "[\" b\"]", "is not of the vocabulary"},
        {"model.byte_fallback", "true", "byte_fallback (SentencePiece) is not supported"},
        {"model.byte_fallback", "1", "\"byte_fallback\" must be true or false"},
        {"model.continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
        {"model.end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
        {"model.dropout", "0.1", "dropout is not supported"},
        {"model.unk_token", "\"a\"", "unk_token is not supported where bytes, such as 0x00, have no token"},
        {"model.ignore_merges", "\"yes\"", "\"ignore_merges\" must be true or false"},
    };

    (void)state;
    check_refusals(cases, COUNT(cases));
}

static void added_tokens_that_are_wrong_are_refused(void **state) {
    static const struct wrong cases[] = {
        {"added_tokens", "{}", "\"added_tokens\" must be a list"},
        {"added_tokens", "[1]", "must be a number"},
        {"added_tokens", "[{\"id\":3}]", "added_tokens: number 1: it needs a \"content\""},
        {"added_tokens", "[{\"id\":3,\"content\":\"x\"},{\"id\":-4,\"content\":\"y\"}]", "must be a number"},
        {"added_tokens", "[{\"id\":3,\"content\":7}]", "\"content\" must be a string"},
        {"added_tokens", "[{\"id\":3,\"content\":\"x\",\"lstrip\":3}]", "\"lstrip\" must be true or false"},
        {"added_tokens", "[{\"id\":1,\"content\":\"<s>\"}]", "the id 1 of \"<s>\" is another token's too"},
    };

    (void)state;
    check_refusals(cases, COUNT(cases));
}

static void steps_that_are_not_supported_are_refused_by_name(void **state) {
    static const struct wrong cases[] = {
        {"pre_tokenizer", "null", "only byte-level BPE tokenizers are supported"},
        {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[]}", "there is no ByteLevel"},
        {"pre_tokenizer", "{\"type\":\"Metaspace\"}", "pre_tokenizer: the type Metaspace is not supported"},
        {"pre_tokenizer",
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}",
         "step 2: Digits after ByteLevel is not supported"},
        {"pre_tokenizer",
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\"}]}",
         "step 1: Split needs a pattern"},
        {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Sideways\"}",
         "unknown behavior \"Sideways\""},
        {"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Removed\"}",
         "the regex does not compile: missing closing parenthesis"},
        {"normalizer", "{\"type\":\"Lowercase\"}", "normalizer: the type Lowercase is not supported"},
        {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\"}]}",
         "the type Prepend"},
        {"normalizer", "\"NFC\"", "the type (missing)"},
        {"decoder", "{\"type\":\"WordPiece\"}", "decoder: only ByteLevel is supported"},
        {"post_processor", "{\"type\":\"BertProcessing\"}",
         "post_processor: the type BertProcessing is not supported"},
        {"post_processor", "{\"type\":\"TemplateProcessing\"}", "needs a list \"single\""},
        {"post_processor",
         "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<x>\"}}]}",
         "names a token that is not there"},
    };

    (void)state;
    check_refusals(cases, COUNT(cases));
}

/* What has no equal translation, in a Split. */
static void a_regex_that_would_mean_something_else_is_refused(void **state) {
    static const char *const regexes[] = {
        "[a-z&&[^b]]", "[[:alpha:]]", "\\bx",     "(?<n>x)", "(x)\\1", "\\R",   "a{2}+", "a{2}?",   "a(?i)b",
        "(?x: a)",     "\\p{Emoji}",  "[\\P{L}]", "(?i:ss)", "(?i:ß)", "\\xE9", "[]x]",  "(*UCP)x", "x\\"};

    (void)state;
    for (size_t i = 0; i < COUNT(regexes); i++) {
        json_t *split = json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern", "Regex", regexes[i],
                                  "behavior", "Isolated");
        char *spec = json_dumps(split, 0), *json = with("pre_tokenizer", spec);
        expect_refusal(json, NULL, "the regex has ");
        free(json);
        free(spec);
        json_decref(split);
    }
}

static void a_config_that_is_wrong_is_refused(void **state) {
    (void)state;
    expect_refusal(whole, "{\"eos_token\":\"<nope>\"}",
                   "eos_token \"<nope>\" is not a token of tokenizer.json");
    expect_refusal(whole, "{\"bos_token\":{\"content\":\"<nope>\"}}", "bos_token \"<nope>\"");
    expect_refusal(whole, "{\"add_bos_token\":\"yes\"}", "\"add_bos_token\" must be true or false");
    expect_taken(whole, "{\"eos_token\":\"<s>\",\"bos_token\":null,\"chat_template\":7}");
}

static void the_default_of_several_chat_templates_is_taken(void **state) {
    engine_error err;
    tokenizer *t = parse(whole,
                         "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"A\"},"
                         "{\"name\":\"default\",\"template\":\"B\"}]}",
                         &err);

    (void)state;
    assert_non_null(t);
    assert_string_equal(tokenizer_chat_template(t), "B");
    tokenizer_free(t);
}

static void every_truncation_of_a_file_is_one_clear_error(void **state) {
    json_t *doc = golden_value("llama3/tokenizer.json");
    char *json = json_dumps(doc, JSON_COMPACT);
    size_t n = strlen(json);

    (void)state;
    for (size_t cut = 0; cut < n; cut += n / 97) {
        engine_error err = {0};
        assert_null(tokenizer_parse(json, cut, NULL, 0, &err));
        assert_int_equal(err.code, ENGINE_EFORMAT);
    }
    free(json);
    json_decref(doc);
}

/* ---- folders ---- */

static void put_file(const char *dir, const char *name, const char *text) {
    char path[256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void drop_folder(const char *dir) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};
    char path[256];

    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void a_folder_without_tokenizer_json_is_refused_by_its_path(void **state) {
    char dir[] = "/tmp/millrace-text-XXXXXX";
    engine_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_null(tokenizer_load(dir, &err));
    assert_int_equal(err.code, ENGINE_EIO);
    assert_non_null(strstr(err.msg, "tokenizer.json: cannot open it"));
    drop_folder(dir);
}

static void a_template_in_its_own_file_goes_before_the_configs(void **state) {
    char dir[] = "/tmp/millrace-text-XXXXXX";
    engine_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    put_file(dir, "tokenizer.json", whole);
    tokenizer *t = tokenizer_load(dir, &err);
    assert_non_null(t);
    assert_null(tokenizer_chat_template(t));
    tokenizer_free(t);

    put_file(dir, "tokenizer_config.json", "{\"chat_template\":\"old\"}");
    put_file(dir, "chat_template.jinja", "new");
    t = tokenizer_load(dir, &err);
    assert_non_null(t);
    assert_string_equal(tokenizer_chat_template(t), "new");
    tokenizer_free(t);
    drop_folder(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_is_no_tokenizer_is_refused),
        cmocka_unit_test(a_model_with_wrong_parts_is_refused),
        cmocka_unit_test(added_tokens_that_are_wrong_are_refused),
        cmocka_unit_test(steps_that_are_not_supported_are_refused_by_name),
        cmocka_unit_test(a_regex_that_would_mean_something_else_is_refused),
        cmocka_unit_test(a_config_that_is_wrong_is_refused),
        cmocka_unit_test(the_default_of_several_chat_templates_is_taken),
        cmocka_unit_test(every_truncation_of_a_file_is_one_clear_error),
        cmocka_unit_test(a_folder_without_tokenizer_json_is_refused_by_its_path),
        cmocka_unit_test(a_template_in_its_own_file_goes_before_the_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
