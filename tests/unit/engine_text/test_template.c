/* Prompts are, token for token, what transformers makes with the checkpoint's own template. */
#include "text_test.h"

#include "engine/text/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 16, TOOLS_MAX = 8, PROMPT_MAX = 4096 };

/* The golden tokenizer with this chat template. */
static tokenizer *with_template(const char *name, const char *source) {
    char file[128];
    engine_error err = {0};

    snprintf(file, sizeof file, "%s/tokenizer.json", name);
    json_t *doc = golden_value(file);
    snprintf(file, sizeof file, "%s/tokenizer_config.json", name);
    json_t *config = golden_value(file);
    if (source != NULL) json_object_set_new(config, "chat_template", json_string(source));
    char *text = json_dumps(doc, JSON_COMPACT), *config_text = json_dumps(config, 0);
    tokenizer *t = tokenizer_parse(text, strlen(text), config_text, strlen(config_text), &err);
    if (t == NULL) fail_msg("%s", err.msg);
    free(text);
    free(config_text);
    json_decref(doc);
    json_decref(config);
    return t;
}

static engine_message message(const char *role, const char *content) {
    return (engine_message){.role = role, .content = content, .content_len = strlen(content)};
}

/* Of an assistant's turn; what they say is borrowed, the list is the caller's to free. */
static engine_call *read_calls(const json_t *list) {
    engine_call *calls = calloc(json_array_size(list) + 1, sizeof *calls);
    size_t i;
    const json_t *one;

    assert_non_null(calls);
    json_array_foreach(list, i, one) {
        const json_t *function = json_object_get(one, "function"),
                     *arguments = json_object_get(function, "arguments");
        calls[i] = (engine_call){.name = json_string_value(json_object_get(function, "name")),
                                 .arguments = json_string_value(arguments),
                                 .arguments_len = json_string_length(arguments)};
    }
    return calls;
}

static int read_dialogue(const json_t *d, engine_message m[MESSAGES_MAX]) {
    size_t i;
    const json_t *one;

    assert_true(json_array_size(d) <= MESSAGES_MAX);
    json_array_foreach(d, i, one) {
        const json_t *content = json_object_get(one, "content");
        m[i] = (engine_message){.role = json_string_value(json_object_get(one, "role")),
                                .content = json_string_value(content),
                                .content_len = json_string_length(content)};
        const json_t *calls = json_object_get(one, "tool_calls");
        if (!calls) continue;
        m[i].calls = read_calls(calls);
        m[i].ncalls = (int)json_array_size(calls);
    }
    return (int)i;
}

static void check_chat(const chat_template *c, size_t which, const engine_chat *chat,
                       const json_t *expected) {
    engine_error err = {0};
    int32_t ids[PROMPT_MAX];
    if (json_is_null(expected)) return;
    int64_t count = chat_template_render(c, chat, ids, PROMPT_MAX, &err);
    size_t i;
    const json_t *v;

    if (count < 0) fail_msg("%s", err.msg);
    json_array_foreach(expected, i, v) {
        if ((int64_t)i >= count || json_integer_value(v) != ids[i])
            fail_msg("%s: dialogue %zu: token %zu is not %d", chat_template_name(c), which, i,
                     (int)json_integer_value(v));
    }
    assert_int_equal(count, i);
}

static void check_dialogue(const chat_template *c, size_t which, const json_t *dialogue,
                           const json_t *expected) {
    engine_message m[MESSAGES_MAX];
    int n = read_dialogue(dialogue, m);
    check_chat(c, which, &(engine_chat){.messages = m, .nmessages = n}, expected);
}

/* Parameters come as the gateway writes them: without blanks, with numbers of 17 digits. */
static int read_tools(const json_t *list, engine_tool tools[TOOLS_MAX]) {
    size_t i;
    const json_t *one;

    json_array_foreach(list, i, one) {
        const json_t *function = json_object_get(one, "function"),
                     *parameters = json_object_get(function, "parameters");
        tools[i] = (engine_tool){.name = json_string_value(json_object_get(function, "name")),
                                 .description = json_string_value(json_object_get(function, "description")),
                                 .parameters = parameters ? json_dumps(parameters, JSON_COMPACT) : NULL};
        if (parameters) tools[i].parameters_len = strlen(tools[i].parameters);
    }
    return (int)i;
}

static void check_tool_chat(const chat_template *c, size_t which, const json_t *one, const json_t *expected) {
    engine_message m[MESSAGES_MAX];
    engine_tool tools[TOOLS_MAX];
    const engine_chat chat = {.messages = m,
                              .nmessages = read_dialogue(json_object_get(one, "messages"), m),
                              .tools = tools,
                              .ntools = read_tools(json_object_get(one, "tools"), tools)};

    check_chat(c, which, &chat, expected);
    for (int i = 0; i < chat.ntools; i++) free((char *)tools[i].parameters);
    for (int i = 0; i < chat.nmessages; i++) free((engine_call *)m[i].calls);
}

/* With the checkpoint's own template and, where the kind has these tools, with the template forced by name. */
static void prompts_with_tools_are_those_of_transformers(void **state) {
    json_t *templates = golden_lines("tool_templates.jsonl"), *chats = golden_value("tool_chats.json"), *one,
           *chat;
    size_t i, k;

    (void)state;
    json_array_foreach(templates, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *ids = json_object_get(one, "ids");
        tokenizer *t = with_template(json_string_value(json_object_get(one, "tokenizer")),
                                     json_string_value(json_object_get(one, "source")));
        engine_error err = {0};
        chat_template *c = chat_template_new(t, NULL, &err);
        if (c == NULL) fail_msg("%s: %s", name, err.msg);
        assert_string_equal(chat_template_name(c), name);
        assert_int_not_equal(chat_template_calls(c), CALL_NONE);
        json_array_foreach(chats, k, chat) check_tool_chat(c, k, chat, json_array_get(ids, k));
        chat_template_free(c);
        c = chat_template_new(t, name, &err);
        assert_non_null(c);
        bool same = chat_template_calls(c) != CALL_NONE && strcmp(name, "qwq") != 0;
        json_array_foreach(chats, k, chat) {
            if (same) check_tool_chat(c, k, chat, json_array_get(ids, k));
        }
        chat_template_free(c);
        tokenizer_free(t);
    }
    json_decref(templates);
    json_decref(chats);
}

static void expect_chat_refused(const char *tokenizer_name, const char *name, const engine_chat *chat,
                                const char *says) {
    engine_error err = {0};
    tokenizer *t = golden_tokenizer(tokenizer_name);
    chat_template *c = chat_template_new(t, name, &err);
    int32_t ids[PROMPT_MAX];

    assert_non_null(c);
    assert_int_equal(chat_template_render(c, chat, ids, PROMPT_MAX, &err), -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    if (strstr(err.msg, says) == NULL) fail_msg("the error says only: %s", err.msg);
    chat_template_free(c);
    tokenizer_free(t);
}

static void tools_that_a_template_cannot_tell_of_are_refused(void **state) {
    const engine_message user = message("user", "x");
    const engine_call calls[] = {{"f", "{}", 2}, {"g", "[1]", 3}};
    const engine_tool tools[] = {{.name = "f"}, {.name = "g", .parameters = "{\"a\":", .parameters_len = 5}};
    engine_message turns[] = {user, message("assistant", ""), message("system", "late")};
    turns[1].calls = calls;
    turns[1].ncalls = 2;

    (void)state;
    const engine_chat one = {&user, 1, tools, 1}, broken = {&user, 1, tools, 2},
                      history = {turns, 2, NULL, 0}, begins_late = {turns + 1, 2, tools, 1};
    expect_chat_refused("qwen2", "chatml", &one, "tools: this model's chat template (chatml) has none");
    expect_chat_refused("deepseek_llm", "deepseek-llm", &one, "(deepseek-llm) has none");
    expect_chat_refused("qwen2", "chatml", &history, "messages[1] has tool calls");
    expect_chat_refused("qwen2", "qwen2.5", &broken,
                        "parameters of tools[1]: expected a JSON object as text: ");
    expect_chat_refused("qwen2", "qwen2.5", &history,
                        "arguments of tool_calls[1]: expected a JSON object as text");
    expect_chat_refused("llama3", "llama-3.1", &history, "one tool call in a turn, not 2");
    expect_chat_refused("llama3", "llama-3.1", &begins_late, "in the first user message");
    turns[2].calls = calls;
    turns[2].ncalls = 1;
    expect_chat_refused("qwen2", "qwen2.5", &(engine_chat){turns + 2, 1, NULL, 0}, "its role (system)");
}

static void prompts_are_those_of_transformers(void **state) {
    json_t *templates = golden_lines("templates.jsonl"), *dialogues = golden_value("dialogues.json"), *one,
           *d;
    size_t i, k;

    (void)state;
    json_array_foreach(templates, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        tokenizer *t = with_template(json_string_value(json_object_get(one, "tokenizer")),
                                     json_string_value(json_object_get(one, "source")));
        engine_error err = {0};
        chat_template *c = chat_template_new(t, NULL, &err);
        if (c == NULL) fail_msg("%s: %s", name, err.msg);
        assert_string_equal(chat_template_name(c), name);
        assert_int_equal(chat_template_opens_thinking(c),
                         json_is_true(json_object_get(one, "opens_thinking")));
        json_array_foreach(dialogues, k, d)
            check_dialogue(c, k, d, json_array_get(json_object_get(one, "ids"), k));
        chat_template_free(c);
        tokenizer_free(t);
    }
    json_decref(templates);
    json_decref(dialogues);
}

/* The golden prompts of the last template of a kind, which has the traits of the kind itself. */
static void a_template_forced_by_name_is_the_checkpoints_own(void **state) {
    static const char *const canonical[][2] = {{"deepseek-llm", "deepseek_llm"},
                                               {"deepseek-v3", "deepseek_v3"},
                                               {"llama-3", "llama3"},
                                               {"llama-3.1", "llama3"},
                                               {"chatml", "qwen2"},
                                               {"qwen2.5", "qwen2"},
                                               {"qwq", "qwen2"}};
    json_t *templates = golden_lines("templates.jsonl"), *dialogues = golden_value("dialogues.json"), *one,
           *d;
    size_t i, k;

    (void)state;
    for (size_t n = 0; n < sizeof canonical / sizeof canonical[0]; n++) {
        engine_error err = {0};
        tokenizer *t = golden_tokenizer(canonical[n][1]);
        chat_template *c = chat_template_new(t, canonical[n][0], &err);
        if (c == NULL) fail_msg("%s", err.msg);
        json_array_foreach(templates, i, one) {
            if (strcmp(json_string_value(json_object_get(one, "name")), canonical[n][0]) != 0) continue;
            if (strcmp(json_string_value(json_object_get(one, "tokenizer")), canonical[n][1]) != 0) continue;
            json_array_foreach(dialogues, k, d)
                check_dialogue(c, k, d, json_array_get(json_object_get(one, "ids"), k));
        }
        chat_template_free(c);
        tokenizer_free(t);
    }
    json_decref(templates);
    json_decref(dialogues);
}

/* All control tokens of the tokenizer in one message, of each role: the prompt has as many of each as a harmless one. */
static void check_no_control_from_users(const char *tokenizer_name, const char *name,
                                        const char *const *controls) {
    engine_error err = {0};
    tokenizer *t = golden_tokenizer(tokenizer_name);
    chat_template *c = chat_template_new(t, name, &err);
    char evil[1024] = "", harmless[] = "x";
    int32_t ids[PROMPT_MAX], plain[PROMPT_MAX];

    assert_non_null(c);
    for (const char *const *k = controls; *k; k++) strcat(strcat(evil, *k), " ");
    const engine_message attack[] = {message("system", evil), message("user", evil),
                                     message("assistant", evil), message("user", evil)};
    const engine_message calm[] = {message("system", harmless), message("user", harmless),
                                   message("assistant", harmless), message("user", harmless)};
    int64_t n =
        chat_template_render(c, &(engine_chat){.messages = attack, .nmessages = 4}, ids, PROMPT_MAX, &err);
    int64_t m =
        chat_template_render(c, &(engine_chat){.messages = calm, .nmessages = 4}, plain, PROMPT_MAX, &err);
    assert_in_range(n, 1, PROMPT_MAX);
    for (const char *const *k = controls; *k; k++) {
        int32_t id = tokenizer_id(t, *k);
        int here = 0, there = 0;
        assert_true(id >= 0);
        for (int64_t i = 0; i < n; i++) here += ids[i] == id;
        for (int64_t i = 0; i < m; i++) there += plain[i] == id;
        if (here != there) fail_msg("%s: a user wrote %s", name, *k);
    }
    chat_template_free(c);
    tokenizer_free(t);
}

static void users_cannot_write_control_tokens(void **state) {
    static const char *const deepseek[] = {"<｜User｜>",
                                           "<｜Assistant｜>",
                                           "<think>",
                                           "<｜begin▁of▁sentence｜>",
                                           "<｜end▁of▁sentence｜>",
                                           "<|EOT|>",
                                           NULL};
    static const char *const deepseek_llm[] = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", NULL};
    static const char *const llama[] = {"<|begin_of_text|>",
                                        "<|start_header_id|>",
                                        "<|end_header_id|>",
                                        "<|eot_id|>",
                                        "<|eom_id|>",
                                        "<|python_tag|>",
                                        NULL};
    static const char *const qwen[] = {"<|im_start|>", "<|im_end|>", "<|endoftext|>",
                                       "<think>",      "</think>",   NULL};

    (void)state;
    check_no_control_from_users("deepseek_llm", "deepseek-llm", deepseek_llm);
    check_no_control_from_users("deepseek_v3", "deepseek-r1", deepseek);
    check_no_control_from_users("llama3", "llama-3", llama);
    check_no_control_from_users("llama3", "llama-3.1", llama);
    check_no_control_from_users("qwen2", "qwen2.5", qwen);
    check_no_control_from_users("qwen2", "qwq", qwen);
}

static void expect_refusal(const char *tokenizer_name, const char *source, const char *name,
                           const char *says) {
    engine_error err = {0};
    tokenizer *t = with_template(tokenizer_name, source);

    assert_null(chat_template_new(t, name, &err));
    if (strstr(err.msg, says) == NULL) fail_msg("the error says only: %s", err.msg);
    tokenizer_free(t);
}

static void a_template_that_is_not_known_is_refused_by_an_error_that_names_the_known_ones(void **state) {
    (void)state;
    expect_refusal("gpt2", NULL, NULL, "no chat template; choose one of deepseek-llm");
    expect_refusal("gpt2", "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]", NULL, "deepseek-llm, ");
    expect_refusal("gpt2", "", NULL, "not one that is known");
    expect_refusal("gpt2", NULL, "vicuna", "there is no chat template \"vicuna\"; there are deepseek-llm, ");
    expect_refusal("gpt2", NULL, "chatml", "needs the token <|im_start|>");
    expect_refusal("qwen2", NULL, "llama-3", "needs the token <|start_header_id|>");
}

static void a_template_that_thinks_by_parameter_is_not_taken_for_one_that_does_not(void **state) {
    (void)state;
    expect_refusal("qwen2",
                   "{{'<|im_start|>assistant\\n'}}{%- if enable_thinking is false "
                   "%}{{'<think>\\n\\n</think>\\n\\n'}}{% endif %}",
                   NULL, "not one that is known");
    expect_refusal("deepseek_v3",
                   "{%- set ns = namespace(is_last_user=false) -%}{{'<｜User｜>'}}{{'<｜Assistant｜>'}}"
                   "{%- if not thinking -%}{{'</think>'}}{%- endif -%}",
                   NULL, "not one that is known");
    expect_refusal(
        "qwen2",
        "{% set s = 'You are a robot' %}{{'<|im_start|>system\\n' + s}}{{'<|im_start|>assistant\\n'}}", NULL,
        "not one that is known");
}

static void a_message_that_the_template_does_not_know_is_refused(void **state) {
    engine_error err = {0};
    tokenizer *t = golden_tokenizer("qwen2");
    chat_template *c = chat_template_new(t, "qwen2", &err);
    const engine_message tool[] = {message("user", "x"), message("tool", "42")};
    int32_t ids[8];

    (void)state;
    assert_int_equal(chat_template_render(c, &(engine_chat){.messages = tool, .nmessages = 2}, ids, 8, &err),
                     -1);
    assert_int_equal(err.code, ENGINE_EINVAL);
    assert_non_null(strstr(err.msg, "messages[1] has the role \"tool\""));
    assert_int_equal(chat_template_render(c, &(engine_chat){.messages = tool, .nmessages = 0}, ids, 8, &err),
                     -1);
    assert_non_null(strstr(err.msg, "messages is empty"));
    chat_template_free(c);
    tokenizer_free(t);
}

static void a_prompt_that_does_not_fit_says_how_long_it_is(void **state) {
    engine_error err = {0};
    tokenizer *t = golden_tokenizer("llama3");
    chat_template *c = chat_template_new(t, "llama-3", &err);
    const engine_message m[] = {message("user", "The river turns the wheel.")};
    int32_t all[64], some[64];

    (void)state;
    int64_t n = chat_template_render(c, &(engine_chat){.messages = m, .nmessages = 1}, all, 64, &err);
    assert_in_range(n, 10, 64);
    for (size_t cap = 0; cap < (size_t)n; cap++) {
        memset(some, 0x7F, sizeof some);
        assert_int_equal(
            chat_template_render(c, &(engine_chat){.messages = m, .nmessages = 1}, some, cap, &err), n);
        assert_memory_equal(some, all, cap * sizeof *some);
        assert_int_equal(some[cap], 0x7F7F7F7F);
    }
    chat_template_free(c);
    tokenizer_free(t);
}

static void an_answer_ends_by_eos_or_the_end_of_the_turn(void **state) {
    engine_error err = {0};
    int32_t stops[8];
    tokenizer *t = golden_tokenizer("llama3");
    chat_template *c = chat_template_new(t, "llama-3", &err);

    (void)state;
    assert_int_equal(chat_template_stops(c, stops), 3);
    assert_int_equal(stops[0], tokenizer_id(t, "<|eot_id|>"));
    assert_int_equal(stops[1], tokenizer_id(t, "<|end_of_text|>"));
    assert_int_equal(stops[2], tokenizer_id(t, "<|eom_id|>"));
    chat_template_free(c);
    tokenizer_free(t);
}

static void content_that_is_not_utf8_is_repaired_and_trimmed_as_such(void **state) {
    engine_error err = {0};
    tokenizer *t = golden_tokenizer("llama3");
    chat_template *c = chat_template_new(t, "llama-3", &err);
    /* a lone 0x85 is no U+0085, and a lone 0xA0 no U+00A0: neither is space to trim */
    const engine_message bad[] = {message("user", " \x85x\xA0 ")},
                         good[] = {message("user", "\uFFFDx\uFFFD")};
    int32_t a[64], b[64];

    (void)state;
    int64_t n = chat_template_render(c, &(engine_chat){.messages = bad, .nmessages = 1}, a, 64, &err);
    assert_int_equal(n,
                     chat_template_render(c, &(engine_chat){.messages = good, .nmessages = 1}, b, 64, &err));
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    chat_template_free(c);
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_those_of_transformers),
        cmocka_unit_test(prompts_with_tools_are_those_of_transformers),
        cmocka_unit_test(tools_that_a_template_cannot_tell_of_are_refused),
        cmocka_unit_test(a_template_forced_by_name_is_the_checkpoints_own),
        cmocka_unit_test(users_cannot_write_control_tokens),
        cmocka_unit_test(a_template_that_is_not_known_is_refused_by_an_error_that_names_the_known_ones),
        cmocka_unit_test(a_template_that_thinks_by_parameter_is_not_taken_for_one_that_does_not),
        cmocka_unit_test(a_message_that_the_template_does_not_know_is_refused),
        cmocka_unit_test(a_prompt_that_does_not_fit_says_how_long_it_is),
        cmocka_unit_test(an_answer_ends_by_eos_or_the_end_of_the_turn),
        cmocka_unit_test(content_that_is_not_utf8_is_repaired_and_trimmed_as_such),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
