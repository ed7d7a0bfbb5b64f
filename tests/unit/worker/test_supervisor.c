/* The supervisor against a mock cluster and an engine host without an engine: whatever happens to engine, worker or
 * request, every request gets one whole answer or one error, and nothing is forgotten. */
#include "support/asker.h"
#include "support/support.h"
#include "worker/stream.h"
#include "worker/supervisor.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_MS  30000
#define MAX_SEQS 4

typedef struct fixture {
    test_kafka *kafka;
    test_redis *redis;
    char redis_address[32];
    mr_kafka_conf kafka_conf;
    mr_redis_conf redis_conf;
    mr_worker_conf worker_conf;
    mr_loop *loop;
    mr_metrics *metrics;
    mr_supervisor *worker;
    asker a;
    char folder[64], pid_file[128];
} fixture;

/* ---- fixture ---- */

static void start_worker(fixture *f) {
    mr_error err;
    const mr_supervisor_options opt = {
        .worker = &f->worker_conf, .kafka = &f->kafka_conf, .redis = &f->redis_conf};
    f->worker = mr_supervisor_new(&opt, f->loop, f->metrics, &err);
    if (!f->worker) fail_msg("%s", err.msg);
}

static void stop_worker(fixture *f) {
    mr_supervisor_free(f->worker);
    f->worker = NULL;
}

static void configure(fixture *f) {
    test_folder_init(f->folder);
    snprintf(f->pid_file, sizeof(f->pid_file), "%s/engine.pid", f->folder);
    f->kafka_conf = test_kafka_conf(f->kafka);
    f->redis_conf =
        (mr_redis_conf){.address = f->redis_address, .password = "", .prefix = "t:", .timeout_ms = 10000};
    f->worker_conf = (mr_worker_conf){.id = "worker-1",
                                      .pool = "main",
                                      .color = "blue",
                                      .engine = "simulated",
                                      .simulated_profile = SCRIPTED,
                                      .model = "",
                                      .model_name = "",
                                      .chat_template = "",
                                      .device = "cpu",
                                      .weights = "stored",
                                      .kv = "full",
                                      .deterministic = true,
                                      .engine_host = SIMULATED_HOST,
                                      .engine_pid_file = f->pid_file,
                                      .max_seqs = MAX_SEQS,
                                      .queue = 32,
                                      .queue_mb = 64,
                                      .prefill_ahead = 1000000,
                                      .step_timeout_s = 2,
                                      .start_timeout_s = 20,
                                      .drain_s = 10,
                                      .on_drained = "exit",
                                      .recycle = "side-by-side",
                                      .recycle_at_once = 1,
                                      .metrics_host = "127.0.0.1"};
}

static void start_redis(fixture *f) {
    f->redis = test_redis_start(0, NULL);
    if (f->redis)
        snprintf(f->redis_address, sizeof(f->redis_address), "127.0.0.1:%d", test_redis_port(f->redis));
}

/* One worker for all tests: a group of consumers takes seconds to form. */
static int setup(void **state) {
    mr_error err;
    fixture *f = calloc(1, sizeof(*f));
    f->kafka = test_kafka_start();
    test_kafka_topic(f->kafka, "chat.generate.main.blue", 2);
    test_kafka_topic(f->kafka, "chat.responses", 2);
    test_kafka_topic(f->kafka, "chat.control", 1);
    test_kafka_topic(f->kafka, "chat.dead", 1);
    test_kafka_topic(f->kafka, "chat.workers", 1);
    start_redis(f);
    configure(f);
    f->loop = mr_loop_new(&err);
    f->metrics = mr_metrics_new(&err);
    if (!f->loop || !f->metrics) return -1;
    asker_init(&f->a, f->loop, f->metrics, &f->kafka_conf);
    start_worker(f);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    stop_worker(f);
    asker_done(&f->a);
    mr_metrics_free(f->metrics);
    mr_loop_free(f->loop);
    test_redis_stop(f->redis);
    test_kafka_stop(f->kafka);
    test_folder_done(f->folder);
    free(f);
    return 0;
}

static int clear(void **state) {
    fixture *f = *state;
    if (f->worker) asker_clear(&f->a);
    return 0;
}

/* ---- helpers ---- */

static int engine_pid(const fixture *f) {
    int pid = 0;
    FILE *file = fopen(f->pid_file, "r");
    if (file && fscanf(file, "%d", &pid) != 1) pid = 0;
    if (file) fclose(file);
    return pid;
}

typedef struct progress {
    answer *x;
    int64_t bytes;
} progress;

static bool has_bytes(void *arg) {
    const progress *p = arg;
    return p->x->bytes >= p->bytes;
}

static void wait_bytes(fixture *f, const char *id, int64_t bytes) {
    progress p = {asker_answer(&f->a, id), bytes};
    if (!test_wait(f->loop, WAIT_MS, has_bytes, &p))
        fail_msg("%s: only %lld bytes", id, (long long)p.x->bytes);
}

static bool has_letter(void *arg) {
    return ((fixture *)arg)->a.letters > 0;
}
static bool has_two_letters(void *arg) {
    return ((fixture *)arg)->a.letters > 1;
}

static bool has_four_letters(void *arg) {
    return ((fixture *)arg)->a.letters == 4;
}

static void ask_seeded(fixture *f, const char *id, const char *text, int64_t seed) {
    asker_ask(&f->a, &(question){.id = id, .text = text, .seed = seed, .reply_to = -1});
}

static void same_text(const answer *x, const answer *y) {
    assert_int_equal(x->text.n, y->text.n);
    assert_memory_equal(x->text.p, y->text.p, y->text.n);
}

static double metric(fixture *f, const char *name) {
    mr_buf out;
    mr_buf_init(&out, 1 << 20);
    mr_metrics_text(f->metrics, &out);
    mr_buf_put(&out, "", 1);
    char line[200];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr(out.p, line);
    double v = at ? strtod(at + strlen(line), NULL) : -1;
    mr_buf_done(&out);
    return v;
}

typedef struct goal {
    fixture *f;
    const char *metric;
    double value;
} goal;

static bool reaches(void *arg) {
    const goal *g = arg;
    return metric(g->f, g->metric) >= g->value;
}

/* ---- answers ---- */

static void a_request_gets_its_whole_answer_in_order(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "r1", "tokens 50 think 10");
    answer *x = asker_wait(&f->a, "r1");
    assert_int_equal(x->finish, MR_FINISH_STOP);
    assert_int_equal(x->tokens, 50);
    assert_true(x->reasoning.n > 0);
    assert_true(x->text.n > x->reasoning.n);
    assert_string_equal(x->worker, "worker-1");
    assert_true(x->attempt >= 1);
    assert_int_equal(x->repeated, 0);
}

static void a_json_request_from_any_program_is_answered_too(void **state) {
    fixture *f = *state;
    asker_ask(&f->a, &(question){.id = "j1", .text = "tokens 5", .reply_to = 1, .as_json = true});
    assert_int_equal(asker_wait(&f->a, "j1")->finish, MR_FINISH_STOP);
}

static void deltas_come_at_most_every_20_ms(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "r1", "tokens 600 slow 2");
    answer *x = asker_wait(&f->a, "r1");
    assert_int_equal(x->tokens, 600);
    assert_true(x->deltas > 2);
    assert_true(x->closest_ms >= MR_DELTA_INTERVAL_US / 1000 - 1); /* sent by two clocks, in whole ms */
}

static void every_token_has_its_logprob(void **state) {
    fixture *f = *state;
    asker_ask(&f->a, &(question){.id = "r1", .text = "tokens 40 slow 1", .reply_to = -1, .logprobs = true});
    assert_int_equal(asker_wait(&f->a, "r1")->logprobs, 40);
}

static void an_error_of_the_engine_reaches_the_user(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "r1", "error tokens 4");
    answer *x = asker_wait(&f->a, "r1");
    assert_int_equal(x->finish, MR_FINISH_ERROR);
    assert_int_equal(x->status, 500);
    assert_string_equal(x->code, "scripted");
}

static void hundreds_of_requests_wait_their_turn_and_all_are_answered(void **state) {
    fixture *f = *state;
    char id[32];
    for (int i = 0; i < 400; i++) {
        snprintf(id, sizeof(id), "r%d", i);
        asker_say(&f->a, id, "tokens 8");
    }
    if (!asker_wait_all(&f->a, 400, WAIT_MS)) fail_msg("only %d answers ended", asker_ended(&f->a));
    for (int i = 0; i < f->a.nanswers; i++) {
        assert_int_equal(f->a.answers[i].ends, 1);
        assert_int_equal(f->a.answers[i].tokens, 8);
    }
}

static void a_full_worker_leaves_the_rest_in_kafka(void **state) {
    fixture *f = *state;
    char id[32];
    for (int i = 0; i < 200; i++) {
        snprintf(id, sizeof(id), "r%d", i);
        asker_say(&f->a, id, "tokens 4 slow 10");
    }
    wait_bytes(f, "r0", 1);
    assert_true(metric(f, "millrace_worker_waiting_requests") <= 32);
    assert_true(asker_wait_all(&f->a, 200, WAIT_MS));
}

/* ---- cancel and deadline ---- */

static void a_cancel_frees_the_slot_at_once(void **state) {
    fixture *f = *state;
    for (int i = 0; i < MAX_SEQS; i++)
        asker_say(&f->a, (char[2]){(char)('a' + i), 0}, "tokens 100000 slow 10");
    wait_bytes(f, "a", 1);
    wait_bytes(f, "d", 1);
    asker_say(&f->a, "next", "tokens 3");
    asker_cancel(&f->a, "b");
    assert_int_equal(asker_wait(&f->a, "b")->finish, MR_FINISH_CANCELLED);
    assert_int_equal(asker_wait(&f->a, "next")->finish, MR_FINISH_STOP);
}

static void a_cancel_that_overtakes_its_request_still_works(void **state) {
    fixture *f = *state;
    asker_cancel(&f->a, "late");
    asker_say(&f->a, "first", "tokens 3");
    asker_wait(&f->a, "first");
    asker_say(&f->a, "late", "tokens 100000 slow 10");
    answer *x = asker_wait(&f->a, "late");
    assert_int_equal(x->finish, MR_FINISH_CANCELLED);
    assert_int_equal(x->bytes, 0);
}

static void a_cancel_reaches_a_request_in_line(void **state) {
    fixture *f = *state;
    for (int i = 0; i < MAX_SEQS; i++)
        asker_say(&f->a, (char[2]){(char)('a' + i), 0}, "tokens 100000 slow 10");
    wait_bytes(f, "a", 1);
    asker_say(&f->a, "waits", "tokens 3");
    asker_cancel(&f->a, "waits");
    assert_int_equal(asker_wait(&f->a, "waits")->finish, MR_FINISH_CANCELLED);
}

static void an_expired_request_is_not_generated(void **state) {
    fixture *f = *state;
    asker_ask(&f->a, &(question){
                         .id = "old", .text = "tokens 5", .deadline_ms = mr_now_ms() - 1000, .reply_to = -1});
    answer *x = asker_wait(&f->a, "old");
    assert_int_equal(x->status, 504);
    assert_int_equal(x->bytes, 0);
}

static void a_deadline_ends_a_running_answer(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "warm", "tokens 1");
    asker_wait(&f->a, "warm");
    asker_ask(&f->a, &(question){.id = "long",
                                 .text = "tokens 100000 slow 10",
                                 .deadline_ms = mr_now_ms() + 800,
                                 .reply_to = -1});
    answer *x = asker_wait(&f->a, "long");
    assert_int_equal(x->status, 504);
    assert_true(x->bytes > 0);
}

/* ---- engines that die ---- */

static void an_answer_survives_its_engine(fixture *f, int signal_number) {
    ask_seeded(f, "calm", "tokens 120 slow 2", 7);
    asker_wait(&f->a, "calm");
    ask_seeded(f, "shaken", "tokens 120 slow 5", 7);
    wait_bytes(f, "shaken", 60);
    int pid = engine_pid(f);
    kill(pid, signal_number);
    answer *x = asker_wait(&f->a, "shaken");
    assert_int_equal(x->finish, MR_FINISH_STOP);
    assert_int_equal(x->tokens, 120);
    assert_int_equal(x->repeated, 0);
    same_text(x, asker_answer(&f->a, "calm"));
    assert_int_not_equal(engine_pid(f), pid);
}

static void a_killed_engine_leaves_one_unbroken_answer(void **state) {
    an_answer_survives_its_engine(*state, SIGKILL);
}
static void a_hung_engine_leaves_one_unbroken_answer(void **state) {
    an_answer_survives_its_engine(*state, SIGSTOP);
}

static void an_answer_survives_many_engines(void **state) {
    fixture *f = *state;
    ask_seeded(f, "calm", "tokens 700", 9);
    asker_wait(&f->a, "calm");
    ask_seeded(f, "shaken", "tokens 700 slow 2", 9);
    for (int64_t bytes = 100; bytes < 3000; bytes *= 3) {
        wait_bytes(f, "shaken", bytes);
        kill(engine_pid(f), SIGKILL);
    }
    answer *x = asker_wait(&f->a, "shaken");
    assert_int_equal(x->finish, MR_FINISH_STOP);
    same_text(x, asker_answer(&f->a, "calm"));
}

static void a_poison_is_given_up_and_its_neighbours_are_not(void **state) {
    fixture *f = *state;
    double lost = metric(f, "millrace_worker_engine_lost_total");
    asker_say(&f->a, "n1", "tokens 60 slow 20");
    asker_say(&f->a, "n2", "tokens 60 slow 20 think 5");
    wait_bytes(f, "n1", 1);
    wait_bytes(f, "n2", 1);
    asker_say(&f->a, "poison", "tokens 60 crash 3");
    asker_say(&f->a, "n3", "tokens 60 slow 20");
    answer *x = asker_wait(&f->a, "poison");
    assert_int_equal(x->finish, MR_FINISH_ERROR);
    assert_string_equal(x->code, "request_failed_repeatedly");
    for (int i = 1; i <= 3; i++) {
        char id[16];
        snprintf(id, sizeof(id), "n%d", i);
        x = asker_wait(&f->a, id);
        assert_int_equal(x->finish, MR_FINISH_STOP);
        assert_int_equal(x->tokens, 60);
    }
    assert_true(test_wait(f->loop, WAIT_MS, has_letter, f));
    assert_string_equal(f->a.letter_of, "poison");
    assert_int_equal(f->a.letters, 1);
    assert_true(metric(f, "millrace_worker_engine_lost_total") == lost + 3);
}

static void two_poisons_are_both_found(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "good", "tokens 80 slow 20");
    wait_bytes(f, "good", 1);
    asker_say(&f->a, "p1", "tokens 60 slow 3 crash 4");
    asker_say(&f->a, "p2", "tokens 60 slow 3 crash 5");
    assert_int_equal(asker_wait(&f->a, "p1")->finish, MR_FINISH_ERROR);
    assert_int_equal(asker_wait(&f->a, "p2")->finish, MR_FINISH_ERROR);
    assert_int_equal(asker_wait(&f->a, "good")->finish, MR_FINISH_STOP);
    assert_true(test_wait(f->loop, WAIT_MS, has_two_letters, f));
}

static bool runs_as_many(void *arg) {
    const goal *g = arg;
    return metric(g->f, "millrace_worker_running_requests") == g->value;
}

#define CROWD 20

static void many_suspects_are_tried_in_groups(void **state) {
    fixture *f = *state;
    char id[16];
    f->worker_conf.max_seqs = CROWD;
    stop_worker(f);
    start_worker(f);
    double lost = metric(f, "millrace_worker_engine_lost_total");
    for (int i = 0; i < CROWD; i++) {
        snprintf(id, sizeof(id), "s%d", i);
        asker_say(&f->a, id, "tokens 60 slow 50");
    }
    for (int deaths = 1; deaths <= 2; deaths++) {
        goal all = {.f = f, .value = CROWD};
        assert_true(test_wait(f->loop, WAIT_MS, runs_as_many, &all));
        kill(engine_pid(f), SIGKILL);
        goal died = {f, "millrace_worker_engine_lost_total", lost + deaths};
        assert_true(test_wait(f->loop, WAIT_MS, reaches, &died));
    }
    goal group = {.f = f, .value = CROWD / 4};
    assert_true(test_wait(f->loop, WAIT_MS, runs_as_many, &group));
    for (int i = 0; i < CROWD; i++) {
        snprintf(id, sizeof(id), "s%d", i);
        assert_int_equal(asker_wait(&f->a, id)->finish, MR_FINISH_STOP);
    }
    f->worker_conf.max_seqs = MAX_SEQS;
    stop_worker(f);
    start_worker(f);
}

/* ---- suspects that another worker is given ---- */

/* As if engines of workers before had died of it. */
static void remember_starts(fixture *f, const char *id, int starts) {
    mr_error err;
    redisContext *redis = mr_store_connect_sync(&f->redis_conf, &err);
    assert_non_null(redis);
    freeReplyObject(redisCommand(redis, "HSET t:request:%s n %d a 1", asker_answer(&f->a, id)->id, starts));
    redisFree(redis);
}

static void a_long_answer_steps_aside_for_a_trial(void **state) {
    fixture *f = *state;
    if (!f->redis) skip();
    asker_say(&f->a, "runs", "tokens 100000 slow 10");
    wait_bytes(f, "runs", 10);
    remember_starts(f, "suspect", 2);
    asker_say(&f->a, "suspect", "tokens 5");
    assert_int_equal(asker_wait(&f->a, "suspect")->finish, MR_FINISH_STOP);
    answer *x = asker_answer(&f->a, "runs");
    wait_bytes(f, "runs", x->bytes + 10);
    assert_int_equal(x->repeated, 0);
    asker_cancel(&f->a, "runs");
    assert_int_equal(asker_wait(&f->a, "runs")->finish, MR_FINISH_CANCELLED);
}

#define POISONS 8

static void a_failed_start_counts_wherever_the_record_goes(void **state) {
    fixture *f = *state;
    if (!f->redis) skip();
    static fixture
        other; /* a second worker, which is given one of the two partitions; it outlives a failure */
    mr_error err;
    char id[16];
    double lost = metric(f, "millrace_worker_engine_lost_total");
    for (int i = 0; i < POISONS; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        remember_starts(f, id, 2);
        asker_say(&f->a, id, "tokens 60 slow 400 crash 3");
    }
    goal wait = {f, "millrace_worker_waiting_requests", POISONS - 1};
    assert_true(test_wait(f->loop, WAIT_MS, reaches, &wait));
    other = *f;
    other.metrics = mr_metrics_new(&err);
    other.worker_conf.id = "worker-2";
    other.worker_conf.engine_pid_file = "";
    start_worker(&other);
    for (int i = 0; i < POISONS; i++) {
        snprintf(id, sizeof(id), "p%d", i);
        assert_string_equal(asker_wait(&f->a, id)->code, "request_failed_repeatedly");
    }
    double there = metric(&other, "millrace_worker_engine_lost_total");
    assert_true(there > 0);
    double all = metric(f, "millrace_worker_engine_lost_total") - lost + there;
    /* the one that ran when its partition went away may be tried by both */
    assert_true(all == POISONS || all == POISONS + 1);
    stop_worker(&other);
    mr_metrics_free(other.metrics);
}

static void a_cancel_during_a_restart_is_kept(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "r1", "tokens 100000 slow 10");
    wait_bytes(f, "r1", 10);
    kill(engine_pid(f), SIGSTOP);
    asker_cancel(&f->a, "r1");
    assert_int_equal(asker_wait(&f->a, "r1")->finish, MR_FINISH_CANCELLED);
    asker_say(&f->a, "r2", "tokens 3");
    assert_int_equal(asker_wait(&f->a, "r2")->finish, MR_FINISH_STOP);
}

/* ---- workers that end ---- */

static void the_next_worker_completes_what_the_last_one_left(void **state) {
    fixture *f = *state;
    ask_seeded(f, "calm", "tokens 150", 5);
    asker_wait(&f->a, "calm");
    ask_seeded(f, "left", "tokens 150 slow 10", 5);
    asker_say(&f->a, "seedless", "tokens 100 slow 10");
    char id[16];
    for (int i = 0; i < 20; i++) {
        snprintf(id, sizeof(id), "done%d", i);
        asker_say(&f->a, id, "tokens 2");
    }
    assert_true(asker_wait_all(&f->a, 21, WAIT_MS));
    wait_bytes(f, "left", 100);
    wait_bytes(f, "seedless", 100);
    int64_t first = asker_answer(&f->a, "left")->attempt;
    stop_worker(f);
    start_worker(f);
    answer *x = asker_wait(&f->a, "left");
    assert_int_equal(x->finish, MR_FINISH_STOP);
    assert_int_equal(x->tokens, 150);
    assert_true(x->repeated > 0);
    assert_true(x->attempt > first);
    same_text(x, asker_answer(&f->a, "calm"));
    assert_int_equal(asker_wait(&f->a, "seedless")->finish, MR_FINISH_STOP);
    for (int i = 0; i < 20; i++) {
        snprintf(id, sizeof(id), "done%d", i);
        assert_int_equal(asker_answer(&f->a, id)->ends, f->redis ? 1 : asker_answer(&f->a, id)->ends);
    }
}

static bool is_delivered(void *arg) {
    return mr_producer_in_flight(((fixture *)arg)->a.producer) == 0;
}

static void a_worker_that_starts_knows_what_was_cancelled_before(void **state) {
    fixture *f = *state;
    stop_worker(f);
    asker_cancel(&f->a, "gone");
    asker_say(&f->a, "gone", "tokens 100000 slow 10");
    assert_true(test_wait(f->loop, WAIT_MS, is_delivered, f));
    test_kafka_lead(f->kafka, "chat.control", 0,
                    false); /* which takes it longer to read than its first record */
    start_worker(f);
    goal assigned = {f, "millrace_worker_kafka_assigned_partitions", 2};
    assert_true(test_wait(f->loop, WAIT_MS, reaches, &assigned));
    test_idle(f->loop, 300);
    test_kafka_lead(f->kafka, "chat.control", 0, true);
    answer *x = asker_wait(&f->a, "gone");
    assert_int_equal(x->finish, MR_FINISH_CANCELLED);
    assert_int_equal(x->deltas, 0);
}

static bool is_attempt(void *arg) {
    const progress *p = arg;
    return p->x->attempt >= p->bytes;
}

static void a_request_that_takes_workers_down_is_given_up(void **state) {
    fixture *f = *state;
    if (!f->redis) skip();
    asker_say(&f->a, "deadly", "tokens 100000 slow 10");
    int64_t last = 0;
    for (int i = 1; i <= 3; i++) {
        progress p = {asker_answer(&f->a, "deadly"), last + 1};
        assert_true(test_wait(f->loop, WAIT_MS, is_attempt, &p));
        last = p.x->attempt;
        stop_worker(f);
        start_worker(f);
    }
    answer *x = asker_wait(&f->a, "deadly");
    assert_string_equal(x->code, "request_failed_repeatedly");
    assert_true(test_wait(f->loop, WAIT_MS, has_letter, f));
    assert_string_equal(f->a.letter_of, "deadly");
}

static void redis_going_away_is_not_noticed_by_users(void **state) {
    fixture *f = *state;
    if (!f->redis) skip();
    asker_say(&f->a, "before", "tokens 100 slow 10");
    wait_bytes(f, "before", 10);
    test_redis_stop(f->redis);
    f->redis = NULL;
    asker_say(&f->a, "after", "tokens 5");
    assert_int_equal(asker_wait(&f->a, "after")->finish, MR_FINISH_STOP);
    assert_int_equal(asker_wait(&f->a, "before")->finish, MR_FINISH_STOP);
}

static bool nothing_runs(void *arg) {
    return metric(arg, "millrace_worker_running_requests") == 0;
}

static void a_drain_finishes_what_runs_and_takes_nothing_new(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "runs", "tokens 100 slow 10");
    wait_bytes(f, "runs", 10);
    mr_loop_drain(f->loop);
    asker_say(&f->a, "late", "tokens 3");
    assert_int_equal(mr_loop_run(f->loop), 0);
    assert_true(nothing_runs(f));
    stop_worker(f);
    asker_wait(&f->a, "runs");
    assert_int_equal(asker_answer(&f->a, "late")->deltas, 0);
}

/* ---- engines that are replaced on purpose ---- */

static void send_control(fixture *f, mr_control *c, const char *key) {
    mr_error err;
    mr_buf body;
    mr_buf_init(&body, 4096);
    MR_SET(c, MR_CONTROL_V, v, MR_SCHEMA_VERSION);
    if (mr_pack(&mr_control_def, c, &body, &err)) fail_msg("%s", err.msg);
    const mr_produce rec = {
        .topic = "chat.control", .key = mr_str_of(key), .value = mr_buf_str(&body), .partition = -1};
    if (mr_producer_send(f->a.producer, &rec, &err)) fail_msg("%s", err.msg);
    mr_buf_done(&body);
}

static void order_recycling(fixture *f) {
    mr_control c = {.set = 0};
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_RECYCLE);
    MR_SET(&c, MR_CONTROL_WORKER, worker, MR_STR("worker-1"));
    MR_SET(&c, MR_CONTROL_ORDER, order, 1);
    send_control(f, &c, "recycle/worker-1");
}

/* Until one more engine was replaced for this reason than `before`. */
static void wait_recycled(fixture *f, const char *reason, double before) {
    char name[100];
    snprintf(name, sizeof(name), "millrace_worker_recycled_total{reason=\"%s\"}", reason);
    goal g = {f, name, before + 1};
    if (!test_wait(f->loop, WAIT_MS, reaches, &g)) fail_msg("not recycled for %s", reason);
}

static double recycled(fixture *f, const char *reason) {
    char name[100];
    snprintf(name, sizeof(name), "millrace_worker_recycled_total{reason=\"%s\"}", reason);
    return metric(f, name);
}

static void restart_worker(fixture *f) {
    static int times;
    char id[16];
    stop_worker(f);
    start_worker(f);
    snprintf(id, sizeof(id), "warm%d", times++);
    asker_say(&f->a, id, "tokens 1");
    asker_wait(&f->a, id); /* it has partitions, an engine, and has read chat.control */
}

/* A long answer is under way while the engine is replaced; its grace is over at once. */
static void an_answer_survives_recycling(fixture *f, const char *how) {
    f->worker_conf.recycle = how;
    f->worker_conf.recycle_grace_s = 0;
    restart_worker(f);
    ask_seeded(f, "calm", "tokens 400", 7);
    asker_wait(&f->a, "calm");
    ask_seeded(f, "moved", "tokens 400 slow 5", 7);
    wait_bytes(f, "moved", 60);
    int pid = engine_pid(f);
    double before = recycled(f, "order"), lost = metric(f, "millrace_worker_engine_lost_total");
    order_recycling(f);
    answer *x = asker_wait(&f->a, "moved");
    wait_recycled(f, "order", before);
    assert_int_not_equal(engine_pid(f), pid);
    assert_int_equal(kill(engine_pid(f), 0), 0);
    assert_int_equal(x->finish, MR_FINISH_STOP);
    assert_int_equal(x->tokens, 400);
    assert_int_equal(x->repeated, 0);
    same_text(x, asker_answer(&f->a, "calm"));
    assert_true(metric(f, "millrace_worker_handed_over_total") > 0);
    assert_true(metric(f, "millrace_worker_engine_lost_total") == lost);
}

static void an_answer_moves_to_the_new_engine_beside_the_old_one(void **state) {
    an_answer_survives_recycling(*state, "side-by-side");
}
static void an_answer_waits_for_the_new_engine_in_the_old_ones_place(void **state) {
    an_answer_survives_recycling(*state, "in-place");
}

static void an_answer_may_end_in_the_old_engine_while_the_new_one_takes_the_next(void **state) {
    fixture *f = *state;
    f->worker_conf.recycle = "side-by-side";
    f->worker_conf.recycle_grace_s = 60;
    restart_worker(f);
    double before = recycled(f, "order"), moved = metric(f, "millrace_worker_handed_over_total");
    asker_say(&f->a, "old", "tokens 100000 slow 10");
    wait_bytes(f, "old", 10);
    int pid = engine_pid(f);
    order_recycling(f);
    for (int i = 0; engine_pid(f) == pid || engine_pid(f) == 0; i++) {
        if (i == WAIT_MS / 10) fail_msg("no new engine");
        test_idle(f->loop, 10);
    }
    asker_say(&f->a, "new", "tokens 5");
    assert_int_equal(asker_wait(&f->a, "new")->finish, MR_FINISH_STOP);
    assert_int_equal(kill(pid, 0), 0); /* the old one still works */
    asker_cancel(&f->a, "old");
    assert_int_equal(asker_wait(&f->a, "old")->finish, MR_FINISH_CANCELLED);
    wait_recycled(f, "order", before);
    assert_true(metric(f, "millrace_worker_handed_over_total") == moved);
    assert_int_equal(kill(pid, 0), -1);
}

static void an_old_engine_is_replaced_by_itself(void **state) {
    fixture *f = *state;
    double before = recycled(f, "age");
    f->worker_conf.recycle_hours = 0.0002; /* 0.7 s */
    restart_worker(f);
    wait_recycled(f, "age", before);
    f->worker_conf.recycle_hours = 0;
    restart_worker(f);
}

static void an_engine_that_grows_too_large_is_replaced(void **state) {
    fixture *f = *state;
    double before = recycled(f, "memory");
    setenv("MILLRACE_SIMULATED_LEAK_MB_PER_S", "100", 1);
    f->worker_conf.memory_max_mb = 60;
    restart_worker(f);
    wait_recycled(f, "memory", before);
    unsetenv("MILLRACE_SIMULATED_LEAK_MB_PER_S");
    f->worker_conf.memory_max_mb = 0;
    restart_worker(f);
}

static void an_engine_that_computes_wrongly_is_replaced(void **state) {
    fixture *f = *state;
    double before = recycled(f, "canary");
    setenv("MILLRACE_SIMULATED_WRONG_FROM_TOKEN", "20", 1);
    f->worker_conf.canary_s = 1;
    restart_worker(f);
    wait_recycled(f, "canary", before);
    assert_true(metric(f, "millrace_worker_wrong_canaries_total") > 0);
    unsetenv("MILLRACE_SIMULATED_WRONG_FROM_TOKEN");
    f->worker_conf.canary_s = 0;
    restart_worker(f);
}

static void say_rollout(fixture *f, int state) {
    mr_control c = {.set = 0};
    int64_t all = 100;
    MR_SET(&c, MR_CONTROL_KIND, kind, MR_CONTROL_IS_ROLLOUT);
    MR_SET(&c, MR_CONTROL_POOL, pool, MR_STR("main"));
    MR_SET(&c.rollout, MR_ROLLOUT_STATE, state, state);
    MR_SET(&c.rollout, MR_ROLLOUT_TO, to, MR_GREEN);
    MR_SET(&c.rollout, MR_ROLLOUT_OWNER, owner, MR_STR("test"));
    c.rollout.steps.v = &all;
    c.rollout.steps.n = 1;
    MR_MARK(&c.rollout, MR_ROLLOUT_STEPS);
    MR_MARK(&c, MR_CONTROL_ROLLOUT);
    send_control(f, &c, "rollout/main");
}

static void nothing_is_recycled_while_a_rollout_goes_on(void **state) {
    fixture *f = *state;
    double before = recycled(f, "order");
    say_rollout(f, MR_ROLLOUT_SHIFTING);
    order_recycling(f);
    test_idle(f->loop, 1500); /* it asks for its turn every second */
    assert_true(recycled(f, "order") == before);
    say_rollout(f, MR_ROLLOUT_DONE);
    wait_recycled(f, "order", before);
}

static bool turn_is_free(void *redis) {
    redisReply *left = redisCommand(redis, "ZCARD t:recycle:main");
    bool is_free = left && left->type == REDIS_REPLY_INTEGER && left->integer == 0;
    freeReplyObject(left);
    return is_free;
}

static void recycling_waits_for_its_turn_in_the_pool(void **state) {
    fixture *f = *state;
    if (!f->redis) skip();
    mr_error err;
    double before = recycled(f, "order");
    redisContext *redis = mr_store_connect_sync(&f->redis_conf, &err);
    assert_non_null(redis);
    freeReplyObject(redisCommand(redis, "ZADD t:recycle:main 99999999999999 another"));
    order_recycling(f);
    test_idle(f->loop, 1500);
    assert_true(recycled(f, "order") == before);
    freeReplyObject(redisCommand(redis, "DEL t:recycle:main"));
    wait_recycled(f, "order", before);
    assert_true(test_wait(f->loop, WAIT_MS, turn_is_free, redis)); /* given back */
    redisFree(redis);
}

/* ---- bad input ---- */

static void garbage_goes_to_the_dead_letters_and_the_worker_lives_on(void **state) {
    fixture *f = *state;
    asker_put(&f->a, MR_STR("\xff\xfe garbage"));
    asker_put(&f->a, MR_STR(""));
    asker_put(&f->a, MR_STR("{\"v\": 1, \"id\":"));
    asker_put(&f->a, MR_STR("\x81\xa1v\x01"));
    asker_say(&f->a, "good", "tokens 3");
    assert_int_equal(asker_wait(&f->a, "good")->finish, MR_FINISH_STOP);
    assert_true(test_wait(f->loop, WAIT_MS, has_four_letters, f));
}

static void a_broken_request_with_an_id_gets_an_error_as_well(void **state) {
    fixture *f = *state;
    char record[200];
    snprintf(record, sizeof(record), "{\"v\": 1, \"id\": \"%s\", \"reply_to\": 1, \"messages\": \"none\"}",
             asker_answer(&f->a, "bad")->id);
    asker_put(&f->a, mr_str_of(record));
    answer *x = asker_wait(&f->a, "bad");
    assert_int_equal(x->status, 400);
    assert_true(test_wait(f->loop, WAIT_MS, has_letter, f));
    assert_non_null(strstr(f->a.reason, "messages"));
    assert_string_equal(f->a.letter_of, "bad");
}

static void the_same_request_twice_is_answered_once(void **state) {
    fixture *f = *state;
    asker_say(&f->a, "twice", "tokens 60 slow 10");
    asker_say(&f->a, "twice", "tokens 60 slow 10");
    answer *x = asker_wait(&f->a, "twice");
    asker_say(&f->a, "last", "tokens 3");
    asker_wait(&f->a, "last");
    assert_int_equal(x->ends, 1);
    assert_int_equal(x->repeated, 0);
}

static void an_answer_to_a_partition_that_is_not_there_blocks_nobody(void **state) {
    fixture *f = *state;
    asker_ask(&f->a, &(question){.id = "lost", .text = "tokens 5", .reply_to = 999});
    asker_say(&f->a, "good", "tokens 3");
    assert_int_equal(asker_wait(&f->a, "good")->finish, MR_FINISH_STOP);
    assert_true(test_wait(f->loop, WAIT_MS, has_letter, f));
    assert_string_equal(f->a.letter_of, "lost");
    asker_answer(&f->a, "lost")->asked = false; /* nobody will hear of its end */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, NULL, clear)

/* Two programs' worth, that run side by side: nearly all of it is waiting. */
static const struct CMUnitTest requests[] = {
    TEST(a_request_gets_its_whole_answer_in_order),
    TEST(a_json_request_from_any_program_is_answered_too),
    TEST(deltas_come_at_most_every_20_ms),
    TEST(every_token_has_its_logprob),
    TEST(an_error_of_the_engine_reaches_the_user),
    TEST(hundreds_of_requests_wait_their_turn_and_all_are_answered),
    TEST(a_full_worker_leaves_the_rest_in_kafka),
    TEST(a_cancel_frees_the_slot_at_once),
    TEST(a_cancel_that_overtakes_its_request_still_works),
    TEST(a_cancel_reaches_a_request_in_line),
    TEST(an_expired_request_is_not_generated),
    TEST(a_deadline_ends_a_running_answer),
    TEST(a_killed_engine_leaves_one_unbroken_answer),
    TEST(a_hung_engine_leaves_one_unbroken_answer),
    TEST(an_answer_survives_many_engines),
    TEST(a_poison_is_given_up_and_its_neighbours_are_not),
    TEST(two_poisons_are_both_found),
    TEST(many_suspects_are_tried_in_groups),
    TEST(a_long_answer_steps_aside_for_a_trial),
    TEST(a_failed_start_counts_wherever_the_record_goes),
    TEST(a_cancel_during_a_restart_is_kept),
    TEST(garbage_goes_to_the_dead_letters_and_the_worker_lives_on),
    TEST(a_broken_request_with_an_id_gets_an_error_as_well),
    TEST(the_same_request_twice_is_answered_once),
    TEST(an_answer_to_a_partition_that_is_not_there_blocks_nobody),
    TEST(the_next_worker_completes_what_the_last_one_left),
    TEST(a_worker_that_starts_knows_what_was_cancelled_before),
    TEST(a_request_that_takes_workers_down_is_given_up),
    TEST(redis_going_away_is_not_noticed_by_users),
    TEST(a_drain_finishes_what_runs_and_takes_nothing_new),
};

static const struct CMUnitTest recycling[] = {
    TEST(an_answer_moves_to_the_new_engine_beside_the_old_one),
    TEST(an_answer_waits_for_the_new_engine_in_the_old_ones_place),
    TEST(an_answer_may_end_in_the_old_engine_while_the_new_one_takes_the_next),
    TEST(an_old_engine_is_replaced_by_itself),
    TEST(an_engine_that_grows_too_large_is_replaced),
    TEST(an_engine_that_computes_wrongly_is_replaced),
    TEST(recycling_waits_for_its_turn_in_the_pool),
    TEST(nothing_is_recycled_while_a_rollout_goes_on),
};

int main(int argc, char **argv) {
    test_log_init();
    cmocka_set_test_filter(getenv("ONLY"));
    if (argc > 1 && strcmp(argv[1], "recycling") == 0)
        return cmocka_run_group_tests(recycling, setup, teardown);
    return cmocka_run_group_tests(requests, setup, teardown);
}
