/* Personal data: what is found, and numbers that only look like it. */
#include "guard/personal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static mr_personal *personal;

/* The text with what was found in its place. */
typedef struct masked {
    mr_buf out;
    mr_str text;
    size_t done;
} masked;

static void on_hit(void *arg, const mr_guard_hit *hit) {
    masked *m = arg;
    assert_true(hit->start >= m->done && hit->end > hit->start);
    mr_buf_put(&m->out, m->text.p + m->done, hit->start - m->done);
    mr_buf_puts(&m->out, hit->rule->substitute);
    m->done = hit->end;
}

static void expect(const char *text, const char *becomes) {
    masked m = {.text = mr_str_of(text)};
    mr_error err;
    mr_buf_init(&m.out, 1 << 20);
    assert_int_equal(mr_personal_scan(personal, m.text, on_hit, &m, &err), 0);
    mr_buf_put(&m.out, m.text.p + m.done, m.text.n - m.done);
    mr_buf_put(&m.out, "", 1);
    if (strcmp(m.out.p, becomes) != 0) fail_msg("'%s' became '%s'", text, m.out.p);
    mr_buf_done(&m.out);
}

static void phone_numbers_are_found(void **state) {
    (void)state;
    expect("我的手机是13800138000。", "我的手机是[phone]。");
    expect("call 138-0013-8000 or 139 1234 5678, thanks", "call [phone] or [phone], thanks");
    expect("１３８００１３８０００", "[phone]");
    expect("138\xE2\x80\x8B"
           "0013\xE2\x80\x8B"
           "8000",
           "[phone]");
    expect("+86 138 0013 8000", "+[phone]");
    expect("86 13800138000", "[phone]");
    expect("from +1 (555) 123-4567 today", "from +[phone] today");
    expect("+44 20 7946 0958", "+[phone]");
    expect("＋４９ ３０ １２３４５６７", "＋[phone]");
}

static void id_numbers_are_found_if_their_check_digit_is_right(void **state) {
    (void)state;
    expect("身份证11010519491231002X，谢谢", "身份证[id]，谢谢");
    expect("11010519491231002x", "[id]");
    expect("110105 19491231 002X", "[id]");
    expect("440524188001010014", "440524188001010014"); /* of 1880 */
    expect("110105194912310021", "110105194912310021");
    expect("11010519491331002X", "11010519491331002X");
}

static void bank_cards_are_found_by_issuer_length_and_sum(void **state) {
    (void)state;
    expect("card 4111 1111 1111 1111.", "card [card].");
    expect("4111-1111-1111-1111", "[card]");
    expect("卡号6222021234567890128。", "卡号[card]。");
    expect("6222021234567890127", "6222021234567890127");
    expect("5555555555554444", "[card]");
    expect("378282246310005", "[card]");
    expect("4111111111111112", "4111111111111112");
    expect("1111111111111117", "1111111111111117");
}

static void addresses_are_found(void **state) {
    (void)state;
    expect("write to jane.doe+news@mail.example.co.uk.", "write to [email].");
    expect("邮箱：zhang_san@qq.com，电话13800138000", "邮箱：[email]，电话[phone]");
    expect("13800138000@139.com", "[email]");
    expect("a＠example.com", "[email]");
    expect("@\x0e\x07"
           "a",
           "@\x0e\x07"
           "a");
    expect("@someone and a@b and x @ y.com", "@someone and a@b and x @ y.com");
}

static void other_numbers_are_left_alone(void **state) {
    static const char *const plain[] = {
        "order 20261124000123 of 2026-11-24 08:49:13",
        "192.168.100.101, version 1.13800138000",
        "π = 3.14159265358979323846",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
        "2020 2021 2022 2023 2024 2025 2026",
        "ISBN 978-3-16-148410-0",
        "1700000000000 ms",
        "id 123456789012345678901234567890",
        "x13800138000 13800138000y 138001380001234",
        "10000+20000000=20010000",
        "12800138000",
        "",
    };
    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) expect(plain[i], plain[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phone_numbers_are_found),
        cmocka_unit_test(id_numbers_are_found_if_their_check_digit_is_right),
        cmocka_unit_test(bank_cards_are_found_by_issuer_length_and_sum),
        cmocka_unit_test(addresses_are_found),
        cmocka_unit_test(other_numbers_are_left_alone),
    };
    mr_error err;
    personal = mr_personal_new(MR_GUARD_MASK, &err);
    if (!personal) return 1;
    int failed = cmocka_run_group_tests_name("guard_personal", tests, NULL, NULL);
    mr_personal_free(personal);
    return failed;
}
