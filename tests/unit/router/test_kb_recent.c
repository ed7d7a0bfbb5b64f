/* What SQLite answered lately: it comes back as it was put in, and the oldest makes room. */
#include "router/kb_recent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 1 << 20 };

static int setup(void **state) {
    mr_error err;
    *state = mr_kb_recent_new(SIZE, &err);
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    mr_kb_recent_free(*state);
    return 0;
}

/* Under a key stands, n times, a byte of it. */
static void put(mr_kb_recent *r, uint64_t key, size_t n, size_t most) {
    char *p = mr_kb_recent_begin(r, most);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 8, 0);
    memset(p, (int)(key & 0xFF), n);
    mr_kb_recent_end(r, key, n);
}

static void assert_there(const mr_kb_recent *r, uint64_t key, size_t n) {
    size_t length = 0;
    const unsigned char *p = mr_kb_recent_find(r, key, &length);
    assert_non_null(p);
    assert_int_equal(length, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(p[i], key & 0xFF);
}

static void assert_gone(const mr_kb_recent *r, uint64_t key) {
    size_t length;
    assert_null(mr_kb_recent_find(r, key, &length));
}

static void it_comes_back_with_its_length(void **state) {
    assert_gone(*state, 0);
    put(*state, 0, 3, 3);
    put(*state, 7, 0, 5);
    put(*state, 8, 4, 900);
    assert_there(*state, 0, 3);
    assert_there(*state, 7, 0);
    assert_there(*state, 8, 4);
    assert_gone(*state, 9);
}

static void the_oldest_makes_room(void **state) {
    enum { N = 904, FIT = SIZE / N };
    for (uint64_t i = 0; i < 3 * FIT; i++) put(*state, i, N, N);
    for (uint64_t i = 0; i < 2 * FIT - 1; i++) assert_gone(*state, i);
    for (uint64_t i = 2 * FIT + 1; i < 3 * FIT; i++) assert_there(*state, i, N);
}

static void of_two_with_one_place_the_later_stays(void **state) {
    put(*state, 3, 8, 8);
    put(*state, 3 + (UINT64_C(1) << 28), 16, 16);
    assert_gone(*state, 3);
    assert_there(*state, 3 + (UINT64_C(1) << 28), 16);
}

/* As when SQLite failed while it was read. */
static void what_was_not_ended_takes_nothing_for_its_own(void **state) {
    put(*state, 1, SIZE / 2 + 8, SIZE / 2 + 8);
    char *p = mr_kb_recent_begin(*state, SIZE / 2 + 8);
    assert_non_null(p);
    p[0] = 2;
    assert_gone(*state, 1);
    assert_gone(*state, 2);
}

static void more_than_all_that_is_kept_is_refused(void **state) {
    assert_null(mr_kb_recent_begin(*state, SIZE + 1));
    put(*state, 5, SIZE, SIZE);
    assert_there(*state, 5, SIZE);
}

static void of_another_file_nothing_is_known(void **state) {
    put(*state, 5, 3, 3);
    mr_kb_recent_forget(*state);
    assert_gone(*state, 5);
    put(*state, 5, 2, 2);
    assert_there(*state, 5, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(it_comes_back_with_its_length),         TEST(the_oldest_makes_room),
        TEST(of_two_with_one_place_the_later_stays), TEST(what_was_not_ended_takes_nothing_for_its_own),
        TEST(more_than_all_that_is_kept_is_refused), TEST(of_another_file_nothing_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
