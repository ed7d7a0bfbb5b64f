/* The waiting line: fair between tenants by tokens, by deadline within one, and those that come back first. */
#include "worker/admit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MANY 64

typedef struct fixture {
    mr_admit *q;
    mr_ticket t[MANY];
} fixture;

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->q = mr_admit_new(&err);
    *state = f;
    return f->q ? 0 : -1;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_admit_free(f->q);
    free(f);
    return 0;
}

static void push(fixture *f, int i, const char *tenant, int64_t cost, int64_t deadline) {
    mr_error err;
    f->t[i].cost = cost;
    f->t[i].deadline_ms = deadline;
    assert_int_equal(mr_admit_push(f->q, &f->t[i], mr_str_of(tenant), &err), 0);
}

static int pop(fixture *f) {
    mr_ticket *t = mr_admit_pop(f->q);
    return t ? (int)(t - f->t) : -1;
}

static void one_tenant_is_served_in_order_of_arrival(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 5; i++) push(f, i, "a", 100, 0);
    for (int i = 0; i < 5; i++) assert_int_equal(pop(f), i);
    assert_int_equal(pop(f), -1);
}

static void within_a_tenant_the_earliest_deadline_goes_first(void **state) {
    fixture *f = *state;
    push(f, 0, "a", 1, 0);
    push(f, 1, "a", 1, 300);
    push(f, 2, "a", 1, 100);
    push(f, 3, "a", 1, 300);
    push(f, 4, "a", 1, 200);
    const int order[] = {2, 4, 1, 3, 0};
    for (int i = 0; i < 5; i++) assert_int_equal(pop(f), order[i]);
}

static void within_a_tenant_the_highest_priority_goes_first(void **state) {
    fixture *f = *state;
    f->t[1].priority = -1;
    f->t[2].priority = 5;
    f->t[3].aside = true;
    for (int i = 0; i < 5; i++) push(f, i, "a", 1, i == 1 ? 100 : 0);
    assert_ptr_equal(mr_admit_next(f->q), &f->t[3]);
    const int order[] = {3, 2, 0, 4, 1};
    for (int i = 0; i < 5; i++) assert_int_equal(pop(f), order[i]);
}

static void a_priority_does_not_help_against_another_tenant(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 10; i++) {
        f->t[i].priority = 100;
        push(f, i, "pushy", 100, 0);
    }
    pop(f);
    push(f, 10, "modest", 100, 0);
    int before = 0;
    while (pop(f) != 10) before++;
    assert_true(before <= 1);
}

static void a_crowd_does_not_keep_a_newcomer_waiting(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 40; i++) push(f, i, "crowd", 100, 0);
    for (int i = 0; i < 10; i++) assert_int_equal(pop(f), i);
    push(f, 50, "newcomer", 100, 0);
    int before = 0;
    while (pop(f) != 50) before++;
    assert_true(before <= 1);
}

static void turns_are_weighted_by_tokens(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 20; i++) push(f, i, "large", 300, 0);
    for (int i = 20; i < 50; i++) push(f, i, "small", 100, 0);
    int large = 0, small = 0;
    for (int i = 0; i < 24; i++) *(pop(f) < 20 ? &large : &small) += 1;
    assert_in_range(small, 3 * large - 3, 3 * large + 3);
}

static void an_idle_tenant_saves_up_no_turns(void **state) {
    fixture *f = *state;
    push(f, 0, "idle", 1, 0);
    for (int i = 1; i < 30; i++) push(f, i, "busy", 1000, 0);
    for (int i = 0; i < 20; i++) pop(f);
    for (int i = 30; i < 60; i++) push(f, i, "idle", 1000, 0);
    int idle = 0;
    for (int i = 0; i < 10; i++) idle += pop(f) >= 30;
    assert_in_range(idle, 4, 6);
}

static void who_took_more_than_estimated_waits_longer(void **state) {
    fixture *f = *state;
    push(f, 0, "greedy", 10, 0);
    push(f, 1, "modest", 10, 0);
    push(f, 2, "modest", 10, 0);
    push(f, 3, "modest", 10, 0);
    push(f, 4, "greedy", 10, 0);
    int first = pop(f);
    if (first != 0) assert_int_equal(pop(f), 0);
    mr_admit_spend(f->q, MR_STR("greedy"), 1000);
    int last = -1;
    for (int i; (i = pop(f)) >= 0;) last = i;
    assert_int_equal(last, 4);
}

static void who_has_much_running_falls_behind_while_it_runs(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 20; i++) push(f, i, "crowd", 1, 0);
    for (int i = 0; i < 8; i++) {
        pop(f);
        mr_admit_runs(f->q, MR_STR("crowd"));
    }
    for (int i = 30; i < 40; i++) {
        push(f, i, "modest", 20, 0);
        assert_int_equal(pop(f), i);
        mr_admit_runs(f->q, MR_STR("modest"));
        mr_admit_spend(f->q, MR_STR("modest"), 10);
        mr_admit_spend(f->q, MR_STR("crowd"), 8 * 10);
        mr_admit_left(f->q, MR_STR("modest"));
    }
}

static void those_that_come_back_go_first_in_their_order(void **state) {
    fixture *f = *state;
    push(f, 0, "a", 1, 1);
    mr_admit_return(f->q, &f->t[1]);
    mr_admit_return(f->q, &f->t[2]);
    assert_int_equal(mr_admit_waiting(f->q), 3);
    assert_int_equal(pop(f), 1);
    assert_ptr_equal(mr_admit_pop_returned(f->q), &f->t[2]);
    assert_null(mr_admit_pop_returned(f->q));
    assert_int_equal(pop(f), 0);
}

static void a_ticket_leaves_the_line_from_anywhere(void **state) {
    fixture *f = *state;
    for (int i = 0; i < 5; i++) push(f, i, "a", 1, 0);
    mr_admit_return(f->q, &f->t[5]);
    mr_admit_remove(&f->t[0]);
    mr_admit_remove(&f->t[2]);
    mr_admit_remove(&f->t[4]);
    mr_admit_remove(&f->t[5]);
    mr_admit_remove(&f->t[5]);
    assert_int_equal(mr_admit_waiting(f->q), 2);
    assert_int_equal(pop(f), 1);
    assert_int_equal(pop(f), 3);
    assert_int_equal(pop(f), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(one_tenant_is_served_in_order_of_arrival),
        TEST(within_a_tenant_the_earliest_deadline_goes_first),
        TEST(within_a_tenant_the_highest_priority_goes_first),
        TEST(a_priority_does_not_help_against_another_tenant),
        TEST(a_crowd_does_not_keep_a_newcomer_waiting),
        TEST(turns_are_weighted_by_tokens),
        TEST(an_idle_tenant_saves_up_no_turns),
        TEST(who_took_more_than_estimated_waits_longer),
        TEST(who_has_much_running_falls_behind_while_it_runs),
        TEST(those_that_come_back_go_first_in_their_order),
        TEST(a_ticket_leaves_the_line_from_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
