/* A tenant who floods the worker, and another one who asks a question now and then: what the second one feels of the first. The engine
 * is a simulated one, with a real one's times. On a machine that does other things as well only the medians say something; with
 * --figures, on one that does not, both cases are measured for longer and printed, and the p99 must keep to the bar. */
#include "support/asker.h"
#include "support/support.h"
#include "worker/supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FLOOD    400
#define MAX_SEQS 8
#define WAIT_MS  60000

static int questions = 20;
static bool figures;

typedef struct fixture {
    test_kafka *kafka;
    mr_kafka_conf kafka_conf;
    mr_redis_conf redis_conf;
    mr_worker_conf worker_conf;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_supervisor *worker;
    asker a;
    int begun; /* answers before the flood */
    char text[401];
} fixture;

static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->kafka = test_kafka_start();
    test_kafka_topic(f->kafka, "chat.generate.main.blue", 2);
    test_kafka_topic(f->kafka, "chat.responses", 2);
    test_kafka_topic(f->kafka, "chat.control", 1);
    test_kafka_topic(f->kafka, "chat.dead", 1);
    f->kafka_conf = test_kafka_conf(f->kafka);
    f->redis_conf = (mr_redis_conf){.address = "", .password = "", .prefix = "t:", .timeout_ms = 1000};
    f->worker_conf = (mr_worker_conf){.id = "worker-1",
                                      .pool = "main",
                                      .color = "blue",
                                      .engine = "simulated",
                                      .simulated_profile = "",
                                      .model = "",
                                      .model_name = "",
                                      .chat_template = "",
                                      .weights = "stored",
                                      .engine_host = SIMULATED_HOST,
                                      .engine_pid_file = "",
                                      .max_seqs = MAX_SEQS,
                                      .queue = 4096,
                                      .queue_mb = 64,
                                      .prefill_ahead = 256,
                                      .step_timeout_s = 30,
                                      .start_timeout_s = 30,
                                      .on_drained = "exit",
                                      .recycle = "in-place",
                                      .recycle_at_once = 1,
                                      .metrics_host = "127.0.0.1"};
    setenv("MILLRACE_SIMULATED_PREFILL_TOKENS_PER_S", "800", 1); /* a question: 126 ms */
    setenv("MILLRACE_SIMULATED_DECODE_MS", "1:10,8:16", 1);
    setenv("MILLRACE_SIMULATED_CACHED_SHARE", "0.95", 1);
    memset(f->text, 'x', 400);
    f->loop = mr_loop_new(&err);
    f->metrics = mr_metrics_new(&err);
    if (!f->loop || !f->metrics) return -1;
    asker_init(&f->a, f->loop, f->metrics, &f->kafka_conf);
    const mr_supervisor_options opt = {
        .worker = &f->worker_conf, .kafka = &f->kafka_conf, .redis = &f->redis_conf};
    f->worker = mr_supervisor_new(&opt, f->loop, f->metrics, &err);
    if (!f->worker) fail_msg("%s", err.msg);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    mr_supervisor_free(f->worker);
    asker_done(&f->a);
    mr_metrics_free(f->metrics);
    mr_loop_free(f->loop);
    test_kafka_stop(f->kafka);
    free(f);
    return 0;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool has_begun(void *arg) {
    return ((const answer *)arg)->bytes > 0;
}

/* More of the flood than the engine has seats for: it is full. Which of them come first is up to the partitions. */
static bool engine_is_full(void *arg) {
    const fixture *f = arg;
    return asker_begun(&f->a) > f->begun + MAX_SEQS;
}

static void ask(fixture *f, const char *id, const char *tenant, const char *text, int64_t max_tokens) {
    asker_ask(&f->a, &(question){.id = id,
                                 .text = text,
                                 .tenant = tenant,
                                 .reply_to = -1,
                                 .max_tokens = max_tokens,
                                 .ignore_eos = true});
}

/* Milliseconds to the first token of questions that are asked one after the other: p50 and p99 to out. */
static void ask_now_and_then(fixture *f, const char *prefix, double out[2]) {
    double *ms = calloc((size_t)questions, sizeof(*ms));
    for (int i = 0; i < questions; i++) {
        char id[32];
        snprintf(id, sizeof(id), "%s%d", prefix, i);
        int64_t asked = mr_mono_us();
        ask(f, id, "quiet", f->text, 4);
        answer *x = asker_answer(&f->a, id);
        if (!test_wait(f->loop, WAIT_MS, has_begun, x)) fail_msg("%s has no answer", id);
        ms[i] = (double)(mr_mono_us() - asked) / 1e3;
        asker_wait(&f->a, id);
    }
    qsort(ms, (size_t)questions, sizeof(*ms), ascending);
    out[0] = ms[questions / 2];
    out[1] = ms[(questions * 99 + 99) / 100 - 1];
    free(ms);
}

static void a_flood_from_one_tenant_is_hardly_felt_by_another(void **state) {
    fixture *f = *state;
    double calm[2], flooded[2];
    ask(f, "warm", "quiet", f->text, 1);
    asker_wait(&f->a, "warm");
    ask_now_and_then(f, "calm", calm);
    f->begun = asker_begun(&f->a);
    for (int i = 0; i < FLOOD; i++) {
        char id[32];
        snprintf(id, sizeof(id), "flood%d", i);
        ask(f, id, "loud", "Tell me a long story.", 300);
    }
    if (!test_wait(f->loop, WAIT_MS, engine_is_full, f)) fail_msg("the flood does not run");
    ask_now_and_then(f, "flooded", flooded);
    assert_true(asker_ended(&f->a) < FLOOD); /* it still runs */
    if (figures)
        printf("time to first token, %d questions: calm p50 %.1f ms, p99 %.1f ms; in a flood p50 %.1f ms, "
               "p99 %.1f ms; p99 "
               "ratio %.2f\n",
               questions, calm[0], calm[1], flooded[0], flooded[1], flooded[1] / calm[1]);
    int which = figures ? 1 : 0;
    if (flooded[which] > 2 * calm[which])
        fail_msg("%s %.1f ms in a flood, %.1f ms without", figures ? "p99" : "p50", flooded[which],
                 calm[which]);
}

int main(int argc, char **argv) {
    figures = argc > 1 && strcmp(argv[1], "--figures") == 0;
    if (figures) questions = 100;
    test_log_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_flood_from_one_tenant_is_hardly_felt_by_another)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
