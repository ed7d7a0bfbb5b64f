/* A whole pipeline whose processes are killed, stopped and frozen while answers run: what its users see of that.
 *
 *     test_fault embedded|kafka
 */
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

#define SOME_BYTES 60 /* of an answer that is under way */
#define CHATS      8

static const char *broker;

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
    int port;
    chat *calm; /* the long answer, undisturbed */
} fixture;

static fixture suite;

/* As long as its context, so that nothing that happens in the middle of it happens after its end. */
static const ask long_answer = {
    .text = "Tell me a story.", .seed = 42, .max_tokens = 3500, .long_answer = true};

static int setup(void **state) {
    mr_error err;
    const pipeline_options opt = {.broker = broker, .worker = "max_seqs = 8; step_timeout_s = 2.0;"};
    setenv("MILLRACE_GATEWAY_DRAIN_S", "55", 1); /* a long answer takes longer on a busy machine */
    suite.loop = mr_loop_new(&err);
    if (!suite.loop) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    suite.port = pipeline_port(suite.p);
    suite.calm = chat_ask(suite.loop, suite.port, &long_answer);
    chat_wait(suite.loop, suite.calm);
    *state = &suite;
    return chat_complete(suite.calm) ? 0 : -1;
}

static void finish(bool failed) {
    chat_free(suite.calm);
    pipeline_stop(suite.p, failed);
    mr_loop_free(suite.loop);
}

/* The long answer, when some of it has come. */
static chat *under_way(fixture *f) {
    chat *c = chat_ask(f->loop, f->port, &long_answer);
    chat_wait_bytes(f->loop, c, SOME_BYTES);
    assert_false(c->over);
    return c;
}

static void assert_complete(chat *c) {
    if (!chat_complete(c)) {
        fail_msg("not complete: status %d, finish '%s', %s%s", c->status, c->finish,
                 c->broken ? "broken, " : "", c->message);
    }
}

static void assert_ends_unbroken(fixture *f, chat *c) {
    chat_wait(f->loop, c);
    assert_complete(c);
    assert_int_equal(c->text.n, f->calm->text.n);
    assert_memory_equal(c->text.p, f->calm->text.p, c->text.n);
    chat_free(c);
}

static void assert_answers(fixture *f) {
    chat *c = chat_ask(f->loop, f->port, &(ask){.text = "What is Millrace?"});
    chat_wait(f->loop, c);
    assert_complete(c);
    chat_free(c);
}

/* ---- the engine host ---- */

static void lose_engine(fixture *f, int signal_number) {
    double lost = pipeline_metric(f->p, PART_WORKER, "millrace_worker_engine_lost_total");
    chat *c = under_way(f);
    pid_t engine = pipeline_engine_pid(f->p, PART_WORKER);
    assert_true(engine > 0);
    kill(engine, signal_number);
    assert_ends_unbroken(f, c);
    assert_int_not_equal(pipeline_engine_pid(f->p, PART_WORKER), engine);
    assert_true(pipeline_metric(f->p, PART_WORKER, "millrace_worker_engine_lost_total") == lost + 1);
}

static void a_killed_engine_leaves_one_unbroken_answer(void **state) {
    lose_engine(*state, SIGKILL);
}

static void a_frozen_engine_is_replaced_and_leaves_one_unbroken_answer(void **state) {
    lose_engine(*state, SIGSTOP);
}

/* ---- the worker ---- */

static void a_killed_worker_that_comes_back_ends_its_answer(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    pipeline_kill(f->p, PART_WORKER);
    pipeline_run(f->p, PART_WORKER);
    assert_ends_unbroken(f, c);
    pipeline_wait_ready(f->p, PART_WORKER);
}

static void a_killed_workers_answer_is_ended_by_another_worker(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    pipeline_run(f->p, PART_WORKER2);
    pipeline_kill(f->p, PART_WORKER);
    assert_ends_unbroken(f, c);
    pipeline_run(f->p, PART_WORKER);
    assert_int_equal(pipeline_end(f->p, PART_WORKER2), 0);
    pipeline_wait_ready(f->p, PART_WORKER);
    assert_answers(f);
}

static void a_worker_that_is_asked_to_end_finishes_its_answer_first(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    assert_int_equal(pipeline_end(f->p, PART_WORKER), 0);
    assert_ends_unbroken(f, c);
    pipeline_run(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_WORKER);
}

/* ---- router and gateway ---- */

static void a_killed_router_loses_no_request(void **state) {
    fixture *f = *state;
    chat *chats[CHATS];
    for (int i = 0; i < CHATS; i++) {
        chats[i] = chat_ask(f->loop, f->port, &(ask){.text = "What is Millrace?"});
        if (i == CHATS / 2) {
            chat_wait_bytes(f->loop, chats[0], 1);
            pipeline_kill(f->p, PART_ROUTER);
        }
    }
    pipeline_run(f->p, PART_ROUTER);
    for (int i = 0; i < CHATS; i++) {
        chat_wait(f->loop, chats[i]);
        assert_complete(chats[i]);
        chat_free(chats[i]);
    }
    pipeline_wait_ready(f->p, PART_ROUTER);
}

static void a_killed_gateway_leaves_no_clean_end(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    pipeline_kill(f->p, PART_GATEWAY);
    chat_wait(f->loop, c);
    assert_true(c->broken);
    assert_false(c->done);
    assert_string_equal(c->finish, "");
    chat_free(c);
    pipeline_run(f->p, PART_GATEWAY);
    pipeline_wait_ready(f->p, PART_GATEWAY);
    assert_answers(f);
}

static void a_gateway_that_is_asked_to_end_finishes_its_answers_first(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    assert_int_equal(pipeline_end(f->p, PART_GATEWAY), 0);
    assert_ends_unbroken(f, c);
    pipeline_run(f->p, PART_GATEWAY);
    pipeline_wait_ready(f->p, PART_GATEWAY);
}

/* ---- Redis and the broker ---- */

static void without_redis_answers_go_on(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    pipeline_kill(f->p, PART_REDIS);
    assert_answers(f);
    assert_ends_unbroken(f, c);
    pipeline_run(f->p, PART_REDIS);
    pipeline_wait_ready(f->p, PART_REDIS);
    assert_answers(f);
}

static void a_broker_that_goes_and_comes_back_breaks_no_answer(void **state) {
    fixture *f = *state;
    if (strcmp(broker, "kafka") != 0) skip(); /* the embedded one forgets everything */
    chat *c = under_way(f);
    pipeline_kill(f->p, PART_BROKER);
    pipeline_run(f->p, PART_BROKER);
    assert_ends_unbroken(f, c);
    pipeline_wait_ready(f->p, PART_GATEWAY); /* until its producer is back as well, it says 503 */
    assert_answers(f);
}

int main(int argc, char **argv) {
    broker = pipeline_test_broker(argc, argv);
    if (!broker) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_engine_leaves_one_unbroken_answer),
        cmocka_unit_test(a_frozen_engine_is_replaced_and_leaves_one_unbroken_answer),
        cmocka_unit_test(a_killed_worker_that_comes_back_ends_its_answer),
        cmocka_unit_test(a_killed_workers_answer_is_ended_by_another_worker),
        cmocka_unit_test(a_worker_that_is_asked_to_end_finishes_its_answer_first),
        cmocka_unit_test(a_killed_router_loses_no_request),
        cmocka_unit_test(a_killed_gateway_leaves_no_clean_end),
        cmocka_unit_test(a_gateway_that_is_asked_to_end_finishes_its_answers_first),
        cmocka_unit_test(without_redis_answers_go_on),
        cmocka_unit_test(a_broker_that_goes_and_comes_back_breaks_no_answer),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
