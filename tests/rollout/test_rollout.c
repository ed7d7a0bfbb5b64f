/* Blue-green on a whole pipeline under load: nobody notices a good rollout, a bad canary is taken back, and whoever drives may
 * die. The engines are simulated; gateway, router, workers and the tool are the real
 * ones.
 *
 *     test_rollout embedded|kafka              the tests
 *     test_rollout embedded|kafka --bench N    N chats during a rollout, and N before it: failures and times
 */
#include "support/chat.h"
#include "support/pipeline.h"
#include "support/support.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS     90000
#define CLIENTS     8
#define WORKERS_MAX 8
#define OUTPUT_MAX  (1 << 16)

static const char *broker;

/* A closed loop of chats, each a conversation of its own. */
typedef struct load {
    chat *open[CLIENTS];
    int started, failed, ended, limit; /* limit 0: until it is told to stop */
    bool running;
    char why[500];
    double *first_s; /* of each that ended, when there is room for `limit` */
} load;

typedef struct fixture {
    mr_loop *loop;
    pipeline *p;
    int port;
    pid_t workers[WORKERS_MAX];
    load load;
} fixture;

static fixture suite;

/* ---- load ---- */

static void ask_next(fixture *f, int i) {
    load *l = &f->load;
    char text[64];
    l->open[i] = NULL;
    if (!l->running || (l->limit && l->started == l->limit)) return;
    snprintf(text, sizeof(text), "tokens 12, conversation %d", l->started++);
    l->open[i] = chat_ask(f->loop, f->port, &(ask){.text = text, .seed = 1});
}

static void take_end(fixture *f, int i) {
    load *l = &f->load;
    chat *c = l->open[i];
    if (l->first_s) l->first_s[l->ended] = (double)(c->first_us - c->asked_us) / 1e6;
    l->ended++;
    if (!chat_complete(c)) {
        l->failed++;
        snprintf(l->why, sizeof(l->why), "status %d, finish '%s', %s %s", c->status, c->finish, c->code,
                 c->message);
    }
    chat_free(c);
    ask_next(f, i);
}

/* A condition of test_wait, called between events: keeps the load going. */
static bool serve_load(void *arg) {
    fixture *f = arg;
    bool busy = false;
    for (int i = 0; i < CLIENTS; i++) {
        if (f->load.open[i] && f->load.open[i]->over) take_end(f, i);
        busy = busy || f->load.open[i];
    }
    return !busy;
}

static void start_load(fixture *f, int limit) {
    f->load = (load){.running = true, .limit = limit};
    for (int i = 0; i < CLIENTS; i++) ask_next(f, i);
}

static void stop_load(fixture *f) {
    f->load.running = false;
    if (!test_wait(f->loop, WAIT_MS, serve_load, f)) fail_msg("chats do not end");
}

/* ---- processes ---- */

/* name, value: what its engine has other than the others have in their environment; or NULL. */
static pid_t start_worker(fixture *f, const char *id, const char *color, const char *name,
                          const char *value) {
    if (name) setenv(name, value, 1);
    pid_t pid = pipeline_spawn(f->p, id,
                               (char *[]){BIN_DIR "/millrace-worker", "--config", (char *)pipeline_conf(f->p),
                                          "--metrics_port", "0", "--id", (char *)id, "--color", (char *)color,
                                          "--engine_pid_file", "", NULL});
    if (name) unsetenv(name);
    for (int i = 0; i < WORKERS_MAX; i++) {
        if (f->workers[i]) continue;
        f->workers[i] = pid;
        return pid;
    }
    fail_msg("too many workers");
    return 0;
}

typedef struct ending {
    fixture *f;
    pid_t pid;
    int status;
    bool over;
} ending;

static bool has_ended(void *arg) {
    ending *e = arg;
    serve_load(e->f);
    if (!e->over && waitpid(e->pid, &e->status, WNOHANG) == e->pid) e->over = true;
    return e->over;
}

/* Its exit status, -1 for a signal; the load goes on meanwhile. */
static int wait_end(fixture *f, pid_t pid) {
    ending e = {.f = f, .pid = pid};
    if (!test_wait(f->loop, WAIT_MS, has_ended, &e)) fail_msg("process %d does not end", (int)pid);
    for (int i = 0; i < WORKERS_MAX; i++) {
        if (f->workers[i] == pid) f->workers[i] = 0;
    }
    return WIFEXITED(e.status) ? WEXITSTATUS(e.status) : -1;
}

static void end_worker(fixture *f, pid_t pid) {
    kill(pid, SIGTERM);
    assert_int_equal(wait_end(f, pid), 0);
}

/* `millrace rollout ARGS…`, with its output in OUT of the pipeline's folder. */
static pid_t start_tool(fixture *f, const char *out, const char *const *args) {
    char *argv[32] = {BIN_DIR "/millrace", "rollout", (char *)args[0], "--config",
                      (char *)pipeline_conf(f->p)};
    int n = 5;
    for (int i = 1; args[i]; i++) argv[n++] = (char *)args[i];
    return pipeline_spawn(f->p, out, argv);
}
/* A machine that is busy with others must not decide a test. */
#define UNTIMED              "--max-ttft-ratio", "0", "--min-speed-ratio", "0"
#define ROLLOUT(f, out, ...) start_tool(f, out, (const char *const[]){__VA_ARGS__, NULL})
#define QUICK                UNTIMED, "--hold", "500ms", "--settle", "1s", "--min-requests", "10", "--patience", "60s"

static void read_output(fixture *f, const char *name, char out[OUTPUT_MAX]) {
    char path[300];
    snprintf(path, sizeof(path), "%.*s%s.log",
             (int)(strrchr(pipeline_conf(f->p), '/') + 1 - pipeline_conf(f->p)), pipeline_conf(f->p), name);
    FILE *file = fopen(path, "re");
    size_t n = file ? fread(out, 1, OUTPUT_MAX - 1, file) : 0;
    out[n] = '\0';
    if (file) fclose(file);
}

typedef struct saying {
    fixture *f;
    const char *name, *text;
} saying;

static bool was_said(void *arg) {
    saying *s = arg;
    static char out[OUTPUT_MAX];
    serve_load(s->f);
    read_output(s->f, s->name, out);
    return strstr(out, s->text) != NULL;
}

static void wait_said(fixture *f, const char *name, const char *text) {
    saying s = {f, name, text};
    static char out[OUTPUT_MAX];
    if (test_wait(f->loop, WAIT_MS, was_said, &s)) return;
    read_output(f, name, out);
    fail_msg("%s does not say '%s' but: %s", name, text, out);
}

static void assert_status(fixture *f, const char *name, int status, int expected) {
    static char out[OUTPUT_MAX];
    if (status == expected) return;
    read_output(f, name, out);
    fail_msg("%s ended with %d, not %d: %s", name, status, expected, out);
}

static void assert_percent(fixture *f, const char *name, int green) {
    static char out[OUTPUT_MAX];
    char wanted[64];
    assert_status(f, name, wait_end(f, ROLLOUT(f, name, "status", "--json")), 0);
    read_output(f, name, out);
    snprintf(wanted, sizeof(wanted), "\"green_percent\":%d.0", green);
    if (!strstr(out, wanted)) fail_msg("not %s: %s", wanted, out);
}

/* ---- the suite ---- */

static int setup(void **state) {
    mr_error err;
    const pipeline_options opt = {
        .broker = broker, .profile = POOL, .worker = "max_seqs = 64; drain_s = 30;"};
    suite.loop = mr_loop_new(&err);
    if (!suite.loop) return -1;
    suite.p = pipeline_start(suite.loop, &opt);
    if (!suite.p) exit(77);
    suite.port = pipeline_port(suite.p);
    *state = &suite;
    return 0;
}

static void finish(bool failed) {
    for (int i = 0; i < CLIENTS; i++) chat_free(suite.load.open[i]);
    for (int i = 0; i < WORKERS_MAX; i++) {
        if (!suite.workers[i]) continue;
        kill(suite.workers[i], SIGKILL);
        waitpid(suite.workers[i], NULL, 0);
    }
    pipeline_stop(suite.p, failed);
    mr_loop_free(suite.loop);
}

/* ---- bad canaries ---- */

static void without_a_ready_worker_no_traffic_moves(void **state) {
    fixture *f = *state;
    pid_t tool = ROLLOUT(f, "none", "start", "--to", "green", "--ready-timeout", "1s");
    assert_status(f, "none", wait_end(f, tool), 3);
    assert_percent(f, "none.status", 0);
}

static void a_canary_that_fails_is_taken_back(void **state) {
    fixture *f = *state;
    pid_t bad = start_worker(f, "failing", "green", "MILLRACE_SIMULATED_FAILS", "true");
    start_load(f, 0);
    pid_t tool = ROLLOUT(f, "fails", "start", "--to", "green", "--steps", "10,50", "--hold", "60s",
                         "--settle", "1s", UNTIMED);
    assert_status(f, "fails", wait_end(f, tool), 3);
    stop_load(f);
    assert_true(f->load.failed >= 3 && f->load.failed < f->load.ended / 2);
    wait_said(f, "fails", "of its requests failed");
    assert_percent(f, "fails.status", 0);
    start_load(f, 50); /* and all is well again */
    stop_load(f);
    assert_int_equal(f->load.failed, 0);
    end_worker(f, bad);
}

static void a_canary_that_is_slow_is_taken_back(void **state) {
    fixture *f = *state;
    pid_t slow = start_worker(f, "slow", "green", "MILLRACE_SIMULATED_SLOW", "20");
    start_load(f, 0);
    pid_t tool = ROLLOUT(f, "slow.tool", "start", "--to", "green", "--steps", "50", "--hold", "60s",
                         "--settle", "1s", "--min-requests", "10", "--max-ttft-ratio", "0");
    assert_status(f, "slow.tool", wait_end(f, tool), 3);
    stop_load(f);
    assert_int_equal(f->load.failed, 0);
    wait_said(f, "slow.tool", "tokens/s");
    assert_percent(f, "slow.status", 0);
    end_worker(f, slow);
}

/* ---- who drives ---- */

static void one_rollout_at_a_time_and_any_tool_goes_on_with_it(void **state) {
    fixture *f = *state;
    start_worker(f, "green", "green", NULL, NULL);
    start_load(f, 0);
    pid_t first = ROLLOUT(f, "first", "start", "--to", "green", "--steps", "30", "--hold", "1h", UNTIMED);
    wait_said(f, "first", "30 % to green");
    assert_status(f, "second", wait_end(f, ROLLOUT(f, "second", "start", "--to", "green")), 4);
    assert_status(f, "early", wait_end(f, ROLLOUT(f, "early", "resume")), 4); /* its tool is alive */

    kill(first, SIGKILL);
    assert_int_equal(wait_end(f, first), -1);
    assert_percent(f, "crashed.status", 30);
    pid_t heir = ROLLOUT(f, "heir", "resume", "--force", "--settle", "1s");
    wait_said(f, "heir", "taken over");
    assert_percent(f, "heir.status", 30);

    kill(heir, SIGSTOP); /* it is fenced while it sleeps */
    assert_status(f, "back", wait_end(f, ROLLOUT(f, "back", "rollback", "--settle", "1s")), 0);
    kill(heir, SIGCONT);
    assert_status(f, "heir", wait_end(f, heir), 5);
    assert_percent(f, "back.status", 0);
    stop_load(f);
    assert_int_equal(f->load.failed, 0);
}

static void promote_skips_the_steps(void **state) {
    fixture *f = *state;
    start_load(f, 0);
    pid_t tool = ROLLOUT(f, "slowly", "start", "--to", "green", "--steps", "20", "--hold", "1h", UNTIMED);
    wait_said(f, "slowly", "20 % to green");
    pid_t now = ROLLOUT(f, "promote", "promote", "--settle", "1s", "--stop-old", "false");
    assert_status(f, "promote", wait_end(f, now), 0);
    assert_status(f, "slowly", wait_end(f, tool), 5);
    assert_percent(f, "promote.status", 100);
    stop_load(f);
    assert_int_equal(f->load.failed, 0);
}

/* ---- a good rollout ---- */

static void nobody_notices_a_rollout_and_the_old_workers_end(void **state) {
    fixture *f = *state;
    pid_t green = 0;
    for (int i = 0; i < WORKERS_MAX; i++) green = f->workers[i] ? f->workers[i] : green;
    start_load(f, 0);
    pid_t tool = ROLLOUT(f, "good", "start", "--to", "blue", "--steps", "10,50,100", QUICK);
    assert_status(f, "good", wait_end(f, tool), 0);
    assert_int_equal(wait_end(f, green), 0);
    stop_load(f);
    if (f->load.failed) fail_msg("%d of %d chats failed: %s", f->load.failed, f->load.ended, f->load.why);
    assert_percent(f, "good.status", 0);
}

static json_t *read_status(fixture *f) {
    static char out[OUTPUT_MAX];
    char name[32];
    static int runs;
    snprintf(name, sizeof(name), "status.%d", runs++);
    pid_t pid = pipeline_spawn(
        f->p, name,
        (char *[]){BIN_DIR "/millrace", "status", "--config", (char *)pipeline_conf(f->p), "--json", NULL});
    assert_int_equal(wait_end(f, pid), 0);
    read_output(f, name, out);
    const char *line = strstr(out, "{\"at_ms\"");
    json_t *j = line ? json_loads(line, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (!j) fail_msg("no JSON: %s", out);
    return j;
}

static void status_shows_the_pool(void **state) {
    fixture *f = *state;
    /* what the tests before have ended is committed a moment later */
    assert_true(
        pipeline_wait_metric(f->p, PART_ROUTER, "millrace_lag_records{pool=\"main\",color=\"blue\"}", 0));
    json_t *j = read_status(f), *blue = json_array_get(json_object_get(j, "colors"), 0);
    assert_string_equal(json_string_value(json_object_get(blue, "color")), "blue");
    assert_int_equal(json_integer_value(json_object_get(blue, "ready")), 1);
    assert_int_equal(json_integer_value(json_object_get(blue, "slots")), 64);
    assert_int_equal(json_integer_value(json_object_get(blue, "lag")), 0);
    json_decref(j);
    assert_true(
        pipeline_wait_metric(f->p, PART_ROUTER, "millrace_lag_records{pool=\"main\",color=\"blue\"}", 0));
    assert_true(pipeline_wait_metric(f->p, PART_ROUTER,
                                     "millrace_pool_ready_workers{pool=\"main\",color=\"blue\"}", 1));
}

/* ---- scaling ---- */

/* Answers that the blue workers have generated, and how many of them have partitions. */
static int64_t count_answers(fixture *f, int *reading) {
    json_t *j = read_status(f), *w;
    size_t i;
    int64_t n = 0;
    *reading = 0;
    json_array_foreach(json_object_get(j, "workers"), i, w) {
        if (strcmp(json_string_value(json_object_get(w, "color")), "blue") != 0) continue;
        n += json_integer_value(json_object_get(w, "ok"));
        *reading += json_is_true(json_object_get(w, "live")) &&
                    json_integer_value(json_object_get(w, "partitions")) > 0;
    }
    json_decref(j);
    return n;
}

static void one_more_worker_takes_its_part_and_no_answer_is_made_twice(void **state) {
    fixture *f = *state;
    int reading = 0;
    int64_t before = count_answers(f, &reading), after = 0;
    assert_int_equal(reading, 1);
    start_load(f, 0);
    start_worker(f, "more", "blue", NULL, NULL);
    while (reading < 2) count_answers(f, &reading); /* the suite's time limit ends it */
    f->load.limit = f->load.started + 200;
    while (f->load.ended < f->load.limit) test_wait(f->loop, 1000, serve_load, f);
    stop_load(f);
    if (f->load.failed) fail_msg("%d of %d chats failed: %s", f->load.failed, f->load.ended, f->load.why);
    while (after < before + f->load.ended)
        after = count_answers(f, &reading); /* statuses are a second behind */
    /* only what ran when partitions moved may run twice */
    assert_in_range(after - before - f->load.ended, 0, CLIENTS);
}

/* ---- the bench ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(const load *l, const char *what, int64_t took_us, double *p99) {
    qsort(l->first_s, (size_t)l->ended, sizeof(double), by_size);
    *p99 = l->first_s[l->ended * 99 / 100];
    printf("%-8s %6d chats, %d failed, %7.1f/s, first token p50 %6.1f ms, p99 %6.1f ms\n", what, l->ended,
           l->failed, l->ended * 1e6 / (double)took_us, 1e3 * l->first_s[l->ended / 2], 1e3 * *p99);
}

static void run_load(fixture *f, int n, const char *what, double *p99) {
    int64_t began = mr_mono_us();
    start_load(f, n);
    f->load.first_s = calloc((size_t)n, sizeof(double));
    while (f->load.ended < n) {
        if (!test_wait(f->loop, WAIT_MS, serve_load, f)) continue; /* a long run is no failure */
    }
    report(&f->load, what, mr_mono_us() - began, p99);
    free(f->load.first_s);
}

/* The steps last as long as the load does, by the speed of the calm run. */
static int bench(int n) {
    fixture *f = &suite;
    void *state;
    char hold[32];
    double calm, rollout;
    if (setup(&state) != 0) return 1;
    start_worker(f, "green", "green", NULL, NULL);
    wait_said(f, "green", "engine ready");
    run_load(f, n / 10, "warm", &calm);
    int64_t began = mr_mono_us();
    run_load(f, n / 2, "calm", &calm);
    snprintf(hold, sizeof(hold), "%lldms", (long long)(mr_mono_us() - began) / 1000 * 2 / 5);
    pid_t tool = ROLLOUT(f, "tool", "start", "--to", "green", "--steps", "1,10,50,100", "--hold", hold,
                         "--settle", "2s", "--min-requests", "5", "--patience", "10s", UNTIMED);
    wait_said(f, "tool", "shifting");
    run_load(f, n, "rollout", &rollout);
    int failed = f->load.failed;
    start_load(f, 0);
    int status = wait_end(f, tool);
    stop_load(f);
    printf("tool ended with %d; p99 %.2f x calm; %d of %d failed, and %d of %d until the tool's end\n",
           status, rollout / calm, failed, n, f->load.failed, f->load.ended);
    finish(false);
    return status == 0 && failed == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    bool measures = argc == 4 && strcmp(argv[2], "--bench") == 0 && atoi(argv[3]) > 0;
    if (argc != 2 && !measures) {
        fprintf(stderr, "usage: test_rollout embedded|kafka [--bench CHATS]\n");
        return 2;
    }
    broker = argv[1];
    test_log_init();
    if (measures) return bench(atoi(argv[3]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_ready_worker_no_traffic_moves),
        cmocka_unit_test(a_canary_that_fails_is_taken_back),
        cmocka_unit_test(a_canary_that_is_slow_is_taken_back),
        cmocka_unit_test(one_rollout_at_a_time_and_any_tool_goes_on_with_it),
        cmocka_unit_test(promote_skips_the_steps),
        cmocka_unit_test(nobody_notices_a_rollout_and_the_old_workers_end),
        cmocka_unit_test(status_shows_the_pool),
        cmocka_unit_test(one_more_worker_takes_its_part_and_no_answer_is_made_twice),
    };
    int failed = cmocka_run_group_tests(tests, setup, NULL);
    finish(failed);
    return failed;
}
