/* `millrace profile` as an operator meets it: what it prints, and its exit status. */
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
    test_redis *redis;
    char folder[64], conf[100], output[100];
    char text[20000]; /* stdout and stderr of the last run */
} fixture;

static int open_fixture(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    f->redis = test_redis_start(0, NULL);
    if (!f->redis) exit(77);
    test_folder_init(f->folder);
    snprintf(f->conf, sizeof(f->conf), "%s/conf", f->folder);
    snprintf(f->output, sizeof(f->output), "%s/output", f->folder);
    FILE *out = fopen(f->conf, "w");
    fprintf(out,
            "redis = { address = \"127.0.0.1:%d\"; };\nrouter = { styles = [\"pirate|1.1|0.8|Answer as a "
            "pirate.\"]; };\n",
            test_redis_port(f->redis));
    fclose(out);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    test_redis_stop(f->redis);
    test_folder_done(f->folder);
    free(f);
    return 0;
}

static int profile(fixture *f, const char *const *args) {
    const test_command c = {
        .run = cmd_profile, .name = "profile", .output = f->output, .text = f->text, .size = sizeof(f->text)};
    return test_command_run(&c, args);
}
#define PROFILE(...)        PROFILE_RUN(__VA_ARGS__, NULL)
#define PROFILE_RUN(f, ...) profile(f, (const char *const[]){__VA_ARGS__})

static void expect(const fixture *f, const char *needle) {
    if (!strstr(f->text, needle)) fail_msg("'%s' is not in:\n%s", needle, f->text);
}

static void a_style_that_is_set_is_shown_until_it_is_dropped(void **state) {
    fixture *f = *state;
    assert_int_equal(PROFILE(f, "get", "anna", "--config", f->conf), 0);
    assert_string_equal(f->text, "none\n");
    assert_int_equal(PROFILE(f, "set", "anna", "pirate", "--config", f->conf, "--tenant=acme"), 0);
    assert_int_equal(PROFILE(f, "get", "anna", "--config", f->conf, "--tenant", "acme"), 0);
    assert_string_equal(f->text, "pirate\n");
    assert_int_equal(PROFILE(f, "get", "anna", "--config", f->conf), 0);
    assert_string_equal(f->text, "none\n"); /* of another tenant */
    assert_int_equal(PROFILE(f, "drop", "anna", "--config", f->conf, "--tenant", "acme"), 0);
    assert_int_equal(PROFILE(f, "get", "anna", "--config", f->conf, "--tenant", "acme"), 0);
    assert_string_equal(f->text, "none\n");
}

static void what_is_wrong_is_said(void **state) {
    fixture *f = *state;
    assert_int_equal(PROFILE(f, "set", "anna", "rude", "--config", f->conf), 1);
    expect(f, "no style 'rude'");
    assert_int_equal(PROFILE(f, "set", "anna", "--config", f->conf), 2);
    expect(f, "set needs USER STYLE");
    assert_int_equal(PROFILE(f, "sett", "anna", "formal"), 2);
    expect(f, "did you mean 'set'");
    assert_int_equal(PROFILE(f, "get", "anna", "--colour", "red"), 2);
    expect(f, "unknown flag --colour");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_style_that_is_set_is_shown_until_it_is_dropped),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
