/* Configuration: what a user gets wrong is said with file and line, and the environment wins. */
#include "base/conf.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct gateway_conf {
    const char *host, *mode, *secret;
    int64_t port, big;
    double share;
    bool open;
    mr_strlist keys;
} gateway_conf;

#define KEY(m) #m, .offset = offsetof(gateway_conf, m)
static const mr_conf_key gateway_keys[] = {
    {.name = KEY(host), .type = MR_CONF_STR, .def = "127.0.0.1", .doc = "Where to listen."},
    {.name = KEY(mode), .type = MR_CONF_STR, .def = "fast", .choices = "fast|slow", .doc = "How."},
    {.name = KEY(secret), .type = MR_CONF_STR, .def = "say \"hi\" \\ bye", .doc = "Needs quoting."},
    {.name = KEY(port), .type = MR_CONF_INT, .def = "8080", .min = 1, .max = 65535, .doc = "Which port."},
    {.name = KEY(big), .type = MR_CONF_INT, .def = "5000000000", .doc = "More than 32 bits."},
    {.name = KEY(share), .type = MR_CONF_NUM, .def = "0.5", .min = 0, .max = 1, .doc = "How much."},
    {.name = KEY(open), .type = MR_CONF_BOOL, .def = "false", .doc = "Whether."},
    {.name = KEY(keys), .type = MR_CONF_STRLIST, .def = "a,b", .doc = "Which keys."},
    {0},
};

static gateway_conf got;
static const mr_conf_group groups[] = {{"gateway", gateway_keys, &got}, {0}};
static char folder[64], file[100];

static int make_folder(void **state) {
    (void)state;
    test_folder_init(folder);
    snprintf(file, sizeof(file), "%s/m.conf", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    test_folder_done(folder);
    return 0;
}

static mr_conf *load(const char *text, mr_error *err) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    memset(&got, 0, sizeof(got));
    return mr_conf_load(file, groups, err);
}

static void assert_refused(const char *text, const char *message) {
    mr_error err;
    char want[600];
    mr_conf *c = load(text, &err);
    assert_null(c);
    snprintf(want, sizeof(want), "%s%s", file, message);
    assert_string_equal(err.msg, want);
}

static void the_file_fills_in_values_and_defaults_fill_the_rest(void **state) {
    (void)state;
    mr_error err;
    mr_conf *c =
        load("gateway = { port = 81; keys = (\"x\", \"y,z\"); share = 1; open = true; big = 6000000000L; };\n"
             "worker = { anything = 1; };",
             &err);
    assert_non_null(c);
    assert_int_equal(got.port, 81);
    assert_int_equal(got.keys.n, 2);
    assert_string_equal(got.keys.v[1], "y,z");
    assert_true(got.share == 1.0);
    assert_true(got.open);
    assert_true(got.big == 6000000000);
    assert_string_equal(got.host, "127.0.0.1");
    assert_string_equal(got.mode, "fast");
    mr_conf_free(c);
}

static void mistakes_are_said_with_file_and_line(void **state) {
    (void)state;
    assert_refused("gateway = {\n port = \"x\";\n};",
                   ":2: gateway.port is a string, expected an integer from 1 to 65535");
    assert_refused("gateway = {\n\n port = 70000;\n};",
                   ":3: gateway.port is 70000, expected an integer from 1 to 65535");
    assert_refused("gateway = { prot = 1; };",
                   ":1: 'gateway.prot' is not a known setting; did you mean 'port'?");
    assert_refused("\ngatewy = { };", ":2: 'gatewy' is not a known group; did you mean 'gateway'?");
    assert_refused("zebra = { };", ":1: 'zebra' is not a known group (--print-config shows all)");
    assert_refused("gateway = 3;", ":1: gateway is an integer, expected a group: gateway = { … };");
    assert_refused("gateway = { mode = \"odd\"; };",
                   ":1: gateway.mode is \"odd\", expected one of fast, slow");
    assert_refused("gateway = { share = 1.5; };", ":1: gateway.share is 1.5, expected a number from 0 to 1");
    assert_refused("gateway = { open = 1; };", ":1: gateway.open is an integer, expected true or false");
    assert_refused("gateway = { keys = \"a\"; };",
                   ":1: gateway.keys is a string, expected a list of strings");
    assert_refused(
        "gateway = { keys = (1, 2); };",
        ":1: gateway.keys is a list with something else than strings in it, expected a list of strings");
    assert_refused("gateway = {\n port = ;\n};", ":2: syntax error");
    assert_refused("gateway = { port = 1; port = 2; };", ":1: duplicate setting name");
}

static void a_missing_file_and_a_folder_are_clear_errors(void **state) {
    (void)state;
    mr_error err;
    assert_null(mr_conf_load("no/such/file.conf", groups, &err));
    assert_string_equal(err.msg, "no/such/file.conf: cannot be read: No such file or directory");
    assert_null(mr_conf_load(folder, groups, &err));
    assert_non_null(strstr(err.msg, "is a folder"));
}

static void a_mistake_in_an_included_file_names_that_file(void **state) {
    (void)state;
    mr_error err;
    char inner[100], text[200], want[200];
    snprintf(inner, sizeof(inner), "%s/inner.conf", folder);
    FILE *f = fopen(inner, "w");
    fputs("gateway = {\n port = 0;\n};\n", f);
    fclose(f);
    snprintf(text, sizeof(text), "@include \"%s\"\n", inner);
    assert_null(load(text, &err));
    snprintf(want, sizeof(want), "%s:2: gateway.port is 0", inner);
    assert_ptr_equal(strstr(err.msg, want), err.msg);
}

static void the_environment_wins_over_the_file(void **state) {
    (void)state;
    mr_error err;
    setenv("MILLRACE_GATEWAY_PORT", "99", 1);
    setenv("MILLRACE_GATEWAY_KEYS", "one,,three", 1);
    setenv("MILLRACE_GATEWAY_OPEN", "1", 1);
    setenv("MILLRACE_GATEWAY_SHARE", "0.25", 1);
    mr_conf *c = load("gateway = { port = 81; };", &err);
    assert_non_null(c);
    assert_int_equal(got.port, 99);
    assert_int_equal(got.keys.n, 3);
    assert_string_equal(got.keys.v[1], "");
    assert_true(got.open);
    assert_true(got.share == 0.25);
    mr_conf_free(c);
    setenv("MILLRACE_GATEWAY_PORT", "99x", 1);
    assert_null(load("", &err));
    assert_string_equal(err.msg,
                        "MILLRACE_GATEWAY_PORT: gateway.port is 99x, expected an integer from 1 to 65535");
    unsetenv("MILLRACE_GATEWAY_PORT");
    unsetenv("MILLRACE_GATEWAY_KEYS");
    unsetenv("MILLRACE_GATEWAY_OPEN");
    unsetenv("MILLRACE_GATEWAY_SHARE");
}

static void a_misspelt_variable_is_an_error_too(void **state) {
    (void)state;
    mr_error err;
    setenv("MILLRACE_GATEWAY_PROT", "99", 1);
    setenv("MILLRACE_WORKER_WHATEVER", "1", 1); /* another part's: not ours to judge */
    assert_null(load("", &err));
    assert_string_equal(err.msg,
                        "environment: 'MILLRACE_GATEWAY_PROT' is not a known setting; did you mean 'port'?");
    unsetenv("MILLRACE_GATEWAY_PROT");
    mr_conf *c = load("", &err);
    assert_non_null(c);
    mr_conf_free(c);
    unsetenv("MILLRACE_WORKER_WHATEVER");
}

static void what_is_printed_can_be_loaded_again(void **state) {
    (void)state;
    mr_error err;
    mr_buf b;
    mr_buf_init(&b, 1 << 20);
    mr_conf_print(groups, &b);
    assert_false(b.failed);
    mr_conf *c = load(b.p, &err);
    if (!c) fail_msg("%s", err.msg);
    assert_string_equal(got.secret, "say \"hi\" \\ bye");
    assert_true(got.big == 5000000000);
    assert_int_equal(got.keys.n, 2);
    mr_conf_free(c);
    mr_buf_done(&b);
}

static void the_shared_groups_have_sound_defaults(void **state) {
    (void)state;
    mr_error err;
    mr_kafka_conf kafka;
    mr_redis_conf redis;
    mr_log_conf log;
    const mr_conf_group shared[] = {
        {"kafka", mr_kafka_keys, &kafka}, {"redis", mr_redis_keys, &redis}, {"log", mr_log_keys, &log}, {0}};
    mr_conf *c = mr_conf_load(NULL, shared, &err);
    if (!c) fail_msg("%s", err.msg);
    assert_int_equal(kafka.fetch_wait_ms, 500);
    assert_int_equal(kafka.linger_ms, 1);
    assert_int_equal(kafka.session_timeout_ms, 6000);
    assert_int_equal(kafka.message_max, 3900000);
    assert_int_equal(kafka.extra.n, 0);
    mr_conf_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_fills_in_values_and_defaults_fill_the_rest),
        cmocka_unit_test(mistakes_are_said_with_file_and_line),
        cmocka_unit_test(a_missing_file_and_a_folder_are_clear_errors),
        cmocka_unit_test(a_mistake_in_an_included_file_names_that_file),
        cmocka_unit_test(the_environment_wins_over_the_file),
        cmocka_unit_test(a_misspelt_variable_is_an_error_too),
        cmocka_unit_test(what_is_printed_can_be_loaded_again),
        cmocka_unit_test(the_shared_groups_have_sound_defaults),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
