/* What the 8-bit formats of the CUDA backend cost the demo model, through the shim: the CPU's bar for its own is 0.01 nats a token.
 * engine_cuda_accuracy [TOKENS], from the repository's root.
 */
#include "engine/cuda/cuda.h"
#include "tests/unit/engine/demo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static int tokens = 256; /* of which the shim computes a hundred a second */

static double kl_of(const demo *d, const char *weights) {
    return demo_kl(d, (accuracy_side){.weights = weights, .gpu = true});
}

static void eight_bits_cost_the_demo_model_as_little_as_on_a_cpu(void **state) {
    (void)state;
    assert_true(cuda_devices() > 0); /* the shim's, which is linked for this */
    demo d = demo_open(tokens);
    assert_true(kl_of(&d, "stored") <= 0.001);
    assert_true(kl_of(&d, "int8") <= 0.01);
    assert_true(kl_of(&d, "int8-a16") <= 0.01);
    assert_true(kl_of(&d, "fp8") <= 0.1);
    assert_true(kl_of(&d, "fp8-a16") <= 0.05);
    demo_close(&d);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_bits_cost_the_demo_model_as_little_as_on_a_cpu),
    };
    if (argc > 1) tokens = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
