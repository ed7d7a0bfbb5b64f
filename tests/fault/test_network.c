/* Workers and gateways that a broken network cuts off from the broker in the middle of answers: who has a request, and what its
 * reader sees. Between each of them and the broker there is a proxy (support/proxy.h). And a disk that is full.
 *
 *     test_network embedded|kafka
 */
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/proxy.h"
#include "support/support.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#define SOME_BYTES     60 /* of an answer that is under way */
#define WAIT_MS        60000
#define STREAMS        16
#define STILL_AT_IT_US 9000000 /* so long after it was cut off a worker has not finished the long answer */

static const char *broker;

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
    test_proxy *way[PARTS]; /* to the broker; NULL: none between */
    chat *calm, *brief;     /* the answers, undisturbed */
} fixture;

static fixture suite;

/* ---- the suite ---- */

static int broker_port(const fixture *f) {
    return atoi(strchr(pipeline_kafka(f->p)->brokers, ':') + 1);
}

/* Starts it, with a proxy between. */
static void run_behind_proxy(fixture *f, pipeline_part part) {
    char route[32];
    if (!f->way[part]) f->way[part] = test_proxy_start(broker_port(f));
    snprintf(route, sizeof(route), "%d:%d", broker_port(f), test_proxy_port(f->way[part]));
    setenv("MILLRACE_FAULT_ROUTE", route, 1);
    setenv("LD_PRELOAD", FAULT_POINTS, 1);
    pipeline_run(f->p, part);
    unsetenv("LD_PRELOAD");
    unsetenv("MILLRACE_FAULT_ROUTE");
}

static int setup(void **state) {
    mr_error err;
    const pipeline_options opt = {
        .broker = broker, .profile = SCRIPTED, .worker = "canary_s = 0;", .servers_only = true};
    suite.loop = mr_loop_new(&err);
    if (!suite.loop) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    setenv("MILLRACE_GATEWAY_ACCEPT_TIMEOUT_S", "5", 1);
    run_behind_proxy(&suite, PART_GATEWAY);
    unsetenv("MILLRACE_GATEWAY_ACCEPT_TIMEOUT_S");
    pipeline_run(suite.p, PART_ROUTER);
    run_behind_proxy(&suite, PART_WORKER);
    run_behind_proxy(&suite, PART_WORKER2);
    for (pipeline_part i = PART_GATEWAY; i <= PART_WORKER2; i++) pipeline_wait_ready(suite.p, i);
    suite.calm = chat_ask(suite.loop, pipeline_port(suite.p), &(ask){.text = "tokens 700", .seed = 42});
    suite.brief = chat_ask(suite.loop, pipeline_port(suite.p), &(ask){.text = "tokens 150", .seed = 43});
    chat_wait(suite.loop, suite.calm);
    chat_wait(suite.loop, suite.brief);
    *state = &suite;
    return chat_complete(suite.calm) && chat_complete(suite.brief) ? 0 : -1;
}

static void finish(bool failed) {
    chat_free(suite.calm);
    chat_free(suite.brief);
    pipeline_stop(suite.p, failed);
    for (int i = 0; i < PARTS; i++) test_proxy_stop(suite.way[i]);
    mr_loop_free(suite.loop);
}

/* ---- answers ---- */

/* The same answer, of 14 seconds… */
static const ask long_one = {.text = "tokens 700 slow 20", .seed = 42};
/* …and the other one, of 3. */
static const ask brief_one = {.text = "tokens 150 slow 20", .seed = 43};

/* When some of it has come. */
static chat *under_way(fixture *f, int port, const ask *a) {
    chat *c = chat_ask(f->loop, port, a);
    chat_wait_bytes(f->loop, c, SOME_BYTES);
    return c;
}

static void assert_same(const chat *c, const chat *calm) {
    if (!chat_complete(c)) fail_msg("status %d, finish '%s', %s", c->status, c->finish, c->message);
    assert_int_equal(c->text.n, calm->text.n);
    assert_memory_equal(c->text.p, calm->text.p, c->text.n);
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

/* ---- a worker is cut off ---- */

static void cut_off(fixture *f, proxy_ways ways) {
    chat *c = under_way(f, pipeline_port(f->p), &long_one);
    pipeline_part cut = busy(f), other = cut == PART_WORKER ? PART_WORKER2 : PART_WORKER;
    double dropped = pipeline_metric(f->p, cut, "millrace_worker_dropped_requests_total");
    int64_t start = mr_mono_us();
    test_proxy_hold(f->way[cut], ways);
    assert_true(pipeline_wait_metric(f->p, other, "millrace_worker_running_requests", 1));
    int64_t took = mr_mono_us() - start;
    printf("another worker has it after %.1f s\n", (double)took / 1e6);
    test_proxy_hold(f->way[cut], PROXY_NONE);
    /* else the whole answer was computed: the embedded broker may need 20 s to give partitions to another */
    if (took < STILL_AT_IT_US)
        assert_true(pipeline_wait_metric(f->p, cut, "millrace_worker_dropped_requests_total", dropped + 1));
    assert_true(pipeline_wait_metric(f->p, cut, "millrace_worker_running_requests", 0));
    chat_wait(f->loop, c);
    assert_same(c, f->calm);
    chat_free(c);
    pipeline_wait_ready(f->p, cut);
}

static void a_worker_that_is_cut_off_is_fenced_and_its_answer_goes_on_elsewhere(void **state) {
    cut_off(*state, PROXY_BOTH);
}

/* What it says is heard, so that the broker may think it well, but it hears of nothing any more. */
static void a_worker_that_hears_nothing_is_fenced_and_its_answer_goes_on_elsewhere(void **state) {
    cut_off(*state, PROXY_DOWN);
}

/* ---- a gateway is cut off ---- */

static void a_gateway_that_is_cut_off_refuses_what_is_new_and_goes_on_with_the_rest(void **state) {
    fixture *f = *state;
    chat *c = under_way(f, pipeline_port(f->p), &brief_one);
    test_proxy_hold(f->way[PART_GATEWAY], PROXY_BOTH);
    chat *refused = chat_ask(f->loop, pipeline_port(f->p), &(ask){.text = "tokens 5", .seed = 1});
    chat_wait(f->loop, refused);
    assert_int_equal(refused->status, 503);
    assert_string_equal(refused->code, "not_accepted");
    assert_false(c->over);
    test_proxy_hold(f->way[PART_GATEWAY], PROXY_NONE);
    chat_wait(f->loop, c);
    assert_same(c, f->brief);
    chat_free(refused);
    chat_free(c);
}

static void an_answer_that_a_gateway_hears_no_end_of_ends_with_an_error(void **state) {
    fixture *f = *state;
    setenv("MILLRACE_GATEWAY_REQUEST_TIMEOUT_S", "8", 1);
    run_behind_proxy(f, PART_GATEWAY2);
    unsetenv("MILLRACE_GATEWAY_REQUEST_TIMEOUT_S");
    pipeline_wait_ready(f->p, PART_GATEWAY2);
    chat *c = under_way(f, pipeline_port2(f->p), &brief_one);
    test_proxy_hold(f->way[PART_GATEWAY2], PROXY_BOTH);
    chat_wait(f->loop, c);
    assert_false(c->done);
    assert_string_equal(c->code, "deadline_exceeded");
    assert_memory_equal(c->text.p, f->brief->text.p, SOME_BYTES); /* and behind it, why there is no more */
    chat_free(c);
    test_proxy_hold(f->way[PART_GATEWAY2], PROXY_NONE);
    pipeline_kill(f->p, PART_GATEWAY2);
}

/* ---- a bad network ---- */

static void ask_all(fixture *f, chat *chats[STREAMS]) {
    for (int i = 0; i < STREAMS; i++) {
        chats[i] = chat_ask(f->loop, pipeline_port(f->p),
                            &(ask){.text = "tokens 60 slow 10", .seed = 1000 + i, .max_tokens = 60});
    }
    for (int i = 0; i < STREAMS; i++) chat_wait(f->loop, chats[i]);
}

static void a_slow_and_lossy_network_changes_no_answer(void **state) {
    fixture *f = *state;
    chat *calm[STREAMS], *chats[STREAMS];
    ask_all(f, calm);
    for (int i = 0; i < PARTS; i++) {
        if (!f->way[i]) continue;
        test_proxy_delay(f->way[i], 30);
        test_proxy_lose(f->way[i], 5);
    }
    ask_all(f, chats);
    for (int i = 0; i < PARTS; i++) {
        if (!f->way[i]) continue;
        test_proxy_delay(f->way[i], 0);
        test_proxy_lose(f->way[i], 0);
    }
    for (int i = 0; i < STREAMS; i++) {
        assert_same(chats[i], calm[i]);
        chat_free(calm[i]);
        chat_free(chats[i]);
    }
}

/* ---- a full disk ---- */

/* No file of the process grows any more, as on a disk that is full; or all do again. */
static void fill_disk(pid_t pid, bool full) {
    struct rlimit r;
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, NULL, &r), 0);
    r.rlim_cur = full ? 0 : r.rlim_max;
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, &r, NULL), 0);
}

static bool log_says_lost(void *arg) {
    const fixture *f = arg;
    char path[200], line[2000];
    const char *conf = pipeline_conf(f->p);
    bool says = false;
    snprintf(path, sizeof(path), "%.*s/router.log", (int)(strrchr(conf, '/') - conf), conf);
    FILE *in = fopen(path, "re");
    assert_non_null(in);
    while (!says && fgets(line, sizeof(line), in)) says = strstr(line, "log lines were lost") != NULL;
    fclose(in);
    return says;
}

/* Neither do log lines go to it, nor the process id of an engine that is started anew. */
static void a_full_disk_stops_no_answer_and_is_said(void **state) {
    fixture *f = *state;
    static const pipeline_part parts[] = {PART_GATEWAY, PART_ROUTER, PART_WORKER, PART_WORKER2};
    for (int i = 0; i < 4; i++) fill_disk(pipeline_pid(f->p, parts[i]), true);
    chat *c = under_way(f, pipeline_port(f->p), &brief_one);
    pipeline_part worker = busy(f);
    kill(pipeline_engine_pid(f->p, worker), SIGKILL);
    chat_wait(f->loop, c);
    assert_same(c, f->brief);
    chat_free(c);
    assert_true(pipeline_metric(f->p, worker, "millrace_log_lost_lines_total") > 0);
    assert_true(pipeline_metric(f->p, PART_ROUTER, "millrace_log_lost_lines_total") > 0);
    for (int i = 0; i < 4; i++) fill_disk(pipeline_pid(f->p, parts[i]), false);
    c = chat_ask(f->loop, pipeline_port(f->p), &brief_one);
    chat_wait(f->loop, c);
    assert_same(c, f->brief);
    chat_free(c);
    assert_true(test_wait(f->loop, WAIT_MS, log_says_lost, f));
}

int main(int argc, char **argv) {
    broker = pipeline_test_broker(argc, argv);
    if (!broker) return 2;
    if (!*FAULT_POINTS) return 77; /* a sanitizer wants to be the first library */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_and_lossy_network_changes_no_answer),
        cmocka_unit_test(a_worker_that_is_cut_off_is_fenced_and_its_answer_goes_on_elsewhere),
        cmocka_unit_test(a_worker_that_hears_nothing_is_fenced_and_its_answer_goes_on_elsewhere),
        cmocka_unit_test(a_gateway_that_is_cut_off_refuses_what_is_new_and_goes_on_with_the_rest),
        cmocka_unit_test(an_answer_that_a_gateway_hears_no_end_of_ends_with_an_error),
        cmocka_unit_test(a_full_disk_stops_no_answer_and_is_said),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
