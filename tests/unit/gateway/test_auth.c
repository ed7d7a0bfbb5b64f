/* Who may ask, and for which model. */
#include "gateway/auth.h"
#include "gateway/catalog.h"

#include "support/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
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

/* The tenant that it lets in; empty when it does not. */
static mr_str tenant_of(const mr_auth *a, const char *authorization) {
    static mr_grant g;
    if (mr_auth_check(a, authorization, 1000, &g) != MR_AUTH_OK) return MR_STR("");
    return mr_str_of(g.tenant);
}

static void keys_let_in_and_nothing_else_does(void **state) {
    (void)state;
    mr_auth *a = open_with("0.0.0.0", LIST("sk-one", "acme=sk-two", "sk-padded=="));
    assert_true(mr_str_eqz(tenant_of(a, "Bearer sk-one"), "default"));
    assert_true(mr_str_eqz(tenant_of(a, "bearer  sk-one "), "default"));
    assert_true(mr_str_eqz(tenant_of(a, "Bearer sk-two"), "acme"));
    assert_true(mr_str_eqz(tenant_of(a, "Bearer sk-padded=="), "default"));
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
        assert_int_equal(tenant_of(a, wrong[i]).n, 0);
    mr_auth_free(a);
}

static void without_keys_this_machine_may_ask(void **state) {
    static const char *const loopback[] = {"127.0.0.1", "127.8.9.1", "localhost", "::1"};
    (void)state;
    for (size_t i = 0; i < sizeof(loopback) / sizeof(loopback[0]); i++) {
        mr_auth *a = open_with(loopback[i], (mr_strlist){0});
        assert_true(mr_str_eqz(tenant_of(a, NULL), "default"));
        assert_true(mr_str_eqz(tenant_of(a, "Bearer whatever"), "default"));
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

/* ---- the file of keys ---- */

#define NOW 1800000000000 /* in January 2027 */

typedef struct folder {
    char path[64], file[100];
} folder;

static folder *make_folder(void) {
    folder *f = calloc(1, sizeof(*f));
    test_folder_init(f->path);
    snprintf(f->file, sizeof(f->file), "%s/keys", f->path);
    return f;
}

static void free_folder(folder *f) {
    test_folder_done(f->path);
    free(f);
}

static void replace_file(const folder *f, const char *text) {
    char fresh[110];
    snprintf(fresh, sizeof(fresh), "%s.new", f->file);
    test_write_text(fresh, text);
    assert_int_equal(rename(fresh, f->file), 0);
}

/* A line of the file, and the header that its owner sends. */
static void make_key(mr_key k, char line[400], char header[100]) {
    char text[MR_KEY_TEXT_LEN + 1];
    mr_error err;
    mr_buf b;
    mr_buf_init(&b, 400);
    assert_int_equal(mr_key_new(&k, text, &err), 0);
    mr_key_write(&k, &b);
    mr_str_copy(mr_buf_str(&b), line, 400);
    snprintf(header, 100, "Bearer %s", text);
    mr_buf_done(&b);
}

static mr_auth *open_file(const folder *f) {
    mr_error err;
    mr_gateway_conf conf = {.host = "0.0.0.0", .keys_file = f->file};
    mr_auth *a = mr_auth_new(&conf, &err);
    if (!a) fail_msg("%s", err.msg);
    return a;
}

static void a_key_of_the_file_grants_what_its_line_says(void **state) {
    folder *f = make_folder();
    char line[400], header[100], wrong[100];
    mr_grant g;
    (void)state;
    make_key((mr_key){.tenant = "acme",
                      .scopes = MR_SCOPE_CHAT | MR_SCOPE_FEEDBACK,
                      .expires_ms = NOW + 1000,
                      .limited = true,
                      .limits = {60, 0, 4},
                      .style = "formal"},
             line, header);
    replace_file(f, line);
    mr_auth *a = open_file(f);
    assert_int_equal(mr_auth_check(a, header, NOW, &g), MR_AUTH_OK);
    assert_string_equal(g.tenant, "acme");
    assert_string_equal(g.style, "formal");
    assert_true(g.limited);
    assert_int_equal(g.limits.requests, 60);
    assert_int_equal(g.limits.concurrent, 4);
    assert_true(mr_grant_allows(&g, MR_SCOPE_CHAT) && mr_grant_allows(&g, MR_SCOPE_FEEDBACK));
    assert_false(mr_grant_allows(&g, MR_SCOPE_MODELS) || mr_grant_allows(&g, MR_SCOPE_BILLING));
    assert_int_equal(mr_auth_check(a, header, NOW + 1000, &g), MR_AUTH_EXPIRED);
    assert_int_equal(mr_auth_check(a, NULL, NOW, &g), MR_AUTH_MISSING);
    for (size_t i = 7; i < strlen(header); i++) { /* every character of it counts */
        memcpy(wrong, header, sizeof(wrong));
        wrong[i] = wrong[i] == '0' ? '1' : '0';
        assert_int_equal(mr_auth_check(a, wrong, NOW, &g), MR_AUTH_UNKNOWN);
    }
    mr_auth_free(a);
    free_folder(f);
}

static void the_file_does_not_hold_the_key(void **state) {
    char line[400], header[100];
    (void)state;
    make_key((mr_key){.tenant = "acme", .scopes = MR_SCOPE_ADMIN}, line, header);
    assert_null(strstr(line, header + strlen("Bearer sk-") + MR_KEY_ID_LEN + 1));
}

static void a_changed_file_counts_and_a_broken_one_does_not(void **state) {
    folder *f = make_folder();
    char first[400], second[400], one[100], two[100];
    mr_grant g;
    (void)state;
    make_key((mr_key){.tenant = "a", .scopes = MR_SCOPE_ADMIN}, first, one);
    make_key((mr_key){.tenant = "b", .scopes = MR_SCOPE_ADMIN}, second, two);
    replace_file(f, first);
    mr_auth *a = open_file(f);
    replace_file(f, second);
    mr_auth_refresh(a);
    assert_int_equal(mr_auth_check(a, one, NOW, &g), MR_AUTH_UNKNOWN);
    assert_int_equal(mr_auth_check(a, two, NOW, &g), MR_AUTH_OK);
    replace_file(f, "nonsense\n");
    mr_auth_refresh(a);
    assert_int_equal(mr_auth_check(a, two, NOW, &g), MR_AUTH_OK);
    remove(f->file);
    mr_auth_refresh(a);
    assert_int_equal(mr_auth_check(a, two, NOW, &g), MR_AUTH_OK);
    replace_file(f, first);
    mr_auth_refresh(a);
    assert_int_equal(mr_auth_check(a, one, NOW, &g), MR_AUTH_OK);
    mr_auth_free(a);
    free_folder(f);
}

#define HASH                                                                                                 \
    "sha256:00112233445566778899aabbccddeeff:"                                                               \
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define LINE(id, hash, tenant, scopes, expires, limits, style)                                               \
    id "\t" hash "\t" tenant "\t" scopes "\t" expires "\t" limits "\t" style "\n"

static void a_line_that_is_wrong_is_named(void **state) {
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"# one\n\nnonsense\n", "keys:3: it has 1 fields"},
        {LINE("xx", HASH, "t", "chat", "-", "-", "-"), "keys:1: the id"},
        {LINE("0123456789ab", "plain", "t", "chat", "-", "-", "-"), "keys:1: the hash"},
        {LINE("0123456789ab", HASH, "t t", "chat", "-", "-", "-"), "keys:1: the tenant"},
        {LINE("0123456789ab", HASH, "t", "chats", "-", "-", "-"), "unknown scope 'chats'"},
        {LINE("0123456789ab", HASH, "t", "chat", "soon", "-", "-"), "keys:1: the expiry"},
        {LINE("0123456789ab", HASH, "t", "chat", "-", "requests=-1", "-"), "'requests=-1' is no limit"},
        {LINE("0123456789ab", HASH, "t", "chat", "-", "words=1", "-"), "'words=1' is no limit"},
        {LINE("0123456789ab", HASH, "t", "chat", "-", "-", "a b"), "the style"},
        {LINE("0123456789ab", HASH, "t", "chat", "-", "-", "-")
             LINE("0123456789ab", HASH, "u", "chat", "-", "-", "-"),
         "the id 0123456789ab is there twice"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        mr_error err;
        assert_null(mr_keys_parse(mr_str_of(bad[i].text), "keys", &err));
        if (!strstr(err.msg, bad[i].message)) fail_msg("'%s' is not in '%s'", bad[i].message, err.msg);
    }
    mr_error err;
    mr_keys *k = mr_keys_parse(MR_STR("# none yet\r\n\n"), "keys", &err);
    assert_non_null(k);
    assert_int_equal(mr_keys_count(k), 0);
    mr_keys_free(k);
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
        cmocka_unit_test(a_key_of_the_file_grants_what_its_line_says),
        cmocka_unit_test(the_file_does_not_hold_the_key),
        cmocka_unit_test(a_changed_file_counts_and_a_broken_one_does_not),
        cmocka_unit_test(a_line_that_is_wrong_is_named),
        cmocka_unit_test(models_are_found_by_name_alias_and_star),
        cmocka_unit_test(an_alias_for_no_model_is_an_error),
        cmocka_unit_test(images_are_for_vision_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
