/* Which color a session gets, and how the weights of chat.control change it. */
#include "router/weights.h"

#include "router/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SESSIONS = 2000 };

static mr_arena *arena;

static int update(mr_weights *w, const char *key, const char *json, mr_error *err) {
    mr_arena_reset(arena);
    return mr_weights_update(w, mr_str_of(key), mr_str_of(json), arena, err);
}

static void set(mr_weights *w, int blue, int green, int epoch) {
    char json[200];
    mr_error err;
    snprintf(json, sizeof(json),
             "{\"v\":1,\"kind\":\"weights\",\"pool\":\"main\",\"blue\":%d,\"green\":%d,\"epoch\":%d}", blue,
             green, epoch);
    if (update(w, "weights/main", json, &err) != 0) fail_msg("%s", err.msg);
}

static bool is_green(const mr_weights *w, int session) {
    char id[40];
    snprintf(id, sizeof(id), "session-%d", session);
    return strcmp(mr_weights_color(w, MR_STR("main"), mr_str_of(id)), "green") == 0;
}

static int count_green(const mr_weights *w) {
    int n = 0;
    for (int i = 0; i < SESSIONS; i++) n += is_green(w, i);
    return n;
}

static int open_weights(void **state) {
    mr_error err;
    arena = mr_arena_new(1 << 20);
    *state = mr_weights_new(&err);
    return *state && arena ? 0 : -1;
}

static int close_weights(void **state) {
    mr_weights_free(*state);
    mr_arena_free(arena);
    return 0;
}

static void without_a_record_all_is_blue(void **state) {
    assert_int_equal(count_green(*state), 0);
}

static void shares_follow_the_weights(void **state) {
    set(*state, 3, 1, 1);
    assert_in_range(count_green(*state), SESSIONS / 4 - 100, SESSIONS / 4 + 100);
    set(*state, 1, 1, 2);
    assert_in_range(count_green(*state), SESSIONS / 2 - 100, SESSIONS / 2 + 100);
    set(*state, 0, 5, 3);
    assert_int_equal(count_green(*state), SESSIONS);
    set(*state, 5, 0, 4);
    assert_int_equal(count_green(*state), 0);
}

static void a_session_keeps_its_color_while_green_grows(void **state) {
    bool was_green[SESSIONS] = {false};
    for (int green = 0; green <= 100; green += 10) {
        set(*state, 100 - green, green, green);
        for (int i = 0; i < SESSIONS; i++) {
            bool now = is_green(*state, i);
            assert_true(now || !was_green[i]);
            was_green[i] = now;
        }
    }
}

static void an_old_record_changes_nothing(void **state) {
    set(*state, 0, 1, 7);
    set(*state, 1, 0, 6);
    assert_int_equal(count_green(*state), SESSIONS);
}

static void other_pools_are_untouched(void **state) {
    set(*state, 0, 1, 1);
    assert_string_equal(mr_weights_color(*state, MR_STR("other"), MR_STR("s")), "blue");
}

static void a_deleted_record_brings_blue_back(void **state) {
    mr_error err;
    set(*state, 0, 1, 9);
    assert_int_equal(update(*state, "weights/main", "", &err), 0);
    assert_int_equal(count_green(*state), 0);
    set(*state, 0, 1, 1); /* what was forgotten has no epoch any more */
    assert_int_equal(count_green(*state), SESSIONS);
}

static void cancels_and_tombstones_of_others_are_ignored(void **state) {
    mr_error err;
    assert_int_equal(update(*state, "cancel/r", "{\"v\":1,\"kind\":\"cancel\",\"request\":\"r\"}", &err), 0);
    assert_int_equal(update(*state, "cancel/r", "", &err), 0);
    assert_int_equal(update(*state, "", "", &err), 0);
    assert_int_equal(count_green(*state), 0);
}

static void a_broken_record_is_an_error_and_changes_nothing(void **state) {
    mr_error err;
    set(*state, 0, 1, 1);
    assert_int_equal(update(*state, "weights/main", "{\"v\":1,\"kind\":\"weights\",\"pool\":\"main\"}", &err),
                     -1);
    assert_non_null(strstr(err.msg, "over 0"));
    assert_int_equal(count_green(*state), SESSIONS);
}

/* ---- pools ---- */

static void a_model_has_its_pool_and_others_the_default(void **state) {
    static const char *const v[] = {"a=one", "b=c=two"};
    mr_router_conf conf = {.pools = {(const char **)v, 2}};
    mr_error err;
    (void)state;
    assert_int_equal(mr_router_conf_check(&conf, &err), 0);
    assert_true(mr_str_eqz(mr_router_pool(&conf, MR_STR("a")), "one"));
    assert_true(mr_str_eqz(mr_router_pool(&conf, MR_STR("b=c")), "two"));
    assert_true(mr_str_eqz(mr_router_pool(&conf, MR_STR("z")), "main"));
}

static void a_bad_pool_is_said_at_once(void **state) {
    static const char *const bad[] = {"a", "=b", "a=", "a=b.c", "a=b c"};
    mr_error err;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *v[] = {bad[i]};
        mr_router_conf conf = {.pools = {v, 1}};
        assert_int_equal(mr_router_conf_check(&conf, &err), -1);
        assert_non_null(strstr(err.msg, "model=pool"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_a_record_all_is_blue, open_weights, close_weights),
        cmocka_unit_test_setup_teardown(shares_follow_the_weights, open_weights, close_weights),
        cmocka_unit_test_setup_teardown(a_session_keeps_its_color_while_green_grows, open_weights,
                                        close_weights),
        cmocka_unit_test_setup_teardown(an_old_record_changes_nothing, open_weights, close_weights),
        cmocka_unit_test_setup_teardown(other_pools_are_untouched, open_weights, close_weights),
        cmocka_unit_test_setup_teardown(a_deleted_record_brings_blue_back, open_weights, close_weights),
        cmocka_unit_test_setup_teardown(cancels_and_tombstones_of_others_are_ignored, open_weights,
                                        close_weights),
        cmocka_unit_test_setup_teardown(a_broken_record_is_an_error_and_changes_nothing, open_weights,
                                        close_weights),
        cmocka_unit_test(a_model_has_its_pool_and_others_the_default),
        cmocka_unit_test(a_bad_pool_is_said_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
