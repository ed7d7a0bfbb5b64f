/* A schema that cannot be kept is refused by a message that names the keyword and its place. */
#include "grammar_test.h"

#include <stdio.h>
#include <string.h>

static void expect_refusal(const words *w, const char *schema, const char *says) {
    engine_error err;
    if (try_compile(w, schema, &err)) fail_msg("this is taken: %s", schema);
    assert_int_equal(err.code, ENGINE_EINVAL);
    if (!strstr(err.msg, says)) fail_msg("%s is refused by: %s", schema, err.msg);
}

static void check(const char *const (*cases)[2], size_t n) {
    words w;
    words_open(&w, "gpt2");
    for (size_t i = 0; i < n; i++) expect_refusal(&w, cases[i][0], cases[i][1]);
    words_close(&w);
}

#define CHECK(cases) check(cases, sizeof(cases) / sizeof((cases)[0]))

static void keywords_that_are_not_supported_are_named(void **state) {
    static const char *const cases[][2] = {
        {"{\"type\":\"object\",\"patternProperties\":{\"^a\":{}}}", "patternProperties is not supported"},
        {"{\"type\":\"object\",\"minProperties\":1}", "minProperties is not supported"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems is not supported"},
        {"{\"type\":\"array\",\"contains\":{\"type\":\"null\"}}", "contains is not supported"},
        {"{\"not\":{}}", "not is not supported"},
        {"{\"if\":{\"type\":\"null\"},\"then\":{\"type\":\"null\"}}", "if is not supported"},
        {"{\"properties\":{\"a\":{\"items\":{\"dependentRequired\":{\"a\":[\"b\"]}}}}}",
         "properties.a.items: dependentRequired is not supported"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"contains\":{\"const\":1}}]}",
         "anyOf[1]: contains is not supported"},
        {"{\"type\":\"string\",\"format\":\"iri\"}", "format \"iri\" is not supported"},
        {"{\"type\":\"string\",\"format\":\"date\",\"pattern\":\"a\"}", "format beside pattern"},
        {"{\"type\":\"number\",\"multipleOf\":0.1}", "multipleOf must be a whole number"},
        {"{\"type\":\"array\",\"items\":[{}]}", "items as a list is not supported: use prefixItems"},
        {"{\"allOf\":[{\"type\":\"object\"},{\"type\":\"object\"}]}", "allOf of more than one schema"},
        {"{\"anyOf\":[{\"type\":\"null\"}],\"minimum\":1}", "minimum beside anyOf is not supported"},
        {"{\"$ref\":\"#\",\"properties\":{}}", "properties beside $ref is not supported"},
        {"{\"enum\":[\"a\"],\"pattern\":\"a\"}", "pattern beside enum is not supported"},
    };
    (void)state;
    CHECK(cases);
}

static void schemas_that_are_wrong_are_refused(void **state) {
    static const char *const cases[][2] = {
        {"", "not valid JSON"},
        {"{\"type\":", "not valid JSON"},
        {"[]", "a schema must be an object"},
        {"{\"type\":\"text\"}", "type \"text\" is unknown"},
        {"{\"type\":[]}", "type must be a name or a list of names"},
        {"{\"type\":\"array\",\"minItems\":-1}", "minItems must be a whole number"},
        {"{\"type\":\"string\",\"maxLength\":\"3\"}", "maxLength must be a whole number"},
        {"{\"type\":\"string\",\"maxLength\":1e12}", "maxLength is more than"},
        {"{\"type\":\"number\",\"minimum\":\"0\"}", "minimum must be a number"},
        {"{\"enum\":[]}", "enum must be a list of values"},
        {"{\"anyOf\":{}}", "anyOf must be a list of schemas"},
        {"{\"type\":\"object\",\"properties\":[]}", "properties must be an object"},
        {"{\"type\":\"object\",\"required\":\"a\"}", "required must be a list of names"},
        {"{\"$ref\":\"#/$defs/x\"}", "points at nothing"},
        {"{\"$ref\":\"http://example.org/x\"}", "$ref must point into this schema"},
    };
    (void)state;
    CHECK(cases);
}

static void schemas_that_no_value_fits_are_refused(void **state) {
    static const char *const cases[][2] = {
        {"false", "no value fits the schema"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "no value fits"},
        {"{\"type\":\"integer\",\"minimum\":8,\"maximum\":13,\"multipleOf\":7}", "no value fits"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "no value fits"},
        {"{\"type\":\"string\",\"pattern\":\"^(ab)*$\",\"minLength\":3,\"maxLength\":3}", "no value fits"},
        {"{\"type\":\"array\",\"items\":false,\"minItems\":1}", "no value fits"},
        {"{\"type\":\"string\",\"enum\":[1,2]}", "no value fits"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "no value fits"},
        {"{\"$ref\":\"#\"}", "a $ref leads to itself with nothing between"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "a $ref leads to itself"},
        {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
         "required names \"a\", which additionalProperties forbids"},
    };
    (void)state;
    CHECK(cases);
}

static void patterns_that_are_not_supported_say_why(void **state) {
    static const char *const cases[][2] = {
        {"{\"pattern\":\"(a)\\\\1\"}", "pattern has a back-reference"},
        {"{\"pattern\":\"(?=a)\"}", "a look-around"},
        {"{\"pattern\":\"\\\\bword\"}", "a \\b"},
        {"{\"pattern\":\"a$b\"}", "a $ that is not at the end"},
        {"{\"pattern\":\"a^\"}", "a ^ that is not at the beginning"},
        {"{\"pattern\":\"[z-a]\"}", "a range that runs backwards"},
        {"{\"pattern\":\"[a\"}", "a [ that is not closed"},
        {"{\"pattern\":\"(a\"}", "a ( that is not closed"},
        {"{\"pattern\":\"a)\"}", "a ) too many"},
        {"{\"pattern\":\"*a\"}", "a repetition of nothing"},
        {"{\"pattern\":\"\\\\p{L}\"}", "an unknown escape"},
        {"{\"pattern\":\"a{2000}\"}", "a repetition that is too long"},
        {"{\"pattern\":\"((a{100}){100}){100}\"}", "pattern is too large"},
        {"{\"properties\":{\"x\":{\"pattern\":\"\\\\\"}}}", "properties.x: pattern has a \\ at its end"},
    };
    (void)state;
    CHECK(cases);
}

/* Alternatives by the thousand, through references that multiply. */
static void schemas_that_grow_without_end_are_refused(void **state) {
    char schema[4096];
    size_t n = (size_t)snprintf(schema, sizeof schema, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{");
    words w;
    (void)state;
    for (int i = 0; i < 40; i++)
        n += (size_t)snprintf(schema + n, sizeof schema - n,
                              "\"d%d\":{\"anyOf\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]},",
                              i, i + 1, i + 1);
    snprintf(schema + n, sizeof schema - n, "\"d40\":false}}");
    words_open(&w, "gpt2");
    expect_refusal(&w, schema, "leads to itself");
    words_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keywords_that_are_not_supported_are_named),
        cmocka_unit_test(schemas_that_are_wrong_are_refused),
        cmocka_unit_test(schemas_that_no_value_fits_are_refused),
        cmocka_unit_test(patterns_that_are_not_supported_say_why),
        cmocka_unit_test(schemas_that_grow_without_end_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
