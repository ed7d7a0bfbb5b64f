/* `millrace kb` as an operator meets it: what it prints, and its exit status. */
#include "ops/cli/commands.h"
#include "support/command.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct fixture {
    char folder[64], db[100], tsv[100], output[100];
    char text[20000]; /* stdout and stderr of the last run */
} fixture;

static int open_fixture(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    test_folder_init(f->folder);
    snprintf(f->db, sizeof(f->db), "%s/kb.db", f->folder);
    snprintf(f->tsv, sizeof(f->tsv), "%s/kb.tsv", f->folder);
    snprintf(f->output, sizeof(f->output), "%s/output", f->folder);
    test_write_text(f->tsv, "How do I pay?\tBy card.\n如何付款？\t刷卡。\n");
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    test_folder_done(((fixture *)*state)->folder);
    free(*state);
    return 0;
}

static int kb(fixture *f, const char *const *args) {
    const test_command c = {
        .run = cmd_kb, .name = "kb", .output = f->output, .text = f->text, .size = sizeof(f->text)};
    return test_command_run(&c, args);
}
#define KB(...)        KB_RUN(__VA_ARGS__, NULL)
#define KB_RUN(f, ...) kb(f, (const char *const[]){__VA_ARGS__})

static void expect(const fixture *f, const char *needle) {
    if (!strstr(f->text, needle)) fail_msg("'%s' is not in:\n%s", needle, f->text);
}

static void import_search_and_export_work_together(void **state) {
    fixture *f = *state;
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 0);
    expect(f, "2 entries added, 0 changed; 2 with 2 phrasings are in");
    assert_int_equal(KB(f, "search", "how do i pay", "--kb", f->db), 0);
    expect(f, "1.000  How do I pay?");
    expect(f, "By card.");
    expect(f, "The first one is the answer (2 entries, threshold 0.65)");
    assert_int_equal(KB(f, "search", "weather", "--kb", f->db), 0);
    expect(f, "The model answers");
    assert_int_equal(KB(f, "export", "--kb", f->db), 0);
    assert_string_equal(f->text, "How do I pay?\tBy card.\n如何付款？\t刷卡。\n");
}

static void the_configuration_names_the_file_and_the_threshold(void **state) {
    fixture *f = *state;
    char config[120], text[300];
    snprintf(config, sizeof(config), "%s/conf", f->folder);
    snprintf(text, sizeof(text),
             "router = { kb = \"%s\"; kb_threshold = 0.05; };\ngateway = { port = 1; };\n", f->db);
    test_write_text(config, text);
    assert_int_equal(KB(f, "import", "--config", config, f->tsv), 0);
    assert_int_equal(KB(f, "search", "pay", "--config", config), 0);
    expect(f, "The first one is the answer (2 entries, threshold 0.05)");
}

static void replace_and_a_second_import_count_what_they_do(void **state) {
    fixture *f = *state;
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 0);
    test_write_text(f->tsv, "How do I pay?\tIn cash.\n");
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 0);
    expect(f, "0 entries added, 1 changed; 2 with 2 phrasings are in");
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db, "--replace"), 0);
    expect(f, "1 entries added, 0 changed; 1 with 1 phrasings are in");
}

static void a_bad_line_fails_with_its_place(void **state) {
    fixture *f = *state;
    char place[140];
    test_write_text(f->tsv, "a\tb\nno tab\n");
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 1);
    snprintf(place, sizeof(place), "millrace kb: %s:2: ", f->tsv);
    expect(f, place);
    assert_int_not_equal(access(f->db, F_OK), 0);
}

static void a_missing_file_fails_with_advice(void **state) {
    fixture *f = *state;
    assert_int_equal(KB(f, "search", "x", "--kb", f->db), 1);
    expect(f, "make it with `millrace kb import FILE.tsv`");
    assert_int_equal(KB(f, "export", "--kb", f->db), 1);
    expect(f, f->db);
}

static void a_wrong_command_line_is_said_in_one_line(void **state) {
    fixture *f = *state;
    assert_int_equal(KB(f, "imprt", f->tsv), 2);
    expect(f, "unknown command 'imprt' (did you mean 'import'?). Try millrace kb --help.\n");
    assert_int_equal(KB(f, "import"), 2);
    expect(f, "import needs FILE");
    assert_int_equal(KB(f, "import", "a", "b", "--kb", f->db), 2);
    expect(f, "unexpected argument 'b'");
    assert_int_equal(KB(f, "search", "a", "--replace", "--kb", f->db), 2);
    expect(f, "unknown flag --replace");
    assert_int_equal(KB(f, "search", "a", "--kb"), 2);
    expect(f, "--kb needs a value");
    assert_int_equal(KB(f, "search", "a"), 2);
    expect(f, "--config FILE with router.kb");
    assert_int_equal(KB(f, "search", "a", "--config", "nowhere.conf"), 2);
    expect(f, "nowhere.conf");
}

static void jsonl_goes_in_and_out(void **state) {
    fixture *f = *state;
    char json[120], again[120], text[300];
    static const char line[] =
        "{\"question\":\"Returns?\",\"answer\":\"Within a week.\",\"name\":\"returns\"}\n";
    snprintf(json, sizeof(json), "%s/in.jsonl", f->folder);
    snprintf(again, sizeof(again), "%s/out.jsonl", f->folder);
    test_write_text(json, line);
    assert_int_equal(KB(f, "import", json, "--kb", f->db), 0);
    assert_int_equal(KB(f, "export", "--format", "jsonl", "--kb", f->db), 0);
    assert_string_equal(f->text, line);
    assert_int_equal(KB(f, "export", again, "--kb", f->db), 0);
    FILE *in = fopen(again, "r");
    assert_non_null(in);
    text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
    fclose(in);
    assert_string_equal(text, line);
    assert_int_equal(KB(f, "export", "--format", "xml", "--kb", f->db), 2);
    expect(f, "--format is tsv or jsonl, not 'xml'");
}

/* Eight questions of two entries, and four that are about something else. */
static const char questions[] = "pay\tcan I pay by card\npay\thow to pay\npay\tpaying\npay\tpay please\n"
                                "pay\t怎么付款\npay\t付款\nopen\tare you open\nopen\twhen do you open\n"
                                "none\tthe weather\nnone\twrite a poem\nnone\t天气\nnone\twho are you\n";

static void eval_prints_how_good_it_is(void **state) {
    fixture *f = *state;
    test_write_text(f->tsv,
                    "How do I pay?\tBy card.\t\tpay\n如何付款？\t\nWhen are you open?\tAt nine.\t\topen\n");
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 0);
    test_write_text(f->tsv, questions);
    assert_int_equal(KB(f, "eval", f->tsv, "--kb", f->db), 0);
    expect(f, "12 questions, 8 of them with an entry; threshold 0.65");
    expect(f, "recall@1                               100.00 %");
    expect(f, "MRR                                    1.0000");
    expect(f, "answered, of those without an entry      0.00 %");
    expect(f, "microseconds");
}

static void calibrate_keeps_what_it_found(void **state) {
    fixture *f = *state;
    char before[20000];
    test_write_text(f->tsv,
                    "How do I pay?\tBy card.\t\tpay\n如何付款？\t\nWhen are you open?\tAt nine.\t\topen\n");
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 0);
    assert_int_equal(KB(f, "search", "pay please", "--kb", f->db), 0);
    memcpy(before, f->text, sizeof(before));
    test_write_text(f->tsv, questions);
    assert_int_equal(KB(f, "calibrate", f->tsv, "--kb", f->db), 0);
    expect(f, "Calibrated by 12 questions");
    expect(f, "plain");
    assert_int_equal(KB(f, "search", "pay please", "--kb", f->db), 0);
    assert_true(strcmp(f->text, before) >
                0); /* surer of what was right: the text begins with the confidence */
    test_write_text(f->tsv, "New?\tYes.\n");
    memcpy(before, f->text, sizeof(before));
    assert_int_equal(KB(f, "import", f->tsv, "--kb", f->db), 0); /* and an import keeps it */
    assert_int_equal(KB(f, "search", "how do i pay", "--kb", f->db), 0);
    expect(f, "1.000  How do I pay?");
}

static void help_is_printed(void **state) {
    fixture *f = *state;
    assert_int_equal(KB(f, "--help"), 0);
    expect(f, "Usage: millrace kb");
    assert_int_equal(KB(f, "import", "-h"), 0);
    expect(f, "Usage: millrace kb");
    assert_int_equal(KB(f), 2);
    expect(f, "Usage: millrace kb");
}

#define COMMAND_TEST(t) cmocka_unit_test_setup_teardown(t, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        COMMAND_TEST(import_search_and_export_work_together),
        COMMAND_TEST(the_configuration_names_the_file_and_the_threshold),
        COMMAND_TEST(replace_and_a_second_import_count_what_they_do),
        COMMAND_TEST(a_bad_line_fails_with_its_place),
        COMMAND_TEST(a_missing_file_fails_with_advice),
        COMMAND_TEST(a_wrong_command_line_is_said_in_one_line),
        COMMAND_TEST(jsonl_goes_in_and_out),
        COMMAND_TEST(eval_prints_how_good_it_is),
        COMMAND_TEST(calibrate_keeps_what_it_found),
        COMMAND_TEST(help_is_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
