/* Structured output beside what else an answer can be: reasoning before it, several choices, guessed tokens. The model is a fake
 * of one token a byte, which wants to say something else. */
#include "tests/unit/engine_sched/fake.h"

#include "tests/unit/engine_sched/cmocka_all.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS = 64, CHOICES = 3, TEXT_MAX = 512, SCRIPT_MAX = 128, THINK_END = 258 };

static const char schema[] =
    "{\"type\":\"object\",\"properties\":{\"kind\":{\"enum\":[\"mill\",\"river\"]},\"turns\":"
    "{\"type\":\"integer\",\"minimum\":100,\"maximum\":999}},\"required\":[\"kind\",\"turns\"],"
    "\"additionalProperties\":false}";

typedef struct seen {
    char reasoning[TEXT_MAX], content[CHOICES][TEXT_MAX];
    int whole;
} seen;

static int submit(engine *e, int n) {
    static const engine_message hello = {.role = "user", .content = "go", .content_len = 2};
    engine_request r = {.id = 1, .messages = &hello, .nmessages = 1, .n = n};
    engine_error err;
    engine_sampling_default(&r.sampling);
    r.sampling.seed = 5;
    r.sampling.min_tokens = 200; /* which a format does not wait for */
    r.format = (engine_format){.schema = schema, .schema_len = sizeof schema - 1};
    return engine_submit(e, &r, &err);
}

static void collect(engine *e, seen *s) {
    static engine_event ev[EVENTS];
    engine_error err;
    memset(s, 0, sizeof *s);
    while (engine_busy(e)) {
        int n = engine_step(e, ev, EVENTS, &err);
        assert_true(n >= 0);
        for (int i = 0; i < n; i++) {
            char *to = ev[i].channel == ENGINE_REASONING ? s->reasoning : s->content[ev[i].choice];
            strncat(to, ev[i].text, ev[i].text_len);
            s->whole += ev[i].kind == ENGINE_END && ev[i].finish == ENGINE_FINISH_STOP;
        }
    }
}

static void check_content(const char *content) {
    json_t *v = json_loads(content, 0, NULL);
    if (!v) fail_msg("this is no JSON: %s", content);
    assert_int_equal(json_object_size(v), 2);
    assert_in_range(json_integer_value(json_object_get(v, "turns")), 100, 999);
    json_decref(v);
}

/* The fake says the script, and its own mind where the script is not allowed. */
static int write_script(int32_t *script, const char *before, const int32_t *tag, int ntag,
                        const char *after) {
    int n = 0;
    for (; *before; before++) script[n++] = (unsigned char)*before;
    for (int i = 0; i < ntag; i++) script[n++] = tag[i];
    for (; *after; after++) script[n++] = (unsigned char)*after;
    return n;
}

static void reasoning_is_free_and_the_content_after_it_is_not(void **state) {
    static const int32_t one_token[] = {THINK_END}, spelled[] = {'<', '/', 't', 'h', 'i', 'n', 'k', '>'};
    (void)state;
    for (int k = 0; k < 2; k++) {
        static int32_t script[SCRIPT_MAX];
        fake f = {.opens_thinking = true, .script = script, .script_at = 2};
        f.nscript =
            write_script(script, "not {json} yet", k ? spelled : one_token, k ? 8 : 1, "\n\nSorry, no");
        engine *e = fake_open(&f, NULL);
        seen s;
        assert_int_equal(submit(e, 1), 0);
        collect(e, &s);
        assert_string_equal(s.reasoning, "not {json} yet");
        check_content(s.content[0]);
        assert_int_equal(s.whole, 1);
        engine_close(e);
        fake_done(&f);
    }
}

static void each_choice_is_held_to_the_schema(void **state) {
    fake f = {0};
    engine *e = fake_open(&f, NULL);
    seen s;
    (void)state;
    assert_int_equal(submit(e, CHOICES), 0);
    collect(e, &s);
    assert_int_equal(s.whole, CHOICES);
    for (int i = 0; i < CHOICES; i++) check_content(s.content[i]);
    assert_string_not_equal(s.content[0], s.content[1]);
    engine_close(e);
    fake_done(&f);
}

static void guessed_tokens_change_nothing(void **state) {
    seen with, without;
    (void)state;
    for (int guess = 0; guess <= 8; guess += 8) {
        fake f = {.period = 6};
        engine_limits l = {.guess_tokens = guess};
        engine *e = fake_open(&f, &l);
        assert_int_equal(submit(e, 1), 0);
        collect(e, guess ? &with : &without);
        engine_close(e);
        fake_done(&f);
    }
    check_content(with.content[0]);
    assert_string_equal(with.content[0], without.content[0]);
}

int main(int argc, char **argv) {
    fake_be(argc > 1 ? argv[1] : "");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasoning_is_free_and_the_content_after_it_is_not),
        cmocka_unit_test(each_choice_is_held_to_the_schema),
        cmocka_unit_test(guessed_tokens_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
