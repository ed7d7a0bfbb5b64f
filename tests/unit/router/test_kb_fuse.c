/* Words and intent fused into one confidence, and the fit of it. */
#include "router/kb_fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define CASES 4000

static const mr_kb_fusion truth = {{{-4, 9, 1, 0}, {-3, 7, 2, 0.5}, {-1, 4, 1, 1.5}}};

static double fused(mr_kb_evidence a, mr_kb_evidence b) {
    double p[2];
    mr_kb_fuse(&mr_kb_fusion_default, (mr_kb_evidence[]){a, b}, 2, p);
    assert_true(p[0] >= 0 && p[1] >= 0 && p[0] + p[1] <= 1);
    return p[0];
}

static void a_likely_intent_makes_surer_and_an_unlikely_one_less_sure(void **state) {
    (void)state;
    for (mr_kb_kind kind = MR_KB_CATEGORY; kind <= MR_KB_OWN; kind++) {
        mr_kb_evidence likely = {.kind = kind, .best = 0.6, .label = 0.9}, unlikely = likely;
        mr_kb_evidence rival = {.kind = kind, .best = 0.5, .label = 0.1};
        unlikely.label = 0.01;
        assert_true(fused(likely, rival) > 0.6);
        assert_true(fused(unlikely, rival) < 0.4);
    }
}

static void what_is_nearer_is_surer_and_a_rival_takes_from_it(void **state) {
    (void)state;
    mr_kb_evidence near = {.best = 0.8}, far = {.best = 0.2};
    assert_true(fused(near, far) > 0.9);
    assert_true(fused(far, far) < 0.1);
    assert_true(fabs(fused(near, near) - 0.5) < 0.01);
}

static void no_evidence_is_too_much_for_it(void **state) {
    (void)state;
    mr_kb_fusion f = {{{-5000, 1e6, 1, 0}}};
    double p[2];
    mr_kb_fuse(&f, (mr_kb_evidence[]){{.best = 1, .votes = 4}, {0}}, 2, p);
    assert_true(p[0] > 0.999 && p[0] <= 1 && p[1] == 0);
    assert_true(fused((mr_kb_evidence){.kind = MR_KB_OWN, .best = 1, .label = 0}, (mr_kb_evidence){0}) > 0);
}

/* ---- the fit ---- */

static uint64_t seed = 1;

static double draw(void) {
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(seed >> 11) / (double)(UINT64_C(1) << 53);
}

/* Questions with three candidates each, of which the right one is drawn as the truth says. */
static void draw_cases(mr_kb_case *cases, mr_kb_evidence (*v)[3]) {
    for (int i = 0; i < CASES; i++) {
        double p[3], at = draw();
        for (int k = 0; k < 3; k++) {
            v[i][k] = (mr_kb_evidence){.kind = (mr_kb_kind)(draw() * MR_KB_KINDS),
                                       .best = draw(),
                                       .votes = 2 * draw(),
                                       .label = draw()};
        }
        mr_kb_fuse(&truth, v[i], 3, p);
        cases[i] = (mr_kb_case){v[i], 3, -1};
        for (int k = 0; k < 3 && cases[i].right < 0; at -= p[k++]) {
            if (at < p[k]) cases[i].right = k;
        }
    }
}

static void the_fit_finds_the_coefficients_that_made_the_data(void **state) {
    (void)state;
    static mr_kb_case cases[CASES];
    static mr_kb_evidence v[CASES][3];
    mr_kb_fusion f;
    mr_error err;
    draw_cases(cases, v);
    assert_int_equal(mr_kb_fit(cases, CASES, &mr_kb_fusion_default, &f, &err), 0);
    assert_true(mr_kb_fit_loss(cases, CASES, &f) <= mr_kb_fit_loss(cases, CASES, &truth));
    assert_true(mr_kb_fit_loss(cases, CASES, &f) < mr_kb_fit_loss(cases, CASES, &mr_kb_fusion_default));
    for (int kind = 0; kind < MR_KB_KINDS; kind++) {
        for (int i = 0; i < MR_KB_TERMS; i++) {
            if (fabs(f.w[kind][i] - truth.w[kind][i]) > 0.7 && (kind != MR_KB_PLAIN || i != MR_KB_LABEL))
                fail_msg("%s.%s is %f instead of %f", mr_kb_kind_names[kind], mr_kb_term_names[i],
                         f.w[kind][i], truth.w[kind][i]);
        }
    }
}

static void without_questions_the_coefficients_stay(void **state) {
    (void)state;
    mr_kb_fusion f;
    mr_error err;
    assert_int_equal(mr_kb_fit(NULL, 0, &truth, &f, &err), 0);
    assert_memory_equal(&f, &truth, sizeof(f));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_likely_intent_makes_surer_and_an_unlikely_one_less_sure),
        cmocka_unit_test(what_is_nearer_is_surer_and_a_rival_takes_from_it),
        cmocka_unit_test(no_evidence_is_too_much_for_it),
        cmocka_unit_test(the_fit_finds_the_coefficients_that_made_the_data),
        cmocka_unit_test(without_questions_the_coefficients_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
