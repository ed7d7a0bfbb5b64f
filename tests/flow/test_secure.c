/* A pipeline on a real Kafka that wants TLS and a password: the settings of README.md, and what a wrong password says.
 * Exits with 77 where there is no Apache Kafka. */
#include "base/bus.h"
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <librdkafka/rdkafka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* From this librdkafka on SCRAM works with Kafka 3.8.1 and later. */
enum { WAIT_MS = 60000, EXTRA_MAX = 8, SCRAM_WORKS = 0x02060100 };

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
} fixture;

static int setup(void **state) {
    static fixture f;
    mr_error err;
    const pipeline_options opt = {.broker = "kafka",
                                  .sasl = rd_kafka_version() >= SCRAM_WORKS ? "SCRAM-SHA-256" : "PLAIN",
                                  .kb = SOURCE_DIR "/tests/flow/kb.tsv"};
    f.loop = mr_loop_new(&err);
    f.p = f.loop ? pipeline_start(f.loop, &opt) : NULL;
    if (!f.p) exit(77);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    pipeline_stop(f->p, false);
    mr_loop_free(f->loop);
    return 0;
}

static void chats_go_through_topics_that_want_a_password(void **state) {
    static const char *const asked[] = {"what are your opening hours", "Hello!"}, *const source[] = {"kb",
                                                                                                     "model"};
    fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        chat *c = chat_ask(f->loop, pipeline_port(f->p), &(ask){.text = asked[i]});
        chat_wait(f->loop, c);
        assert_true(chat_complete(c));
        assert_string_equal(c->source, source[i]);
        chat_free(c);
    }
}

/* What making a topic says to a client with one setting changed. */
static void assert_refused(fixture *f, const char *name, const char *value, const char *why) {
    const char *extra[EXTRA_MAX];
    char changed[200];
    mr_kafka_conf conf = *pipeline_kafka(f->p);
    const mr_topic_spec topic = {.name = "never", .partitions = 1};
    mr_error err;
    size_t n = strlen(name);
    assert_in_range(conf.extra.n, 1, EXTRA_MAX);
    snprintf(changed, sizeof(changed), "%s=%s", name, value);
    for (int i = 0; i < conf.extra.n; i++) {
        bool this = strncmp(conf.extra.v[i], name, n) == 0 && conf.extra.v[i][n] == '=';
        extra[i] = this ? changed : conf.extra.v[i];
    }
    conf.extra.v = extra;
    assert_int_equal(mr_bus_create_topics(&conf, &topic, 1, WAIT_MS, &err), -1);
    if (!strstr(err.msg, why)) fail_msg("%s", err.msg);
}

static void a_wrong_password_is_said(void **state) {
    assert_refused(*state, "sasl.password", "flood", "lets us not in: ");
    assert_refused(*state, "sasl.username", "nobody", "kafka.extra");
}

int main(void) {
    test_log_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chats_go_through_topics_that_want_a_password),
        cmocka_unit_test(a_wrong_password_is_said),
    };
    return cmocka_run_group_tests_name("secure_kafka", tests, setup, teardown);
}
