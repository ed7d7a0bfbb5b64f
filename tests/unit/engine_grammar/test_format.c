/* The engine with a checkpoint that knows nothing (random weights): its answers are JSON of the schema all the same, greedy or
 * drawn, alone or in a batch. */
#include "grammar_test.h"

#include "engine/engine.h"
#include "validator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "tests/golden/models/llama_gqa_f32"

enum { VARIANTS = 3, TOKENS_MAX = 160, ANSWER_MAX = TOKENS_MAX * 64, EVENTS = 256 };

typedef struct answer_seen {
    char text[ANSWER_MAX];
    size_t n;
    engine_finish finish;
    bool ended;
} answer_seen;

static engine *open_engine(void) {
    engine_options o = {.model_dir = MODEL, .threads = 1, .max_seqs = 16, .max_waiting = 1024};
    engine_error err;
    engine *e = engine_open(&o, &err);
    if (!e) fail_msg("%s", err.msg);
    return e;
}

static int submit(engine *e, uint64_t id, const engine_format *f, int variant, int max_tokens,
                  engine_error *err) {
    static const engine_message hello = {.role = "user", .content = "Hello", .content_len = 5};
    engine_request r = {.id = id, .messages = &hello, .nmessages = 1, .format = *f};
    engine_sampling_default(&r.sampling);
    r.sampling.temperature = variant ? 1 : 0;
    r.sampling.seed = (uint64_t)variant;
    r.sampling.max_tokens = max_tokens;
    return engine_submit(e, &r, err);
}

/* Answers are numbered by their ids. */
static void run(engine *e, answer_seen *answers) {
    static engine_event ev[EVENTS];
    engine_error err;
    while (engine_busy(e)) {
        int n = engine_step(e, ev, EVENTS, &err);
        if (n < 0) fail_msg("%s", err.msg);
        for (int i = 0; i < n; i++) {
            answer_seen *a = &answers[ev[i].id];
            assert_true(a->n + ev[i].text_len < ANSWER_MAX);
            assert_int_equal(ev[i].channel, ENGINE_CONTENT);
            memcpy(a->text + a->n, ev[i].text, ev[i].text_len);
            a->n += ev[i].text_len;
            if (ev[i].kind != ENGINE_END) continue;
            if (ev[i].error) fail_msg("%s", ev[i].error);
            a->finish = ev[i].finish;
            a->ended = true;
        }
    }
}

/* One that was cut off is the beginning of a value. */
static void check(const char *name, const json_t *schema, const answer_seen *a) {
    assert_true(a->ended);
    if (a->finish == ENGINE_FINISH_LENGTH) return;
    assert_int_equal(a->finish, ENGINE_FINISH_STOP);
    json_error_t why;
    json_t *value = json_loadb(a->text, a->n, JSON_DECODE_ANY, &why);
    if (!value) fail_msg("%s: %.*s is no JSON: %s", name, (int)a->n, a->text, why.text);
    if (!is_valid(schema, value, schema)) fail_msg("%s: %.*s does not fit", name, (int)a->n, a->text);
    json_decref(value);
}

static void answers_of_a_model_of_random_weights_fit_their_schema(void **state) {
    json_t *cases = read_cases(), *one;
    size_t n = json_array_size(cases), i;
    answer_seen *answers = calloc(n * VARIANTS, sizeof *answers);
    engine *e = open_engine();
    engine_error err;
    int whole = 0;
    (void)state;
    json_array_foreach(cases, i, one) {
        char *schema = json_dumps(json_object_get(one, "schema"), JSON_ENCODE_ANY);
        engine_format f = {.schema = schema, .schema_len = strlen(schema)};
        for (int k = 0; k < VARIANTS; k++) {
            if (submit(e, i * VARIANTS + (size_t)k, &f, k, TOKENS_MAX, &err)) fail_msg("%s", err.msg);
        }
        free(schema);
    }
    run(e, answers);
    json_array_foreach(cases, i, one) {
        for (int k = 0; k < VARIANTS; k++) {
            const answer_seen *a = &answers[i * VARIANTS + (size_t)k];
            check(json_string_value(json_object_get(one, "name")), json_object_get(one, "schema"), a);
            whole += a->finish == ENGINE_FINISH_STOP;
        }
    }
    /* without words a model rambles in strings that have no limit, but most schemas have one */
    if (whole < (int)n * VARIANTS / 2) fail_msg("only %d of %zu answers are whole", whole, n * VARIANTS);
    engine_close(e);
    free(answers);
    json_decref(cases);
}

static void an_answer_is_the_same_alone_and_beside_others(void **state) {
    static const char schema[] =
        "{\"type\":\"array\",\"minItems\":4,\"maxItems\":4,\"items\":{\"type\":\"integer\","
        "\"minimum\":0,\"maximum\":9999}}";
    engine_format f = {.schema = schema, .schema_len = sizeof schema - 1}, any = {.json = true};
    static answer_seen answers[8], alone[1];
    engine_error err;
    engine *e = open_engine();
    (void)state;
    for (uint64_t id = 0; id < 8; id++)
        assert_int_equal(submit(e, id, id % 2 ? &any : &f, id % 2 ? 5 : 9, 60, &err), 0);
    run(e, answers);
    assert_int_equal(submit(e, 0, &f, 9, 60, &err), 0);
    run(e, alone);
    assert_int_equal(alone[0].finish, ENGINE_FINISH_STOP);
    for (int id = 0; id < 8; id += 2) {
        assert_int_equal(answers[id].n, alone[0].n);
        assert_memory_equal(answers[id].text, alone[0].text, alone[0].n);
    }
    engine_close(e);
}

static void any_object_is_an_object(void **state) {
    engine_format f = {.json = true};
    static answer_seen answers[12];
    engine_error err;
    engine *e = open_engine();
    int whole = 0;
    (void)state;
    for (int k = 0; k < 12; k++) assert_int_equal(submit(e, (uint64_t)k, &f, k, 400, &err), 0);
    run(e, answers);
    json_t *schema = json_pack("{s:s}", "type", "object");
    for (int k = 0; k < 12; k++) {
        check("any object", schema, &answers[k]);
        whole += answers[k].finish == ENGINE_FINISH_STOP;
    }
    assert_true(whole > 0);
    json_decref(schema);
    engine_close(e);
}

/* The engine host replays an answer's first tokens in a new engine: it must go on as if nothing had happened. */
static void an_answer_goes_on_from_forced_tokens(void **state) {
    static const char schema[] =
        "{\"type\":\"array\",\"minItems\":6,\"maxItems\":6,\"items\":{\"enum\":[\"left\",\"right\"]}}";
    static const engine_message hello = {.role = "user", .content = "Hello", .content_len = 5};
    engine_request r = {.id = 1,
                        .messages = &hello,
                        .nmessages = 1,
                        .format = {.schema = schema, .schema_len = sizeof schema - 1}};
    static engine_event ev[EVENTS];
    int32_t tokens[256];
    int n = 0, again = 0;
    engine_error err;
    engine *e = open_engine();
    (void)state;
    engine_sampling_default(&r.sampling);
    r.sampling.seed = 4;
    assert_int_equal(engine_submit(e, &r, &err), 0);
    while (engine_busy(e)) {
        int count = engine_step(e, ev, EVENTS, &err);
        for (int i = 0; i < count; i++)
            if (ev[i].kind == ENGINE_TOKENS) tokens[n++] = ev[i].token;
    }
    assert_in_range(n, 10, 200);
    r.forced = tokens;
    r.nforced = again = n / 2;
    assert_int_equal(engine_submit(e, &r, &err), 0);
    while (engine_busy(e)) {
        int count = engine_step(e, ev, EVENTS, &err);
        for (int i = 0; i < count; i++)
            if (ev[i].kind == ENGINE_TOKENS) assert_int_equal(ev[i].token, tokens[again++]);
    }
    assert_int_equal(again, n);
    tokens[1] = tokens[0];
    assert_int_equal(engine_submit(e, &r, &err), -1);
    assert_non_null(strstr(err.msg, "forced tokens are not of the response format"));
    engine_close(e);
}

static void a_schema_that_cannot_be_kept_is_the_users_error(void **state) {
    static const char schema[] = "{\"type\":\"array\",\"uniqueItems\":true}";
    engine_format f = {.schema = schema, .schema_len = sizeof schema - 1}, any = {.json = true};
    static answer_seen answers[2];
    engine_error err;
    engine *e = open_engine();
    (void)state;
    assert_int_equal(submit(e, 0, &f, 1, 20, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    assert_non_null(strstr(err.msg, "uniqueItems is not supported"));
    assert_int_equal(submit(e, 1, &any, 1, 20, &err), 0);
    run(e, answers);
    assert_true(answers[1].ended);
    engine_close(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_of_a_model_of_random_weights_fit_their_schema),
        cmocka_unit_test(an_answer_is_the_same_alone_and_beside_others),
        cmocka_unit_test(any_object_is_an_object),
        cmocka_unit_test(an_answer_goes_on_from_forced_tokens),
        cmocka_unit_test(a_schema_that_cannot_be_kept_is_the_users_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
