/* `millrace intent` as an operator meets it: what it prints, and its exit status. */
#include "ops/cli/commands.h"
#include "support/command.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    char folder[64], model[100], tsv[100], test[100], output[100];
    char text[20000]; /* stdout and stderr of the last run */
} fixture;

static int intent(fixture *f, const char *const *args) {
    const test_command c = {.run = cmd_intent,
                            .name = "intent",
                            .input = f->test,
                            .output = f->output,
                            .text = f->text,
                            .size = sizeof(f->text)};
    return test_command_run(&c, args);
}
#define INTENT(...)        INTENT_RUN(__VA_ARGS__, NULL)
#define INTENT_RUN(f, ...) intent(f, (const char *const[]){__VA_ARGS__})

static void expect(const fixture *f, const char *needle) {
    if (!strstr(f->text, needle)) fail_msg("'%s' is not in:\n%s", needle, f->text);
}

static int open_fixture(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    test_folder_init(f->folder);
    snprintf(f->model, sizeof(f->model), "%s/intent.model", f->folder);
    snprintf(f->tsv, sizeof(f->tsv), "%s/data.tsv", f->folder);
    snprintf(f->test, sizeof(f->test), "%s/test.tsv", f->folder);
    snprintf(f->output, sizeof(f->output), "%s/output", f->folder);
    test_write_text(f->tsv,
                    "pay\tHow do I pay?\npay\tcan I pay by card\npay\t如何付款\npay\tpay the bill\n"
                    "open\twhen do you open\nopen\tare you open now\nopen\t几点开门\nopen\topening hours\n"
                    "chat\ttell me a joke\nchat\t讲个笑话\nchat\tsing a song\nchat\twho are you\n");
    test_write_text(f->test, "pay\tpay by card?\nopen\twhen are you open\nchat\ttell a joke\n");
    assert_int_equal(INTENT(f, "train", f->tsv, "-o", f->model, "--oos", "chat", "--seed=7"), 0);
    expect(f, "3 labels, 12 messages (4 out of scope)");
    expect(f, "Threshold 0.");
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    test_folder_done(((fixture *)*state)->folder);
    free(*state);
    return 0;
}

static void an_evaluation_prints_every_measure(void **state) {
    fixture *f = *state;
    assert_int_equal(INTENT(f, "eval", f->model, f->test), 0);
    expect(f, "3 messages, 2 of them routine");
    expect(f, "right label, routine messages");
    expect(f, "macro-F1");
    expect(f, "AUROC");
    expect(f, "AI share");
    expect(f, "calibration error");
    expect(f, "error of the probabilities");
}

static void a_text_or_each_line_of_stdin_is_classified(void **state) {
    fixture *f = *state;
    assert_int_equal(INTENT(f, "classify", f->model, "how can I pay"), 0);
    expect(f, "\tpay\n");
    assert_int_equal(INTENT(f, "classify", f->model), 0);
    expect(f, "\tpay\n");
    expect(f, "\topen\n");
}

static void calibrating_changes_the_threshold_in_the_file(void **state) {
    fixture *f = *state;
    assert_int_equal(INTENT(f, "calibrate", f->model, f->test, "--target-share", "0.9"), 0);
    expect(f, "(it was 0.");
    assert_int_equal(INTENT(f, "calibrate", f->model, f->test, "--target-share", "0.2..0.4"), 0);
    assert_int_equal(INTENT(f, "eval", f->model, f->test), 0);
}

static void a_wrong_command_line_is_one_clear_line_and_exit_2(void **state) {
    fixture *f = *state;
    static const struct {
        const char *args[6], *expected;
    } cases[] = {
        {{"trian", "x"}, "did you mean 'train'"},
        {{"train", "x.tsv"}, "Give -o MODEL"},
        {{"train", "-o", "m"}, "train takes DATA.tsv"},
        {{"train", "x.tsv", "-o"}, "-o needs a value"},
        {{"train", "x.tsv", "-o", "m", "--seed=x"}, "--seed is a number"},
        {{"eval", "m", "t", "--seed=1"}, "eval has no flag --seed"},
        {{"eval", "m", "t", "--se"}, "eval has no flag --se"},
        {{"calibrate", "m", "t", "--target-share=0.3..0.2"}, "--target-share is a range"},
        {{"calibrate", "m", "t", "--target-share=0.3..x"}, "--target-share is a range"},
        {{"calibrate", "m", "t", "--target-share=1.5"}, "--target-share is a range"},
        {{"classify"}, "classify takes MODEL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(intent(f, cases[i].args), 2);
        expect(f, cases[i].expected);
        expect(f, "Try millrace intent --help");
    }
    assert_int_equal(INTENT(f, "--help"), 0);
    expect(f, "--target-share LOW..HIGH");
}

static void what_cannot_be_done_is_exit_1(void **state) {
    fixture *f = *state;
    assert_int_equal(INTENT(f, "eval", f->tsv, f->test), 1);
    expect(f, "not a model of intents");
    assert_int_equal(INTENT(f, "eval", f->model, "/nowhere.tsv"), 1);
    expect(f, "/nowhere.tsv");
    assert_int_equal(INTENT(f, "train", f->tsv, "-o", "/nowhere/model"), 1);
    expect(f, "/nowhere/model");
    assert_int_equal(INTENT(f, "train", f->tsv, "-o", f->output, "--oos", "joke"), 1);
    expect(f, "--oos joke: no message has this label");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_evaluation_prints_every_measure),
        cmocka_unit_test(a_text_or_each_line_of_stdin_is_classified),
        cmocka_unit_test(calibrating_changes_the_threshold_in_the_file),
        cmocka_unit_test(a_wrong_command_line_is_one_clear_line_and_exit_2),
        cmocka_unit_test(what_cannot_be_done_is_exit_1),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
