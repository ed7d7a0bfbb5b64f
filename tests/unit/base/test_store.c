/* The store against a redis-server of the test's own: answers come, and Redis going away fails commands at once
 * and never the process. */
#include "base/store.h"
#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    test_redis *redis;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_store *store;
    mr_redis_conf conf;
    char address[64];
    const char *user; /* of the next store */
} fixture;

typedef struct answer {
    int calls;
    bool away;
    int type;
    long long integer;
    char text[200];
} answer;

static void on_answer(void *arg, const redisReply *r) {
    answer *a = arg;
    a->calls++;
    a->away = r == NULL;
    if (!r) return;
    a->type = r->type;
    a->integer = r->integer;
    if (r->str) snprintf(a->text, sizeof(a->text), "%s", r->str);
}

static bool answered(void *arg) {
    return ((answer *)arg)->calls > 0;
}
static bool is_up(void *arg) {
    return mr_store_up(arg);
}
static bool is_away(void *arg) {
    return !mr_store_up(arg);
}

static answer command(fixture *f, int n, const mr_str *argv) {
    answer a = {0};
    mr_store_command(f->store, on_answer, &a, n, argv);
    assert_true(test_wait(f->loop, 5000, answered, &a));
    assert_int_equal(a.calls, 1);
    return a;
}

static void open_store(fixture *f, int port, const char *password) {
    mr_error err;
    snprintf(f->address, sizeof(f->address), "127.0.0.1:%d", port);
    f->conf = (mr_redis_conf){.address = f->address, .password = password, .prefix = "t:", .timeout_ms = 300};
    f->conf.user = f->user;
    f->store = mr_store_new(&f->conf, f->loop, f->metrics, "test", &err);
    if (!f->store) fail_msg("%s", err.msg);
}

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->loop = mr_loop_new(&err);
    f->metrics = mr_metrics_new(&err);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_store_free(f->store);
    test_redis_stop(f->redis);
    mr_metrics_free(f->metrics);
    mr_loop_free(f->loop);
    free(f);
    return 0;
}

static void start(fixture *f, const char *password) {
    f->redis = test_redis_start(0, password);
    if (!f->redis) skip();
    open_store(f, test_redis_port(f->redis), password ? password : "");
    assert_true(test_wait(f->loop, 5000, is_up, f->store));
}

static void a_value_set_can_be_read_whatever_its_bytes(void **state) {
    fixture *f = *state;
    start(f, NULL);
    char key[200];
    mr_str set[] = {MR_STR("SET"), mr_store_key(f->store, key, sizeof(key), "session/%d", 7), MR_STR("a\0b")};
    assert_string_equal(key, "t:session/7");
    assert_string_equal(command(f, 3, set).text, "OK");
    mr_str length[] = {MR_STR("STRLEN"), set[1]};
    assert_int_equal(command(f, 2, length).integer, 3);
}

static void a_script_runs_and_survives_that_redis_forgets_it(void **state) {
    fixture *f = *state;
    mr_error err;
    start(f, NULL);
    mr_script *x = mr_script_new(f->store, "return redis.call('INCRBY', KEYS[1], ARGV[1])", &err);
    assert_non_null(x);
    mr_str args[] = {MR_STR("t:n"), MR_STR("5")};
    mr_str flush[] = {MR_STR("SCRIPT"), MR_STR("FLUSH")};
    for (int i = 1; i <= 4; i++) {
        answer a = {0};
        mr_script_run(x, on_answer, &a, 1, 2, args);
        assert_true(test_wait(f->loop, 5000, answered, &a));
        assert_int_equal(a.type, REDIS_REPLY_INTEGER);
        assert_int_equal(a.integer, 5 * i);
        if (i == 2) command(f, 2, flush);
    }
}

static void a_faulty_script_gives_an_error_reply(void **state) {
    fixture *f = *state;
    mr_error err;
    start(f, NULL);
    mr_script *x = mr_script_new(f->store, "return redis.call('NOSUCH')", &err);
    answer a = {0};
    mr_script_run(x, on_answer, &a, 0, 0, NULL);
    assert_true(test_wait(f->loop, 5000, answered, &a));
    assert_int_equal(a.type, REDIS_REPLY_ERROR);
}

static void commands_fail_at_once_while_redis_is_away_and_work_again_when_it_is_back(void **state) {
    fixture *f = *state;
    start(f, NULL);
    int port = test_redis_port(f->redis);
    mr_str ping[] = {MR_STR("PING")};
    test_redis_stop(f->redis);
    f->redis = NULL;
    assert_true(test_wait(f->loop, 5000, is_away, f->store));
    answer a = {0};
    mr_store_command(f->store, on_answer, &a, 1, ping);
    assert_int_equal(a.calls, 1); /* before mr_store_command returned */
    assert_true(a.away);
    f->redis = test_redis_start(port, NULL);
    assert_non_null(f->redis);
    assert_true(test_wait(f->loop, 10000, is_up, f->store));
    assert_string_equal(command(f, 1, ping).text, "PONG");
}

static void a_store_works_before_redis_has_ever_been_there(void **state) {
    fixture *f = *state;
    int port = test_free_port();
    open_store(f, port, "");
    test_idle(f->loop, 50);
    assert_false(mr_store_up(f->store));
    f->redis = test_redis_start(port, NULL);
    if (!f->redis) skip();
    assert_true(test_wait(f->loop, 10000, is_up, f->store));
}

static void without_an_address_it_is_always_away(void **state) {
    fixture *f = *state;
    mr_error err;
    mr_redis_conf conf = {.address = "", .password = "", .prefix = "", .timeout_ms = 100};
    f->store = mr_store_new(&conf, f->loop, f->metrics, "test", &err);
    assert_non_null(f->store);
    mr_str ping[] = {MR_STR("PING")};
    answer a = {0};
    mr_store_command(f->store, on_answer, &a, 1, ping);
    assert_true(a.away);
}

static void a_redis_that_hangs_is_given_up_after_the_timeout(void **state) {
    fixture *f = *state;
    start(f, NULL);
    mr_str sleepy[] = {MR_STR("BLPOP"), MR_STR("t:none"), MR_STR("30")};
    answer a = command(f, 3, sleepy);
    assert_true(a.away);
    assert_true(test_wait(f->loop, 5000, is_up, f->store));
}

static void a_password_is_sent_and_a_wrong_one_keeps_it_away(void **state) {
    fixture *f = *state;
    mr_str ping[] = {MR_STR("PING")};
    start(f, "sesame");
    assert_string_equal(command(f, 1, ping).text, "PONG");
    mr_store_free(f->store);
    open_store(f, test_redis_port(f->redis), "wrong");
    test_idle(f->loop, 200);
    assert_false(mr_store_up(f->store));
}

static void a_user_of_the_acls_is_named_with_the_password(void **state) {
    fixture *f = *state;
    mr_error err;
    start(f, NULL);
    mr_str ping[] = {MR_STR("PING")},
           user[] = {MR_STR("ACL"),     MR_STR("SETUSER"), MR_STR("mill"), MR_STR("on"),
                     MR_STR(">sesame"), MR_STR("~*"),      MR_STR("+@all")};
    mr_str off[] = {MR_STR("ACL"), MR_STR("SETUSER"), MR_STR("default"), MR_STR("off")};
    assert_string_equal(command(f, 7, user).text, "OK");
    assert_string_equal(command(f, 4, off).text, "OK");
    mr_store_free(f->store);
    f->user = "mill";
    open_store(f, test_redis_port(f->redis), "sesame");
    assert_true(test_wait(f->loop, 5000, is_up, f->store));
    assert_string_equal(command(f, 1, ping).text, "PONG");
    redisContext *c = mr_store_connect_sync(&f->conf, &err);
    if (!c) fail_msg("%s", err.msg);
    redisFree(c);
    f->conf.user = "miller";
    assert_null(mr_store_connect_sync(&f->conf, &err));
}

static void freeing_the_store_answers_what_is_outstanding(void **state) {
    fixture *f = *state;
    start(f, NULL);
    mr_str sleepy[] = {MR_STR("BLPOP"), MR_STR("t:none"), MR_STR("30")};
    answer a = {0};
    mr_store_command(f->store, on_answer, &a, 3, sleepy);
    assert_int_equal(a.calls, 0);
    mr_store_free(f->store);
    f->store = NULL;
    assert_int_equal(a.calls, 1);
    assert_true(a.away);
}

static void a_bad_address_is_a_clear_error(void **state) {
    fixture *f = *state;
    mr_error err;
    static const char *const bad[] = {"localhost", ":6379", "h:0", "h:70000", "h:12x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        mr_redis_conf conf = {.address = bad[i], .password = "", .prefix = "", .timeout_ms = 100};
        assert_null(mr_store_new(&conf, f->loop, f->metrics, "test", &err));
        assert_non_null(strstr(err.msg, "expected host:port"));
    }
}

static void the_synchronous_form_connects_or_says_why_not(void **state) {
    fixture *f = *state;
    mr_error err;
    start(f, "sesame");
    redisContext *c = mr_store_connect_sync(&f->conf, &err);
    if (!c) fail_msg("%s", err.msg);
    redisReply *r = redisCommand(c, "PING");
    assert_string_equal(r->str, "PONG");
    freeReplyObject(r);
    redisFree(c);
    f->conf.password = "wrong";
    assert_null(mr_store_connect_sync(&f->conf, &err));
    assert_int_equal(err.code, MR_EREDIS);
    char nowhere[32];
    snprintf(nowhere, sizeof(nowhere), "127.0.0.1:%d", test_free_port());
    f->conf.address = nowhere;
    assert_null(mr_store_connect_sync(&f->conf, &err));
    assert_non_null(strstr(err.msg, "cannot be reached"));
}

int main(void) {
    test_log_init();
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_value_set_can_be_read_whatever_its_bytes),
        TEST(a_script_runs_and_survives_that_redis_forgets_it),
        TEST(a_faulty_script_gives_an_error_reply),
        TEST(commands_fail_at_once_while_redis_is_away_and_work_again_when_it_is_back),
        TEST(a_store_works_before_redis_has_ever_been_there),
        TEST(without_an_address_it_is_always_away),
        TEST(a_redis_that_hangs_is_given_up_after_the_timeout),
        TEST(a_password_is_sent_and_a_wrong_one_keeps_it_away),
        TEST(a_user_of_the_acls_is_named_with_the_password),
        TEST(freeing_the_store_answers_what_is_outstanding),
        TEST(a_bad_address_is_a_clear_error),
        TEST(the_synchronous_form_connects_or_says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
