/* Intents: what a small model learns, that it is the same each time, what a damaged file does, and the measures. */
#include "router/intent.h"
#include "router/intent_eval.h"
#include "router/intent_text.h"
#include "router/intent_train.h"
#include "support/support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char lines[] = "# a comment\n"
                            "\n"
                            "password\tHow do I reset my password?\n"
                            "password\tI forgot my password\n"
                            "password\tthe password does not work any more\n"
                            "password\tplease send me a new password\n"
                            "password\t如何重置密码？\n"
                            "password\t我忘记密码了\n"
                            "password\t密码不对怎么办\n"
                            "password\tmy pass word is lost\n"
                            "delivery\tWhen will my parcel arrive?\n"
                            "delivery\thow long does delivery take\n"
                            "delivery\twhere is the parcel that I ordered\n"
                            "delivery\tis my order on its way\n"
                            "delivery\t我的包裹什么时候到\n"
                            "delivery\t快递到哪里了\n"
                            "delivery\t送货要多久\n"
                            "delivery\tthe delivery is late\n"
                            "hours\tWhat are your opening hours?\r\n"
                            "hours\twhen do you open\n"
                            "hours\tuntil when is the shop open on Sunday\n"
                            "hours\tare you open today\n"
                            "hours\t你们几点开门\n"
                            "hours\t几点关门\n"
                            "hours\t周末营业吗\n"
                            "hours\topening times please\n"
                            "oos\twrite a poem about the sea\n"
                            "oos\tcompare two sorting algorithms\n"
                            "oos\ttranslate this letter for my landlord\n"
                            "oos\texplain quantum physics to a child\n"
                            "oos\t写一首关于春天的诗\n"
                            "oos\t帮我翻译这段话\n"
                            "oos\twho won the war of the roses\n"
                            "oos\tdraft a speech for a wedding\n";

typedef struct fixture {
    char folder[64], tsv[100], model[100];
    mr_intent *in;
} fixture;

static char *read_file(const char *path, size_t *n) {
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    fseek(in, 0, SEEK_END);
    *n = (size_t)ftell(in);
    rewind(in);
    char *p = malloc(*n);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, in), *n);
    fclose(in);
    return p;
}

static void train_model(const fixture *f, const char *path, uint64_t seed, mr_intent_trained *out) {
    static const char *const outside[] = {"oos"};
    mr_intent_train_options o = {
        .seed = seed, .outside = outside, .outside_n = 1, .share_low = 0.2, .share_high = 0.3};
    mr_intent_data d = {0};
    mr_error err;
    if (mr_intent_data_read(&d, f->tsv, &err) < 0) fail_msg("%s", err.msg);
    if (mr_intent_train(&d, NULL, &o, path, out, &err) < 0) fail_msg("%s", err.msg);
    mr_intent_data_done(&d);
}

static int open_fixture(void **state) {
    static fixture f;
    mr_error err;
    mr_intent_trained trained;
    test_folder_init(f.folder);
    snprintf(f.tsv, sizeof f.tsv, "%s/data.tsv", f.folder);
    snprintf(f.model, sizeof f.model, "%s/intent.model", f.folder);
    test_write(f.tsv, lines, sizeof lines - 1);
    train_model(&f, f.model, 1, &trained);
    assert_int_equal(trained.samples, 32);
    assert_int_equal(trained.labels, 4);
    assert_int_equal(trained.outside_samples, 8);
    f.in = mr_intent_open(f.model, &err);
    if (!f.in) fail_msg("%s", err.msg);
    *state = &f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    mr_intent_close(f->in);
    test_folder_done(f->folder);
    return 0;
}

static mr_intent_guess guess(const fixture *f, const char *text) {
    mr_intent_guess g;
    mr_error err;
    if (mr_intent_classify(f->in, mr_str_of(text), &g, &err) < 0) fail_msg("%s", err.msg);
    assert_true(g.confidence >= 0 && g.confidence <= 1 && g.probability >= 0 &&
                g.probability <= g.confidence);
    assert_int_equal(g.routine, g.label.n > 0 && g.confidence >= mr_intent_threshold(f->in));
    return g;
}

static void assert_label(const fixture *f, const char *text, const char *label) {
    assert_string_equal(guess(f, text).label.p, label);
}

/* ---- classifying ---- */

static void other_wordings_get_the_label_of_their_kind(void **state) {
    fixture *f = *state;
    assert_label(f, "I have forgotten the password, help", "password");
    assert_label(f, "how long will the delivery of my parcel take?", "delivery");
    assert_label(f, "at what hours are you open", "hours");
    assert_label(f, "忘记了密码", "password");
    assert_label(f, "包裹到哪了", "delivery");
}

static void a_message_out_of_scope_is_less_likely_routine_than_one_within(void **state) {
    fixture *f = *state;
    double within = guess(f, "please reset the password").confidence;
    mr_intent_guess outside = guess(f, "write a poem about spring");
    assert_true(outside.confidence < within);
    assert_string_equal(outside.class_label.p, "oos");
    assert_string_not_equal(outside.label.p, "oos");
}

static void width_case_and_traditional_characters_do_not_matter(void **state) {
    fixture *f = *state;
    double plain = guess(f, "如何重设密码").confidence;
    assert_true(guess(f, "如何重設密碼？").confidence == plain);
    assert_true(guess(f, "ＲＥＳＥＴ my\xE2\x80\x8B password!!").confidence ==
                guess(f, "reset my password").confidence);
}

/* How many words, and pairs of them, two messages have in common. */
static int features_shared(const char *a, const char *b) {
    static mr_intent_features x, y;
    int n = 0;
    mr_intent_features_of(mr_str_of(a), &x);
    mr_intent_features_of(mr_str_of(b), &y);
    for (int i = 0; i < x.n; i++) {
        for (int k = 0; k < y.n; k++) {
            n += x.v[i].hash == y.v[k].hash && mr_intent_kind_of(x.v[i].hash) == MR_INTENT_WORD;
        }
    }
    return n;
}

static void numbers_of_as_many_digits_are_alike(void **state) {
    (void)state;
    int alike = features_shared("send 250 euros", "send 731 euros");
    assert_true(alike > features_shared("send 250 euros", "send 7310 euros"));
    assert_int_equal(features_shared("send 250 euros", "send 7310 euros"),
                     features_shared("send 250 euros", "send some euros"));
    assert_true(features_shared("send 250 euros", "send 250 euros") > alike);
    assert_true(features_shared("查询10086话费", "查询10010话费") >
                features_shared("查询10086话费", "查询110话费"));
    assert_int_equal(features_shared("a1", "a2"), features_shared("a1", "ab"));
}

static void what_has_no_word_is_not_routine(void **state) {
    fixture *f = *state;
    static const char *const texts[] = {"", "?!", "\xF0\x9F\x98\x80", " \n\t"};
    for (size_t i = 0; i < 4; i++) {
        mr_intent_guess g = guess(f, texts[i]);
        assert_false(g.routine);
        assert_true(g.confidence == 0);
    }
}

static void of_a_very_long_text_the_beginning_counts(void **state) {
    fixture *f = *state;
    static char text[200001];
    for (size_t i = 0; i + 10 < sizeof text; i += 10) memcpy(text + i, "密码 你", 10);
    mr_intent_guess g = guess(f, text);
    assert_true(g.label.n > 0);
    text[50000] = '\0';
    assert_true(guess(f, text).confidence == g.confidence);
}

static void text_that_is_no_utf8_is_an_error(void **state) {
    fixture *f = *state;
    mr_intent_guess g;
    mr_error err;
    assert_int_equal(mr_intent_classify(f->in, MR_STR("pass\xFFword"), &g, &err), -1);
    assert_int_equal(err.code, MR_EINVAL);
}

/* ---- the file ---- */

static void the_same_data_and_seed_give_the_same_file(void **state) {
    fixture *f = *state;
    char again[120];
    size_t n, m;
    mr_intent_trained ignored;
    snprintf(again, sizeof again, "%s/again.model", f->folder);
    char *first = read_file(f->model, &n);
    train_model(f, again, 1, &ignored);
    char *second = read_file(again, &m);
    assert_int_equal(n, m);
    assert_memory_equal(first, second, n);
    free(second);
    train_model(f, again, 2, &ignored);
    second = read_file(again, &m);
    assert_true(m != n || memcmp(first, second, n) != 0);
    free(first);
    free(second);
}

static void a_damaged_file_is_refused_wherever_the_damage_is(void **state) {
    fixture *f = *state;
    char path[120];
    size_t n;
    mr_error err;
    snprintf(path, sizeof path, "%s/damaged.model", f->folder);
    char *bytes = read_file(f->model, &n);
    for (size_t at = 0; at < n; at += at < 64 ? 4 : n / 40) {
        bytes[at] ^= 0x40;
        test_write(path, bytes, n);
        assert_null(mr_intent_open(path, &err));
        assert_non_null(strstr(err.msg, path));
        bytes[at] ^= 0x40;
    }
    for (size_t cut = 0; cut < n; cut += n / 7) {
        test_write(path, bytes, cut);
        assert_null(mr_intent_open(path, &err));
    }
    free(bytes);
    assert_null(mr_intent_open(f->tsv, &err));
    assert_non_null(strstr(err.msg, "not a model of intents"));
    assert_null(mr_intent_open(f->folder, &err));
    assert_null(mr_intent_open("/nowhere/at/all", &err));
    assert_non_null(strstr(err.msg, "millrace intent train"));
}

static void a_new_file_is_taken_and_a_broken_one_is_not(void **state) {
    fixture *f = *state;
    char path[120];
    size_t n;
    mr_error err;
    char *bytes = read_file(f->model, &n);
    snprintf(path, sizeof path, "%s/served.model", f->folder);
    test_write(path, bytes, n);
    mr_intent *in = mr_intent_open(path, &err);
    assert_non_null(in);
    assert_int_equal(mr_intent_refresh(in, &err), 0);
    assert_int_equal(mr_intent_set_threshold(path, 0.25, 0.1, 0.3, &err), 0);
    assert_int_equal(mr_intent_refresh(in, &err), 1);
    assert_true(mr_intent_threshold(in) == 0.25);
    unlink(path);
    assert_int_equal(mr_intent_refresh(in, &err), -1);
    assert_int_equal(mr_intent_refresh(in, &err), 0); /* said once */
    test_write(path, bytes, n / 2);
    assert_int_equal(mr_intent_refresh(in, &err), -1);
    assert_int_equal(mr_intent_refresh(in, &err), 0);
    assert_true(mr_intent_threshold(in) == 0.25); /* the old one serves */
    test_write(path, bytes, n);
    assert_int_equal(mr_intent_refresh(in, &err), 1);
    assert_true(mr_intent_threshold(in) == mr_intent_threshold(f->in));
    mr_intent_close(in);
    free(bytes);
}

/* ---- data ---- */

static void a_wrong_line_is_named(void **state) {
    fixture *f = *state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"a\tb\nno tab\n", "bad.tsv:2: expected a label"},
        {"\tno label\n", "bad.tsv:1: expected a label"},
        {"a\tfine\n\n# c\na\tb\xC0\n", "bad.tsv:4: the line is no UTF-8"},
    };
    char path[120];
    snprintf(path, sizeof path, "%s/bad.tsv", f->folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mr_intent_data d = {0};
        mr_error err;
        test_write_text(path, cases[i].text);
        assert_int_equal(mr_intent_data_read(&d, path, &err), -1);
        if (!strstr(err.msg, cases[i].expected)) fail_msg("%s", err.msg);
        mr_intent_data_done(&d);
    }
}

static void training_needs_more_than_one_label(void **state) {
    fixture *f = *state;
    char path[120];
    mr_intent_data d = {0};
    mr_intent_train_options o = {.seed = 1, .share_low = 0.1, .share_high = 0.2};
    mr_intent_trained trained;
    mr_error err;
    snprintf(path, sizeof path, "%s/one.tsv", f->folder);
    test_write_text(path, "a\tb\na\tc\n");
    assert_int_equal(mr_intent_data_read(&d, path, &err), 0);
    assert_int_equal(mr_intent_train(&d, NULL, &o, path, &trained, &err), -1);
    assert_non_null(strstr(err.msg, "two labels"));
    mr_intent_data_done(&d);
}

/* ---- measures ---- */

static void auroc_counts_the_pairs_in_the_right_order(void **state) {
    (void)state;
    mr_intent_judged v[] = {{0.9f, false}, {0.8f, false}, {0.8f, true}, {0.1f, true}};
    assert_true(fabs(mr_intent_auroc(v, 4) - 3.5 / 4) < 1e-9);
    assert_true(isnan(mr_intent_auroc(v, 1)));
}

static void the_threshold_parts_most_within_the_band(void **state) {
    (void)state;
    mr_intent_judged v[100], w[100];
    for (int i = 0; i < 100; i++) v[i] = w[i] = (mr_intent_judged){(float)i / 100, i < 20};
    double t = mr_intent_pick_threshold(v, 100, 0.15,
                                        0.25); /* out of scope are 20 of 100, as in the band's middle */
    assert_true(t > 0.19 && t < 0.20);
    t = mr_intent_pick_threshold(v, 100, 0.05, 0.15); /* these weigh a half only, and are found as well */
    assert_true(t > 0.19 && t < 0.20);
    for (int i = 0; i < 100; i++) w[i].outside = false;
    t = mr_intent_pick_threshold(w, 100, 0.15, 0.25);
    assert_true(t > 0.19 && t < 0.20);
}

static void an_evaluation_counts_what_the_model_says(void **state) {
    fixture *f = *state;
    static const char text[] = "password\tI forgot my password\nhours\tare you open today\n"
                               "new label\tdraft a speech for a wedding\noos\twrite a poem about the sea\n";
    char path[120];
    mr_intent_data d = {0};
    mr_intent_report r;
    mr_error err;
    snprintf(path, sizeof path, "%s/eval.tsv", f->folder);
    test_write(path, text, sizeof text - 1);
    assert_int_equal(mr_intent_data_read(&d, path, &err), 0);
    assert_int_equal(mr_intent_eval(f->in, &d, &r, &err), 0);
    assert_int_equal(r.messages, 4);
    assert_int_equal(r.routine, 2); /* a label that the model does not know is out of scope */
    assert_true(r.accuracy == 1);
    assert_true(r.auroc == 1);
    assert_true(r.p50_us > 0 && r.p99_us >= r.p50_us);
    mr_intent_data_done(&d);
}

/* The error of a message under a label, and whether what its user gets is right. */
static double error_of(const fixture *f, const char *label, const char *text, bool *right) {
    mr_intent_data d = {0};
    mr_intent_report r;
    mr_error err;
    assert_int_equal(mr_intent_data_add(&d, mr_str_of(label), mr_str_of(text), &err), 0);
    assert_int_equal(mr_intent_eval_each(f->in, &d, right, &r, &err), 0);
    assert_true(r.error >= 0 && r.error <= 2);
    mr_intent_data_done(&d);
    return r.error;
}

static void the_error_of_the_probabilities_is_smallest_for_what_is_likeliest(void **state) {
    fixture *f = *state;
    bool right, wrong;
    double p = guess(f, "I forgot my password").confidence;
    double password = error_of(f, "password", "I forgot my password", &right);
    assert_true(error_of(f, "hours", "I forgot my password", &wrong) > password);
    assert_int_equal(right, p >= mr_intent_threshold(f->in));
    assert_false(wrong);
    /* Were it out of scope, p would be missing there, and be spread over the labels. */
    double outside = error_of(f, "oos", "I forgot my password", &right);
    assert_true(outside >= p * p && outside <= 2 * p * p + 1e-6);
    assert_int_equal(right, p < mr_intent_threshold(f->in));
    assert_true(error_of(f, "a label of nobody", "I forgot my password", &right) == outside);
}

static void a_calibrated_share_is_met(void **state) {
    fixture *f = *state;
    mr_intent_data d = {0};
    double threshold;
    int sent = 0;
    mr_error err;
    assert_int_equal(mr_intent_data_read(&d, f->tsv, &err), 0);
    assert_int_equal(mr_intent_calibrate(f->in, &d, 0.5, 0.5, &threshold, &err), 0);
    for (int i = 0; i < d.n; i++) {
        mr_intent_guess g;
        mr_intent_classify_words(f->in, d.v[i].words, &g);
        sent += g.confidence < threshold;
    }
    assert_true(sent >= 7 && sent <= 9); /* of 32, where the 8 out of scope shall weigh a half */
    mr_intent_data_done(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_wordings_get_the_label_of_their_kind),
        cmocka_unit_test(numbers_of_as_many_digits_are_alike),
        cmocka_unit_test(a_message_out_of_scope_is_less_likely_routine_than_one_within),
        cmocka_unit_test(width_case_and_traditional_characters_do_not_matter),
        cmocka_unit_test(what_has_no_word_is_not_routine),
        cmocka_unit_test(of_a_very_long_text_the_beginning_counts),
        cmocka_unit_test(text_that_is_no_utf8_is_an_error),
        cmocka_unit_test(the_same_data_and_seed_give_the_same_file),
        cmocka_unit_test(a_damaged_file_is_refused_wherever_the_damage_is),
        cmocka_unit_test(a_new_file_is_taken_and_a_broken_one_is_not),
        cmocka_unit_test(a_wrong_line_is_named),
        cmocka_unit_test(training_needs_more_than_one_label),
        cmocka_unit_test(auroc_counts_the_pairs_in_the_right_order),
        cmocka_unit_test(the_threshold_parts_most_within_the_band),
        cmocka_unit_test(an_evaluation_counts_what_the_model_says),
        cmocka_unit_test(the_error_of_the_probabilities_is_smallest_for_what_is_likeliest),
        cmocka_unit_test(a_calibrated_share_is_met),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
