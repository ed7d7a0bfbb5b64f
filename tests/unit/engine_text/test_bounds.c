/* A quarter of a megabyte of any text is encoded in time that grows hardly faster than the text: users choose the text. */
#include "text_test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LENGTH = 1 << 18 };
/* A quadratic step anywhere would take minutes; sanitizers and a busy machine cost a factor of ten. */
enum { SECONDS_MAX = 20 };

static void fill(char *out, const char *unit) {
    size_t len = strlen(unit), n = 0;

    for (; n + len <= LENGTH; n += len) memcpy(out + n, unit, len);
    memset(out + n, '.', LENGTH - n);
}

static double cpu_seconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void check_time(const tokenizer *t, const char *name, const char *what, const char *text) {
    engine_error err = {0};
    double began = cpu_seconds();
    int64_t n = tokenizer_encode(t, text, LENGTH, false, NULL, 0, &err);
    double took = cpu_seconds() - began;

    if (n < 0) fail_msg("%s: %s: %s", name, what, err.msg);
    if (took > SECONDS_MAX) fail_msg("%s: 256 KB of %s takes %.0f seconds", name, what, took);
}

static void for_each_tokenizer(const char *what, const char *text) {
    static const char *const kinds[] = {"gpt2",   "deepseek_llm", "deepseek_v3", "qwen2",
                                        "llama3", "cl100k",       "o200k"};

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        tokenizer *t = golden_tokenizer(kinds[i]);
        check_time(t, kinds[i], what, text);
        tokenizer_free(t);
    }
}

static void a_long_run_of_one_repeated_thing_is_encoded_in_seconds(void **state) {
    static const char *const units[] = {"a",           "ab",  " ",    "\n",     " \n",
                                        "1",           "!",   "你",   "\u0301", "\u0301\u0323",
                                        "<|im_start|", "<｜", "\xFF", "'",      "the river "};
    char *text = malloc(LENGTH);

    (void)state;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        fill(text, units[i]);
        for_each_tokenizer(units[i], text);
    }
    free(text);
}

static void a_long_run_of_spaces_before_other_text_is_encoded_in_seconds(void **state) {
    char *text = malloc(LENGTH);

    (void)state;
    /* DeepSeek's \s+$ finds no end of line anywhere in the run */
    memset(text, ' ', LENGTH);
    memcpy(text + LENGTH - 3, "你", 3);
    for_each_tokenizer("spaces before 你", text);
    text[LENGTH - 4] = '\n';
    text[0] = 'a';
    for_each_tokenizer("spaces before a line break", text);
    free(text);
}

static void a_long_run_of_random_letters_in_one_word_is_encoded_in_seconds(void **state) {
    char *text = malloc(LENGTH);
    unsigned seed = 1;

    (void)state;
    for (size_t i = 0; i < LENGTH; i++) {
        seed = seed * 1103515245u + 12345u;
        text[i] = (char)('a' + (seed >> 16) % 26);
    }
    for_each_tokenizer("letters", text);
    free(text);
}

/* Canonical order puts all of the second half before all of the first. */
static void a_long_run_of_marks_in_the_wrong_order_is_encoded_in_seconds(void **state) {
    char *text = malloc(LENGTH);

    (void)state;
    for (size_t i = 0; i < LENGTH; i += 2) memcpy(text + i, i < LENGTH / 2 ? "\u0301" : "\u0323", 2);
    for_each_tokenizer("combining marks", text);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_run_of_one_repeated_thing_is_encoded_in_seconds),
        cmocka_unit_test(a_long_run_of_spaces_before_other_text_is_encoded_in_seconds),
        cmocka_unit_test(a_long_run_of_random_letters_in_one_word_is_encoded_in_seconds),
        cmocka_unit_test(a_long_run_of_marks_in_the_wrong_order_is_encoded_in_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
