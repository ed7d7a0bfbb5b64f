/* What the router promises when Kafka does not take its records at once, and when the router ends. */
#include "fixture.h"

#include <librdkafka/rdkafka.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *router_program;

static void ask(fixture *f, const char *id) {
    char json[300];
    snprintf(json, sizeof(json),
             "{\"v\":1,\"id\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hm?\"}]}", id);
    send_json(f, "one partition", json);
}

/* The partition of chat.requests that `ask` writes to. */
static int asked_partition(fixture *f) {
    for (int p = 0; p < 4; p++) {
        if (committed(f, p) > 0) return p;
    }
    return -1;
}

static bool is_committed(void *arg) {
    return asked_partition(arg) >= 0;
}

static bool is_routed(void *arg) {
    return metric(arg, "millrace_router_requests_total{outcome=\"model\"} ") > 0;
}

static void an_offset_is_committed_only_after_delivery_of_an_answer(void **state) {
    fixture f;
    (void)state;
    fixture_init(&f);
    ask(&f, "a");
    test_kafka_fail_produce(f.kafka, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 1000); /* librdkafka tries on */
    fixture_start(&f);
    assert_true(test_wait(f.loop, WAIT_MS, is_routed, &f));
    test_idle(f.loop, 500); /* two and a half times the commit interval */
    assert_int_equal(asked_partition(&f), -1);
    assert_int_equal(count_records(&f, BLUE, NULL), 0);
    /* Refused for good as often as the router tries: its user is told. */
    test_kafka_fail_produce(f.kafka, 0, 0);
    test_kafka_fail_produce(f.kafka, RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, 3);
    assert_int_equal(wait_end(&f, "a").error.status, 503);
    assert_int_equal(count_records(&f, BLUE, "a"), 0);
    assert_true(test_wait(f.loop, WAIT_MS, is_committed, &f));
    assert_false(mr_router_failed(f.router));
    fixture_done(&f);
}

static bool has_failed(void *arg) {
    return mr_router_failed(((fixture *)arg)->router);
}

static void a_router_that_can_tell_nobody_leaves_the_request_and_ends(void **state) {
    fixture f;
    (void)state;
    fixture_init(&f);
    ask(&f, "c");
    test_kafka_fail_produce(f.kafka, RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, 1000);
    fixture_start(&f);
    assert_true(test_wait(f.loop, WAIT_MS, has_failed, &f));
    fixture_stop(&f);
    assert_int_equal(asked_partition(&f), -1);
    fixture_done(&f);
}

/* ---- a whole process, killed ---- */

static pid_t start_process(const fixture *f) {
    char config[100];
    snprintf(config, sizeof(config), "%s/router.conf", f->folder);
    FILE *out = fopen(config, "w");
    assert_non_null(out);
    fprintf(out,
            "kafka = { brokers = \"%s\"; session_timeout_ms = 3000; };\n"
            "router = { metrics_port = 0; };\nlog = { level = \"warn\"; };\n",
            f->kafka_conf.brokers);
    fclose(out);
    pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) execl(router_program, router_program, "--config", config, (char *)NULL);
        _exit(127);
    }
    return pid;
}

typedef struct sum {
    fixture *f;
    int n;
} sum;

static bool has_forwarded(void *arg) {
    sum *s = arg;
    return count_records(s->f, BLUE, NULL) >= s->n;
}

enum { ASKED = 200 };

static bool has_forwarded_each(void *arg) {
    char id[20];
    for (int i = 0; i < ASKED; i++) {
        snprintf(id, sizeof(id), "k%d", i);
        if (count_records(arg, BLUE, id) == 0) return false;
    }
    return true;
}

static void a_killed_router_loses_no_request(void **state) {
    fixture f;
    char id[20];
    int status;
    (void)state;
    fixture_init(&f);
    pid_t first = start_process(&f);
    for (int i = 0; i < ASKED / 2; i++) snprintf(id, sizeof(id), "k%d", i), ask(&f, id);
    assert_true(test_wait(f.loop, WAIT_MS, has_forwarded, &(sum){&f, 1}));
    for (int i = ASKED / 2; i < ASKED - 1; i++) snprintf(id, sizeof(id), "k%d", i), ask(&f, id);
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    snprintf(id, sizeof(id), "k%d", ASKED - 1);
    ask(&f, id); /* for the second one in any case */
    pid_t second = start_process(&f);
    assert_true(test_wait(f.loop, WAIT_MS, has_forwarded_each, &f));
    kill(second, SIGTERM);
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fixture_done(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offset_is_committed_only_after_delivery_of_an_answer),
        cmocka_unit_test(a_router_that_can_tell_nobody_leaves_the_request_and_ends),
        cmocka_unit_test(a_killed_router_loses_no_request),
    };
    if (argc != 2) return 77;
    router_program = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
