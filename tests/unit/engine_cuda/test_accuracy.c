/* What the 8-bit formats of the CUDA backend cost the demo model, through the shim: the CPU's bar for its own is 0.01 nats a token.
 * engine_cuda_accuracy [TOKENS], from the repository's root.
 */
#include "engine/accuracy.h"
#include "engine/cuda/cuda.h"
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

static int tokens = 256; /* of which the shim computes a hundred a second */

static double kl_of(const model *m, const int32_t *ids, const char *weights) {
    const accuracy_side reference = {.model = m, .threads = 2},
                        format = {.model = m, .threads = 2, .weights = weights, .gpu = true};
    const accuracy_text text = {ids, (size_t)tokens, tokens < 256 ? tokens : 256};
    accuracy a;
    engine_error err = {0};
    if (accuracy_measure(&reference, &format, &text, &a, &err)) fail_msg("%s", err.msg);
    print_message("%-8s perplexity %.3f (%.3f), KL %.6f nats a token, at worst %.4f, same best %.2f %%\n",
                  weights, a.perplexity, a.reference_perplexity, a.kl, a.worst_kl, 100 * a.same_best);
    return a.kl;
}

static void eight_bits_cost_the_demo_model_as_little_as_on_a_cpu(void **state) {
    (void)state;
    size_t n = 0;
    engine_error err = {0};
    assert_true(cuda_devices() > 0); /* the shim's, which is linked for this */
    model *m = model_open(DEMO, &err);
    if (!m) fail_msg("%s", err.msg);
    tokenizer *t = tokenizer_load(DEMO, &err);
    char *text = checkpoint_read(NULL, TEXT, 1 << 24, &n, &err);
    int32_t *ids = calloc(n + 1, sizeof *ids);
    assert_true(t && text && ids);
    assert_in_range(tokenizer_encode(t, text, n, false, ids, n, &err), tokens, n);
    assert_true(kl_of(m, ids, "stored") <= 0.001);
    assert_true(kl_of(m, ids, "int8") <= 0.01);
    assert_true(kl_of(m, ids, "int8-a16") <= 0.01);
    assert_true(kl_of(m, ids, "fp8") <= 0.1);
    assert_true(kl_of(m, ids, "fp8-a16") <= 0.05);
    free(ids);
    free(text);
    tokenizer_free(t);
    model_close(m);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_bits_cost_the_demo_model_as_little_as_on_a_cpu),
    };
    if (argc > 1) tokens = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
