/* The demo model through the engine's public header: it answers in words, in two languages, and ends by itself. */
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL_DIR "ops/demo/millrace-demo"

enum { MAX_SEQS = 16, MAX_EVENTS = 64, ANSWER_BYTES = 8192, MAX_WORDS = 4 };

typedef struct question {
    const char *text;
    const char *words[MAX_WORDS]; /* all of them are in the answer */
} question;

/* Asked at temperature 0. */
static const question questions[] = {
    {"What is Millrace?", {"chat app", "Kafka", "workers"}},
    {"What is Millrace made of?", {"gateway", "router", "workers", "engine"}},
    {"Hello there, please introduce yourself", {"Millrace", "demo model"}},
    {"Tell me about rivers", {"spring", "sea"}},
    {"What happens when a worker dies?", {"another worker", "gateway"}},
    {"What is the capital of France?", {"Paris"}},
    {"中国的首都是哪里？", {"北京"}},
    {"Hi", {"Hello", "Millrace demo model"}},
    {"How do I start Millrace?", {"ops/up.sh"}},
    {"请介绍一下你自己", {"演示模型"}},
};
enum { NQUESTIONS = sizeof questions / sizeof *questions };

typedef struct answer {
    char text[ANSWER_BYTES];
    size_t len;
    bool ended;
    engine_finish finish;
} answer;

static engine *open_demo(void) {
    engine_error err = {0};
    engine *e = engine_open(
        &(engine_options){.model_dir = MODEL_DIR, .max_seqs = MAX_SEQS, .max_context = 1024}, &err);
    if (!e) fail_msg("%s", err.msg);
    return e;
}

static void take(answer *a, const engine_event *ev) {
    assert_true(a->len + ev->text_len < sizeof a->text);
    memcpy(a->text + a->len, ev->text, ev->text_len);
    a->len += ev->text_len;
    if (ev->kind != ENGINE_END) return;
    assert_false(a->ended);
    a->ended = true;
    a->finish = ev->finish;
}

/* Request ids are indices into answers. */
static void run(engine *e, answer *answers) {
    engine_event events[MAX_EVENTS];
    engine_error err = {0};
    while (engine_busy(e)) {
        int n = engine_step(e, events, MAX_EVENTS, &err);
        if (n < 0) fail_msg("%s", err.msg);
        for (int i = 0; i < n; i++) take(&answers[events[i].id], &events[i]);
    }
}

static void ask(engine *e, uint64_t id, const engine_message *messages, int n, float temperature) {
    engine_error err = {0};
    engine_request r = {.id = id, .messages = messages, .nmessages = n};
    engine_sampling_default(&r.sampling);
    r.sampling.temperature = temperature;
    r.sampling.seed = id + 1;
    if (engine_submit(e, &r, &err)) fail_msg("%s", err.msg);
}

static engine_message says(const char *role, const char *text) {
    return (engine_message){.role = role, .content = text, .content_len = strlen(text)};
}

static void assert_says(const char *asked, const answer *a, const char *const words[MAX_WORDS]) {
    if (!a->ended || a->finish != ENGINE_FINISH_STOP) fail_msg("\"%s\" has no end: %s", asked, a->text);
    for (int w = 0; w < MAX_WORDS && words[w]; w++)
        if (!strstr(a->text, words[w])) fail_msg("\"%s\" lacks \"%s\": %s", asked, words[w], a->text);
}

static void answers_simple_questions_and_ends(void **state) {
    (void)state;
    answer *answers = calloc(NQUESTIONS, sizeof *answers);
    assert_non_null(answers);
    engine *e = open_demo();
    for (uint64_t i = 0; i < NQUESTIONS; i++) {
        engine_message m = says("user", questions[i].text);
        ask(e, i, &m, 1, 0);
    }
    run(e, answers);
    for (int i = 0; i < NQUESTIONS; i++) assert_says(questions[i].text, &answers[i], questions[i].words);
    engine_close(e);
    free(answers);
}

/* NextChat sends a temperature of 0.5. */
static void answers_the_readmes_question_at_the_clients_temperature(void **state) {
    (void)state;
    answer *answers = calloc(MAX_SEQS, sizeof *answers);
    assert_non_null(answers);
    engine *e = open_demo();
    engine_message m = says("user", "What is Millrace?");
    for (uint64_t i = 0; i < MAX_SEQS; i++) ask(e, i, &m, 1, 0.5f);
    run(e, answers);
    for (int i = 0; i < MAX_SEQS; i++)
        assert_says(m.content, &answers[i], (const char *const[MAX_WORDS]){"Millrace"});
    engine_close(e);
    free(answers);
}

#define TITLE_CALL                                                                                           \
    "Please generate a four to five word title summarizing our conversation without any lead-in, "           \
    "punctuation, "                                                                                          \
    "quotation marks, periods, symbols, bold text, or additional text. Remove enclosing quotation marks."
#define TITLE_CALL_ZH                                                                                                                                           \
    "使用四到五个字直接返回这句话的简要主题，不要解释、不要标点、不要语气词、不要多余文本，不要加粗，如果没" \
    "有主题，请直接"                                                                                                                                     \
    "返回“闲聊”"

static bool is_title(const answer *a) {
    return a->ended && a->finish == ENGINE_FINISH_STOP && strspn(a->text, " ") < a->len && a->len < 48 &&
           !strpbrk(a->text, "\n\"*.!?");
}

/* NextChat's own call after a chat: what comes back becomes the chat's name in its list. */
static void a_title_call_gets_a_short_title(void **state) {
    (void)state;
    static const char *const chats[][3] = {
        {"What is the gateway?",
         "The gateway is the edge of Millrace. It speaks the OpenAI protocol over HTTP.", TITLE_CALL},
        {"What is the capital of France?", "The capital of France is Paris.", TITLE_CALL},
        {"中国的首都是哪里？", "中国的首都是北京。", TITLE_CALL_ZH},
    };
    enum { NCHATS = sizeof chats / sizeof *chats };
    answer *answers = calloc(NCHATS, sizeof *answers);
    assert_non_null(answers);
    engine *e = open_demo();
    for (uint64_t i = 0; i < NCHATS; i++) {
        const engine_message m[] = {
            says("system", "You are ChatGPT, a large language model trained by OpenAI."),
            says("user", chats[i][0]),
            says("assistant", chats[i][1]),
            says("user", chats[i][2]),
        };
        ask(e, i, m, sizeof m / sizeof *m, 0);
    }
    run(e, answers);
    for (int i = 0; i < NCHATS; i++)
        if (!is_title(&answers[i])) fail_msg("\"%s\" is called: %s", chats[i][0], answers[i].text);
    engine_close(e);
    free(answers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_simple_questions_and_ends),
        cmocka_unit_test(answers_the_readmes_question_at_the_clients_temperature),
        cmocka_unit_test(a_title_call_gets_a_short_title),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
