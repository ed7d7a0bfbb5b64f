/* What 8 bits cost the demo model, over a text of its own kind: the bar is 0.01 nats a token. Run from the repository's root. */
#include "engine/accuracy.h"
#include "engine/model/files.h"
#include "engine/text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEMO "ops/demo/millrace-demo"
#define TEXT "ops/demo/corpus/world.en.txt"

enum { TOKENS = 2048, WINDOW = 256 };

static double kl_of(const model *m, const int32_t *ids, const char *weights, const char *kv) {
    const accuracy_side reference = {.model = m, .threads = 2},
                        format = {.model = m, .threads = 2, .weights = weights, .kv = kv};
    const accuracy_text text = {.ids = ids, .n = TOKENS, .window = WINDOW};
    accuracy a;
    engine_error err = {0};
    if (accuracy_measure(&reference, &format, &text, &a, &err)) fail_msg("%s", err.msg);
    print_message("weights %s, KV %s: perplexity %.3f (%.3f), KL %.6f nats a token, at worst %.4f\n", weights,
                  kv, a.perplexity, a.reference_perplexity, a.kl, a.worst_kl);
    return a.kl;
}

static void eight_bits_cost_the_demo_model_less_than_a_hundredth_of_a_nat(void **state) {
    (void)state;
    size_t n = 0;
    engine_error err = {0};
    model *m = model_open(DEMO, &err);
    if (!m) fail_msg("%s", err.msg);
    tokenizer *t = tokenizer_load(DEMO, &err);
    char *text = checkpoint_read(NULL, TEXT, 1 << 24, &n, &err);
    int32_t *ids = calloc(n + 1, sizeof *ids);
    assert_true(t && text && ids);
    assert_in_range(tokenizer_encode(t, text, n, false, ids, n, &err), TOKENS, n);
    assert_true(kl_of(m, ids, "int8", "full") <= 0.01);
    assert_true(kl_of(m, ids, "int8-a16", "full") <= 0.01);
    assert_true(kl_of(m, ids, "stored", "int8") <= 0.01);
    assert_true(kl_of(m, ids, "int8", "int8") <= 0.02);
    free(ids);
    free(text);
    tokenizer_free(t);
    model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_bits_cost_the_demo_model_less_than_a_hundredth_of_a_nat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
