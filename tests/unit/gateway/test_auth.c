/* Who may ask, and for which model. */
#include "gateway/auth.h"
#include "gateway/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define LIST(...)                                                                                            \
    ((mr_strlist){(const char *[]){__VA_ARGS__},                                                             \
                  (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))})

static mr_auth *open_with(const char *host, mr_strlist keys) {
    mr_error err;
    mr_gateway_conf conf = {.host = host, .keys = keys};
    mr_auth *a = mr_auth_new(&conf, &err);
    if (!a) fail_msg("%s", err.msg);
    return a;
}

static void keys_let_in_and_nothing_else_does(void **state) {
    (void)state;
    mr_auth *a = open_with("0.0.0.0", LIST("sk-one", "acme=sk-two", "sk-padded=="));
    assert_true(mr_str_eqz(mr_auth_tenant(a, "Bearer sk-one"), "default"));
    assert_true(mr_str_eqz(mr_auth_tenant(a, "bearer  sk-one "), "default"));
    assert_true(mr_str_eqz(mr_auth_tenant(a, "Bearer sk-two"), "acme"));
    assert_true(mr_str_eqz(mr_auth_tenant(a, "Bearer sk-padded=="), "default"));
    const char *wrong[] = {NULL,
                           "",
                           "Bearer",
                           "Bearer ",
                           "sk-one",
                           "Bearer sk-on",
                           "Basic sk-one",
                           "Bearer sk-oneX",
                           "Bearer SK-ONE",
                           "Bearer acme=sk-two",
                           "Bearer sk-onesk-one",
                           "Bearersk-one"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(mr_auth_tenant(a, wrong[i]).n, 0);
    mr_auth_free(a);
}

static void without_keys_this_machine_may_ask(void **state) {
    static const char *const loopback[] = {"127.0.0.1", "127.8.9.1", "localhost", "::1"};
    (void)state;
    for (size_t i = 0; i < sizeof(loopback) / sizeof(loopback[0]); i++) {
        mr_auth *a = open_with(loopback[i], (mr_strlist){0});
        assert_true(mr_str_eqz(mr_auth_tenant(a, NULL), "default"));
        assert_true(mr_str_eqz(mr_auth_tenant(a, "Bearer whatever"), "default"));
        mr_auth_free(a);
    }
}

static void without_keys_no_other_address_is_served(void **state) {
    static const char *const open[] = {"0.0.0.0", "192.168.1.2", "::", "example.org", ""};
    (void)state;
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++) {
        mr_error err;
        mr_gateway_conf conf = {.host = open[i]};
        assert_null(mr_auth_new(&conf, &err));
        assert_non_null(strstr(err.msg, "gateway.keys"));
    }
}

static void an_empty_key_is_refused(void **state) {
    mr_error err;
    mr_gateway_conf conf = {.host = "0.0.0.0", .keys = LIST("sk-one", "")};
    (void)state;
    assert_null(mr_auth_new(&conf, &err));
    assert_non_null(strstr(err.msg, "entry 2"));
}

static void models_are_found_by_name_alias_and_star(void **state) {
    mr_error err;
    mr_gateway_conf conf = {.models = LIST("small", "large"), .aliases = LIST("gpt-4o=large", "*=small")};
    (void)state;
    assert_int_equal(mr_catalog_check(&conf, &err), 0);
    assert_string_equal(mr_catalog_find(&conf, MR_STR("large")), "large");
    assert_string_equal(mr_catalog_find(&conf, MR_STR("gpt-4o")), "large");
    assert_string_equal(mr_catalog_find(&conf, MR_STR("anything")), "small");
    conf.aliases.n = 1;
    assert_null(mr_catalog_find(&conf, MR_STR("anything")));
    assert_null(mr_catalog_find(&conf, MR_STR("Large")));
}

static void an_alias_for_no_model_is_an_error(void **state) {
    mr_error err;
    mr_gateway_conf conf = {.models = LIST("small"), .aliases = LIST("a=smal")};
    (void)state;
    assert_int_equal(mr_catalog_check(&conf, &err), -1);
    assert_non_null(strstr(err.msg, "a=smal"));
    conf.aliases = LIST("nothing");
    assert_int_equal(mr_catalog_check(&conf, &err), -1);
}

static void images_are_for_vision_models(void **state) {
    mr_gateway_conf conf = {.models = LIST("small", "eye"), .vision_models = LIST("eye", "gpt-4o")};
    (void)state;
    assert_true(mr_catalog_vision(&conf, MR_STR("eye"), "eye"));
    assert_true(mr_catalog_vision(&conf, MR_STR("gpt-4o"), "small")); /* by the alias that was asked for */
    assert_false(mr_catalog_vision(&conf, MR_STR("small"), "small"));
    conf.vision_models = LIST("*");
    assert_true(mr_catalog_vision(&conf, MR_STR("small"), "small"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_let_in_and_nothing_else_does),
        cmocka_unit_test(without_keys_this_machine_may_ask),
        cmocka_unit_test(without_keys_no_other_address_is_served),
        cmocka_unit_test(an_empty_key_is_refused),
        cmocka_unit_test(models_are_found_by_name_alias_and_star),
        cmocka_unit_test(an_alias_for_no_model_is_an_error),
        cmocka_unit_test(images_are_for_vision_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
