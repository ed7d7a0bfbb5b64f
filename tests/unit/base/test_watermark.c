/* The watermark: what may be committed never passes the lowest unfinished record, and what is finished behind it is known to the next one. */
#include "base/bus_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The offset to commit once this one, too, is finished. */
static int64_t low_after(mr_watermark *w, int64_t offset) {
    assert_true(mr_watermark_finish(w, offset));
    return mr_watermark_low(w);
}

static void it_moves_only_past_a_finished_prefix(void **state) {
    (void)state;
    mr_watermark w = {0};
    for (int64_t o = 10; o < 15; o++) assert_true(mr_watermark_begin(&w, o));
    assert_int_equal(low_after(&w, 12), 10);
    assert_int_equal(low_after(&w, 11), 10);
    assert_int_equal(low_after(&w, 10), 13);
    assert_int_equal(low_after(&w, 14), 13);
    assert_int_equal(low_after(&w, 13), 15);
    assert_int_equal(w.unfinished, 0);
    mr_watermark_free(&w);
}

static void gaps_between_offsets_are_normal(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_true(mr_watermark_begin(&w, 3));
    assert_true(mr_watermark_begin(&w, 1000));
    assert_true(mr_watermark_begin(&w, 1000000000000));
    assert_false(mr_watermark_finish(&w, 500));
    assert_int_equal(low_after(&w, 1000), 3);
    assert_int_equal(low_after(&w, 3), 1000000000000);
    assert_int_equal(low_after(&w, 1000000000000), 1000000000001);
    mr_watermark_free(&w);
}

static void a_record_is_finished_once_and_begun_in_order(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_true(mr_watermark_begin(&w, 5));
    assert_false(mr_watermark_begin(&w, 5));
    assert_false(mr_watermark_begin(&w, 4));
    assert_int_equal(low_after(&w, 5), 6);
    assert_false(mr_watermark_finish(&w, 5));
    assert_int_equal(w.unfinished, 0);
    mr_watermark_free(&w);
}

static void a_cancelled_record_can_begin_again(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_true(mr_watermark_begin(&w, 5));
    assert_true(mr_watermark_begin(&w, 6));
    assert_true(mr_watermark_cancel(&w, 6));
    assert_false(mr_watermark_cancel(&w, 6));
    assert_int_equal(w.unfinished, 1);
    assert_int_equal(low_after(&w, 5), 6);
    assert_true(mr_watermark_begin(&w, 6));
    assert_int_equal(low_after(&w, 6), 7);
    mr_watermark_free(&w);
}

static void after_a_reset_lower_offsets_come_again(void **state) {
    (void)state;
    mr_watermark w = {0};
    for (int64_t o = 0; o < 100; o++) mr_watermark_begin(&w, o);
    mr_watermark_reset(&w);
    assert_true(mr_watermark_begin(&w, 2));
    assert_int_equal(low_after(&w, 2), 3);
    mr_watermark_free(&w);
}

static void it_agrees_with_a_plain_scan_in_any_order(void **state) {
    enum { N = 3000 };
    (void)state;
    static int64_t offsets[N];
    static bool done[N];
    int order[N];
    mr_watermark w = {0};
    srand(7);
    int64_t o = 0;
    for (int i = 0; i < N; i++) {
        offsets[i] = o += 1 + rand() % 3;
        order[i] = i;
        assert_true(mr_watermark_begin(&w, o));
    }
    for (int i = N - 1; i > 0; i--) {
        int k = rand() % (i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    int low = 0;
    for (int i = 0; i < N; i++) {
        done[order[i]] = true;
        while (low < N && done[low]) low++;
        assert_int_equal(low_after(&w, offsets[order[i]]), low < N ? offsets[low] : offsets[N - 1] + 1);
    }
    mr_watermark_free(&w);
}

/* ---- what goes along with a commit ---- */

static mr_str write_of(const mr_watermark *w) {
    static char text[MR_FINISHED_TEXT];
    int n = mr_finished_write(w, text);
    assert_int_equal(n, strlen(text));
    return (mr_str){text, (size_t)n};
}

static void the_lowest_unfinished_offset_is_what_is_committed(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_int_equal(mr_watermark_low(&w), -1);
    assert_true(mr_watermark_begin(&w, 7) && mr_watermark_begin(&w, 20));
    assert_int_equal(mr_watermark_low(&w), 7);
    mr_watermark_finish(&w, 7);
    assert_int_equal(mr_watermark_low(&w), 20);
    mr_watermark_finish(&w, 20);
    assert_int_equal(mr_watermark_low(&w), 21);
    mr_watermark_reset(&w);
    assert_int_equal(mr_watermark_low(&w), -1);
    mr_watermark_free(&w);
}

static void the_next_one_knows_what_is_finished_behind_an_unfinished_record(void **state) {
    (void)state;
    mr_watermark w = {0};
    mr_finished f = {0};
    assert_int_equal(write_of(&w).n, 0);
    for (int64_t o = 1000; o < 1040; o++) assert_true(mr_watermark_begin(&w, o));
    assert_int_equal(write_of(&w).n, 0);
    for (int64_t o = 1001; o < 1040; o += 3) mr_watermark_finish(&w, o);
    assert_true(mr_finished_read(&f, 1000, write_of(&w)));
    for (int64_t o = 0; o < 2000; o++)
        assert_int_equal(mr_finished_has(&f, o), o > 1000 && o < 1040 && o % 3 == 1001 % 3);
    mr_watermark_free(&w);
}

static void a_full_window_fits_into_what_brokers_take(void **state) {
    (void)state;
    mr_watermark w = {0};
    mr_finished f = {0};
    int64_t from = 900000000000000000;
    for (int64_t i = 0; i < MR_WATERMARK_WINDOW; i++) assert_true(mr_watermark_begin(&w, from + 3 * i));
    for (int64_t i = 1; i < MR_WATERMARK_WINDOW; i++) mr_watermark_finish(&w, from + 3 * i);
    assert_in_range(write_of(&w).n, 1, 4096);
    assert_true(mr_finished_read(&f, from, write_of(&w)));
    /* as far as there is room; the rest comes again */
    for (int64_t i = 1; i < MR_WATERMARK_WINDOW; i++)
        assert_int_equal(mr_finished_has(&f, from + 3 * i), 3 * i < 6 * MR_FINISHED_CHARS);
    mr_watermark_free(&w);
}

static void a_text_that_was_cut_says_less_and_nothing_wrong(void **state) {
    (void)state;
    mr_watermark w = {0};
    mr_finished f = {0};
    for (int64_t o = 50; o < 150; o++) assert_true(mr_watermark_begin(&w, o));
    for (int64_t o = 51; o < 150; o += 2) mr_watermark_finish(&w, o);
    mr_str text = write_of(&w);
    for (size_t n = 0; n <= text.n; n++) {
        mr_finished_read(&f, 50, (mr_str){text.p, n});
        for (int64_t o = 0; o < 200; o++)
            if (mr_finished_has(&f, o)) assert_true(o > 50 && o < 150 && o % 2);
    }
    mr_watermark_free(&w);
}

static void a_foreign_text_or_one_of_another_offset_says_nothing(void **state) {
    static const char *const texts[] = {
        "",           "mr1:",        "mr1:5",      "mr1::B",
        "mr1:6:BBBB", "mr1:-5:BBBB", "mr2:5:BBB",  "{\"a\":1}",
        "mr1:5:=",    "mr1:5:BB B",  "MR1:5:BBBB", "mr1:00000000000000000000000005:BBBB"};
    (void)state;
    mr_finished f = {0};
    assert_true(mr_finished_read(&f, 5, MR_STR("mr1:5:_")));
    assert_true(mr_finished_has(&f, 10));
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        assert_false(mr_finished_read(&f, 5, mr_str_of(texts[i])));
        for (int64_t o = 0; o < 100; o++) assert_false(mr_finished_has(&f, o));
    }
    assert_false(mr_finished_read(&f, -1001, MR_STR("mr1:5:BBBB")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_moves_only_past_a_finished_prefix),
        cmocka_unit_test(gaps_between_offsets_are_normal),
        cmocka_unit_test(a_record_is_finished_once_and_begun_in_order),
        cmocka_unit_test(a_cancelled_record_can_begin_again),
        cmocka_unit_test(after_a_reset_lower_offsets_come_again),
        cmocka_unit_test(it_agrees_with_a_plain_scan_in_any_order),
        cmocka_unit_test(the_lowest_unfinished_offset_is_what_is_committed),
        cmocka_unit_test(the_next_one_knows_what_is_finished_behind_an_unfinished_record),
        cmocka_unit_test(a_full_window_fits_into_what_brokers_take),
        cmocka_unit_test(a_text_that_was_cut_says_less_and_nothing_wrong),
        cmocka_unit_test(a_foreign_text_or_one_of_another_offset_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
