/* What the index answered lately: lists come back as they were put in, and the oldest make room. */
#include "router/kb_postings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int setup(void **state) {
    mr_error err;
    *state = mr_kb_postings_new(&err);
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    mr_kb_postings_free(*state);
    return 0;
}

/* The list of a token is n times the token. */
static void put(mr_kb_postings *p, uint32_t token, uint32_t n, uint32_t most) {
    uint32_t *list = mr_kb_postings_begin(p, most);
    assert_non_null(list);
    for (uint32_t i = 0; i < n; i++) list[i] = token;
    mr_kb_postings_end(p, token, n);
}

static void assert_there(const mr_kb_postings *p, uint32_t token, uint32_t n) {
    uint32_t length = 0;
    const uint32_t *list = mr_kb_postings_find(p, token, &length);
    assert_non_null(list);
    assert_int_equal(length, n);
    for (uint32_t i = 0; i < n; i++) assert_int_equal(list[i], token);
}

static void assert_gone(const mr_kb_postings *p, uint32_t token) {
    uint32_t length;
    assert_null(mr_kb_postings_find(p, token, &length));
}

static void a_list_comes_back_with_its_length(void **state) {
    assert_gone(*state, 0);
    put(*state, 0, 3, 3);
    put(*state, 7, 0, 5);
    put(*state, 8, 4, 900);
    assert_there(*state, 0, 3);
    assert_there(*state, 7, 0);
    assert_there(*state, 8, 4);
    assert_gone(*state, 9);
}

static void the_oldest_lists_make_room(void **state) {
    enum { N = 900, LISTS = MR_KB_POSTINGS_KEPT / N };
    for (uint32_t i = 0; i < 3 * LISTS; i++) put(*state, i, N, N);
    for (uint32_t i = 0; i < 2 * LISTS - 1; i++) assert_gone(*state, i);
    for (uint32_t i = 2 * LISTS + 1; i < 3 * LISTS; i++) assert_there(*state, i, N);
}

/* As when the index failed while it was read. */
static void a_list_that_was_not_ended_takes_nothing_for_its_own(void **state) {
    put(*state, 1, 600000, 600000);
    uint32_t *list = mr_kb_postings_begin(*state, 600000);
    assert_non_null(list);
    list[0] = 2;
    assert_gone(*state, 1);
    assert_gone(*state, 2);
}

static void a_list_longer_than_all_that_is_kept_is_refused(void **state) {
    assert_null(mr_kb_postings_begin(*state, MR_KB_POSTINGS_KEPT + 1));
    put(*state, 5, MR_KB_POSTINGS_KEPT, MR_KB_POSTINGS_KEPT);
    assert_there(*state, 5, MR_KB_POSTINGS_KEPT);
}

static void of_another_file_nothing_is_known(void **state) {
    put(*state, 5, 3, 3);
    mr_kb_postings_forget(*state);
    assert_gone(*state, 5);
    put(*state, 5, 2, 2);
    assert_there(*state, 5, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_list_comes_back_with_its_length),
        TEST(the_oldest_lists_make_room),
        TEST(a_list_that_was_not_ended_takes_nothing_for_its_own),
        TEST(a_list_longer_than_all_that_is_kept_is_refused),
        TEST(of_another_file_nothing_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
