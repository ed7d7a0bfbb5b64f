/* Strings, buffers and arenas: the limits hold, and UTF-8 is judged strictly. */
#include "base/str.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void utf8_is_judged_strictly(void **state) {
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"", true},
        {"plain", true},
        {"\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80", true},
        {"\xF4\x8F\xBF\xBF", true},  /* U+10FFFF */
        {"\xF4\x90\x80\x80", false}, /* past it */
        {"\xC0\xAF", false},         /* overlong '/' */
        {"\xE0\x80\xAF", false},     /* overlong, three bytes */
        {"\xF0\x80\x80\xAF", false}, /* overlong, four bytes */
        {"\xED\xA0\x80", false},     /* surrogate */
        {"\xE4\xBD", false},         /* cut short */
        {"\x80", false},             /* a tail without a head */
        {"ok\xFF", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(mr_str_is_utf8(mr_str_of(rows[i].text)), rows[i].good);
    }
}

static void strings_with_nul_bytes_compare_by_all_their_bytes(void **state) {
    (void)state;
    assert_false(mr_str_eq(MR_STR("a\0b"), MR_STR("a\0c")));
    assert_true(mr_str_eq(MR_STR("a\0b"), MR_STR("a\0b")));
    assert_true(mr_str_eqz(MR_STR("a"), "a"));
    assert_int_equal(mr_str_of(NULL).n, 0);
}

static void a_copy_is_cut_where_it_does_not_fit(void **state) {
    char out[4] = "xyz";
    (void)state;
    mr_str_copy(MR_STR("ab"), out, sizeof(out));
    assert_string_equal(out, "ab");
    mr_str_copy(MR_STR("abcd"), out, sizeof(out));
    assert_string_equal(out, "abc");
    mr_str_copy((mr_str){0}, out, sizeof(out));
    assert_string_equal(out, "");
}

/* A forked process must not name things as its parent does. */
static void random_bytes_are_drawn_once(void **state) {
    unsigned char a[MR_RANDOM_MAX], b[MR_RANDOM_MAX];
    int ends[2], status;
    (void)state;
    assert_true(mr_random(a, 1)); /* so that there is a stock when the process forks */
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        bool good = mr_random(a, sizeof(a)) && write(ends[1], a, sizeof(a)) == (ssize_t)sizeof(a);
        _exit(good ? 0 : 1);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    assert_int_equal(read(ends[0], a, sizeof(a)), sizeof(a));
    close(ends[0]);
    close(ends[1]);
    for (int i = 0; i < 20; i++) {
        assert_true(mr_random(b, sizeof(b)));
        assert_memory_not_equal(a, b, sizeof(a));
        memcpy(a, b, sizeof(a));
    }
    assert_false(mr_random(b, MR_RANDOM_MAX + 1));
}

static void a_misspelt_word_finds_its_neighbour_and_a_strange_one_finds_none(void **state) {
    (void)state;
    mr_nearest near = {0};
    const char *words[] = {"host", "port", "partition"};
    for (int i = 0; i < 3; i++) mr_nearest_try(&near, "prot", words[i]);
    assert_string_equal(near.best, "port");
    mr_nearest none = {0};
    for (int i = 0; i < 3; i++) mr_nearest_try(&none, "temperature", words[i]);
    assert_null(none.best);
}

static void a_buffer_stops_at_its_limit_and_says_so_once_at_the_end(void **state) {
    (void)state;
    mr_buf b;
    mr_buf_init(&b, 10);
    mr_buf_puts(&b, "0123456");
    mr_buf_printf(&b, "%d", 789);
    assert_false(b.failed);
    assert_string_equal(b.p, "0123456789");
    mr_buf_puts(&b, "x");
    assert_true(b.failed);
    mr_buf_put(&b, "", 0);
    assert_int_equal(mr_buf_str(&b).n, 10);
    mr_buf_clear(&b);
    mr_buf_puts(&b, "again");
    assert_false(b.failed);
    assert_string_equal(b.p, "again");
    mr_buf_done(&b);
}

static void a_buffer_grows_without_losing_content(void **state) {
    (void)state;
    mr_buf b;
    mr_buf_init(&b, 1 << 20);
    for (int i = 0; i < 10000; i++) mr_buf_printf(&b, "%05d\n", i);
    assert_false(b.failed);
    assert_int_equal(b.n, 60000);
    assert_memory_equal(b.p + 6 * 9999, "09999\n", 6);
    mr_buf_done(&b);
}

static void an_arena_gives_zeroed_aligned_memory_up_to_its_limit(void **state) {
    (void)state;
    mr_arena *a = mr_arena_new(64 << 10);
    assert_non_null(a);
    size_t got = 0;
    for (char *p; (p = mr_arena_alloc(a, 100)) != NULL; got += 100) {
        assert_int_equal((uintptr_t)p % 16, 0);
        for (int i = 0; i < 100; i++) assert_int_equal(p[i], 0);
        memset(p, 0xAA, 100);
    }
    assert_in_range(got, 48 << 10, 64 << 10);
    assert_null(mr_arena_alloc(a, SIZE_MAX));
    assert_null(mr_arena_alloc(a, SIZE_MAX - 8));
    mr_arena_free(a);
}

static void an_arena_can_be_used_again_after_a_reset(void **state) {
    (void)state;
    mr_arena *a = mr_arena_new(1 << 20);
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < 50; i++) {
            unsigned char *p = mr_arena_alloc(a, 1000);
            assert_non_null(p);
            assert_int_equal(p[0] | p[999], 0);
            memset(p, 0x55, 1000);
        }
        mr_arena_reset(a);
    }
    assert_non_null(mr_arena_alloc(a, 700 << 10));
    mr_arena_free(a);
}

static void an_arena_copy_ends_with_nul_and_keeps_nul_bytes(void **state) {
    (void)state;
    mr_arena *a = mr_arena_new(8192);
    mr_str s = mr_arena_str(a, MR_STR("a\0b"));
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.p, "a\0b\0", 4);
    char big[9000] = {0};
    assert_null(mr_arena_str(a, (mr_str){big, sizeof(big)}).p);
    mr_arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_is_judged_strictly),
        cmocka_unit_test(strings_with_nul_bytes_compare_by_all_their_bytes),
        cmocka_unit_test(a_copy_is_cut_where_it_does_not_fit),
        cmocka_unit_test(random_bytes_are_drawn_once),
        cmocka_unit_test(a_misspelt_word_finds_its_neighbour_and_a_strange_one_finds_none),
        cmocka_unit_test(a_buffer_stops_at_its_limit_and_says_so_once_at_the_end),
        cmocka_unit_test(a_buffer_grows_without_losing_content),
        cmocka_unit_test(an_arena_gives_zeroed_aligned_memory_up_to_its_limit),
        cmocka_unit_test(an_arena_can_be_used_again_after_a_reset),
        cmocka_unit_test(an_arena_copy_ends_with_nul_and_keeps_nul_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
