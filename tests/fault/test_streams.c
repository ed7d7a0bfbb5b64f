/* Many streams at once over a whole pipeline whose processes die: each client gets one unbroken answer. The engine is a
 * simulated one, whose text depends on the seed alone.
 *
 *     test_streams embedded|kafka
 */
#include "base/bus.h"
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

#define STREAMS    48
#define SOME_BYTES 60 /* of an answer that is under way */

static const char *broker;

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
    int port;
    chat *calm[STREAMS]; /* the answers, undisturbed */
} fixture;

static fixture suite;

static chat *ask_one(fixture *f, int i) {
    return chat_ask(f->loop, f->port,
                    &(ask){.text = "tokens 200 slow 10", .seed = 1000 + i, .max_tokens = 200});
}

static void ask_all(fixture *f, chat *chats[STREAMS]) {
    for (int i = 0; i < STREAMS; i++) chats[i] = ask_one(f, i);
}

static void all_under_way(fixture *f, chat *chats[STREAMS]) {
    for (int i = 0; i < STREAMS; i++) {
        chat_wait_bytes(f->loop, chats[i], SOME_BYTES);
        assert_false(chats[i]->over);
    }
}

static void assert_complete(const chat *c) {
    if (!chat_complete(c)) {
        fail_msg("not complete: status %d, finish '%s', %s%s", c->status, c->finish,
                 c->broken ? "broken, " : "", c->message);
    }
}

static void assert_same(const chat *c, const chat *calm) {
    assert_int_equal(c->text.n, calm->text.n);
    assert_memory_equal(c->text.p, calm->text.p, c->text.n);
}

static int setup(void **state) {
    mr_error err;
    const pipeline_options opt = {.broker = broker, .profile = SCRIPTED, .worker = "max_seqs = 64;"};
    suite.loop = mr_loop_new(&err);
    if (!suite.loop) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    suite.port = pipeline_port(suite.p);
    ask_all(&suite, suite.calm);
    for (int i = 0; i < STREAMS; i++) {
        chat_wait(suite.loop, suite.calm[i]);
        assert_complete(suite.calm[i]);
    }
    *state = &suite;
    return 0;
}

static void finish(bool failed) {
    for (int i = 0; i < STREAMS; i++) chat_free(suite.calm[i]);
    pipeline_stop(suite.p, failed);
    mr_loop_free(suite.loop);
}

/* ---- replay and tail ---- */

/* Runs `millrace ARGS --config …`; its output, standard error included, goes to out. Returns the exit status. */
static int millrace(fixture *f, mr_buf *out, const char *args) {
    char command[600], part[4096];
    size_t n;
    snprintf(command, sizeof(command), BIN_DIR "/millrace %s --config %s --log.level error 2>&1", args,
             pipeline_conf(f->p));
    mr_buf_clear(out);
    FILE *from = popen(command, "r");
    assert_non_null(from);
    while ((n = fread(part, 1, sizeof(part), from)) > 0) mr_buf_put(out, part, n);
    mr_buf_put(out, "", 1);
    assert_false(out->failed);
    int status = pclose(from);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_run(fixture *f, const char *args, int status, const char *line) {
    mr_buf out;
    mr_buf_init(&out, 1 << 20);
    int got = millrace(f, &out, args);
    if (got != status || !strstr(out.p, line)) {
        fail_msg("millrace %s: status %d, not %d with '%s':\n%s", args, got, status, line, out.p);
    }
    mr_buf_done(&out);
}

#define GENERATE "replay --topic chat.generate.main.blue --in-flight 32 "
#define REQUESTS "replay --topic chat.requests --in-flight 32 "

static void a_replay_gives_every_recorded_answer_again(void **state) {
    fixture *f = *state;
    char args[300];
    expect_run(f, GENERATE "--check", 0, "48 requests: 48 same, 0 differ, 0 could not be checked");
    expect_run(f, REQUESTS "--check", 0, "48 requests: 48 same, 0 differ, 0 could not be checked");
    expect_run(f, REQUESTS "--check --to-color blue --speed 1x", 0, "48 requests: 48 same");
    snprintf(args, sizeof(args), GENERATE "--check --filter request=%s", f->calm[7]->id);
    expect_run(f, args, 0, "1 requests: 1 same");
    expect_run(f, GENERATE "--from -1h --filter session=nobody", 0, "0 requests");
    expect_run(f, GENERATE "--from -1h --to 2020-01-01", 0, "0 requests");
    expect_run(f, GENERATE "--from 2020-01-01T00:00Z --check", 0, "48 requests: 48 same");
    expect_run(f, GENERATE "--from 2099-01-01 --check", 0, "0 requests");
    expect_run(f, GENERATE "--from 1000000", 0, "0 requests");
}

static void a_replay_says_where_other_hardware_differs_first(void **state) {
    fixture *f = *state;
    char args[300], line[200];
    pipeline_kill(f->p, PART_WORKER);
    setenv("MILLRACE_SIMULATED_TEXT_SEED", "99", 1);
    pipeline_run(f->p, PART_WORKER);
    unsetenv("MILLRACE_SIMULATED_TEXT_SEED");
    pipeline_wait_ready(f->p, PART_WORKER);
    snprintf(args, sizeof(args), REQUESTS "--check --filter request=%s", f->calm[3]->id);
    snprintf(line, sizeof(line), "differs   %s: token ", f->calm[3]->id);
    expect_run(f, args, 1, line);
    expect_run(f, args, 1, "1 requests: 0 same, 1 differ, 0 could not be checked");
    pipeline_kill(f->p, PART_WORKER);
    pipeline_run(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_WORKER);
}

static void what_a_replay_cannot_do_is_said(void **state) {
    fixture *f = *state;
    expect_run(f, "replay", 2, "--topic is needed");
    expect_run(f, "replay --topic chat.responses", 2, "holds no requests");
    expect_run(f, GENERATE "--from yesterday", 2, "neither an offset");
    expect_run(f, GENERATE "--filter user=x", 2, "expected request=ID");
    expect_run(f, GENERATE "--to-color red", 2, "to_color");
    expect_run(f, "replay --topic chat.generate.nowhere.blue", 3, "does not exist");
}

static void a_dead_letter_is_replayed(void **state) {
    fixture *f = *state;
    chat *c = chat_ask(f->loop, f->port, &(ask){.text = "tokens 20 crash 5", .seed = 5, .max_tokens = 20});
    chat_wait(f->loop, c);
    assert_string_equal(c->code, "request_failed_repeatedly");
    expect_run(f, "replay --topic chat.dead", 3, "1 requests: 0 answered, 1 failed"); /* it still crashes */
    chat_free(c);
    pipeline_wait_ready(f->p, PART_WORKER);
}

static void put_garbage(fixture *f) {
    mr_error err;
    char topic[250];
    mr_metrics *m = mr_metrics_new(&err);
    mr_producer *p = mr_producer_new(pipeline_kafka(f->p), f->loop, m, "test", NULL, NULL, &err);
    assert_non_null(p);
    mr_bus_topic(pipeline_kafka(f->p), MR_TOPIC_FEEDBACK, topic);
    const mr_produce rec = {
        .topic = topic, .partition = 0, .key = MR_STR("k"), .value = MR_STR("\xc1 garbage")};
    assert_int_equal(mr_producer_send(p, &rec, &err), 0);
    mr_producer_free(p, 10000);
    mr_metrics_free(m);
}

static void tail_shows_the_records_of_every_topic(void **state) {
    fixture *f = *state;
    put_garbage(f);
    expect_run(f, "tail chat.requests --from beginning --count 1", 0, "\"type\":\"ChatRequest\"");
    expect_run(f, "tail chat.generate.main.blue --from beginning --count 1", 0, "\"type\":\"ChatRequest\"");
    expect_run(f, "tail chat.responses --from beginning --count 1", 0, "\"token_ids\":[");
    expect_run(f, "tail chat.dead --from beginning --count 1", 0, "\"type\":\"Dead\"");
    expect_run(f, "tail chat.feedback --from beginning --count 1", 0, "\"error\":\"");
    expect_run(f, "tail chat.feedback --from beginning --count 1", 0, "\"bytes\":9");
}

/* ---- the worker ---- */

static void a_killed_worker_leaves_every_stream_byte_identical(void **state) {
    fixture *f = *state;
    chat *chats[STREAMS];
    ask_all(f, chats);
    all_under_way(f, chats);
    pipeline_run(f->p, PART_WORKER2);
    pipeline_kill(f->p, PART_WORKER);
    for (int i = 0; i < STREAMS; i++) {
        chat_wait(f->loop, chats[i]);
        assert_complete(chats[i]);
        assert_same(chats[i], f->calm[i]);
        chat_free(chats[i]);
    }
    pipeline_run(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_WORKER);
    assert_int_equal(pipeline_end(f->p, PART_WORKER2), 0);
}

/* Whoever takes over draws other tokens: what was sent stays, and its own tokens follow. */
static void other_hardware_goes_on_after_the_tokens_that_were_sent(void **state) {
    fixture *f = *state;
    chat *chats[STREAMS];
    char *begun[STREAMS];
    double before = pipeline_metric(f->p, PART_GATEWAY, "millrace_gateway_regenerations_total");
    int differ = 0;
    ask_all(f, chats);
    all_under_way(f, chats);
    setenv("MILLRACE_SIMULATED_TEXT_SEED", "99", 1);
    pipeline_run(f->p, PART_WORKER2);
    unsetenv("MILLRACE_SIMULATED_TEXT_SEED");
    pipeline_kill(f->p, PART_WORKER);
    for (int i = 0; i < STREAMS; i++) begun[i] = strndup(chats[i]->text.p, SOME_BYTES);
    for (int i = 0; i < STREAMS; i++) {
        chat_wait(f->loop, chats[i]);
        assert_complete(chats[i]);
        assert_memory_equal(chats[i]->text.p, begun[i], SOME_BYTES);
        assert_memory_equal(chats[i]->text.p, f->calm[i]->text.p, SOME_BYTES);
        differ += chats[i]->text.n != f->calm[i]->text.n ||
                  memcmp(chats[i]->text.p, f->calm[i]->text.p, chats[i]->text.n) != 0;
        free(begun[i]);
        chat_free(chats[i]);
    }
    assert_int_equal(differ, STREAMS);
    assert_true(pipeline_metric(f->p, PART_GATEWAY, "millrace_gateway_regenerations_total") ==
                before + STREAMS);
    pipeline_run(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_WORKER);
    assert_int_equal(pipeline_end(f->p, PART_WORKER2), 0);
}

/* ---- the gateway ---- */

/* What came before and after, joined. */
static void assert_joined(const chat *before, const chat *after, const chat *calm) {
    assert_int_equal(before->text.n + after->text.n, calm->text.n);
    assert_memory_equal(before->text.p, calm->text.p, before->text.n);
    assert_memory_equal(after->text.p, calm->text.p + before->text.n, after->text.n);
}

static void resume_all(fixture *f, int port, chat *chats[STREAMS], bool over) {
    chat *after[STREAMS];
    for (int i = 0; i < STREAMS; i++) {
        if (over) chat_wait(f->loop, chats[i]);
        after[i] = chat_resume(f->loop, port, chats[i]->id, chats[i]->at);
    }
    for (int i = 0; i < STREAMS; i++) {
        chat_wait(f->loop, after[i]);
        assert_complete(after[i]);
        assert_joined(chats[i], after[i], f->calm[i]);
        assert_string_equal(after[i]->id, chats[i]->id);
        chat_free(after[i]);
    }
}

static void a_killed_gateways_streams_go_on_at_another_one_byte_identical(void **state) {
    fixture *f = *state;
    chat *chats[STREAMS];
    pipeline_run(f->p, PART_GATEWAY2);
    pipeline_wait_ready(f->p, PART_GATEWAY2);
    ask_all(f, chats);
    all_under_way(f, chats);
    pipeline_kill(f->p, PART_GATEWAY);
    resume_all(f, pipeline_port2(f->p), chats, true);
    /* and once more, now that they have ended, at the first gateway, which has started again */
    pipeline_run(f->p, PART_GATEWAY);
    pipeline_wait_ready(f->p, PART_GATEWAY);
    resume_all(f, f->port, chats, false);
    for (int i = 0; i < STREAMS; i++) chat_free(chats[i]);
}

/* As after a crash of the worker and of the gateway at once. */
static void a_worker_and_a_gateway_die_and_the_streams_go_on_byte_identical(void **state) {
    fixture *f = *state;
    chat *chats[STREAMS];
    ask_all(f, chats);
    all_under_way(f, chats);
    pipeline_run(f->p, PART_WORKER2);
    pipeline_kill(f->p, PART_WORKER);
    pipeline_kill(f->p, PART_GATEWAY);
    resume_all(f, pipeline_port2(f->p), chats, true);
    for (int i = 0; i < STREAMS; i++) chat_free(chats[i]);
    pipeline_run(f->p, PART_GATEWAY);
    pipeline_run(f->p, PART_WORKER);
    pipeline_wait_ready(f->p, PART_GATEWAY);
    pipeline_wait_ready(f->p, PART_WORKER);
    assert_int_equal(pipeline_end(f->p, PART_WORKER2), 0);
}

static void a_client_that_comes_back_to_another_gateway_is_not_cancelled_by_the_first(void **state) {
    fixture *f = *state;
    ask a = {.text = "tokens 200 slow 10", .seed = 1000, .max_tokens = 200, .resume_s = 60};
    char id[128], at[64];
    mr_buf begun;
    mr_buf_init(&begun, 1 << 20);
    double cancels = pipeline_metric(f->p, PART_GATEWAY, "millrace_gateway_cancels_total{reason=\"closed\"}");
    chat *c = chat_ask(f->loop, f->port, &a);
    chat_wait_bytes(f->loop, c, SOME_BYTES);
    assert_false(c->over);
    snprintf(id, sizeof(id), "%s", c->id);
    snprintf(at, sizeof(at), "%s", c->at);
    mr_buf_put(&begun, c->text.p, c->text.n);
    chat_free(c);
    chat *after = chat_resume(f->loop, pipeline_port2(f->p), id, at);
    chat_wait(f->loop, after);
    assert_complete(after);
    assert_int_equal(begun.n + after->text.n, f->calm[0]->text.n);
    assert_memory_equal(after->text.p, f->calm[0]->text.p + begun.n, after->text.n);
    assert_true(pipeline_wait_metric(f->p, PART_GATEWAY, "millrace_gateway_in_flight", 0));
    assert_true(pipeline_metric(f->p, PART_GATEWAY, "millrace_gateway_cancels_total{reason=\"closed\"}") ==
                cancels);
    chat_free(after);
    mr_buf_done(&begun);
}

static void a_gateway_that_is_told_to_end_leaves_its_answers_to_another_one(void **state) {
    fixture *f = *state;
    chat *c = chat_ask(f->loop, f->port,
                       &(ask){.text = "tokens 200 slow 10", .seed = 1000, .max_tokens = 200, .resume_s = 60});
    chat_wait_bytes(f->loop, c, SOME_BYTES);
    kill(pipeline_pid(f->p, PART_GATEWAY), SIGTERM);
    for (bool heard = false; !heard;) { /* it takes no connections any more */
        chat *probe = chat_send(f->loop, f->port, "/livez", MR_STR(""));
        chat_wait(f->loop, probe);
        heard = probe->status == 0;
        chat_free(probe);
    }
    assert_int_not_equal(pipeline_end(f->p, PART_GATEWAY), 0); /* the second signal ends it at once */
    chat_wait(f->loop, c);
    assert_true(c->broken);
    chat *after = chat_resume(f->loop, pipeline_port2(f->p), c->id, c->at);
    chat_wait(f->loop, after);
    assert_complete(after);
    assert_joined(c, after, f->calm[0]);
    chat_free(c);
    chat_free(after);
    pipeline_run(f->p, PART_GATEWAY);
    pipeline_wait_ready(f->p, PART_GATEWAY);
}

int main(int argc, char **argv) {
    broker = pipeline_test_broker(argc, argv);
    if (!broker) return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replay_gives_every_recorded_answer_again),
        cmocka_unit_test(a_replay_says_where_other_hardware_differs_first),
        cmocka_unit_test(what_a_replay_cannot_do_is_said),
        cmocka_unit_test(a_dead_letter_is_replayed),
        cmocka_unit_test(tail_shows_the_records_of_every_topic),
        cmocka_unit_test(a_killed_worker_leaves_every_stream_byte_identical),
        cmocka_unit_test(other_hardware_goes_on_after_the_tokens_that_were_sent),
        cmocka_unit_test(a_killed_gateways_streams_go_on_at_another_one_byte_identical),
        cmocka_unit_test(a_worker_and_a_gateway_die_and_the_streams_go_on_byte_identical),
        cmocka_unit_test(a_client_that_comes_back_to_another_gateway_is_not_cancelled_by_the_first),
        cmocka_unit_test(a_gateway_that_is_told_to_end_leaves_its_answers_to_another_one),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
