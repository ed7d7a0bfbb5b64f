/* Log lines: always one valid JSON object a line, whatever the values hold; trace contexts as W3C has them. */
#include "base/log.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static json_t *logged(const char *msg, const mr_log_field *f, int n) {
    mr_buf line;
    mr_buf_init(&line, 1 << 20);
    mr_log_line(&line, MR_WARN, msg, f, n);
    assert_false(line.failed);
    assert_ptr_equal(strchr(line.p, '\n'), line.p + line.n - 1);
    json_error_t e;
    json_t *o = json_loadb(line.p, line.n, JSON_ALLOW_NUL, &e);
    if (!o) fail_msg("%s: %s", e.text, line.p);
    mr_buf_done(&line);
    return o;
}

static const char *text(json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static void start(const char *format) {
    mr_error err;
    assert_int_equal(mr_log_init("gateway", format, MR_INFO, &err), 0);
}

static void a_line_carries_time_level_part_message_and_fields(void **state) {
    (void)state;
    start("json");
    mr_log_field f[] = {MR_S("request", "r-1"), MR_I("tokens", 42), MR_F("seconds", 0.25)};
    json_t *o = logged("request finished", f, 3);
    assert_int_equal(strlen(text(o, "ts")), strlen("2026-11-23T10:00:00.123Z"));
    assert_string_equal(text(o, "level"), "warn");
    assert_string_equal(text(o, "part"), "gateway");
    assert_string_equal(text(o, "msg"), "request finished");
    assert_string_equal(text(o, "request"), "r-1");
    assert_int_equal(json_integer_value(json_object_get(o, "tokens")), 42);
    assert_true(json_real_value(json_object_get(o, "seconds")) == 0.25);
    json_decref(o);
}

static void hostile_values_cannot_break_a_line(void **state) {
    (void)state;
    start("json");
    mr_log_field f[] = {
        MR_S("quotes", "\"},{\"level\":\"error"),
        MR_S("lines", "a\r\nb\tc\x1b[2J\x7f"),
        MR_SS("nul", MR_STR("a\0b")),
        MR_S("broken", "x\xFF\xC3(\xED\xA0\x80y"),
        MR_S("wide", "\xE4\xBD\xA0\xF0\x9F\x98\x80"),
        MR_F("nan", NAN),
    };
    json_t *o = logged("evil \"message\"\n", f, 6);
    assert_string_equal(text(o, "quotes"), "\"},{\"level\":\"error");
    assert_string_equal(text(o, "lines"), "a\r\nb\tc\x1b[2J\x7f");
    assert_string_equal(text(o, "wide"), "\xE4\xBD\xA0\xF0\x9F\x98\x80");
    assert_true(json_is_null(json_object_get(o, "nan")));
    assert_non_null(strstr(text(o, "broken"), "\xEF\xBF\xBD"));
    json_decref(o);
}

static void a_long_value_is_cut_at_a_character(void **state) {
    (void)state;
    start("json");
    char *big = malloc(30001);
    for (int i = 0; i < 10000; i++) memcpy(big + 3 * i, "\xE4\xBD\xA0", 3);
    big[30000] = '\0';
    mr_log_field f[] = {MR_S("big", big)};
    json_t *o = logged("big", f, 1);
    assert_in_range(strlen(text(o, "big")), 3000, 5000);
    json_decref(o);
    free(big);
}

static void a_plain_line_is_one_line_without_escape_sequences(void **state) {
    (void)state;
    start("plain");
    mr_buf line;
    mr_buf_init(&line, 1 << 16);
    mr_log_field f[] = {MR_S("what", "a\nb\x1b[31m"), MR_I("n", 7)};
    mr_log_line(&line, MR_ERROR, "went wrong", f, 2);
    assert_non_null(strstr(line.p, "error gateway"));
    assert_non_null(strstr(line.p, "went wrong  what=a\\nb\\u001b[31m  n=7\n"));
    assert_null(strchr(line.p, '\x1b'));
    mr_buf_done(&line);
}

static void unknown_formats_and_levels_are_refused(void **state) {
    (void)state;
    mr_error err;
    enum mr_log_level level;
    assert_int_equal(mr_log_init("x", "xml", MR_INFO, &err), -1);
    assert_string_equal(err.msg, "log format 'xml' is not one of json, plain, auto");
    assert_int_equal(mr_log_level_parse("loud", &level, &err), -1);
    assert_int_equal(mr_log_level_parse("debug", &level, &err), 0);
    assert_int_equal(level, MR_DEBUG);
}

static void a_child_keeps_the_trace_and_gets_a_span_of_its_own(void **state) {
    (void)state;
    char child[MR_TRACEPARENT_LEN + 1];
    const char *parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    mr_trace_child(mr_str_of(parent), child);
    assert_int_equal(strlen(child), MR_TRACEPARENT_LEN);
    assert_memory_equal(child, parent, 36);
    assert_memory_not_equal(child + 36, parent + 36, 16);
    assert_string_equal(child + 52, "-00");
}

static void a_malformed_parent_starts_a_new_trace(void **state) {
    static const char *const bad[] = {
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char a[MR_TRACEPARENT_LEN + 1], b[MR_TRACEPARENT_LEN + 1];
        mr_trace_child(mr_str_of(bad[i]), a);
        mr_trace_new(b);
        assert_int_equal(strlen(a), MR_TRACEPARENT_LEN);
        assert_string_not_equal(a, b);
        assert_null(strstr(a, "0af7651916cd43dd8448eb211c80319c"));
    }
}

/* stderr is a file that may not grow beyond so many bytes. */
static void limit(rlim_t bytes) {
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    r.rlim_cur = bytes < r.rlim_max ? bytes : r.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void what_a_full_disk_did_not_take_is_counted_and_said(void **state) {
    (void)state;
    char path[] = "/tmp/millrace-test-log-XXXXXX", in[4000];
    int file = mkstemp(path), before = dup(STDERR_FILENO);
    uint64_t lost = mr_log_lost();
    assert_true(file >= 0 && before >= 0);
    start("json");
    signal(SIGXFSZ, SIG_IGN);
    dup2(file, STDERR_FILENO);
    limit(120); /* one line and a piece of the next */
    for (int i = 0; i < 4; i++) mr_log(MR_WARN, "said", MR_I("n", i));
    limit(RLIM_INFINITY);
    dup2(before, STDERR_FILENO);
    assert_int_equal(mr_log_lost() - lost, 3);
    dup2(file, STDERR_FILENO);
    mr_log(MR_WARN, "said", MR_I("n", 4));
    dup2(before, STDERR_FILENO);
    close(before);
    ssize_t n = pread(file, in, sizeof(in) - 1, 0);
    close(file);
    unlink(path);
    assert_true(n > 0);
    in[n] = '\0';
    assert_non_null(strstr(in, "\"n\":0}\n"));
    assert_null(strstr(in, "\"n\":2}"));
    assert_non_null(strstr(in, "\n{\"ts\"")); /* the piece is a line of its own */
    const char *last = strstr(in, "\"n\":4}\n");
    assert_non_null(last);
    assert_non_null(strstr(last, "log lines were lost"));
    assert_non_null(strstr(last, "\"lines\":3}\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_carries_time_level_part_message_and_fields),
        cmocka_unit_test(hostile_values_cannot_break_a_line),
        cmocka_unit_test(a_long_value_is_cut_at_a_character),
        cmocka_unit_test(a_plain_line_is_one_line_without_escape_sequences),
        cmocka_unit_test(unknown_formats_and_levels_are_refused),
        cmocka_unit_test(a_child_keeps_the_trace_and_gets_a_span_of_its_own),
        cmocka_unit_test(a_malformed_parent_starts_a_new_trace),
        cmocka_unit_test(what_a_full_disk_did_not_take_is_counted_and_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
