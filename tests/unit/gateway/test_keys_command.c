/* `millrace keys` as an operator meets it: what it prints, and its exit status. */
#include "gateway/keys.h"
#include "ops/cli/commands.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct fixture {
    char folder[64], file[100], output[100], said[100];
    char text[20000], errors[20000]; /* stdout and stderr of the last run */
} fixture;

static int open_fixture(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    test_folder_init(f->folder);
    snprintf(f->file, sizeof(f->file), "%s/keys", f->folder);
    snprintf(f->output, sizeof(f->output), "%s/output", f->folder);
    snprintf(f->said, sizeof(f->said), "%s/errors", f->folder);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    test_folder_done(((fixture *)*state)->folder);
    free(*state);
    return 0;
}

static void read_text(const char *path, char *out, size_t cap) {
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    out[fread(out, 1, cap - 1, in)] = '\0';
    fclose(in);
}

/* Runs `millrace keys` with these arguments in a process of its own; returns its exit status. */
static int keys(fixture *f, const char *const *args) {
    char *argv[16] = {(char *)"keys"};
    int argc = 1, status;
    for (; args[argc - 1]; argc++) argv[argc] = (char *)args[argc - 1];
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen(f->output, "w", stdout) || !freopen(f->said, "w", stderr)) _exit(99);
        int rc = cmd_keys(argc, argv);
        fflush(NULL);
        _exit(rc);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    read_text(f->output, f->text, sizeof(f->text));
    read_text(f->said, f->errors, sizeof(f->errors));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define KEYS(...)        KEYS_RUN(__VA_ARGS__, NULL)
#define KEYS_RUN(f, ...) keys(f, (const char *const[]){__VA_ARGS__})

static void expect(const char *text, const char *needle) {
    if (!strstr(text, needle)) fail_msg("'%s' is not in:\n%s", needle, text);
}

static void a_new_key_is_printed_once_and_let_in(void **state) {
    fixture *f = *state;
    mr_error err;
    struct stat st;
    char first[200];
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenant", "acme", "--scopes", "chat,feedback",
                          "--expires", "90d", "--limits", "requests=60", "--style=formal"),
                     0);
    assert_int_equal(strlen(f->text), MR_KEY_TEXT_LEN + 1);
    snprintf(first, sizeof(first), "%.*s", MR_KEY_TEXT_LEN, f->text);
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenant", "other"), 0);
    assert_int_equal(stat(f->file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    mr_keys *k = mr_keys_read(f->file, &err);
    assert_non_null(k);
    assert_int_equal(mr_keys_count(k), 2);
    const mr_key *key = mr_keys_find(k, mr_str_of(first));
    assert_non_null(key);
    assert_string_equal(key->tenant, "acme");
    assert_int_equal(key->scopes, MR_SCOPE_CHAT | MR_SCOPE_FEEDBACK);
    int64_t days = (key->expires_ms - mr_now_ms()) / 86400000;
    assert_true(days == 89 || days == 90);
    assert_int_equal(key->limits.requests, 60);
    mr_keys_free(k);
    assert_int_equal(KEYS(f, "list", "--file", f->file), 0);
    expect(f->text, "\tacme\tchat,feedback\t");
    expect(f->text, "\tother\tchat,models,feedback\t-\t-\t-\n");
    assert_null(strstr(f->text, "sha256"));
}

static void a_wrong_command_line_is_said_and_nothing_is_written(void **state) {
    fixture *f = *state;
    struct stat st;
    assert_int_equal(KEYS(f, "new", "--file", f->file), 2);
    expect(f->errors, "--tenant");
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenant", "a b"), 2);
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenant", "a", "--scopes", "chat,fly"), 2);
    expect(f->errors, "unknown scope 'fly'");
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenant", "a", "--expires", "soon"), 2);
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenent", "a"), 2);
    expect(f->errors, "did you mean --tenant");
    assert_int_equal(KEYS(f, "new", "--tenant", "a"), 2);
    expect(f->errors, "gateway.keys_file");
    assert_int_equal(KEYS(f, "knew"), 2);
    expect(f->errors, "did you mean 'new'");
    assert_int_equal(stat(f->file, &st), -1);
}

static void a_file_with_a_wrong_line_is_not_touched(void **state) {
    fixture *f = *state;
    FILE *out = fopen(f->file, "w");
    fputs("nonsense", out);
    fclose(out);
    assert_int_equal(KEYS(f, "new", "--file", f->file, "--tenant", "a"), 1);
    expect(f->errors, "keys:1:");
    read_text(f->file, f->text, sizeof(f->text));
    assert_string_equal(f->text, "nonsense");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_key_is_printed_once_and_let_in, open_fixture, close_fixture),
        cmocka_unit_test_setup_teardown(a_wrong_command_line_is_said_and_nothing_is_written, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(a_file_with_a_wrong_line_is_not_touched, open_fixture, close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
