/* The start of every process: flags win over the environment, and a wrong flag is one line and exit status 2. */
#include "base/main.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct gateway_conf {
    int64_t port, metrics_port;
} gateway_conf;

static gateway_conf gateway;
static mr_log_conf logging;
static const mr_conf_key keys[] = {
    {.name = "port",
     .type = MR_CONF_INT,
     .offset = offsetof(gateway_conf, port),
     .def = "8080",
     .doc = "Port."},
    {.name = "metrics_port",
     .type = MR_CONF_INT,
     .offset = offsetof(gateway_conf, metrics_port),
     .def = "8081",
     .doc = "Other port."},
    {0},
};
static const mr_conf_group groups[] = {{"log", mr_log_keys, &logging}, {"gateway", keys, &gateway}, {0}};
static const mr_main_options options = {
    .name = "millrace-gateway", .part = "gateway", .about = "the edge", .groups = groups, .log = &logging};

/* Runs with the process's stdout and stderr in `said`. */
static mr_conf *start(char **argv, int *status, char said[4096]) {
    int argc = 0, out = dup(1), err = dup(2);
    FILE *f = tmpfile();
    assert_non_null(f);
    while (argv[argc]) argc++;
    fflush(stdout);
    dup2(fileno(f), 1);
    dup2(fileno(f), 2);
    mr_conf *c = mr_main_init(argc, argv, &options, status);
    fflush(stdout);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    rewind(f);
    said[fread(said, 1, 4095, f)] = '\0';
    fclose(f);
    unsetenv("MILLRACE_GATEWAY_PORT");
    unsetenv("MILLRACE_GATEWAY_METRICS_PORT");
    unsetenv("MILLRACE_LOG_LEVEL");
    return c;
}
#define START(...) start((char *[]){"millrace-gateway", __VA_ARGS__, NULL}, &status, said)

static void flags_set_keys_of_any_group_and_win_over_the_environment(void **state) {
    (void)state;
    int status;
    char said[4096];
    setenv("MILLRACE_GATEWAY_PORT", "1", 1);
    mr_conf *c = START("--port=2", "--metrics-port", "3", "--log.level", "warn");
    assert_non_null(c);
    assert_int_equal(gateway.port, 2);
    assert_int_equal(gateway.metrics_port, 3);
    assert_string_equal(logging.level, "warn");
    mr_conf_free(c);
}

static void a_wrong_flag_is_one_line_with_a_hint_and_status_2(void **state) {
    (void)state;
    int status = 0;
    char said[4096];
    assert_null(START("--prot", "2"));
    assert_int_equal(status, 2);
    assert_string_equal(
        said, "millrace-gateway: unknown flag --prot (did you mean --port?). Try millrace-gateway --help.\n");
    assert_null(START("--log.levle", "2"));
    assert_non_null(strstr(said, "did you mean --log.level?"));
    assert_null(START("--port"));
    assert_non_null(strstr(said, "--port needs a value"));
    assert_null(START("serve"));
    assert_non_null(strstr(said, "unexpected argument 'serve'"));
    assert_null(START("--port", "many"));
    assert_int_equal(status, 2);
    assert_non_null(strstr(said, "gateway.port is many, expected an integer"));
    assert_null(START("--config", "none.conf"));
    assert_non_null(strstr(said, "none.conf: cannot be read"));
}

static void help_version_and_print_config_end_well(void **state) {
    (void)state;
    int status = 1;
    char said[4096];
    assert_null(START("--help"));
    assert_int_equal(status, 0);
    assert_non_null(strstr(said, "--log.level"));
    assert_non_null(strstr(said, "--metrics_port"));
    assert_null(START("--version"));
    assert_int_equal(status, 0);
    assert_ptr_equal(strstr(said, "millrace-gateway "), said);
    assert_null(START("--print-config"));
    assert_int_equal(status, 0);
    assert_non_null(strstr(said, "port = 8080;"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_set_keys_of_any_group_and_win_over_the_environment),
        cmocka_unit_test(a_wrong_flag_is_one_line_with_a_hint_and_status_2),
        cmocka_unit_test(help_version_and_print_config_end_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
