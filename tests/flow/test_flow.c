/* A whole pipeline with the demo model, as its users see it: over HTTP, and over Kafka itself.
 *
 *     test_flow embedded|kafka
 */
#include "support/asker.h"
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_MS 60000
#define MANY    32

static const char *broker;

typedef struct fixture {
    mr_loop *loop;
    mr_metrics *metrics;
    pipeline *p;
    asker a;
    int port;
} fixture;

static fixture suite;

static int setup(void **state) {
    mr_error err;
    const pipeline_options opt = {
        .broker = broker, .kb = SOURCE_DIR "/tests/flow/kb.tsv", .worker = "max_seqs = 8;"};
    suite.loop = mr_loop_new(&err);
    suite.metrics = mr_metrics_new(&err);
    if (!suite.loop || !suite.metrics) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    suite.port = pipeline_port(suite.p);
    asker_init(&suite.a, suite.loop, suite.metrics, pipeline_kafka(suite.p));
    snprintf(suite.a.to, sizeof(suite.a.to), "chat.requests");
    *state = &suite;
    return 0;
}

static void finish(bool failed) {
    asker_done(&suite.a);
    pipeline_stop(suite.p, failed);
    mr_metrics_free(suite.metrics);
    mr_loop_free(suite.loop);
}

static int clear(void **state) {
    asker_clear(&((fixture *)*state)->a);
    return 0;
}

static chat *ask_and_wait(fixture *f, const ask *a) {
    chat *c = chat_ask(f->loop, f->port, a);
    chat_wait(f->loop, c);
    return c;
}

static void assert_complete(const chat *c) {
    if (!chat_complete(c)) {
        fail_msg("not complete: status %d, finish '%s', %s%s", c->status, c->finish,
                 c->broken ? "broken, " : "", c->message);
    }
}

static void assert_text(const chat *c, const char *expected) {
    assert_int_equal(c->text.n, strlen(expected));
    assert_memory_equal(c->text.p, expected, c->text.n);
}

static void assert_same_text(const chat *x, const chat *y) {
    assert_int_equal(x->text.n, y->text.n);
    assert_memory_equal(x->text.p, y->text.p, x->text.n);
}

/* ---- chats ---- */

static void a_streamed_chat_is_answered_in_words(void **state) {
    fixture *f = *state;
    chat *c = ask_and_wait(f, &(ask){.text = "What is Millrace?", .usage = true, .likeliest = true});
    assert_complete(c);
    assert_string_equal(c->finish, "stop");
    assert_string_equal(c->source, "model");
    assert_true(c->pieces > 1);
    assert_true(c->prompt_tokens > 0);
    assert_true(c->completion_tokens > 0);
    mr_buf_put(&c->text, "", 1);
    assert_non_null(strstr(c->text.p, "Millrace"));
    chat_free(c);
}

static void the_same_chat_in_one_piece_has_the_same_text(void **state) {
    fixture *f = *state;
    ask a = {.text = "Tell me a joke.", .seed = 11, .max_tokens = 48};
    chat *streamed = ask_and_wait(f, &a);
    a.whole = true;
    chat *whole = ask_and_wait(f, &a);
    assert_complete(streamed);
    assert_complete(whole);
    assert_int_equal(whole->pieces, 1);
    assert_true(whole->text.n > 0);
    assert_same_text(streamed, whole);
    assert_string_equal(streamed->finish, whole->finish);
    assert_true(whole->completion_tokens > 0);
    chat_free(streamed);
    chat_free(whole);
}

static void an_answer_ends_at_its_limit(void **state) {
    fixture *f = *state;
    chat *c = ask_and_wait(
        f, &(ask){.text = "What is Millrace?", .max_tokens = 5, .long_answer = true, .usage = true});
    assert_complete(c);
    assert_string_equal(c->finish, "length");
    assert_int_equal(c->completion_tokens, 5);
    chat_free(c);
}

static void many_chats_at_once_each_say_what_they_say_alone(void **state) {
    fixture *f = *state;
    chat *together[MANY];
    ask a = {.text = "Tell me a story.", .max_tokens = 24, .long_answer = true};
    for (int i = 0; i < MANY; i++) {
        a.seed = 100 + i;
        together[i] = chat_ask(f->loop, f->port, &a);
    }
    for (int i = 0; i < MANY; i++) chat_wait(f->loop, together[i]);
    for (int i = 0; i < MANY; i++) {
        a.seed = 100 + i;
        chat *alone = ask_and_wait(f, &a);
        assert_complete(together[i]);
        assert_complete(alone);
        assert_same_text(together[i], alone);
        chat_free(alone);
        chat_free(together[i]);
    }
}

/* ---- the knowledge base ---- */

static void a_routine_question_is_answered_from_the_knowledge_base(void **state) {
    fixture *f = *state;
    for (int whole = 0; whole <= 1; whole++) {
        chat *c =
            ask_and_wait(f, &(ask){.text = "what are your opening hours", .whole = whole, .usage = true});
        assert_complete(c);
        assert_text(c, "We are open from 9 to 17, Monday to Friday.");
        assert_string_equal(c->source, "kb");
        assert_string_equal(c->usage_source, "kb");
        if (whole) assert_string_equal(c->header_source, "kb");
        assert_int_equal(c->completion_tokens, 0);
        chat_free(c);
    }
    chat *c = ask_and_wait(f, &(ask){.text = "你们几点开门？"});
    assert_text(c, "我们早上九点开门。");
    chat_free(c);
}

static void what_follows_an_answer_is_listed_and_asked_for_by_its_number(void **state) {
    fixture *f = *state;
    static const char listed[] =
        "In the old mill, dear guest.\n\nYou can also ask:\n1. What are your opening hours?";
    chat *c = ask_and_wait(f, &(ask){.text = "Where is your shop?"});
    assert_text(c, listed);
    chat_free(c);
    c = ask_and_wait(f, &(ask){.text = "1", .earlier = {"Where is your shop?", listed}});
    assert_text(c, "We are open from 9 to 17, Monday to Friday.");
    chat_free(c);
}

static void what_is_not_sure_enough_goes_to_the_model_with_the_entries(void **state) {
    fixture *f = *state;
    static const char context[] = "millrace_router_kb_context_total";
    double before = pipeline_metric(f->p, PART_ROUTER, context);
    chat *plain =
        ask_and_wait(f, &(ask){.text = "A story about an old wheel", .max_tokens = 4, .usage = true});
    assert_complete(plain);
    assert_true(pipeline_metric(f->p, PART_ROUTER, context) == before);
    chat *helped =
        ask_and_wait(f, &(ask){.text = "A story about opening hours", .max_tokens = 4, .usage = true});
    assert_complete(helped);
    assert_string_equal(helped->source, "model");
    assert_string_equal(helped->usage_source, "model");
    assert_true(pipeline_metric(f->p, PART_ROUTER, context) == before + 1);
    assert_true(helped->prompt_tokens > plain->prompt_tokens + 20);
    chat_free(plain);
    chat_free(helped);
}

static void title_and_summary_come_from_the_model_whatever_the_knowledge_base_says(void **state) {
    fixture *f = *state;
    static const char *const prompts[] = {
        "Please generate a four to five word title summarizing our conversation without any lead-in, "
        "punctuation, quotation marks, periods, symbols, bold text, or additional text. Remove enclosing "
        "quotation marks.",
        "Summarize the discussion briefly in 200 words or less to use as a prompt for future context.",
    };
    for (int i = 0; i < 2; i++) {
        chat *c = ask_and_wait(f, &(ask){.text = prompts[i],
                                         .earlier = {"What is Millrace?", "A pipeline for chats."},
                                         .max_tokens = 16});
        assert_complete(c);
        assert_string_equal(c->source, "model");
        chat_free(c);
    }
}

/* ---- cancel and deadline ---- */

static void a_closed_tab_frees_the_engine(void **state) {
    fixture *f = *state;
    double before =
        pipeline_metric(f->p, PART_WORKER, "millrace_worker_requests_total{finish=\"cancelled\"}");
    chat *c = chat_ask(f->loop, f->port,
                       &(ask){.text = "Tell me a story.", .max_tokens = 3500, .long_answer = true});
    chat_wait_bytes(f->loop, c, 20);
    pid_t engine = pipeline_engine_pid(f->p, PART_WORKER);
    kill(engine, SIGSTOP); /* so that the answer does not end while this looks at it */
    double running = pipeline_metric(f->p, PART_WORKER, "millrace_worker_running_requests");
    chat_free(c);
    kill(engine, SIGCONT);
    assert_true(running == 1);
    assert_true(pipeline_wait_metric(f->p, PART_WORKER, "millrace_worker_running_requests", 0));
    assert_true(pipeline_metric(f->p, PART_WORKER, "millrace_worker_requests_total{finish=\"cancelled\"}") ==
                before + 1);
}

/* An answer that no engine can have written by then. */
static void a_deadline_ends_the_answer_and_frees_the_engine(void **state) {
    fixture *f = *state;
    asker_ask(&f->a, &(question){.id = "late",
                                 .text = "Tell me a story.",
                                 .deadline_ms = mr_now_ms() + 200,
                                 .reply_to = -1,
                                 .max_tokens = 3500,
                                 .ignore_eos = true,
                                 .as_json = true});
    answer *x = asker_wait(&f->a, "late");
    assert_int_equal(x->finish, MR_FINISH_ERROR);
    assert_int_equal(x->status, 504);
    assert_string_equal(x->code, "deadline_exceeded");
    assert_true(pipeline_wait_metric(f->p, PART_WORKER, "millrace_worker_running_requests", 0));
}

/* ---- Kafka itself ---- */

static void json_produced_to_the_topic_is_answered_on_the_topic(void **state) {
    fixture *f = *state;
    asker_ask(&f->a, &(question){.id = "json", .text = "What is Millrace?", .reply_to = 3, .as_json = true});
    answer *x = asker_wait(&f->a, "json");
    assert_int_equal(x->finish, MR_FINISH_STOP);
    assert_true(x->bytes > 0);
    asker_ask(&f->a, &(question){.id = "routine", .text = "What are your opening hours?", .reply_to = -1});
    assert_int_equal(asker_wait(&f->a, "routine")->finish, MR_FINISH_STOP);
}

#define WITH_TURNS "millrace_router_sessions_total{found=\"turns\"}"
#define REDIS_AWAY "millrace_router_sessions_total{found=\"away\"}"

static void say_in_session(fixture *f, const char *id, const char *text) {
    asker_ask(&f->a, &(question){.id = id, .text = text, .session = "s", .reply_to = -1, .max_tokens = 16});
    assert_int_equal(asker_wait(&f->a, id)->ends, 1);
}

/* The worker writes a turn when its answer is in Kafka, which its reader may see first: so a third question finds it. */
static void a_program_that_sends_only_its_session_is_remembered(void **state) {
    fixture *f = *state;
    double before = pipeline_metric(f->p, PART_ROUTER, WITH_TURNS);
    say_in_session(f, "turn-1", "Tell me a joke.");
    say_in_session(f, "turn-2", "Tell me a story.");
    say_in_session(f, "turn-3", "Which one was first?");
    assert_true(pipeline_metric(f->p, PART_ROUTER, WITH_TURNS) > before);
}

static void without_redis_programs_are_answered_all_the_same(void **state) {
    fixture *f = *state;
    double before = pipeline_metric(f->p, PART_ROUTER, REDIS_AWAY);
    pipeline_kill(f->p, PART_REDIS);
    say_in_session(f, "alone", "And now?");
    assert_true(pipeline_metric(f->p, PART_ROUTER, REDIS_AWAY) == before + 1);
    pipeline_run(f->p, PART_REDIS);
    assert_true(pipeline_wait_metric(f->p, PART_ROUTER, "millrace_router_redis_up", 1));
    assert_true(pipeline_wait_metric(f->p, PART_WORKER, "millrace_worker_redis_up", 1));
}

static bool has_letters(void *arg) {
    return ((asker *)arg)->letters >= 3;
}

static void garbage_in_a_topic_becomes_dead_letters_and_everyone_lives_on(void **state) {
    fixture *f = *state;
    static const pipeline_part readers[] = {PART_ROUTER, PART_WORKER};
    pid_t pids[2];
    for (int i = 0; i < 2; i++) pids[i] = pipeline_pid(f->p, readers[i]);
    asker_put(&f->a, MR_STR("\xff\x00\xfe garbage"));
    asker_put(&f->a, MR_STR("{\"v\": 1, \"id\": \"cut"));
    snprintf(f->a.to, sizeof(f->a.to), "chat.generate.main.blue");
    asker_put(&f->a, MR_STR("\xc1 garbage for the worker"));
    snprintf(f->a.to, sizeof(f->a.to), "chat.requests");
    assert_true(test_wait(f->loop, WAIT_MS, has_letters, &f->a));
    chat *c = ask_and_wait(f, &(ask){.text = "Hello!"});
    assert_complete(c);
    chat_free(c);
    for (int i = 0; i < 2; i++) assert_int_equal(pipeline_pid(f->p, readers[i]), pids[i]);
}

/* ---- refusals ---- */

static void assert_refused(fixture *f, chat *c, int status, const char *code) {
    chat_wait(f->loop, c);
    assert_int_equal(c->status, status);
    if (code) assert_string_equal(c->code, code);
    assert_true(*c->message);
    chat_free(c);
}

static void bad_requests_get_clear_errors_and_the_next_chat_is_answered(void **state) {
    fixture *f = *state;
    static const char path[] = "/v1/chat/completions";
    assert_refused(f, chat_ask(f->loop, f->port, &(ask){.text = "Hi", .model = "gpt-17"}), 404,
                   "model_not_found");
    assert_refused(f, chat_send(f->loop, f->port, path, MR_STR("{\"model\": \"millrace-demo\", ")), 400,
                   NULL);
    assert_refused(
        f,
        chat_send(f->loop, f->port, path, MR_STR("{\"model\": \"millrace-demo\", \"messages\": \"Hello\"}")),
        400, NULL);
    size_t n = 3800000;
    char *big = malloc(n);
    assert_non_null(big);
    memset(big, ' ', n);
    assert_refused(f, chat_send(f->loop, f->port, path, (mr_str){big, n}), 413, NULL);
    free(big);
    chat *c = ask_and_wait(f, &(ask){.text = "Hello!"});
    assert_complete(c);
    chat_free(c);
}

static void the_models_are_listed(void **state) {
    fixture *f = *state;
    chat *c = chat_send(f->loop, f->port, "/v1/models", MR_STR(""));
    chat_wait(f->loop, c);
    assert_int_equal(c->status, 200);
    mr_buf_put(&c->in, "", 1);
    assert_non_null(strstr(c->in.p, "\"millrace-demo\""));
    chat_free(c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, NULL, clear)

int main(int argc, char **argv) {
    broker = pipeline_test_broker(argc, argv);
    if (!broker) return 2;
    const struct CMUnitTest tests[] = {
        TEST(a_streamed_chat_is_answered_in_words),
        TEST(the_same_chat_in_one_piece_has_the_same_text),
        TEST(an_answer_ends_at_its_limit),
        TEST(many_chats_at_once_each_say_what_they_say_alone),
        TEST(a_routine_question_is_answered_from_the_knowledge_base),
        TEST(what_follows_an_answer_is_listed_and_asked_for_by_its_number),
        TEST(what_is_not_sure_enough_goes_to_the_model_with_the_entries),
        TEST(title_and_summary_come_from_the_model_whatever_the_knowledge_base_says),
        TEST(a_closed_tab_frees_the_engine),
        TEST(a_deadline_ends_the_answer_and_frees_the_engine),
        TEST(json_produced_to_the_topic_is_answered_on_the_topic),
        TEST(a_program_that_sends_only_its_session_is_remembered),
        TEST(without_redis_programs_are_answered_all_the_same),
        TEST(garbage_in_a_topic_becomes_dead_letters_and_everyone_lives_on),
        TEST(bad_requests_get_clear_errors_and_the_next_chat_is_answered),
        TEST(the_models_are_listed),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
