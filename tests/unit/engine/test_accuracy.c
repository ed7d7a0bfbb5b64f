/* What 8 bits cost the demo model, over a text of its own kind: the bar is 0.01 nats a token. Run from the repository's root. */
#include "tests/unit/engine/demo.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { TOKENS = 2048 };

static double kl_of(const demo *d, const char *weights, const char *kv) {
    return demo_kl(d, (accuracy_side){.weights = weights, .kv = kv});
}

static void eight_bits_cost_the_demo_model_less_than_a_hundredth_of_a_nat(void **state) {
    (void)state;
    demo d = demo_open(TOKENS);
    assert_true(kl_of(&d, "int8", "full") <= 0.01);
    assert_true(kl_of(&d, "int8-a16", "full") <= 0.01);
    assert_true(kl_of(&d, "stored", "int8") <= 0.01);
    assert_true(kl_of(&d, "int8", "int8") <= 0.02);
    demo_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_bits_cost_the_demo_model_less_than_a_hundredth_of_a_nat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
