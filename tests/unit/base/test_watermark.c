/* The watermark: what may be committed never passes the lowest unfinished record. */
#include "base/bus_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void it_moves_only_past_a_finished_prefix(void **state) {
    (void)state;
    mr_watermark w = {0};
    for (int64_t o = 10; o < 15; o++) assert_true(mr_watermark_begin(&w, o));
    assert_int_equal(mr_watermark_finish(&w, 12), -1);
    assert_int_equal(mr_watermark_finish(&w, 11), -1);
    assert_int_equal(mr_watermark_finish(&w, 10), 13);
    assert_int_equal(mr_watermark_finish(&w, 14), -1);
    assert_int_equal(mr_watermark_finish(&w, 13), 15);
    assert_int_equal(w.unfinished, 0);
    mr_watermark_free(&w);
}

static void gaps_between_offsets_are_normal(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_true(mr_watermark_begin(&w, 3));
    assert_true(mr_watermark_begin(&w, 1000));
    assert_true(mr_watermark_begin(&w, 1000000000000));
    assert_int_equal(mr_watermark_finish(&w, 500), -1);
    assert_int_equal(mr_watermark_finish(&w, 1000), -1);
    assert_int_equal(mr_watermark_finish(&w, 3), 1001);
    assert_int_equal(mr_watermark_finish(&w, 1000000000000), 1000000000001);
    mr_watermark_free(&w);
}

static void a_record_is_finished_once_and_begun_in_order(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_true(mr_watermark_begin(&w, 5));
    assert_false(mr_watermark_begin(&w, 5));
    assert_false(mr_watermark_begin(&w, 4));
    assert_int_equal(mr_watermark_finish(&w, 5), 6);
    assert_int_equal(mr_watermark_finish(&w, 5), -1);
    assert_int_equal(w.unfinished, 0);
    mr_watermark_free(&w);
}

static void a_cancelled_record_can_begin_again(void **state) {
    (void)state;
    mr_watermark w = {0};
    assert_true(mr_watermark_begin(&w, 5));
    assert_true(mr_watermark_begin(&w, 6));
    mr_watermark_cancel(&w, 6);
    assert_int_equal(w.unfinished, 1);
    assert_int_equal(mr_watermark_finish(&w, 5), 6);
    assert_true(mr_watermark_begin(&w, 6));
    assert_int_equal(mr_watermark_finish(&w, 6), 7);
    mr_watermark_free(&w);
}

static void after_a_reset_lower_offsets_come_again(void **state) {
    (void)state;
    mr_watermark w = {0};
    for (int64_t o = 0; o < 100; o++) mr_watermark_begin(&w, o);
    mr_watermark_reset(&w);
    assert_true(mr_watermark_begin(&w, 2));
    assert_int_equal(mr_watermark_finish(&w, 2), 3);
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
        int before = low;
        while (low < N && done[low]) low++;
        assert_int_equal(mr_watermark_finish(&w, offsets[order[i]]),
                         low > before ? offsets[low - 1] + 1 : -1);
    }
    mr_watermark_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_moves_only_past_a_finished_prefix),
        cmocka_unit_test(gaps_between_offsets_are_normal),
        cmocka_unit_test(a_record_is_finished_once_and_begun_in_order),
        cmocka_unit_test(a_cancelled_record_can_begin_again),
        cmocka_unit_test(after_a_reset_lower_offsets_come_again),
        cmocka_unit_test(it_agrees_with_a_plain_scan_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
