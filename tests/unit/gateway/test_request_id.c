/* Ids that lead to an answer, for its own tenant alone. */
#include "gateway/request_id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const mr_request_place place = {.partition = 70000,
                                       .position = 123456789012,
                                       .created_s = 1790000000,
                                       .n = 16,
                                       .usage = true,
                                       .model = 7};

static void an_id_says_where_its_answer_is(void **state) {
    (void)state;
    mr_request_place got;
    char id[MR_REQUEST_ID_LEN + 1];
    assert_int_equal(mr_request_id(&place, MR_STR("acme"), id), 0);
    assert_int_equal(strlen(id), MR_REQUEST_ID_LEN);
    assert_true(mr_id_ok(mr_str_of(id)));
    assert_true(mr_request_id_read(mr_str_of(id), MR_STR("acme"), &got));
    assert_int_equal(got.partition, place.partition);
    assert_int_equal(got.position, place.position);
    assert_int_equal(got.created_s, place.created_s);
    assert_int_equal(got.n, place.n);
    assert_true(got.usage);
    assert_int_equal(got.model, place.model);
}

static void another_tenant_cannot_use_it(void **state) {
    (void)state;
    mr_request_place got;
    char id[MR_REQUEST_ID_LEN + 1];
    assert_int_equal(mr_request_id(&place, MR_STR("acme"), id), 0);
    assert_false(mr_request_id_read(mr_str_of(id), MR_STR("rival"), &got));
    assert_false(mr_request_id_read(mr_str_of(id), MR_STR(""), &got));
}

static void a_changed_id_is_none(void **state) {
    (void)state;
    mr_request_place got;
    char id[MR_REQUEST_ID_LEN + 1];
    assert_int_equal(mr_request_id(&place, MR_STR("acme"), id), 0);
    for (size_t i = 0; i < MR_REQUEST_ID_LEN; i++) {
        char was = id[i];
        id[i] = was == 'A' ? 'B' : 'A';
        assert_false(mr_request_id_read(mr_str_of(id), MR_STR("acme"), &got));
        id[i] = '~';
        assert_false(mr_request_id_read(mr_str_of(id), MR_STR("acme"), &got));
        id[i] = was;
    }
    assert_false(mr_request_id_read((mr_str){id, MR_REQUEST_ID_LEN - 1}, MR_STR("acme"), &got));
    assert_false(mr_request_id_read(MR_STR(""), MR_STR("acme"), &got));
}

static void two_ids_are_never_the_same(void **state) {
    (void)state;
    char a[MR_REQUEST_ID_LEN + 1], b[MR_REQUEST_ID_LEN + 1];
    assert_int_equal(mr_request_id(&place, MR_STR("acme"), a), 0);
    assert_int_equal(mr_request_id(&place, MR_STR("acme"), b), 0);
    assert_string_not_equal(a, b);
}

static void an_events_id_says_how_far_each_answer_was(void **state) {
    (void)state;
    char id[MR_EVENT_ID_MAX];
    uint64_t got[MR_CHOICES_MAX], all[MR_CHOICES_MAX];
    mr_event_id((uint64_t[]){120}, 1, id);
    assert_string_equal(id, "120");
    assert_true(mr_event_id_read(mr_str_of(id), 1, got));
    assert_int_equal(got[0], 120);
    mr_event_id((uint64_t[]){120, 0, 7}, 3, id);
    assert_string_equal(id, "120,0,7");
    assert_true(mr_event_id_read(mr_str_of(id), 3, got));
    assert_int_equal(got[2], 7);
    for (int i = 0; i < MR_CHOICES_MAX; i++) all[i] = (uint64_t)MR_BYTES_MAX;
    mr_event_id(all, MR_CHOICES_MAX, id);
    assert_true(mr_event_id_read(mr_str_of(id), MR_CHOICES_MAX, got));
    assert_true(got[MR_CHOICES_MAX - 1] == (uint64_t)MR_BYTES_MAX);
}

static void what_is_no_events_id_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"x", "-1", "1,", ",1", "1,2,3", "12345678901234", " 1", "1 ", "1.0"};
    uint64_t got[2];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        assert_false(mr_event_id_read(mr_str_of(wrong[i]), 2, got));
        assert_false(mr_event_id_read(mr_str_of(wrong[i]), 1, got));
    }
    assert_false(mr_event_id_read(MR_STR("5"), 2, got));
    assert_true(mr_event_id_read(MR_STR(""), 2, got));
    assert_int_equal(got[1], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_says_where_its_answer_is),
        cmocka_unit_test(another_tenant_cannot_use_it),
        cmocka_unit_test(a_changed_id_is_none),
        cmocka_unit_test(two_ids_are_never_the_same),
        cmocka_unit_test(an_events_id_says_how_far_each_answer_was),
        cmocka_unit_test(what_is_no_events_id_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
