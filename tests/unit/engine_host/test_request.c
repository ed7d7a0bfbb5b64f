/* A ChatRequest becomes what the engine is asked: what is set is taken over, what is not keeps the engine's default. */
#include "worker/host/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    mr_arena *arena;
    mr_buf packed;
    mr_chat_message message;
    mr_chat_request chat;
    mr_frame_submit submit;
    engine_request out;
    mr_error err;
} fixture;

static int setup(void **state) {
    static fixture f;
    memset(&f, 0, sizeof f);
    f.arena = mr_arena_new(1 << 20);
    mr_buf_init(&f.packed, 1 << 20);
    MR_SET(&f.message, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&f.chat, MR_CHAT_REQUEST_V, v, 1);
    MR_SET(&f.chat, MR_CHAT_REQUEST_ID, id, MR_STR("req-1"));
    f.chat.messages.v = &f.message;
    f.chat.messages.n = 1;
    MR_MARK(&f.chat, MR_CHAT_REQUEST_MESSAGES);
    f.submit.id = 7;
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_arena_free(f->arena);
    mr_buf_done(&f->packed);
    return 0;
}

static int map(fixture *f) {
    mr_buf_clear(&f->packed);
    if (mr_pack(&mr_chat_request_def, &f->chat, &f->packed, &f->err)) fail_msg("%s", f->err.msg);
    f->submit.request = mr_buf_str(&f->packed);
    return mr_host_request(&f->submit, f->arena, &f->out, &f->err);
}

static void test_what_is_not_set_keeps_the_default(void **state) {
    fixture *f = *state;
    engine_sampling d;
    MR_SET(&f->message, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("hello"));
    assert_int_equal(map(f), 0);
    engine_sampling_default(&d);
    assert_int_equal(f->out.id, 7);
    assert_int_equal(f->out.nmessages, 1);
    assert_string_equal(f->out.messages[0].role, "user");
    assert_int_equal(f->out.messages[0].content_len, 5);
    assert_true(f->out.sampling.temperature == d.temperature && f->out.sampling.top_p == d.top_p);
    assert_int_equal(f->out.sampling.logprobs, -1);
    assert_int_equal(f->out.sampling.max_tokens, 0);
    uint64_t seed = f->out.sampling.seed;
    assert_int_equal(map(f), 0);
    assert_int_equal(f->out.sampling.seed, seed); /* again the same */
    f->chat.id = MR_STR("req-2");
    assert_int_equal(map(f), 0);
    assert_true(f->out.sampling.seed != seed);
}

static void test_sampling_is_taken_over(void **state) {
    fixture *f = *state;
    mr_sampling *s = &f->chat.sampling;
    mr_str stops[] = {MR_STR("END"), MR_STR(""), MR_STR("\n\n")};
    int64_t forced[] = {5, 6, INT64_C(1) << 40};
    MR_SET(&f->message, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("hello"));
    MR_SET(s, MR_SAMPLING_TEMPERATURE, temperature, 0);
    MR_SET(s, MR_SAMPLING_TOP_K, top_k, -1);
    MR_SET(s, MR_SAMPLING_SEED, seed, -3);
    MR_SET(s, MR_SAMPLING_LOGPROBS, logprobs, true);
    MR_SET(s, MR_SAMPLING_TOP_LOGPROBS, top_logprobs, 4);
    s->stop.v = stops;
    s->stop.n = 3;
    MR_MARK(s, MR_SAMPLING_STOP);
    MR_MARK(&f->chat, MR_CHAT_REQUEST_SAMPLING);
    f->submit.forced = (mr_i64s){forced, 3};
    assert_int_equal(map(f), 0);
    assert_true(f->out.sampling.temperature == 0);
    assert_int_equal(f->out.sampling.top_k, -1);
    assert_int_equal(f->out.sampling.seed, (uint64_t)-3);
    assert_int_equal(f->out.sampling.logprobs, 4);
    assert_int_equal(f->out.sampling.nstop, 2);
    assert_string_equal(f->out.sampling.stop[1], "\n\n");
    assert_int_equal(f->out.nforced, 3);
    assert_int_equal(f->out.forced[1], 6);
    assert_int_equal(f->out.forced[2], -1);
}

static void test_text_parts_are_joined_and_pictures_refused(void **state) {
    fixture *f = *state;
    mr_part parts[2] = {{0}};
    MR_SET(&parts[0], MR_PART_TYPE, type, MR_PART_IS_TEXT);
    MR_SET(&parts[0], MR_PART_TEXT, text, MR_STR("What is "));
    MR_SET(&parts[1], MR_PART_TYPE, type, MR_PART_IS_TEXT);
    MR_SET(&parts[1], MR_PART_TEXT, text, MR_STR("this?"));
    f->message.parts.v = parts;
    f->message.parts.n = 2;
    MR_MARK(&f->message, MR_CHAT_MESSAGE_PARTS);
    assert_int_equal(map(f), 0);
    assert_int_equal(f->out.messages[0].content_len, 13);
    assert_memory_equal(f->out.messages[0].content, "What is this?", 13);
    MR_SET(&parts[1], MR_PART_TYPE, type, MR_PART_IS_IMAGE);
    MR_UNSET(&parts[1], MR_PART_TEXT);
    MR_SET(&parts[1].image_url, MR_IMAGE_URL_URL, url, MR_STR("data:image/png;base64,AA=="));
    MR_MARK(&parts[1], MR_PART_IMAGE_URL);
    assert_int_equal(map(f), -1);
    assert_non_null(strstr(f->err.msg, "does not take images"));
}

static void test_garbage_is_refused(void **state) {
    fixture *f = *state;
    f->submit.request = MR_STR("\xc1garbage");
    assert_int_equal(mr_host_request(&f->submit, f->arena, &f->out, &f->err), -1);
    assert_true(f->err.msg[0] != 0);
}

static void test_a_response_format_is_the_engines(void **state) {
    fixture *f = *state;
    MR_SET(&f->message, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("hello"));
    assert_int_equal(map(f), 0);
    assert_false(f->out.format.json);
    assert_null(f->out.format.schema);
    MR_SET(&f->chat.response_format, MR_RESPONSE_FORMAT_TYPE, type, MR_FORMAT_JSON_OBJECT);
    MR_MARK(&f->chat, MR_CHAT_REQUEST_RESPONSE_FORMAT);
    assert_int_equal(map(f), 0);
    assert_true(f->out.format.json);
    MR_SET(&f->chat.response_format, MR_RESPONSE_FORMAT_TYPE, type, MR_FORMAT_JSON_SCHEMA);
    MR_SET(&f->chat.response_format, MR_RESPONSE_FORMAT_SCHEMA, schema, MR_STR("{}"));
    assert_int_equal(map(f), 0);
    assert_false(f->out.format.json);
    assert_int_equal(f->out.format.schema_len, 2);
    assert_memory_equal(f->out.format.schema, "{}", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_response_format_is_the_engines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_set_keeps_the_default, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sampling_is_taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_parts_are_joined_and_pictures_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
