/* What is refused, in which words: the same for JSON and msgpack, and for a message built in C. */
#include "helpers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]"
#define ASKED    "{\"v\":1,\"id\":\"a\"," MESSAGES

static mr_arena *arena;
static uint64_t message[256];

static int open_arena(void **state) {
    (void)state;
    arena = mr_arena_new(16 << 20);
    return arena ? 0 : -1;
}

static int close_arena(void **state) {
    (void)state;
    mr_arena_free(arena);
    return 0;
}

static void assert_error(const mr_error *err, int rc, const char *input, const char *expected) {
    if (rc == 0) fail_msg("accepted: %.300s", input);
    assert_true(mr_str_is_utf8(mr_str_of(err->msg)));
    if (!strstr(err->msg, expected)) fail_msg("%.300s\ngives  '%s'\ninstead '%s'", input, err->msg, expected);
}

static void refuse_json(const char *name, const char *json, const char *expected) {
    mr_error err;
    mr_arena_reset(arena);
    assert_true(find_message(name)->size <= sizeof(message));
    assert_error(&err, mr_decode(find_message(name), mr_str_of(json), MR_STR(""), arena, message, &err), json,
                 expected);
}

static void refuse(const char *name, const char *json, const char *expected) {
    mr_error err;
    refuse_json(name, json, expected);
    mr_buf b = pack_json(json);
    assert_error(&err, mr_unpack(find_message(name), mr_buf_str(&b), arena, message, &err), json, expected);
    mr_buf_done(&b);
}

static void refuse_bytes(const char *name, const char *bytes, size_t n, const char *expected) {
    mr_error err;
    mr_arena_reset(arena);
    assert_error(&err, mr_unpack(find_message(name), (mr_str){bytes, n}, arena, message, &err), "msgpack",
                 expected);
}
#define REFUSE_BYTES(name, bytes, expected) refuse_bytes(name, bytes, sizeof(bytes) - 1, expected)

/* `before`, n times `item` with commas, `after`; freed by the caller. */
static char *repeat(const char *before, const char *item, int n, const char *after) {
    mr_buf b;
    mr_buf_init(&b, 64 << 20);
    mr_buf_puts(&b, before);
    for (int i = 0; i < n; i++) mr_buf_printf(&b, "%s%s", i > 0 ? "," : "", item);
    mr_buf_puts(&b, after);
    mr_buf_put(&b, "", 1);
    assert_false(b.failed);
    return b.p;
}

static char *long_text(const char *before, size_t n, const char *after) {
    char *text = calloc(1, strlen(before) + n + strlen(after) + 1);
    assert_non_null(text);
    strcpy(text, before);
    memset(text + strlen(before), 'x', n);
    strcat(text, after);
    return text;
}

static void refuse_and_free(const char *name, char *json, const char *expected) {
    refuse(name, json, expected);
    free(json);
}

/* ---- the table's rules ---- */

static void a_required_field_must_be_there(void **state) {
    (void)state;
    refuse("ChatRequest", "{}", "v: is missing");
    refuse("ChatRequest", "{\"v\":1," MESSAGES "}", "id: is missing");
    refuse("ChatRequest", "{\"v\":1,\"id\":\"a\"}", "messages: is missing");
    refuse("ChatRequest", "{\"v\":1,\"id\":null," MESSAGES "}", "id: is missing");
    refuse("ChatRequest", "{\"v\":1,\"id\":\"a\",\"messages\":[{\"content\":\"q\"}]}",
           "messages[0].role: is missing");
    refuse("ResponseEnd",
           "{\"v\":1,\"request\":\"a\",\"tokens\":0,\"offset\":0,\"hash\":\"cbf29ce484222325\","
           "\"finish_reason\":\"error\",\"error\":{\"status\":500,\"type\":\"x\"}}",
           "error.message: is missing");
}

static void a_type_must_fit(void **state) {
    (void)state;
    refuse("ChatRequest", "{\"v\":\"1\"}", "v: expected an integer, found a string");
    refuse("ChatRequest", "{\"v\":1,\"id\":true}", "id: expected a string, found a boolean");
    refuse("ChatRequest", "{\"v\":1,\"messages\":{}}",
           "messages: expected a list of ChatMessage, found an object");
    refuse("ChatRequest", "{\"v\":1,\"messages\":[5]}",
           "messages[0]: expected an object (ChatMessage), found an integer");
    refuse("ChatRequest", "{\"v\":1,\"messages\":[{\"role\":\"user\",\"content\":7}]}",
           "messages[0].content: expected a string or a list of Part, found an integer");
    refuse("ChatRequest", ASKED ",\"stream\":\"yes\"}", "stream: expected a boolean, found a string");
    refuse("ChatRequest", ASKED ",\"sampling\":[]}", "sampling: expected an object (Sampling), found a list");
    refuse("ChatRequest", ASKED ",\"sampling\":{\"temperature\":\"hot\"}}",
           "sampling.temperature: expected a number, found a string");
    refuse("ChatRequest", ASKED ",\"sampling\":{\"top_k\":1.5}}",
           "sampling.top_k: expected an integer, found a number");
    refuse("ChatRequest", ASKED ",\"sampling\":{\"stop\":\"x\"}}",
           "sampling.stop: expected a list of strings, found a string");
    refuse("ChatRequest", ASKED ",\"sampling\":{\"stop\":[1]}}",
           "sampling.stop[0]: expected a string, found an integer");
    refuse_json("ChatRequest", "[]", "neither a msgpack map nor a JSON object");
    REFUSE_BYTES("Sampling", "\x81\xa4seed\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                 "seed: expected an integer, found an integer past 64 bits");
    REFUSE_BYTES("Sampling", "\x81\xa4seed\xd4\x01\x00",
                 "seed: expected an integer, found an extension type");
    REFUSE_BYTES("Dead", "\x82\xa1v\x01\xa6record\xa1x", "record: expected bytes, found a string");
}

static void a_number_must_be_in_its_range(void **state) {
    (void)state;
    refuse("ChatRequest", "{\"v\":0}", "v: 0 is out of range, expected an integer from 1 to 1000000");
    refuse("ChatRequest", ASKED ",\"reply_to\":-1}",
           "reply_to: -1 is out of range, expected an integer from 0 to 100000");
    refuse("Sampling", "{\"temperature\":2.5}",
           "temperature: 2.5 is out of range, expected a number from 0 to 2");
    refuse("Sampling", "{\"presence_penalty\":-3}",
           "presence_penalty: -3 is out of range, expected a number from -2 to 2");
    refuse("Sampling", "{\"top_logprobs\":21}",
           "top_logprobs: 21 is out of range, expected an integer from 0 to 20");
    refuse("Sampling", "{\"max_tokens\":0}",
           "max_tokens: 0 is out of range, expected an integer from 1 to 10000000");
    refuse("Sampling", "{\"seed\":1e30}", "seed: expected an integer");
    REFUSE_BYTES("Sampling", "\x81\xa5min_p\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
                 "min_p: nan is out of range");
    REFUSE_BYTES("Sampling", "\x81\xa5min_p\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
                 "min_p: inf is out of range");
    REFUSE_BYTES("Sampling", "\x81\xa5min_p\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                 "min_p: 1.84467e+19 is out of range");
}

static void a_size_must_be_in_its_limits(void **state) {
    (void)state;
    refuse("ChatRequest", "{\"v\":1,\"id\":\"\"}", "id: must not be empty");
    refuse_and_free("ChatRequest", long_text("{\"v\":1,\"id\":\"", 129, "\"}"),
                    "id: 129 bytes is too long, at most 128 are allowed");
    refuse("ResponseDelta", "{\"v\":1,\"hash\":\"abc\"}", "hash: 3 bytes is too short, at least 16 needed");
    refuse("ChatRequest", "{\"v\":1,\"messages\":[]}", "messages: 0 entries are too few, at least 1 needed");
    refuse_and_free("ChatRequest", repeat("{\"v\":1,\"messages\":[", "{}", 4097, "]}"),
                    "messages: 4097 entries are too many, at most 4096 are allowed");
    refuse_and_free("Sampling", repeat("{\"stop\":[", "\"x\"", 17, "]}"),
                    "stop: 17 entries are too many, at most 16 are allowed");
    refuse_and_free("Sampling", long_text("{\"stop\":[\"x\",\"", 257, "\"]}"),
                    "stop[1]: 257 bytes is too long, at most 256 are allowed");
    refuse_and_free("Feedback", long_text("{\"v\":1,\"comment\":\"", 4001, "\"}"),
                    "comment: 4001 bytes is too long, at most 4000 are allowed");
}

static void an_enum_takes_its_names_only(void **state) {
    (void)state;
    refuse("ChatMessage", "{\"role\":\"User\"}",
           "role: unknown value, expected one of system, user, assistant, developer, tool");
    refuse("ChatRequest", ASKED ",\"purpose\":\"\"}",
           "purpose: unknown value, expected one of chat, title, summary");
    refuse("ChatRequest", ASKED ",\"purpose\":1}", "purpose: expected a string, found an integer");
}

static void text_must_be_utf8(void **state) {
    (void)state;
    REFUSE_BYTES("Feedback", "\x82\xa1v\x01\xa7request\xa2\xc3(", "request: is not valid UTF-8");
    REFUSE_BYTES("Feedback", "\x82\xa1v\x01\xa7request\xa3\xed\xa0\x80",
                 "request: is not valid UTF-8"); /* a surrogate */
    refuse_json("Feedback", "{\"v\":1,\"request\":\"\xc3(\"}", "invalid JSON at line 1");
}

static void bytes_in_json_must_be_base64(void **state) {
    (void)state;
    static const char *const bad[] = {"Zg", "Zg=", "Z===", "Zg==Zg==", "Z g=", "====", "Zm9v\\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char json[100];
        snprintf(json, sizeof(json), "{\"v\":1,\"record\":\"%s\"}", bad[i]);
        refuse_json("Dead", json, "record: is not valid base64");
    }
}

static void a_field_may_be_there_once(void **state) {
    (void)state;
    REFUSE_BYTES("Sampling", "\x82\xa4seed\x01\xa4seed\x02", "seed: is given twice");
    REFUSE_BYTES("ChatMessage",
                 "\x82\xa7"
                 "content\xa1x\xa7"
                 "content\x91\x82\xa4type\xa4text\xa4text\xa1y",
                 "content: is given twice");
    refuse_json("Sampling", "{\"seed\":1,\"seed\":2}", "duplicate object key");
}

static void a_newer_version_says_so_before_anything_else(void **state) {
    (void)state;
    static const char says[] =
        "version 2 of ChatRequest is newer than this program, which knows 1: upgrade it";
    refuse("ChatRequest", "{\"v\":2}", says);
    refuse("ChatRequest", "{\"messages\":\"in a form of tomorrow\",\"v\":2}", says);
}

/* ---- rules between fields ---- */

static void members_must_fit_each_other(void **state) {
    (void)state;
    refuse("ChatRequest", "{\"v\":1,\"id\":\"a b\"," MESSAGES "}",
           "`id` must be printable ASCII without spaces");
    refuse("ChatRequest", "{\"v\":1,\"id\":\"a\",\"messages\":[{\"role\":\"user\"}]}",
           "messages[0]: a message needs `content`");
    refuse("ChatRequest",
           "{\"v\":1,\"id\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
           "messages[0].content[0]: a part of type text needs `text`");
    refuse("Part", "{\"type\":\"image_url\",\"text\":\"x\"}", "a part of type image_url needs `image_url`");
    refuse("ResponseDelta",
           "{\"v\":1,\"request\":\"a\",\"index\":0,\"tokens\":1,\"offset\":0,\"channel\":\"content\","
           "\"text\":\"x\",\"hash\":\"CBF29CE484222325\"}",
           "`hash` must be 16 hexadecimal digits in lower case");
    refuse("ResponseEnd",
           "{\"v\":1,\"request\":\"a\",\"tokens\":1,\"offset\":0,\"hash\":\"cbf29ce484222325\","
           "\"finish_reason\":\"error\"}",
           "`error` must be there exactly when `finish_reason` is error");
    refuse("Control", "{\"v\":1,\"kind\":\"cancel\"}", "a cancel needs `request`");
    refuse("Control", "{\"v\":1,\"kind\":\"weights\",\"pool\":\"p\",\"blue\":0}",
           "weights need `pool`, and a `blue` or `green`");
}

/* ---- hostile input ---- */

static void broken_input_is_one_clear_error(void **state) {
    (void)state;
    REFUSE_BYTES("Sampling", "", "the message is empty");
    REFUSE_BYTES("Sampling", "\x93", "neither a msgpack map nor a JSON object");
    REFUSE_BYTES("Sampling", "\x80\x80", "1 bytes after the end of the message");
    REFUSE_BYTES("Sampling", "\x81\xa1x\xc1", "not msgpack, or cut short, at byte");
    REFUSE_BYTES("Sampling", "\x81\xa1x\xdd\xff\xff\xff\xff",
                 "not msgpack, or cut short, at byte"); /* 2^32 - 1 entries */
    REFUSE_BYTES("Sampling", "\x81\xa1x\xdb\xff\xff\xff\xff", "not msgpack, or cut short, at byte");
    refuse_json("Sampling", "{\"seed\":", "invalid JSON at line 1, column 8");
    refuse_json("Sampling", "{} {}", "invalid JSON at line 1");
    refuse_json("Sampling", "{\"x\":\"\\水\"}", "invalid escape near");
}

static void every_cut_of_a_message_is_an_error(void **state) {
    mr_error err;
    (void)state;
    mr_buf hex = read_file("tests/golden/schemas/ChatRequest.hex"), bytes = from_hex(hex.p);
    for (size_t n = 0; n < bytes.n; n++) {
        mr_arena_reset(arena);
        assert_int_equal(mr_unpack(&mr_chat_request_def, (mr_str){bytes.p, n}, arena, message, &err), -1);
    }
    mr_buf_done(&hex);
    mr_buf_done(&bytes);
}

static void nesting_is_limited(void **state) {
    char bytes[300] = "\x81\xa1x";
    mr_error err;
    (void)state;
    memset(bytes + 3, '\x91', 200);
    bytes[3 + 15] = '\x90';
    assert_int_equal(mr_unpack(&mr_sampling_def, (mr_str){bytes, 3 + 16}, arena, message, &err), 0);
    bytes[3 + 15] = '\x91';
    bytes[3 + 200] = '\x90';
    refuse_bytes("Sampling", bytes, 3 + 201, "nested more than 16 levels deep");
}

static void the_number_of_values_is_limited(void **state) {
    (void)state;
    enum { VALUES = 1100000 };
    char *bytes = calloc(1, VALUES + 8);
    assert_non_null(bytes);
    memcpy(bytes, "\x81\xa1x\xdd\x00\x10\xc8\xe0", 8); /* 0x10c8e0 = 1100000 entries, each the integer 0 */
    refuse_bytes("Sampling", bytes, VALUES + 8, "more than 1048576 values in one message");
    free(bytes);
}

static void a_full_arena_is_an_error(void **state) {
    mr_error err;
    (void)state;
    mr_arena *small = mr_arena_new(4096);
    char *json = long_text("{\"v\":1,\"request\":\"a\",\"rating\":0,\"comment\":\"", 4000, "\"}");
    mr_str in = mr_str_of(json);
    int rc = 0;
    while (rc == 0) rc = mr_decode(&mr_feedback_def, in, MR_STR(""), small, message, &err);
    assert_error(&err, rc, json, "the message needs more memory than is set aside for one");
    mr_arena_free(small);
    free(json);
}

/* ---- built in C ---- */

static void refuse_built(const mr_message_def *def, const void *msg, const char *expected) {
    mr_error err;
    mr_buf b;
    mr_buf_init(&b, 1 << 16);
    assert_error(&err, mr_pack(def, msg, &b, &err), "built in C", expected);
    assert_int_equal(b.n, 0);
    assert_null(mr_to_json(def, msg, &err));
    assert_error(&err, -1, "built in C", expected);
    mr_buf_done(&b);
}

static void nothing_is_written_that_a_reader_would_refuse(void **state) {
    mr_str stops[] = {MR_STR("ok"), {"\xff", 1}};
    mr_sampling s = {0};
    mr_feedback f = {0};
    mr_chat_message m = {0};
    (void)state;
    refuse_built(&mr_feedback_def, &f, "v: is missing");
    MR_SET(&s, MR_SAMPLING_TEMPERATURE, temperature, NAN);
    refuse_built(&mr_sampling_def, &s, "temperature: nan is out of range");
    s = (mr_sampling){0};
    s.stop = (mr_strs){stops, 2};
    MR_MARK(&s, MR_SAMPLING_STOP);
    refuse_built(&mr_sampling_def, &s, "stop[1]: is not valid UTF-8");
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, 17);
    refuse_built(&mr_chat_message_def, &m, "role: 17 is no value of this field");
    MR_SET(&m, MR_CHAT_MESSAGE_ROLE, role, MR_ROLE_USER);
    MR_SET(&m, MR_CHAT_MESSAGE_CONTENT, content, MR_STR("x"));
    MR_MARK(&m, MR_CHAT_MESSAGE_PARTS);
    refuse_built(&mr_chat_message_def, &m, "content: is given twice, in two forms");
}

static void a_buffer_that_is_too_small_is_an_error(void **state) {
    mr_error err;
    mr_buf b;
    mr_sampling s = {0};
    (void)state;
    MR_SET(&s, MR_SAMPLING_SEED, seed, 1);
    mr_buf_init(&b, 4);
    assert_error(&err, mr_pack(&mr_sampling_def, &s, &b, &err), "Sampling",
                 "larger than the 4 bytes that a record may have");
    assert_int_equal(err.code, MR_ETOOBIG);
    mr_buf_done(&b);
}

static void a_request_id_is_plain(void **state) {
    (void)state;
    assert_true(mr_id_ok(MR_STR("chatcmpl-~!7")));
    assert_false(mr_id_ok(MR_STR("")));
    assert_false(mr_id_ok(MR_STR("a\n")));
    assert_false(mr_id_ok(MR_STR("\xe6\xb0\xb4")));
    assert_false(mr_id_ok(MR_STR("a\x7f")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_required_field_must_be_there),
        cmocka_unit_test(a_type_must_fit),
        cmocka_unit_test(a_number_must_be_in_its_range),
        cmocka_unit_test(a_size_must_be_in_its_limits),
        cmocka_unit_test(an_enum_takes_its_names_only),
        cmocka_unit_test(text_must_be_utf8),
        cmocka_unit_test(bytes_in_json_must_be_base64),
        cmocka_unit_test(a_field_may_be_there_once),
        cmocka_unit_test(a_newer_version_says_so_before_anything_else),
        cmocka_unit_test(members_must_fit_each_other),
        cmocka_unit_test(broken_input_is_one_clear_error),
        cmocka_unit_test(every_cut_of_a_message_is_an_error),
        cmocka_unit_test(nesting_is_limited),
        cmocka_unit_test(the_number_of_values_is_limited),
        cmocka_unit_test(a_full_arena_is_an_error),
        cmocka_unit_test(nothing_is_written_that_a_reader_would_refuse),
        cmocka_unit_test(a_buffer_that_is_too_small_is_an_error),
        cmocka_unit_test(a_request_id_is_plain),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
