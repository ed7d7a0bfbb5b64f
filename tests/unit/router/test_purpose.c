/* Title and summary calls of the NextChat web app are told from chat, in its languages and as it was captured. */
#include "router/purpose.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    mr_arena *arena;
    mr_chat_request q;
} fixture;

static int open_fixture(void **state) {
    static fixture f;
    f.arena = mr_arena_new(16 << 20);
    *state = &f;
    return f.arena ? 0 : -1;
}

static int close_fixture(void **state) {
    mr_arena_free(((fixture *)*state)->arena);
    return 0;
}

/* `messages` as JSON, and what stands before it. */
static mr_chat_request *request(fixture *f, const char *more, const char *messages) {
    mr_error err;
    mr_buf json;
    mr_arena_reset(f->arena);
    mr_buf_init(&json, 1 << 20);
    mr_buf_printf(&json, "{\"v\":1,\"id\":\"x\",%s\"messages\":%s}", more, messages);
    if (mr_decode(&mr_chat_request_def, mr_buf_str(&json), MR_STR(""), f->arena, &f->q, &err) != 0)
        fail_msg("%s", err.msg);
    mr_buf_done(&json);
    return &f->q;
}

static int purpose_of(fixture *f, const char *messages) {
    return mr_request_purpose(request(f, "", messages));
}

static void a_question_is_chat(void **state) {
    assert_int_equal(purpose_of(*state, "[{\"role\":\"user\",\"content\":\"Hello\"}]"), MR_PURPOSE_CHAT);
    assert_int_equal(purpose_of(*state, "[{\"role\":\"system\",\"content\":\"Be brief\"},"
                                        "{\"role\":\"user\",\"content\":\"Please generate a poem\"}]"),
                     MR_PURPOSE_CHAT);
}

static void a_system_message_alone_is_chat(void **state) {
    assert_int_equal(purpose_of(*state, "[{\"role\":\"system\",\"content\":\"Hello\"}]"), MR_PURPOSE_CHAT);
}

static void titles_are_asked_for_in_many_languages(void **state) {
    static const char *const prompts[] = {
        "Please generate a four to five word title summarizing our conversation without any lead-in",
        "使用四到五个字直接返回这句话的简要主题，不要解释、不要标点、不要语气词、不要多余文本",
        "Utilisez quatre à cinq mots pour renvoyer un sujet bref",
        "この文の簡潔なテーマを四から五文字で返してください",
    };
    char messages[1000];
    for (size_t i = 0; i < sizeof(prompts) / sizeof(prompts[0]); i++) {
        snprintf(messages, sizeof(messages),
                 "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"user\",\"content\":\"%s\"}]",
                 prompts[i]);
        if (purpose_of(*state, messages) != MR_PURPOSE_TITLE) fail_msg("no title: %s", prompts[i]);
    }
}

static void a_title_may_be_asked_for_beside_pictures(void **state) {
    assert_int_equal(
        purpose_of(
            *state,
            "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}},"
            "{\"type\":\"text\",\"text\":\" Please generate a four to five word title\"}]}]"),
        MR_PURPOSE_TITLE);
}

static void an_instruction_at_the_end_asks_for_a_summary_in_any_words(void **state) {
    assert_int_equal(purpose_of(*state, "[{\"role\":\"user\",\"content\":\"Hi\"},"
                                        "{\"role\":\"system\",\"content\":\"Briefly sum up, in Klingon\"}]"),
                     MR_PURPOSE_SUMMARY);
    assert_int_equal(purpose_of(*state,
                                "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"user\",\"content\":"
                                "\"简要总结一下对话内容，用作后续的上下文提示 prompt，控制在 200 字以内\"}]"),
                     MR_PURPOSE_SUMMARY);
}

static void what_the_request_says_itself_holds(void **state) {
    fixture *f = *state;
    const char *title = "[{\"role\":\"user\",\"content\":\"Please generate a four to five word title\"}]";
    assert_int_equal(mr_request_purpose(request(f, "\"purpose\":\"chat\",", title)), MR_PURPOSE_CHAT);
    assert_int_equal(mr_request_purpose(request(f, "\"purpose\":\"summary\",", title)), MR_PURPOSE_SUMMARY);
}

static void the_question_is_the_last_users_text(void **state) {
    fixture *f = *state;
    mr_str q = mr_request_question(
        request(f, "",
                "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"
                "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"c\"},{\"type\":\"text\","
                "\"text\":\"d\"}]}]"),
        f->arena);
    assert_true(mr_str_eqz(q, "c\nd"));
}

static void a_picture_or_a_tools_turn_is_no_question(void **state) {
    fixture *f = *state;
    mr_str q =
        mr_request_question(request(f, "",
                                    "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"c\"},"
                                    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}}]}]"),
                            f->arena);
    assert_int_equal(q.n, 0);
    q = mr_request_question(request(f, "", "[{\"role\":\"tool\",\"content\":\"c\",\"tool_call_id\":\"1\"}]"),
                            f->arena);
    assert_int_equal(q.n, 0);
}

/* ---- as the web app sent them ---- */

/* The messages of a captured HTTP request; NULL without the captures. The caller frees. */
static char *captured_messages(const char *name) {
    char path[200];
    snprintf(path, sizeof(path), "../shared/data/nextchat/%s.req", name);
    FILE *in = fopen(path, "rb");
    if (!in) return NULL;
    size_t cap = 4 << 20;
    char *text = calloc(1, cap);
    assert_non_null(text);
    size_t n = fread(text, 1, cap - 1, in);
    fclose(in);
    const char *body = memmem(text, n, "\r\n\r\n", 4);
    assert_non_null(body);
    /* one of them is chunked: its only chunk begins a line later */
    json_t *j = json_loads(body + strcspn(body, "{"), JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(j);
    char *messages = json_dumps(json_object_get(j, "messages"), 0);
    json_decref(j);
    free(text);
    return messages;
}

static void captured_calls_are_told_apart(void **state) {
    static const struct {
        const char *name;
        int purpose;
    } calls[] = {
        {"chat-first", MR_PURPOSE_CHAT},    {"chat-history", MR_PURPOSE_CHAT},
        {"gpt-system", MR_PURPOSE_CHAT},    {"deepseek-chat", MR_PURPOSE_CHAT},
        {"vision", MR_PURPOSE_CHAT},        {"title", MR_PURPOSE_TITLE},
        {"vision-title", MR_PURPOSE_TITLE}, {"summary", MR_PURPOSE_SUMMARY},
    };
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        char *messages = captured_messages(calls[i].name);
        if (!messages) skip();
        int found = purpose_of(*state, messages);
        free(messages);
        if (found != calls[i].purpose) fail_msg("%s: %s", calls[i].name, mr_purpose_names[found]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_is_chat),
        cmocka_unit_test(a_system_message_alone_is_chat),
        cmocka_unit_test(titles_are_asked_for_in_many_languages),
        cmocka_unit_test(a_title_may_be_asked_for_beside_pictures),
        cmocka_unit_test(an_instruction_at_the_end_asks_for_a_summary_in_any_words),
        cmocka_unit_test(what_the_request_says_itself_holds),
        cmocka_unit_test(the_question_is_the_last_users_text),
        cmocka_unit_test(a_picture_or_a_tools_turn_is_no_question),
        cmocka_unit_test(captured_calls_are_told_apart),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
