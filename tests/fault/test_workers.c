/* Two workers with simulated engines, frozen, killed and recycled while answers run: who has a request, and what its reader sees.
 *
 *     test_workers embedded|kafka
 */
#include "ops/cli/topics.h"
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SOME_BYTES 60 /* of an answer that is under way */
#define WAIT_MS    60000

static const char *broker;

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
    int port;
    chat *calm; /* the answer, undisturbed */
} fixture;

static fixture suite;

static int setup(void **state) {
    mr_error err;
    const pipeline_options opt = {.broker = broker,
                                  .profile = SCRIPTED,
                                  .worker = "recycle = \"side-by-side\"; recycle_grace_s = 0; canary_s = 0;"};
    suite.loop = mr_loop_new(&err);
    if (!suite.loop) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    suite.port = pipeline_port(suite.p);
    pipeline_run(suite.p, PART_WORKER2);
    pipeline_wait_ready(suite.p, PART_WORKER2);
    suite.calm = chat_ask(suite.loop, suite.port, &(ask){.text = "tokens 700", .seed = 42});
    chat_wait(suite.loop, suite.calm);
    *state = &suite;
    return chat_complete(suite.calm) ? 0 : -1;
}

static void finish(bool failed) {
    chat_free(suite.calm);
    pipeline_stop(suite.p, failed);
    mr_loop_free(suite.loop);
}

/* The same answer, of 14 seconds, when some of it has come. */
static chat *under_way(fixture *f) {
    chat *c = chat_ask(f->loop, f->port, &(ask){.text = "tokens 700 slow 20", .seed = 42});
    chat_wait_bytes(f->loop, c, SOME_BYTES);
    return c;
}

static bool runs(fixture *f, pipeline_part worker) {
    return pipeline_metric(f->p, worker, "millrace_worker_running_requests") == 1;
}

static pipeline_part busy(fixture *f) {
    for (int64_t until = mr_mono_us() + WAIT_MS * 1000LL; mr_mono_us() < until; test_idle(f->loop, 25)) {
        if (runs(f, PART_WORKER)) return PART_WORKER;
        if (runs(f, PART_WORKER2)) return PART_WORKER2;
    }
    fail_msg("no worker has the request");
    return PARTS;
}

static void assert_ends_unbroken(fixture *f, chat *c) {
    chat_wait(f->loop, c);
    if (!chat_complete(c)) fail_msg("status %d, finish '%s', %s", c->status, c->finish, c->message);
    assert_int_equal(c->text.n, f->calm->text.n);
    assert_memory_equal(c->text.p, f->calm->text.p, c->text.n);
    chat_free(c);
}

static void a_worker_that_was_frozen_gives_up_what_another_was_given(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    pipeline_part frozen = busy(f), other = frozen == PART_WORKER ? PART_WORKER2 : PART_WORKER;
    int64_t start = mr_mono_us();
    kill(pipeline_pid(f->p, frozen), SIGSTOP);
    assert_true(pipeline_wait_metric(f->p, other, "millrace_worker_running_requests", 1));
    printf("another worker has it after %.1f s\n", (double)(mr_mono_us() - start) / 1e6);
    kill(pipeline_pid(f->p, frozen), SIGCONT);
    assert_true(pipeline_wait_metric(f->p, frozen, "millrace_worker_dropped_requests_total", 1));
    assert_true(pipeline_wait_metric(f->p, frozen, "millrace_worker_running_requests", 0));
    assert_false(c->over); /* the other one is still at it */
    assert_ends_unbroken(f, c);
    pipeline_wait_ready(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_WORKER2);
}

static double rebalances(fixture *f) {
    return pipeline_metric(f->p, PART_WORKER, "millrace_worker_kafka_rebalances_total") +
           pipeline_metric(f->p, PART_WORKER2, "millrace_worker_kafka_rebalances_total");
}

static void an_engine_that_dies_is_replaced_without_a_rebalance(void **state) {
    fixture *f = *state;
    chat *c = under_way(f);
    pipeline_part worker = busy(f);
    double before = rebalances(f);
    int64_t killed = mr_mono_us();
    kill(pipeline_engine_pid(f->p, worker), SIGKILL);
    chat_wait_bytes(f->loop, c, c->text.n + SOME_BYTES);
    printf("the answer goes on %.2f s after the engine's death\n", (double)(mr_mono_us() - killed) / 1e6);
    assert_ends_unbroken(f, c);
    assert_true(rebalances(f) == before);
}

static void an_operator_has_an_engine_replaced_and_hears_of_its_end(void **state) {
    fixture *f = *state;
    char command[400], line[200] = "";
    chat *c = under_way(f);
    pipeline_part worker = busy(f);
    pid_t engine = pipeline_engine_pid(f->p, worker);
    double before = rebalances(f);
    snprintf(command, sizeof(command), BIN_DIR "/millrace recycle %s --timeout_s 60 --kafka.brokers %s",
             worker == PART_WORKER ? "worker" : "worker2", pipeline_kafka(f->p)->brokers);
    FILE *said = popen(command, "r");
    assert_non_null(said);
    assert_non_null(fgets(line, sizeof(line), said));
    assert_int_equal(pclose(said), 0);
    assert_non_null(strstr(line, "replaced side by side"));
    assert_int_not_equal(pipeline_engine_pid(f->p, worker), engine);
    assert_true(pipeline_metric(f->p, worker, "millrace_worker_handed_over_total") == 1);
    assert_ends_unbroken(f, c);
    assert_true(rebalances(f) == before);
}

/* ---- static members ---- */

static double assigned(fixture *f, pipeline_part worker) {
    return pipeline_metric(f->p, worker, "millrace_worker_kafka_assigned_partitions");
}

/* Dynamic members leave the group as they end. The session is long, so that a busy machine has the time for a restart. */
static void make_static(fixture *f) {
    assert_int_equal(pipeline_end(f->p, PART_WORKER), 0);
    assert_int_equal(pipeline_end(f->p, PART_WORKER2), 0);
    setenv("MILLRACE_WORKER_STATIC_MEMBER", "true", 1);
    setenv("MILLRACE_KAFKA_SESSION_TIMEOUT_MS", "60000", 1);
    pipeline_run(f->p, PART_WORKER);
    pipeline_run(f->p, PART_WORKER2);
    pipeline_wait_ready(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_WORKER2);
    assert_true(pipeline_wait_metric(f->p, PART_WORKER, "millrace_worker_kafka_assigned_partitions",
                                     MR_PARTITIONS / 2));
    assert_true(pipeline_wait_metric(f->p, PART_WORKER2, "millrace_worker_kafka_assigned_partitions",
                                     MR_PARTITIONS / 2));
}

static void start_again(fixture *f, pipeline_part worker) {
    pipeline_run(f->p, worker);
    pipeline_wait_ready(f->p, worker); /* which it is with partitions only */
    assert_true(assigned(f, worker) == MR_PARTITIONS / 2);
}

/* The answer that runs in the other worker meanwhile is not disturbed, and neither is that worker's share. It is the last
 * test: stopped, static members keep their partitions for a whole session. */
static void a_static_member_is_restarted_without_a_rebalance_for_the_others(void **state) {
    fixture *f = *state;
    const char *changes = "millrace_worker_kafka_rebalances_total";
    if (strcmp(broker, "kafka") != 0) skip(); /* the embedded one has no static members */
    make_static(f);
    chat *c = under_way(f);
    pipeline_part other = busy(f), worker = other == PART_WORKER ? PART_WORKER2 : PART_WORKER;
    double before = pipeline_metric(f->p, other, changes);
    assert_int_equal(pipeline_end(f->p, worker), 0);
    start_again(f, worker);
    pipeline_kill(f->p, worker);
    start_again(f, worker);
    assert_true(assigned(f, other) == MR_PARTITIONS / 2);
    assert_ends_unbroken(f, c);
    assert_true(pipeline_metric(f->p, other, changes) == before);
    assert_true(pipeline_metric(f->p, other, "millrace_worker_redelivered_total") == 0);
}

int main(int argc, char **argv) {
    broker = pipeline_test_broker(argc, argv);
    if (!broker) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_was_frozen_gives_up_what_another_was_given),
        cmocka_unit_test(an_engine_that_dies_is_replaced_without_a_rebalance),
        cmocka_unit_test(an_operator_has_an_engine_replaced_and_hears_of_its_end),
        cmocka_unit_test(a_static_member_is_restarted_without_a_rebalance_for_the_others),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
