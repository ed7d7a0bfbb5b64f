/* Messages in both formats: what another language packed is read and written byte for byte, and nothing is lost between
 * msgpack, C and JSON. The goldens come from tests/golden/make_schemas.py. */
#include "helpers.h"
#include "schemas/hash.h"
#include "schemas/sender.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const examples[] = {"ChatRequest",     "ChatRequest.short",
                                       "ResponseDelta",   "ResponseDelta.call",
                                       "ResponseEnd",     "ResponseEnd.error",
                                       "Control",         "Control.cancel",
                                       "Control.rollout", "Control.drain",
                                       "WorkerStatus",    "PoolStatus",
                                       "Feedback",        "Dead",
                                       "Audit"};

typedef struct fixture {
    mr_arena *arena;
    mr_error err;
    union {
        mr_chat_request request;
        mr_response_delta delta;
        mr_response_end end;
        mr_control control;
        mr_feedback feedback;
        mr_dead dead;
        mr_worker_status worker_status;
        mr_pool_status pool_status;
        mr_sampling sampling;
    } msg;
} fixture;

static int open_fixture(void **state) {
    fixture *f = calloc(1, sizeof(*f));
    if (f) f->arena = mr_arena_new(16 << 20);
    *state = f;
    return f && f->arena ? 0 : -1;
}

static int close_fixture(void **state) {
    mr_arena_free(((fixture *)*state)->arena);
    free(*state);
    return 0;
}

static const mr_message_def *message_of(const char *example) {
    char name[40];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(example, "."), example);
    return find_message(name);
}

static mr_buf example_json(const char *example) {
    char path[200];
    snprintf(path, sizeof(path), "schemas/examples/%s.json", example);
    return read_file(path);
}

static mr_buf golden(const char *example) {
    char path[200];
    snprintf(path, sizeof(path), "tests/golden/schemas/%s.hex", example);
    mr_buf hex = read_file(path), bytes = from_hex(hex.p);
    mr_buf_done(&hex);
    return bytes;
}

static void must(fixture *f, int rc) {
    if (rc != 0) fail_msg("%s", f->err.msg);
}

static void assert_packs_to(fixture *f, const mr_message_def *def, mr_str expected) {
    mr_buf packed;
    mr_buf_init(&packed, 1 << 20);
    must(f, mr_pack(def, &f->msg, &packed, &f->err));
    assert_int_equal(packed.n, expected.n);
    assert_memory_equal(packed.p, expected.p, expected.n);
    mr_buf_done(&packed);
}

/* ---- goldens ---- */

static void msgpack_of_another_language_is_read_and_written_byte_for_byte(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        const mr_message_def *def = message_of(examples[i]);
        mr_buf bytes = golden(examples[i]);
        must(f, mr_unpack(def, mr_buf_str(&bytes), f->arena, &f->msg, &f->err));
        assert_packs_to(f, def, mr_buf_str(&bytes));
        mr_buf_done(&bytes);
    }
}

static void json_becomes_the_same_msgpack(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        const mr_message_def *def = message_of(examples[i]);
        mr_buf bytes = golden(examples[i]), json = example_json(examples[i]);
        must(f, mr_decode(def, mr_buf_str(&json), MR_STR(""), f->arena, &f->msg, &f->err));
        assert_packs_to(f, def, mr_buf_str(&bytes));
        mr_buf_done(&bytes);
        mr_buf_done(&json);
    }
}

static void msgpack_becomes_the_same_json(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        const mr_message_def *def = message_of(examples[i]);
        mr_buf bytes = golden(examples[i]), text = example_json(examples[i]);
        must(f, mr_decode(def, mr_buf_str(&bytes), MR_STR(""), f->arena, &f->msg, &f->err));
        json_t *expected = json_loads(text.p, 0, NULL), *got = mr_to_json(def, &f->msg, &f->err);
        assert_non_null(got);
        assert_true(json_equal(expected, got));
        json_decref(expected);
        json_decref(got);
        mr_buf_done(&bytes);
        mr_buf_done(&text);
    }
}

static void every_message_has_an_example(void **state) {
    (void)state;
    for (int i = 0; mr_messages[i]; i++) {
        bool found = mr_messages[i]->topic == NULL;
        for (size_t k = 0; k < sizeof(examples) / sizeof(examples[0]); k++)
            found |= message_of(examples[k]) == mr_messages[i];
        if (!found) fail_msg("%s has none", mr_messages[i]->name);
    }
}

static void integers_of_every_width_are_read_and_written(void **state) {
    fixture *f = *state;
    mr_buf lines = read_file("tests/golden/schemas/integers.txt");
    int n = 0;
    for (char *line = strtok(lines.p, "\n"); line; line = strtok(NULL, "\n"), n++) {
        char *hex;
        int64_t seed = strtoll(line, &hex, 10);
        mr_buf bytes = from_hex(hex + 1);
        must(f, mr_unpack(&mr_sampling_def, mr_buf_str(&bytes), f->arena, &f->msg, &f->err));
        assert_true(f->msg.sampling.seed == seed);
        assert_packs_to(f, &mr_sampling_def, mr_buf_str(&bytes));
        mr_buf_done(&bytes);
    }
    assert_int_equal(n, 24);
    mr_buf_done(&lines);
}

static void texts_of_every_length_are_read_and_written(void **state) {
    fixture *f = *state;
    mr_buf lines = read_file("tests/golden/schemas/texts.txt");
    int n = 0;
    for (char *line = strtok(lines.p, "\n"); line; line = strtok(NULL, "\n"), n++) {
        char *hex;
        size_t length = strtoul(line, &hex, 10);
        mr_buf bytes = from_hex(hex + 1);
        must(f, mr_unpack(&mr_feedback_def, mr_buf_str(&bytes), f->arena, &f->msg, &f->err));
        assert_int_equal(f->msg.feedback.comment.n, length);
        assert_packs_to(f, &mr_feedback_def, mr_buf_str(&bytes));
        mr_buf_done(&bytes);
    }
    assert_int_equal(n, 7);
    mr_buf_done(&lines);
}

/* ---- what is read besides ---- */

static void read_json(fixture *f, const mr_message_def *def, const char *json) {
    must(f, mr_decode(def, mr_str_of(json), MR_STR(""), f->arena, &f->msg, &f->err));
}

static void unpack_json(fixture *f, const mr_message_def *def, const char *json) {
    mr_buf b = pack_json(json);
    must(f, mr_unpack(def, mr_buf_str(&b), f->arena, &f->msg, &f->err));
    mr_buf_done(&b);
}

static void unknown_fields_and_nulls_are_skipped(void **state) {
    static const char json[] =
        "{\"v\":1,\"x\":{\"v\":9,\"id\":[1,{}]},\"id\":\"a\",\"model\":null,\"messages\":"
        "[{\"role\":\"user\",\"content\":\"q\",\"later\":[]}],\"sampling\":null}";
    fixture *f = *state;
    for (int packed = 0; packed < 2; packed++) {
        packed ? unpack_json(f, &mr_chat_request_def, json) : read_json(f, &mr_chat_request_def, json);
        assert_true(mr_str_eqz(f->msg.request.id, "a"));
        assert_false(MR_HAS(&f->msg.request, MR_CHAT_REQUEST_MODEL));
        assert_false(MR_HAS(&f->msg.request, MR_CHAT_REQUEST_SAMPLING));
        assert_true(mr_str_eqz(f->msg.request.messages.v[0].content, "q"));
    }
}

static void whole_numbers_of_either_kind_are_taken(void **state) {
    fixture *f = *state;
    for (int packed = 0; packed < 2; packed++) {
        const char *json = "{\"temperature\":1,\"top_k\":50.0,\"max_tokens\":1e3}";
        packed ? unpack_json(f, &mr_sampling_def, json) : read_json(f, &mr_sampling_def, json);
        assert_true(f->msg.sampling.temperature == 1);
        assert_int_equal(f->msg.sampling.top_k, 50);
        assert_int_equal(f->msg.sampling.max_tokens, 1000);
    }
}

static void unpack_bytes(fixture *f, const mr_message_def *def, const char *bytes, size_t n) {
    must(f, mr_unpack(def, (mr_str){bytes, n}, f->arena, &f->msg, &f->err));
}
#define UNPACK(f, def, bytes) unpack_bytes(f, def, bytes, sizeof(bytes) - 1)

static void roomy_encodings_are_taken(void **state) {
    fixture *f = *state;
    UNPACK(f, &mr_sampling_def,
           "\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x04seed\xd3\x00\x00\x00\x00\x00\x00\x00\x05");
    assert_int_equal(f->msg.sampling.seed, 5);
    UNPACK(f, &mr_sampling_def, "\xde\x00\x01\xd9\x05min_p\xca\x3f\x00\x00\x00"); /* a float of 32 bits */
    assert_true(f->msg.sampling.min_p == 0.5);
}

static void keys_that_are_no_text_and_extension_types_are_skipped(void **state) {
    fixture *f = *state;
    UNPACK(f, &mr_sampling_def, "\x83\x01\x02\xa1x\xd4\x05\x00\xa4seed\x07");
    assert_int_equal(f->msg.sampling.seed, 7);
}

static void text_may_hold_a_nul_in_msgpack(void **state) {
    fixture *f = *state;
    UNPACK(f, &mr_feedback_def,
           "\x84\xa1v\x01\xa7request\xa1r\xa6rating\x01\xa7"
           "comment\xa3"
           "a\x00"
           "b");
    assert_int_equal(f->msg.feedback.comment.n, 3);
}

static void a_message_may_have_its_content_in_either_form(void **state) {
    fixture *f = *state;
    read_json(f, &mr_chat_request_def,
              "{\"v\":1,\"id\":\"a\",\"messages\":[{\"role\":\"user\",\"content\":\"text\"},"
              "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"part\"}]}]}");
    const mr_chat_message *m = f->msg.request.messages.v;
    assert_true(MR_HAS(&m[0], MR_CHAT_MESSAGE_CONTENT) && !MR_HAS(&m[0], MR_CHAT_MESSAGE_PARTS));
    assert_true(!MR_HAS(&m[1], MR_CHAT_MESSAGE_CONTENT) && MR_HAS(&m[1], MR_CHAT_MESSAGE_PARTS));
    assert_true(mr_str_eqz(m[1].parts.v[0].text, "part"));
}

static void the_format_is_told_by_header_or_first_byte(void **state) {
    fixture *f = *state;
    mr_str spaced = MR_STR(" {\"seed\":3}");
    must(f, mr_decode(&mr_sampling_def, spaced, MR_STR("application/json"), f->arena, &f->msg, &f->err));
    assert_int_equal(f->msg.sampling.seed, 3);
    assert_int_equal(mr_decode(&mr_sampling_def, spaced, MR_STR("text/plain"), f->arena, &f->msg, &f->err),
                     -1);
}

static void bytes_are_base64_in_json(void **state) {
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"\xff\xfe", "//4="}};
    fixture *f = *state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char json[200];
        snprintf(json, sizeof(json), "{\"token\":\"t\",\"logprob\":-1,\"bytes\":\"%s\"}", pairs[i][1]);
        mr_top_logprob t;
        must(f, mr_decode(&mr_top_logprob_def, mr_str_of(json), MR_STR(""), f->arena, &t, &f->err));
        assert_true(mr_str_eqz(t.bytes, pairs[i][0]));
        json_t *back = mr_to_json(&mr_top_logprob_def, &t, &f->err);
        assert_string_equal(json_string_value(json_object_get(back, "bytes")), pairs[i][1]);
        json_decref(back);
    }
}

static void decoded_text_outlives_its_input(void **state) {
    fixture *f = *state;
    mr_buf b = pack_json("{\"v\":1,\"request\":\"r\",\"rating\":0,\"comment\":\"kept\"}");
    must(f, mr_unpack(&mr_feedback_def, mr_buf_str(&b), f->arena, &f->msg, &f->err));
    memset(b.p, 'x', b.n);
    mr_buf_done(&b);
    assert_string_equal(f->msg.feedback.comment.p, "kept");
}

/* ---- hash and sender ---- */

static void the_hash_is_fnv1a(void **state) {
    static const char *const known[][2] = {
        {"", "cbf29ce484222325"}, {"a", "af63dc4c8601ec8c"}, {"foobar", "85944171f73967e8"}};
    char hex[MR_TEXT_HASH_LEN + 1];
    uint64_t back = 0;
    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint64_t h = mr_text_hash_feed(mr_text_hash_init(), mr_str_of(known[i][0]));
        mr_text_hash_hex(h, hex);
        assert_string_equal(hex, known[i][1]);
        assert_true(mr_text_hash_parse(mr_str_of(hex), &back) && back == h);
    }
    assert_false(mr_text_hash_parse(MR_STR("CBF29CE484222325"), &back));
    assert_false(mr_text_hash_parse(MR_STR("cbf29ce48422232"), &back));
}

static void the_hash_of_pieces_is_the_hash_of_the_whole(void **state) {
    (void)state;
    uint64_t whole = mr_text_hash_feed(mr_text_hash_init(), MR_STR("foobar"));
    uint64_t pieces = mr_text_hash_feed(mr_text_hash_feed(mr_text_hash_init(), MR_STR("foo")), MR_STR("bar"));
    assert_true(whole == pieces);
}

static bool read_sender(fixture *f, const char *json, mr_sender *out) {
    mr_buf b = pack_json(json);
    bool packed = mr_sender_read(mr_buf_str(&b), MR_STR(""), f->arena, out);
    mr_buf_done(&b);
    assert_int_equal(packed, mr_sender_read(mr_str_of(json), MR_STR(""), f->arena, out));
    return packed;
}

static void the_sender_of_a_broken_request_is_found(void **state) {
    fixture *f = *state;
    mr_sender from;
    assert_true(read_sender(f, "{\"v\":99,\"id\":\"a\",\"reply_to\":4,\"messages\":7}", &from));
    assert_true(mr_str_eqz(from.id, "a"));
    assert_int_equal(from.reply_to, 4);
    assert_false(read_sender(f, "{\"messages\":7}", &from));
    assert_false(read_sender(f, "{\"id\":\"a b\"}", &from));
    assert_false(read_sender(f, "{\"id\":5}", &from));
}

#define CODEC_TEST(t) cmocka_unit_test_setup_teardown(t, open_fixture, close_fixture)

int main(void) {
    const struct CMUnitTest tests[] = {
        CODEC_TEST(msgpack_of_another_language_is_read_and_written_byte_for_byte),
        CODEC_TEST(json_becomes_the_same_msgpack),
        CODEC_TEST(msgpack_becomes_the_same_json),
        CODEC_TEST(every_message_has_an_example),
        CODEC_TEST(integers_of_every_width_are_read_and_written),
        CODEC_TEST(texts_of_every_length_are_read_and_written),
        CODEC_TEST(unknown_fields_and_nulls_are_skipped),
        CODEC_TEST(whole_numbers_of_either_kind_are_taken),
        CODEC_TEST(roomy_encodings_are_taken),
        CODEC_TEST(keys_that_are_no_text_and_extension_types_are_skipped),
        CODEC_TEST(text_may_hold_a_nul_in_msgpack),
        CODEC_TEST(a_message_may_have_its_content_in_either_form),
        CODEC_TEST(the_format_is_told_by_header_or_first_byte),
        CODEC_TEST(bytes_are_base64_in_json),
        CODEC_TEST(decoded_text_outlives_its_input),
        CODEC_TEST(the_hash_is_fnv1a),
        CODEC_TEST(the_hash_of_pieces_is_the_hash_of_the_whole),
        CODEC_TEST(the_sender_of_a_broken_request_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
